"""What changed from one visit of a person to the next: a map, a table, and a page."""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from scipy import ndimage

from .. import __version__
from ..evaluation.change import CHANGES, Change, ChangeScore, changed_parts
from ..evaluation.likeness import tissue_classes
from ..jobs import Crew
from ..preprocessing.align import AlignToRAS
from ..preprocessing.coregister import moved_onto
from ..saving import save_volume, write_whole
from ..volumes import read_volume, voxel_ml
from .figures import change_figure
from .groups import ResultGroups
from .ledger import Ledger
from .page import written_page
from .scan_report import numbered_lesions

__all__ = ["FollowUp", "healthy_volumes", "visits_of"]

DEEP = 24.0  # mm below the surface of the brain, where CSF is mostly that of the ventricles


def _by_number(text: str) -> list[tuple[int, str]]:
    """What sorts ses-2 before ses-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text)]


def visits_of(scans: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By a name, the scans of one person in one modality at two visits or more, in the order of their sessions."""
    people: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for scan in scans:
        if scan.get("modality"):
            people[scan["person"], scan["modality"]].setdefault(scan["session"], scan)
    return {
        f"{person} {modality}": [visits[session] for session in sorted(visits, key=_by_number)]
        for (person, modality), visits in people.items()
        if len(visits) > 1
    }


def healthy_volumes(drawn: MetaTensor) -> dict[str, float]:
    """``brain_ml``, without CSF, and ``deep_csf_ml`` of a healthy T1w ``(1, X, Y, Z)`` that is 0 outside of the brain.

    CSF deep in the brain is mostly that of the ventricles: in 15 people both correlate by 0.92.
    """
    volume = AlignToRAS(2.0)(drawn)
    values = np.asarray(volume[0])
    inside = values > 0
    if not inside.any():
        return {"brain_ml": 0.0, "deep_csf_ml": 0.0}
    classes = np.full(values.shape, -1)
    classes[inside] = tissue_classes(values[inside].astype(np.float64))[0]
    deep = ndimage.distance_transform_edt(ndimage.binary_fill_holes(inside), sampling=2.0) > DEEP
    each = voxel_ml(volume)
    fluid = classes == 0
    return {
        "brain_ml": round(float((inside & ~fluid).sum() * each), 1),
        "deep_csf_ml": round(float((fluid & deep).sum() * each), 1),
    }


class FollowUp(ResultGroups):
    """Compare the scans of each person and modality, one visit with the next, and write beside the later scan:

    - ``<scan>_change.nii.gz`` on its grid: 1 new, 2 grown, 3 shrunk, 4 gone;
    - ``<scan>_change_report.json`` and ``.html``: volumes, and a row for each lesion and each change.

    Args:
        scans: entries, see `scripts.data.find_scans`.
        ledger: knows the results of each scan.
        change: compares two scans.
        limit: of the score of a change.
        threshold: of the score of a scan.
        min_volume_ml: smaller changes are dropped.
        shown: changes on the page; 0 for no page.
        crew: who works on the people.
    """

    def __init__(
        self,
        scans: Sequence[Mapping[str, Any]],
        ledger: Ledger,
        change: ChangeScore,
        limit: float,
        threshold: float,
        min_volume_ml: float,
        shown: int = 3,
        crew: Crew | None = None,
    ) -> None:
        super().__init__(visits_of(scans), "person", ledger, threshold, crew)
        self.change = change
        self.limit = limit
        self.min_volume_ml = min_volume_ml
        self.shown = shown

    def run(self) -> None:
        """Go through all people."""
        if not self.groups:
            print(
                "nobody has two visits here: a visit is a session of BIDS, a study of DICOM, or 'session' in a datalist",
                flush=True,
            )
        super().run()

    def made(self, name: str) -> str:
        """Compare the visits of one person."""
        known = self.known(name)
        told = [self._compared(name, *pair) for pair in pairwise(known.items())]
        return "\n".join(filter(None, told))

    def _compared(self, name: str, first: tuple[str, dict], second: tuple[str, dict]) -> str:
        settings = {"limit": self.limit, "near": self.change.near, "min_volume_ml": self.min_volume_ml}
        records = [record["fingerprint"] for _, record in (first, second)]
        fingerprint = self.fingerprint({**settings, "shown": self.shown, "threshold": self.threshold, "scans": records})
        report = self.file(second[0], "change_report.json")
        if self.done(report, fingerprint):
            return ""
        images = self.images(name)
        looks = [self.look(*visit) for visit in (first, second)]
        found = self.change(*((look, read_volume(images[look.name])) for look in looks))
        parts = changed_parts(found, self.limit, self.min_volume_ml)
        later = looks[1].score
        written = self.file(second[0], "change.nii.gz")
        save_volume(moved_onto(parts, found.motions[1], later, "nearest"), written, np.uint8, like=later)
        rows = self._rows(found, parts)
        each = voxel_ml(parts)
        content = {
            "person": name,
            "first": first[0],
            "second": second[0],
            "modality": second[1]["modality"],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **{f"{kind}_ml": round(float((parts == value).sum() * each), 3) for value, kind in CHANGES.items()},
            "lesions": rows,
            "volumes": [
                {"lesion_ml": round(record["lesion_volume_ml"], 3), **healthy_volumes(look.drawn)}
                for look, (_, record) in zip(looks, (first, second))
            ],
            "likeness": round(found.likeness, 3),
            "motion": np.round(found.motions[1] @ np.linalg.inv(found.motions[0]), 5).tolist(),
            "settings": settings,
            "versions": {"una": __version__},
            "notice": "Research use only, not for clinical decisions.",
        }
        if self.shown:
            write_whole(self.file(second[0], "change_report.html"), self._page(found, parts, content))
        record = {**content, "fingerprint": fingerprint, "results": [str(written)]}
        write_whole(report, json.dumps(record, indent=1, default=str))
        told = ", ".join(f"{kind} {content[f'{kind}_ml']:.2f}" for kind in CHANGES.values())
        return f"{Path(second[0]).name} after {Path(first[0]).name}: {told} ml"

    def _rows(self, found: Change, parts: MetaTensor) -> list[dict[str, Any]]:
        """A row for each lesion of either visit and each change, the largest change first."""
        changed = np.asarray(parts[0])
        before, after = (np.asarray(score[0]) > 1.0 for score in found.scores)
        numbers, _ = ndimage.label(before | after | (changed > 0))
        each, affine = voxel_ml(parts), found.motions[1] @ np.asarray(parts.affine)
        rows = []
        for number, box in enumerate(ndimage.find_objects(numbers), start=1):
            inside = numbers[box] == number
            volumes = {f"{kind}_ml": (inside & (changed[box] == value)).sum() * each for value, kind in CHANGES.items()}
            at = np.argwhere(inside).mean(axis=0) + [part.start for part in box]
            row = {
                "centre_mm": np.round(affine[:3, :3] @ at + affine[:3, 3], 1).tolist(),
                "first_ml": (inside & before[box]).sum() * each,
                "second_ml": (inside & after[box]).sum() * each,
                **volumes,
            }
            row = {key: round(float(value), 3) if key.endswith("ml") else value for key, value in row.items()}
            row["change"] = (
                max(CHANGES.values(), key=lambda kind: row[f"{kind}_ml"]) if any(volumes.values()) else "as before"
            )
            if max(row["first_ml"], row["second_ml"], *volumes.values()) >= self.min_volume_ml:
                rows.append(row)
        return sorted(rows, key=lambda row: -sum(row[f"{kind}_ml"] for kind in CHANGES.values()))

    def _page(self, found: Change, parts: MetaTensor, content: Mapping[str, Any]) -> str:
        picture = io.BytesIO()
        change_figure(found.scans, found.score, parts, numbered_lesions(parts), picture, self.shown)
        changes = [row for row in content["lesions"] if row["change"] != "as before"]
        return written_page("following.html", picture, **content, shown=min(self.shown, len(changes)))
