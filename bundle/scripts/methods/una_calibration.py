"""From what healthy people show to the limit of a score, with a promise about the next healthy person."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.data import MetaTensor

from ..errors import InputError
from ..evaluation import (
    CaseHandler,
    Look,
    SessionScore,
    SmoothScore,
    keep_worst,
    lowest_limit,
    sessions_of,
    split_conformal,
)
from ..saving import file_hash, write_whole

__all__ = ["ConformalLimit"]


class ConformalLimit(CaseHandler):
    """Evaluator handler: write the calibration of a score, ``calibration.json`` (see `scripts.residual.Calibration`).

    By modality: the limit of the score such that in a healthy person who comes next, no more than `largest_ml` is found with
    probability `share`. The same for the scans of a session together, for each set of modalities that enough people have.

    Args:
        output_dir: where to write.
        checkpoint: weights; their hash is written down.
        settings: what shapes the score beside the weights; they are written down, too.
        smoothing, min_volume_ml: of the score chain.
        scans: the entries, which must be healthy.
        largest_ml: volume.
        share: probability.
        usual_ml: volume that is not exceeded in half of the healthy people, with the same kind of promise.
        session: how the scores of a session are combined; None for no limits of sessions.

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
        session: SessionScore | None = None,
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
        self.session = session
        self.session_of = {
            scan["subject"]: name for name, entries in sessions_of(scans).items() for scan in entries if session
        }
        self.looks: dict[str, list[Look]] = defaultdict(list)

    def note(self, case: Mapping[str, Any]) -> None:
        score = self.smooth(case["score"])
        person = case.get("person", case["subject"])
        keep_worst(self.limits[case["modality"]], person, self._limits(score))
        session = self.session_of.get(case["subject"])
        if session is not None and "pred_healthy" in case:
            drawn = case["pred_healthy"] * (case["brain"] > 0)
            self.looks[session].append(Look(person, case["modality"], score, drawn))

    def _limits(self, score: MetaTensor) -> tuple[float, ...]:
        volumes = (self.promise["largest_ml"], self.promise["usual_ml"])
        return tuple(lowest_limit(score, ml, self.min_volume_ml) for ml in volumes)

    def _limit(self, people: Mapping[str, tuple[float, ...]]) -> float:
        limits, usual = zip(*people.values())
        return max(split_conformal(limits, self.promise["share"]), split_conformal(usual, 0.5))

    def _of_sessions(self, modalities: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The limits of every set of modalities: scores are combined in units of their own limits."""
        found: dict[str, dict[str, tuple[float, ...]]] = defaultdict(dict)
        for looks in self.looks.values():
            known = [look for look in looks if look.modality in modalities]
            if len(known) < 2:
                continue
            own = [replace(look, score=look.score / modalities[look.modality]["limit"]) for look in known]
            whole = self.session.register(own)
            for size in range(2, len(whole.looks) + 1):
                for some in itertools.combinations(range(len(whole.looks)), size):
                    part = whole.only(some)
                    keep_worst(found[part.modalities], part.looks[0].name, self._limits(self.session.combine(part)))
        limits = {}
        for name, people in sorted(found.items()):
            try:
                limits[name] = round(self._limit(people), 4)
            except InputError:  # too few people: such a session has the limit 1
                continue
        return {"settings": self.session.settings, "limits": limits} if limits else {}

    def write(self, engine: Engine) -> None:
        modalities, problem = {}, None
        for modality, people in self.limits.items():
            try:
                limit = self._limit(people)
            except InputError as error:
                problem = error
                print(f"{modality} gets no limit: {error}", flush=True)
                continue
            limits = sorted(own for own, _ in people.values())
            modalities[modality] = {"limit": limit, "people": len(people), "limits": [round(v, 4) for v in limits]}
            engine.logger.info(
                f"{modality}: limit {limit:.3f} of {len(people)} people, {limits[0]:.3f} to {limits[-1]:.3f}"
            )
        if problem and not modalities:
            raise problem
        about = {"promise": self.promise, "sha256": file_hash(self.checkpoint), "settings": self.settings}
        content = {"about": about, "modalities": modalities}
        if sessions := self._of_sessions(modalities):
            content["sessions"] = sessions
            engine.logger.info(f"limits of sessions: {sessions['limits']}")
        write_whole(self.output_dir / "calibration.json", json.dumps(content))
