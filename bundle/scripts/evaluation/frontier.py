"""The frontier: how much of lesions a score finds while healthy people are left alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from ignite.engine import Engine
from monai.utils import convert_to_tensor

from ..errors import InputError
from ..modalities import known_as
from ..report.figures import frontier_figure
from ..saving import write_whole
from ..volumes import on_grid
from .handler import CaseHandler
from .postprocess import PostProcessing
from .session import Look, SessionScore, sessions_of, set_name
from .thresholds import lowest_limit, split_conformal
from .truth import known_scans, true_lesion
from .voxels import count_voxels, voxel_metrics

__all__ = ["Frontier"]

POINTS = 25  # of a curve
FIGURES = ("best_dice", "auprc", "dice", "recall", "dice_shipped")  # of a lesion


def _by_kind(lesions: pd.DataFrame) -> pd.DataFrame:
    """Means of the figures of lesions, a row for each score, disease and modality; the least mask of a disease, too."""
    if not len(lesions):
        return lesions
    figures = [figure for figure in FIGURES if figure in lesions]
    groups = lesions.groupby(["row", "group", "modality"])
    table = groups[figures].mean().assign(scans=groups.size())
    if "dice_shipped" in lesions:
        table["least_dice_shipped"] = groups["dice_shipped"].min()
    return table.reset_index()


class Frontier(CaseHandler):
    """Evaluator handler: judge scores by what they find at a limit that healthy people set, and write ``frontier.csv``,
    ``kinds.csv``, ``lesions.csv``, ``curves.csv``, ``frontier.json`` and ``frontier.png``.

    A person's own limit is the lowest threshold at which no more than `largest_ml` is found. Half of the healthy people of a
    modality set the limit of the score (split conformal). The other half then shows in how many people the promise holds, and the
    diseased scans show what is found at that limit. This is repeated for random halves, so that no single person decides. Of a
    modality with too few healthy people, only the best Dice and the average precision are known.

    The scans of one session are judged together, too, as a modality of its own such as ``flair+t1``, by the healthy people that
    have these scans.

    A score may differ from another one by any rising function: nothing of this depends on its unit. A method that is shipped has a
    threshold of its own, too. ``dice_shipped`` is that of the mask that a user gets, ``within_shipped`` the share of healthy people
    whom it leaves alone.

    Args:
        scans: entries of the datalist, each with ``subject`` and what is known of it (`known_scans`), and perhaps
            ``group``: of healthy people such as a scanner or an age, of diseased scans a disease.
        postprocessing: of the scores.
        output_dir: where to write.
        largest_ml: found in a healthy scan at most.
        share: of healthy people for whom the limit promises that.
        halves: how often the people are divided at random.
        thresholds: by name of the score, its own; None for a score that has none.
        session: how the scores of a session are combined, for scores that have a threshold of their own; None for no sessions.
        session_calibrations: by name of the score, see `SessionScore.combine`.

    Raises:
        InputError: when nothing is known of a scan, or two entries have one ``subject``.
    """

    needed = "scores"

    def __init__(
        self,
        scans: Sequence[Mapping[str, Any]],
        postprocessing: PostProcessing,
        output_dir: str | Path,
        largest_ml: float = 5.0,
        share: float = 0.95,
        halves: int = 50,
        thresholds: Mapping[str, float | None] | None = None,
        session: SessionScore | None = None,
        session_calibrations: Mapping[str, Mapping[str, Any] | None] | None = None,
    ) -> None:
        self.thresholds = {name: value for name, value in (thresholds or {}).items() if value is not None}
        self.entries = known_scans(scans)
        self.postprocessing = postprocessing
        self.output_dir = Path(output_dir)
        self.promise = {"largest_ml": largest_ml, "share": share, "halves": halves}
        self.healthy: list[dict[str, Any]] = []
        self.diseased: list[dict[str, Any]] = []
        self.session = session
        self.session_calibrations = dict(session_calibrations or {})
        self.sessions: dict[str, list[dict[str, Any]]] = {name: [] for name in sessions_of(scans)} if session else {}

    def note(self, case: Mapping[str, Any]) -> None:
        entry = self.entries[case["subject"]]
        known = {"subject": entry["subject"], "modality": case["modality"], "group": entry.get("group", "all")}
        truth = true_lesion(entry, case["original"])
        scores = {name: self.postprocessing(score, case["brain"]) for name, score in case["scores"].items()}
        scan = {**known, "person": entry.get("person", entry["subject"]), "truth": truth, "scores": scores}
        if truth.any():
            brain = np.asarray(on_grid(case["brain"], case["original"], "nearest")[0]) > 0
            scan |= {"brain": brain, "grid": case["original"]}
        if entry.get("session") in self.sessions:
            self.sessions[entry["session"]].append({**scan, "drawn": case["drawn"]})
        self._sort(scan)

    def _sort(self, scan: dict[str, Any]) -> None:
        """Note a scan with what it is judged by."""
        if scan["truth"].any():
            self.diseased.append(scan)
            return
        limits = {
            name: lowest_limit(score, self.promise["largest_ml"], self.postprocessing.min_volume_ml)
            for name, score in scan["scores"].items()
        }
        self._note_healthy({key: scan[key] for key in ("subject", "modality", "group", "person")} | {"limits": limits})

    def _note_session(self, name: str, scans: Sequence[Mapping[str, Any]]) -> None:
        """Note the scans of a session as one of all their modalities; the truth is that of the best scan."""
        scores, best = {}, scans[0]
        for row, threshold in self.thresholds.items():
            looks = [
                Look(scan["subject"], scan["modality"], scan["scores"][row] / threshold, scan["drawn"][row])
                for scan in scans
                if row in scan["drawn"]
            ]
            if len(looks) < 2:
                continue
            together = self.session.register(looks)
            scores[row] = self.session.combine(together, self.session_calibrations.get(row)) * threshold
            best = next(scan for scan in scans if scan["subject"] == together.looks[0].name)
        if scores:
            modality = set_name(scan["modality"] for scan in scans)
            self._sort({**best, "subject": name, "modality": modality, "scores": scores})

    def _note_healthy(self, scan: dict[str, Any]) -> None:
        """People are counted, not scans: a person is left alone when the worst scan of a modality is."""
        who = ("person", "modality")
        known = next((other for other in self.healthy if all(other[key] == scan[key] for key in who)), None)
        if known is None:
            self.healthy.append(scan)
        else:
            known["limits"] = {name: max(limit, known["limits"][name]) for name, limit in scan["limits"].items()}

    # ------------------------------------------------------------------ one score

    def _found(self, name: str, scan: Mapping[str, Any], limit: float) -> tuple[float, float]:
        """Dice and recall of the mask of a diseased scan, on its own grid."""
        mask = self.postprocessing.mask(scan["scores"][name], limit, scan["grid"])
        found, truth = convert_to_tensor(mask, track_meta=False) > 0, convert_to_tensor(scan["truth"], track_meta=False)
        both = float((found & truth).sum())
        return 2 * both / float(found.sum() + truth.sum()), both / float(truth.sum())

    def _judge(self, name: str, modality: str) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
        """A row of the summary, a row a lesion, and the points of the curve."""
        judged_as = known_as(modality, {person["modality"] for person in self.healthy})
        people = [person for person in self.healthy if person["modality"] == judged_as]
        lesions = [scan for scan in self.diseased if scan["modality"] == modality]
        limits = np.array([person["limits"][name] for person in people])
        groups = np.array([person["group"] for person in people])
        said: dict[tuple[str, float], tuple[float, float]] = {}

        def found(scan: Mapping[str, Any], limit: float) -> tuple[float, float]:
            key = (scan["subject"], float(limit))
            if key not in said:
                said[key] = self._found(name, scan, limit)
            return said[key]

        chosen, within, by_group = [], [], defaultdict(list)
        random = np.random.RandomState(0)
        for _ in range(self.promise["halves"]):
            order = random.permutation(len(people))
            half, other = order[: len(people) // 2], order[len(people) // 2 :]
            try:
                chosen.append(split_conformal(limits[half].tolist(), self.promise["share"]))
            except InputError:  # too few people for the promise
                break
            kept = limits[other] <= chosen[-1]
            within.append(kept.mean())
            for group in np.unique(groups[other]):
                by_group[group].append(kept[groups[other] == group].mean())
        rows = []
        for scan in lesions:
            counts = count_voxels(
                np.asarray(on_grid(scan["scores"][name], scan["grid"])[0]).clip(min=0.0),
                np.asarray(convert_to_tensor(scan["truth"], track_meta=False)[0]),
                scan["brain"],
            )
            metrics = voxel_metrics(counts)
            row = {"row": name, "subject": scan["subject"], "modality": modality, "group": scan["group"]}
            row |= {"best_dice": metrics["best_dice"], "auprc": metrics["auprc"]}
            if chosen:
                dice, recall = np.array([found(scan, limit) for limit in chosen]).T
                row |= {"dice": dice.mean(), "recall": recall.mean()}
                row |= dict(zip(("dice_low", "dice_high"), np.percentile(dice, [2.5, 97.5])))
            if name in self.thresholds:
                row["dice_shipped"] = found(scan, self.thresholds[name])[0]
            rows.append(row)
        summary = {"row": name, "modality": modality, "people": len(people), "lesions": len(lesions)}
        for key in FIGURES:
            known = [row[key] for row in rows if key in row]
            summary[key] = float(np.mean(known)) if known else float("nan")
        if chosen:
            low, high = np.percentile(within, [2.5, 97.5])
            summary |= {"limit": np.median(chosen), "within": np.mean(within), "within_low": low, "within_high": high}
            summary |= {f"within {group}": np.mean(values) for group, values in by_group.items()}
        if name in self.thresholds and len(people):
            alone = pd.Series(limits <= self.thresholds[name])
            summary["within_shipped"] = alone.mean()
            summary |= {f"within_shipped {group}": share for group, share in alone.groupby(groups).mean().items()}
        curve = []
        for limit in np.quantile(limits, np.linspace(0, 1, POINTS)) if len(people) and lesions else ():
            dice = np.mean([found(scan, limit)[0] for scan in lesions])
            kept = float((limits <= limit).mean())
            curve.append({"row": name, "modality": modality, "limit": limit, "within": kept, "dice": dice})
        return summary, rows, curve

    # ------------------------------------------------------------------ all

    def write(self, engine: Engine) -> None:
        if not self.healthy + self.diseased:  # none could be used: the loader says why
            return
        for name, scans in self.sessions.items():
            if len(scans) > 1:
                self._note_session(name, scans)
        rows = {}  # by modality the scores: those of sessions are fewer
        for case in self.healthy + self.diseased:
            rows.setdefault(case["modality"], list(case["limits" if "limits" in case else "scores"]))
        found = [self._judge(name, modality) for modality in sorted(rows) for name in rows[modality]]
        summary = pd.DataFrame([row for row, _, _ in found])
        lesions = pd.DataFrame([row for _, rows, _ in found for row in rows])
        curves = pd.DataFrame([point for _, _, points in found for point in points])
        tables = {"frontier": summary, "lesions": lesions, "curves": curves, "kinds": _by_kind(lesions)}
        for name, table in tables.items():
            write_whole(self.output_dir / f"{name}.csv", table.to_csv(index=False))
        people = [{**{k: v for k, v in person.items() if k != "limits"}, **person["limits"]} for person in self.healthy]
        content = {name: json.loads(table.to_json(orient="records")) for name, table in tables.items()}
        write_whole(
            self.output_dir / "frontier.json",
            json.dumps({"promise": self.promise, **content, "people": people}, indent=1),
        )
        if len(curves):
            frontier_figure(curves, summary, self.promise, self.output_dir / "frontier.png")
        engine.logger.info(f"{self.output_dir / 'frontier.csv'}\n{summary.round(3).to_string(index=False)}")
