"""A method as its config file describes it: trained or loaded, and ready to score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from ignite.engine import Engine
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..config import method_files, method_names, parse
from ..errors import InputError
from ..learning import save_atomically
from ..saving import file_hash
from .method import GIVEN, Method

__all__ = ["Guest", "MethodScored", "SideBySide", "guests", "train_method"]


class Guest:
    """A method of ``configs/methods``.

    Args:
        name: of its file, see `scripts.config.method_files`.
        settings: keys of ``guest.yaml`` and of its file to replace.

    Attributes:
        about: what the tables say of it: name, title, what it sees, its priors and its own threshold; ``digest``, a hash of its
            configuration and weights.
    """

    def __init__(self, name: str, settings: Mapping[str, Any] | None = None) -> None:
        self.name = Path(name).stem
        self.parser = parse(["guest.yaml", *method_files(name)], settings or {})
        said = {
            key: value for key, value in self.parser.get().items() if key not in ("output_dir", "cache_dir", "device")
        }
        # This is read now, because the parser rewrites its content when it resolves the first reference.
        self._config = json.dumps(said, sort_keys=True, default=str)

    def __getitem__(self, key: str) -> Any:
        """A value of the configs."""
        return self.parser.get_parsed_content(key)

    @cached_property
    def method(self) -> Method:
        """The method with the weights of its ``checkpoint``."""
        return self.with_weights(self["checkpoint"])

    def with_weights(self, path: str | Path | None) -> Method:
        """The method with weights of a file, see `Method.load`, and with the ``limits`` of its config."""
        method = self["method"].load(path).eval()
        method.limits = dict(self["limits"] or {})
        return method

    @cached_property
    def about(self) -> dict[str, Any]:
        digest = hashlib.sha256(self._config.encode())
        checkpoint, weights = self["checkpoint"], None
        if checkpoint is not None and Path(checkpoint).is_file():
            weights = file_hash(checkpoint)
            digest.update(weights.encode())
        calibration = self["calibration"] if "calibration" in self.parser else None
        if isinstance(calibration, str) and Path(calibration).is_file():
            digest.update(file_hash(calibration).encode())
        known = {key: self[key] for key in ("title", "sees", "priors", "threshold", "seed", "iterations")}
        return {"name": self.name, **known, "weights": weights, "digest": digest.hexdigest()}

    def train(self) -> None:
        """Train and fit it, and write its weights, see ``guest.yaml``."""
        self["initialize"]
        self["train_method"]()

    def __call__(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        """The maps of a prepared case, see `Method.forward`."""
        return self.method({key: case[key] for key in (*GIVEN, "seen") if key in case})


def _ready(
    name: str, output_dir: Path, settings: Mapping[str, Any], settings_of: Mapping[str, Mapping[str, Any]]
) -> Guest:
    """A guest whose weights lie in its folder, or else are shipped, or else are trained there first.

    One that is `trained_as` another shares the folder of the other. The settings of the other count in the training.
    """

    def guest(which: str, weights_of: str, **more: Any) -> Guest:
        folder = output_dir / Path(weights_of).stem
        return Guest(which, {**settings, **settings_of.get(Path(which).stem, {}), **more, "output_dir": str(folder)})

    asked = guest(name, name)
    shipped, learner = asked["checkpoint"], asked["trained_as"] or name
    if shipped is not None and Path(shipped).is_file():
        return asked
    weights = output_dir / Path(learner).stem / "method.pt"
    weights.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(weights.with_suffix(".lock")):  # another process may need the same weights
        if not weights.is_file():
            guest(learner, learner).train()
    return guest(name, learner, checkpoint=str(weights))


def guests(
    names: Sequence[str],
    output_dir: str | Path,
    settings: Mapping[str, Any],
    settings_of: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Callable[[], Guest]]:
    """By name, a function that makes a guest ready: it loads weights that were trained before, or are shipped, or trains them.

    Args:
        names: of methods.
        output_dir: where the weights of ``NAME`` are kept, in a folder of this name.
        settings: for all of them.
        settings_of: by name, what differs. The weights of a method that is ``trained_as`` another are trained with those of the
            other.

    Raises:
        InputError: when there are settings of a method that does not exist.
    """
    settings_of, known = dict(settings_of or {}), {*method_names(), *(Path(name).stem for name in names)}
    if unknown := sorted(settings_of.keys() - known):
        raise InputError(f"settings_of names {', '.join(unknown)}, and there is no such method; known: {sorted(known)}")
    return {Path(name).stem: partial(_ready, name, Path(output_dir), settings, settings_of) for name in names}


def train_method(
    trainers: Iterable[Engine],
    method: Method,
    cases: Iterable[Mapping[Hashable, Any]],
    path: str | Path,
    initial_weights: str | Path | None = None,
    best: str | Path | None = None,
) -> None:
    """Run the trainers of a method one after the other, let it fit what needs no gradient, and write its weights.

    Args:
        trainers: of its networks.
        method: the method that has the networks.
        cases: prepared healthy scans.
        path: file of the weights.
        initial_weights: file of the weights that the first trainer begins with; None: those that the method has.
        best: file of the weights that a validation chose, where there was one.
    """
    method.load(initial_weights)
    for trainer in trainers:
        trainer.run()
    if best is not None:
        method.load(best)
    method.eval()
    with torch.no_grad():
        method.fit(cases)
    save_atomically(method.state_dict(), path)


class MethodScored(MapTransform):
    """Add the score of a method to a prepared case.

    Args:
        keys: one key, where the score goes.
        method: which needs no training, or is trained.
    """

    def __init__(self, keys: KeysCollection, method: Method) -> None:
        super().__init__(keys)
        self.method = method

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, self.keys[0]: self.method.score(data)}


class SideBySide(torch.nn.Module):
    """Several methods, or one with several settings, each of which looks at the same prepared case.

    Args:
        rows: by name, ``method`` (see `Guest`) and ``settings``, keys of its file to replace.
        settings: for all of them.

    Raises:
        InputError: when a row names no method, or has another key.
    """

    def __init__(self, rows: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.guests = {}
        for name, row in rows.items():
            if "method" not in row or set(row) - {"method", "settings"}:
                raise InputError(f"row '{name}' needs 'method', and may have 'settings', not {sorted(row)}")
            self.guests[name] = Guest(row["method"], {**settings, **row.get("settings", {})})

    @property
    def thresholds(self) -> dict[str, float | None]:
        """By name of the row, the method's own threshold."""
        return {name: guest["threshold"] for name, guest in self.guests.items()}

    @property
    def session_calibrations(self) -> dict[str, Mapping[str, Any] | None]:
        """By name of the row, the limits of several scans together."""
        return {name: guest["session_calibration"] for name, guest in self.guests.items()}

    def forward(self, case: Mapping[Hashable, Any]) -> dict[str, Any]:
        """By name of the row the raw score, as ``scores``, and the healthy T1w, as ``drawn``, of rows that draw one."""
        found = {name: guest(case) for name, guest in self.guests.items()}
        drawn = {
            name: maps["pred_healthy"] * (case["brain"] > 0) for name, maps in found.items() if "pred_healthy" in maps
        }
        return {"scores": {name: maps["score"] for name, maps in found.items()}, "drawn": drawn}
