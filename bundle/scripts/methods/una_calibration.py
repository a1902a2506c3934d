"""From what healthy people show to the limit of a score, with a promise about the next healthy person."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine

from ..errors import InputError
from ..evaluation import CaseHandler, SmoothScore, keep_worst, lowest_limit, split_conformal
from ..saving import file_hash, write_whole

__all__ = ["ConformalLimit"]


class ConformalLimit(CaseHandler):
    """Evaluator handler: write the calibration of a score, ``calibration.json`` (see `scripts.residual.Calibration`).

    By modality: the limit of the score such that in a healthy person who comes next, no more than `largest_ml` is found with
    probability `share`.

    Args:
        output_dir: where to write.
        checkpoint: weights; their hash is written down.
        settings: what shapes the score beside the weights; they are written down, too.
        smoothing, min_volume_ml: of the score chain.
        scans: the entries, which must be healthy.
        largest_ml: volume.
        share: probability.
        usual_ml: volume that is not exceeded in half of the healthy people, with the same kind of promise.

    A modality with too few people gets no limit, which is said.

    Raises:
        InputError: when an entry is a patient; at the end, when no modality has people enough.
    """

    needed = "score"

    def __init__(
        self,
        output_dir: str | Path,
        checkpoint: str | Path,
        settings: Mapping[str, Any],
        smoothing: float,
        min_volume_ml: float,
        scans: Sequence[Mapping[str, Any]] = (),
        largest_ml: float = 5.0,
        share: float = 0.95,
        usual_ml: float = 1.0,
    ) -> None:
        ill = [scan["subject"] for scan in scans if scan.get("diseased") or {"lesion", "anomaly"} & set(scan)]
        if ill:
            raise InputError(
                f"only healthy people set a limit, and {', '.join(map(str, ill[:5]))}{' ...' if len(ill) > 5 else ''} have a "
                "lesion; leave them out of the list"
            )
        self.output_dir = Path(output_dir)
        self.checkpoint = Path(checkpoint)
        self.settings = dict(settings)
        self.smooth = SmoothScore(smoothing)
        self.min_volume_ml = min_volume_ml
        self.promise = {"largest_ml": largest_ml, "share": share, "usual_ml": usual_ml}
        self.limits: dict[str, dict[str, tuple[float, ...]]] = defaultdict(dict)

    def note(self, case: Mapping[str, Any]) -> None:
        score = self.smooth(case["score"])
        volumes = (self.promise["largest_ml"], self.promise["usual_ml"])
        limits = (lowest_limit(score, ml, self.min_volume_ml) for ml in volumes)
        keep_worst(self.limits[case["modality"]], case.get("person", case["subject"]), limits)

    def write(self, engine: Engine) -> None:
        modalities, problem = {}, None
        for modality, people in self.limits.items():
            limits, usual = zip(*people.values())
            try:
                limit = max(split_conformal(limits, self.promise["share"]), split_conformal(usual, 0.5))
            except InputError as error:
                problem = error
                print(f"{modality} gets no limit: {error}", flush=True)
                continue
            known = {"limit": limit, "people": len(people), "limits": [round(value, 4) for value in sorted(limits)]}
            modalities[modality] = known
            engine.logger.info(
                f"{modality}: limit {limit:.3f} of {len(people)} people, {min(limits):.3f} to {max(limits):.3f}"
            )
        if problem and not modalities:
            raise problem
        about = {"promise": self.promise, "sha256": file_hash(self.checkpoint), "settings": self.settings}
        write_whole(self.output_dir / "calibration.json", json.dumps({"about": about, "modalities": modalities}))
