"""More networks that learn from the same samples: where a GPU waits for samples, a second network costs little."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from ignite import distributed as idist
from ignite.engine import Engine, Events
from monai.engines import IterationEvents
from monai.inferers import Inferer

from ..config import parse
from ..errors import InputError
from .average import AverageWeights
from .checkpoint import save_atomically

__all__ = ["FurtherNetworks"]

TAKEN = ("model", "last")  # files of the training itself


class FurtherNetworks:
    """Trainer handler: after each step of the trainer other networks learn from its batch.

    Each has an optimizer and an average of its own. Its learning rate follows that of the trainer. Nothing validates it:
    ``NAME.pt`` has its averaged weights of the last epoch, for `evaluating` and `frontier` to judge.

    Args:
        networks: by name, keys of ``train.yaml`` to change: ``features``, ``fold``, ``network_def``, ``initial_weights``,
            ``learning_rate``.
        defaults: keys of ``train.yaml`` that all of them share, ``learning_rate`` and ``device`` among them.
        loss, inferer, prepare_batch: those of the trainer.
        optimizer: of the trainer, for its learning rate.
        momentum: see `AverageWeights`.
        folder: where the weights go.

    Raises:
        InputError: when several processes train.
    """

    def __init__(
        self,
        networks: Mapping[str, Mapping[str, Any]],
        defaults: Mapping[str, Any],
        loss: torch.nn.Module,
        inferer: Inferer,
        prepare_batch: Callable,
        optimizer: torch.optim.Optimizer,
        momentum: float,
        folder: str | Path,
    ) -> None:
        for name in networks:
            if name in TAKEN or not re.fullmatch(r"[\w-]+", str(name)):
                raise InputError(
                    f"--networks: '{name}' cannot be the name of a further network, since its weights would be {name}.pt; take "
                    f"letters and digits, and neither of {', '.join(TAKEN)}"
                )
        if networks and idist.get_world_size() > 1:
            raise InputError("--networks works in one process; leave it out, or train without torchrun")
        self.loss, self.inferer, self.prepare_batch, self.leader = loss, inferer, prepare_batch, optimizer
        self.folder = Path(folder)
        self.networks, self.optimizers, self.averages = {}, {}, {}
        for name, keys in networks.items():
            own = parse(["train.yaml"], {**defaults, **keys})
            self.networks[name] = own.get_parsed_content("network")
            self.optimizers[name] = own.get_parsed_content("optimizer")
            self.averages[name] = AverageWeights(self.networks[name], momentum)

    def attach(self, engine: Engine) -> None:
        if self.networks:
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.step)  # MONAI takes batches apart later
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def step(self, engine: Engine) -> None:
        inputs, target = self.prepare_batch(engine.state.batch, engine.state.device)
        # As MONAI counts them: anew in every epoch, and the last step takes what is left.
        steps = engine.accumulation_steps
        number = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        share = self.leader.param_groups[0]["lr"] / self.leader.defaults["lr"]
        for name, network in self.networks.items():
            optimizer = self.optimizers[name]
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * share
            network.train()
            if (number - 1) % steps == 0:
                optimizer.zero_grad(set_to_none=True)
            (self.loss(self.inferer(inputs, network), target) / steps).backward()
            if number % steps == 0 or number == engine.state.epoch_length:
                optimizer.step()
            self.averages[name](engine)

    def save(self, engine: Engine) -> None:
        if idist.get_rank() == 0:
            for name, average in self.averages.items():
                save_atomically(average.network.state_dict(), self.folder / f"{name}.pt")

    def _parts(self) -> dict[str, dict[str, Any]]:
        return {
            name: {"network": network, "optimizer": self.optimizers[name], "average": self.averages[name].average}
            for name, network in self.networks.items()
        }

    def state_dict(self) -> dict[str, Any]:
        return {name: {key: part.state_dict() for key, part in parts.items()} for name, parts in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, parts in self._parts().items():
            for key, part in parts.items():
                part.load_state_dict(state[name][key])
