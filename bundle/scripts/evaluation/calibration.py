"""From what healthy people show to the limit of a score, with a promise about the next healthy person."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from ..detection import LesionMask, SmoothScore, UsualError, difference
from ..errors import InputError

__all__ = ["ConformalLimit", "lowest_limit", "split_conformal"]


def lowest_limit(score: MetaTensor, largest_ml: float, min_volume_ml: float) -> float:
    """The lowest threshold at which no more than a volume is found in a scan.

    Args:
        score: ``(1, X, Y, Z)``, smoothed.
        largest_ml: the volume.
        min_volume_ml: of `LesionMask`.
    """
    each = abs(float(np.linalg.det(np.asarray(score.affine)[:3, :3]))) / 1000.0
    low, high = 0.0, float(score.max())
    for _ in range(20):
        middle = (low + high) / 2
        found = float(LesionMask(middle, min_volume_ml)(score).sum()) * each
        low, high = (middle, high) if found > largest_ml else (low, middle)
    return high


def split_conformal(limits: Sequence[float], share: float) -> float:
    """The limit below which the next exchangeable person's lies with probability `share` or more.

    The ``ceil((n + 1) share)``-th smallest of n limits (V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World,
    2005).

    Raises:
        InputError: when there are too few people for such a promise.
    """
    rank = math.ceil((len(limits) + 1) * share - 1e-9)
    if rank > len(limits):
        needed = math.ceil(share / (1.0 - share) - 1e-9)
        raise InputError(
            f"{len(limits)} healthy people cannot promise anything about {share:.0%} of all; {needed} are needed, or a lower "
            "--share"
        )
    return float(sorted(limits)[rank - 1])


class ConformalLimit:
    """Evaluator handler: write the calibration of a score, ``calibration.json`` (see `scripts.detection.Calibration`).

    By modality: the usual error of each reference at each place, and the limit of the score such that in a healthy person who comes
    next, no more than `largest_ml` is found with probability `share`. Each person's own limit is found with the usual errors of
    all the others, so that nobody is judged by himself.

    Args:
        references: keys of the references of the score.
        output_dir: where to write.
        checkpoint: weights, whose hash is written down.
        smoothing, min_volume_ml: of the score chain.
        bright_modalities: see `AnomalyScored`.
        largest_ml: volume.
        share: probability.
    """

    def __init__(
        self,
        references: Sequence[str],
        output_dir: str | Path,
        checkpoint: str | Path,
        smoothing: float,
        min_volume_ml: float,
        bright_modalities: Sequence[str],
        largest_ml: float = 5.0,
        share: float = 0.95,
    ) -> None:
        self.references = list(references)
        self.output_dir = Path(output_dir)
        self.checkpoint = Path(checkpoint)
        self.smooth = SmoothScore(smoothing)
        self.min_volume_ml = min_volume_ml
        self.bright_modalities = tuple(bright_modalities)
        self.promise = {"largest_ml": largest_ml, "share": share}
        self.people: dict[str, list[dict[str, torch.Tensor]]] = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def note(self, engine: Engine) -> None:
        for batch, output in zip(engine.state.batch, engine.state.output):
            case = {**batch, **output}
            bright = case["modality"] in self.bright_modalities
            person = {
                key: difference(case["scan"], case[key], case["brain"], bright).cpu().half() for key in self.references
            }
            person |= {key: case[key].cpu().half() for key in ("pred_healthy", "brain")}
            self.people[case["modality"]].append(person)

    def write(self, engine: Engine) -> None:
        modalities = {}
        for modality, people in self.people.items():
            usual = {key: self._usual(people, key) for key in self.references}
            limits = []
            for left_out in range(len(people)):
                others = [person for number, person in enumerate(people) if number != left_out]
                limits.append(self._own_limit(people[left_out], {key: self._usual(others, key) for key in usual}))
            limit = split_conformal(limits, self.promise["share"])
            modalities[modality] = {
                "limit": limit,
                "people": len(people),
                "limits": [round(value, 4) for value in sorted(limits)],
                "usual": {key: np.round(error.table, 6).tolist() for key, error in usual.items()},
            }
            engine.logger.info(
                f"{modality}: limit {limit:.3f} from {len(people)} people, {min(limits):.3f} to {max(limits):.3f}"
            )
        about = {"promise": self.promise, "sha256": hashlib.sha256(self.checkpoint.read_bytes()).hexdigest()}
        about |= {"references": self.references, "bright_modalities": list(self.bright_modalities)}
        self.output_dir.mkdir(parents=True, exist_ok=True)
        (self.output_dir / "calibration.json").write_text(json.dumps({"about": about, "modalities": modalities}))

    @staticmethod
    def _usual(people: Sequence[dict[str, Any]], key: str) -> UsualError:
        return UsualError.fit(
            {"difference": p[key].float(), "healthy": p["pred_healthy"].float(), "brain": p["brain"]} for p in people
        )

    def _own_limit(self, person: dict[str, Any], usual: dict[str, UsualError]) -> float:
        healthy, brain = person["pred_healthy"].float(), person["brain"]
        units = [convert_to_tensor(person[key].float() / usual[key](healthy, brain), track_meta=True) for key in usual]
        score = MetaTensor(torch.stack([u.as_tensor() for u in units]).mean(dim=0), affine=healthy.affine)
        return lowest_limit(self.smooth(score), self.promise["largest_ml"], self.min_volume_ml)
