"""From what healthy people show to the limit of a score, with a promise about the next healthy person."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.utils import convert_to_tensor

from ..evaluation import CaseHandler, SmoothScore, lowest_limit, split_conformal
from ..residual import AnomalyScored, UsualError
from ..saving import file_hash, write_whole

__all__ = ["ConformalLimit"]


class ConformalLimit(CaseHandler):
    """Evaluator handler: write the calibration of a score, ``calibration.json`` (see `scripts.residual.Calibration`).

    By modality: the usual error at each place, where the score is not weighed by the scan itself, and the limit of the score such
    that in a healthy person who comes next, no more than `largest_ml` is found with probability `share`. Each person's own limit is
    found with the usual errors of all the others, so that nobody is judged by himself.

    Args:
        score: the score without a calibration.
        output_dir: where to write.
        checkpoint: weights, whose hash is written down.
        settings: what shapes the score beside the weights; they are written down, too.
        smoothing, min_volume_ml: of the score chain.
        largest_ml: volume.
        share: probability.
        usual_ml: volume that is not exceeded in half of the healthy people, with the same kind of promise.
    """

    needed = "pred_healthy"

    def __init__(
        self,
        score: AnomalyScored,
        output_dir: str | Path,
        checkpoint: str | Path,
        settings: Mapping[str, Any],
        smoothing: float,
        min_volume_ml: float,
        largest_ml: float = 5.0,
        share: float = 0.95,
        usual_ml: float = 1.0,
    ) -> None:
        self.score = score
        self.output_dir = Path(output_dir)
        self.checkpoint = Path(checkpoint)
        self.settings = dict(settings)
        self.smooth = SmoothScore(smoothing)
        self.min_volume_ml = min_volume_ml
        self.promise = {"largest_ml": largest_ml, "share": share, "usual_ml": usual_ml}
        self.people: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def note(self, case: Mapping[str, Any]) -> None:
        healthy, brain, found = case["pred_healthy"], case["brain"], self.score.differences(case)
        person = {"healthy": healthy.cpu().half(), "brain": brain.cpu().half()}
        person["differences"] = {key: convert_to_tensor(v, track_meta=False).cpu().half() for key, v in found.items()}
        if case["modality"] not in self.score.weighed:
            # What both sides have in common does not count, but it is usual: else little of it would be too much.
            plain = self.score.differences(case, both_sides=False)
            person["sums"] = {key: UsualError.sums(values, healthy, brain) for key, values in plain.items()}
        self.people[case["modality"]].append(person)

    def write(self, engine: Engine) -> None:
        modalities = {}
        for modality, people in self.people.items():
            pairs = [self._own_limits(person, [p for p in people if p is not person]) for person in people]
            limits, usual = zip(*pairs)
            limit = max(split_conformal(limits, self.promise["share"]), split_conformal(usual, 0.5))
            modalities[modality] = {
                "limit": limit,
                "people": len(people),
                "limits": [round(value, 4) for value in sorted(limits)],
                "usual": {key: np.round(error.table, 6).tolist() for key, error in self._usual(people).items()},
            }
            engine.logger.info(
                f"{modality}: limit {limit:.3f} of {len(people)} people, {min(limits):.3f} to {max(limits):.3f}"
            )
        about = {"promise": self.promise, "sha256": file_hash(self.checkpoint), "settings": self.settings}
        write_whole(self.output_dir / "calibration.json", json.dumps({"about": about, "modalities": modalities}))

    @staticmethod
    def _usual(people: Sequence[dict[str, Any]]) -> dict[str, UsualError]:
        """By reference, what these people show; empty where the scan itself weighs its score."""
        keys = people[0].get("sums", {}) if people else {}
        return {key: UsualError.fit(person["sums"][key] for person in people) for key in keys}

    def _own_limits(self, person: dict[str, Any], others: Sequence[dict[str, Any]]) -> tuple[float, float]:
        healthy, found = person["healthy"].float(), {key: v.float() for key, v in person["differences"].items()}
        for key, usual in self._usual(others).items():
            found[key] = found[key] / convert_to_tensor(usual(healthy, person["brain"]), track_meta=False)
        smooth = self.smooth(MetaTensor(self.score.combine(found), affine=healthy.affine))
        volumes = (self.promise["largest_ml"], self.promise["usual_ml"])
        return tuple(lowest_limit(smooth, volume, self.min_volume_ml) for volume in volumes)
