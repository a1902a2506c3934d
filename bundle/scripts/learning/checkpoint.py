"""Checkpoints that survive a kill at any moment, and exact resumption."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.handlers import from_engine

from ..errors import InputError
from ..saving import whole_file

__all__ = ["BestWeights", "TrainingCheckpoint", "load_weights", "read_weights", "save_atomically"]


def save_atomically(content: Any, path: str | Path) -> None:
    """`torch.save` to a file that is either the old one or the whole new one; MONAI's `CheckpointSaver` writes in place."""
    with whole_file(path) as partial:
        torch.save(content, partial)


def plain(module: Any) -> Any:
    """The network inside of `DistributedDataParallel`, or what is given."""
    return module.module if isinstance(module, torch.nn.parallel.DistributedDataParallel) else module


def read_weights(path: str | Path, remedy: str) -> dict[str, Any]:
    """Read a weights file (a state dict) without executing pickled code.

    Args:
        path: of the file.
        remedy: what to do when there is none.

    Raises:
        InputError: when the file is missing or is not a weights file.
    """
    if not Path(path).is_file():
        raise InputError(f"there are no weights at {path}; {remedy}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(f"{path} is not a weights file that torch can load safely; train it again") from error


def load_weights(network: torch.nn.Module, path: str | Path | None) -> torch.nn.Module:
    """Load a weights file into a network, see `read_weights`.

    Args:
        network: to load into.
        path: of the file; None leaves the network as it is.

    Raises:
        InputError: when the file is missing, is not a weights file, or belongs to another network.
    """
    if path is None:
        return network
    state = read_weights(path, "train first (run training), or name weights that exist")
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).replace("\n", " ")[:300]
        raise InputError(
            f"{path} belongs to another network, set 'fold', 'powers', 'features' and 'input_keys' as trained: {reason}"
        ) from error
    return network


class BestWeights:
    """Evaluator handler: keep the weights of the best key metric, as a plain state dict.

    Args:
        path: file to write.
        network: network to save.
    """

    def __init__(self, path: str | Path, network: torch.nn.Module) -> None:
        self.path = Path(path)
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch and idist.get_rank() == 0:
            save_atomically(plain(self.network).state_dict(), self.path)


class TrainingCheckpoint:
    """Trainer handler: write the whole training state after an epoch, and continue from it at the start.

    Attach it after the validation handler, so that the state holds the validation of its epoch. Together with draws
    that depend on their number alone, a resumed run repeats the losses of an uninterrupted one. A loss that is not finite
    stops the run before it can reach the file.

    Args:
        path: file to write and to resume from.
        objects: what has a state: ``network``, optimizer, lr_scheduler.
        evaluator: its best metric is part of the state.
        losses: names of the losses of the trainer.
        every: epochs between checkpoints.
        seconds: at least this long between checkpoints; the end of the training writes one in any case.
        check_every: iterations between losses that are looked at: each look makes the host wait for a GPU.
        resume: continue from `path` when it exists; False starts anew and overwrites it.
    """

    def __init__(
        self,
        path: str | Path,
        objects: Mapping[str, Any],
        evaluator: Engine | None = None,
        losses: Sequence[str] = ("loss",),
        every: int = 1,
        seconds: float = 0.0,
        check_every: int = 1,
        resume: bool = True,
    ) -> None:
        self.path = Path(path)
        self.objects = {name: plain(item) for name, item in objects.items()}
        self.evaluator = evaluator
        self.losses = list(losses)
        self.every = every
        self.seconds = seconds
        self.check_every = check_every
        self.resume = resume
        self.written = -math.inf

    def attach(self, engine: Engine) -> None:
        if self.resume and self.path.is_file():
            engine.add_event_handler(Events.STARTED, self.restore)
        engine.add_event_handler(Events.ITERATION_COMPLETED(every=self.check_every), self.check_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.save_in_time)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def check_loss(self, engine: Engine) -> None:
        found = from_engine(self.losses, first=True)(engine.state.output)
        loss = sum(map(float, found if isinstance(found, tuple) else (found,)))
        if not math.isfinite(loss):
            sound = (
                f"{self.path} holds the last sound state, continue from it" if self.path.is_file() else "start again"
            )
            raise InputError(
                f"the loss became {loss} at iteration {engine.state.iteration}; {sound} with a lower --learning_rate or with "
                "--amp False"
            )

    def save_in_time(self, engine: Engine) -> None:
        if time.monotonic() - self.written >= self.seconds:
            self.save(engine)
            self.written = time.monotonic()

    def save(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            best = getattr(self.evaluator, "state", None)
            state = {name: item.state_dict() for name, item in self.objects.items()}
            state["trainer"] = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
            if best is not None:
                state["best"] = {"metric": float(best.best_metric), "epoch": int(best.best_metric_epoch)}
            if all(torch.isfinite(value).all() for value in state["network"].values()):
                save_atomically(state, self.path)

    def restore(self, engine: Engine) -> None:
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            Checkpoint.load_objects(self.objects, state)
        except Exception as error:
            raise InputError(
                f"cannot resume from {self.path}: it is of another configuration or damaged; "
                "set the config back, use another output_dir, or pass --resume False to start anew"
            ) from error
        engine.state.epoch = state["trainer"]["epoch"]
        engine.state.iteration = state["trainer"]["iteration"]
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best"]["metric"]
            self.evaluator.state.best_metric_epoch = state["best"]["epoch"]
        engine.logger.info(f"resumed from {self.path} after epoch {engine.state.epoch}")
        if engine.state.epoch >= engine.state.max_epochs:
            print(
                f"this training is finished: {self.path} has all of its {engine.state.max_epochs} epochs, the learning rate is at "
                "its end; to train longer, begin with its weights (--initial_weights) in another --output_dir",
                flush=True,
            )
