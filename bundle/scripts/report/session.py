"""Several scans of one person and session, from the results of each: one score, one mask, and one page."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

from .. import __version__
from ..evaluation.postprocess import PostProcessing
from ..evaluation.session import Look, SessionScore, Together, sessions_of
from ..jobs import Crew
from ..preprocessing.atlas import AtlasRegionsd, region_names
from ..preprocessing.coregister import moved_onto
from ..saving import save_volume, write_whole
from ..symmetry import estimate_mirror
from ..volumes import on_grid, read_volume
from .figures import session_figure
from .groups import ResultGroups
from .ledger import Ledger
from .page import written_page
from .scan_report import numbered_lesions, scan_report

__all__ = ["SessionResults"]


class SessionResults(ResultGroups):
    """Combine the results of the scans of each session that has several, and write of the session:

    - beside each scan ``<scan>_session_lesion.nii.gz``, the mask of the session on the grid of the scan;
    - beside the best scan (see `SessionScore`) ``<scan>_session_anomaly.nii.gz`` and ``<scan>_session_report.json`` and ``.html``;
      where that is no T1w, ``<scan>_session_healthy.nii.gz``, too, the mean of what the scans draw.

    A session that was combined from these results, with these settings, is kept.

    Args:
        scans: entries, see `scripts.data.find_scans`.
        ledger: knows the results of each scan. One without results does not count.
        session: how scores are combined.
        calibration: see `SessionScore.combine`.
        threshold: of the score of a scan.
        postprocessing: makes the mask.
        atlas: names regions; None for none.
        shown: lesions on the page; 0 for no page.
        crew: who works on the sessions.
    """

    def __init__(
        self,
        scans: Sequence[Mapping[str, Any]],
        ledger: Ledger,
        session: SessionScore,
        calibration: Mapping[str, Any] | None,
        threshold: float,
        postprocessing: PostProcessing,
        atlas: str | None = None,
        shown: int = 3,
        crew: Crew | None = None,
    ) -> None:
        super().__init__(sessions_of(scans), "session", ledger, threshold, crew)
        self.session = session
        self.calibration = dict(calibration or {})
        self.postprocessing = postprocessing
        self.atlas = atlas
        self.shown = shown

    def made(self, name: str) -> str:
        """Combine one session."""
        known = self.known(name)
        if len(known) < 2:
            return ""
        settings = {
            "session": self.session.settings,
            "calibration": self.calibration,
            "scans": {source: record["fingerprint"] for source, record in known.items()},
            "of_page": [self.atlas, self.shown],
        }
        fingerprint = self.fingerprint(settings)
        if any(self.done(self.file(source, "session_report.json"), fingerprint) for source in known):
            return ""
        looks = [self.look(source, record) for source, record in known.items()]
        found = self.session.register(looks)
        if len(found.looks) < 2:
            return f"session {name}: each scan stays for itself; {'; '.join(found.left_out.values())}"
        score = self.session.combine(found, self.calibration)
        best, grid, written = found.looks[0].name, found.looks[0].score, {}
        for look, motion in zip(found.looks, found.motions):
            there = MetaTensor(score.as_tensor(), affine=torch.as_tensor(motion) @ score.affine.double())
            mask = self.postprocessing.mask(there, 1.0, look.score)
            written[look.name, "session_lesion.nii.gz"] = (mask, np.uint8, look.score)
        written[best, "session_anomaly.nii.gz"] = (on_grid(score, grid), np.float32, grid)
        if found.looks[0].modality != "t1":
            written[best, "session_healthy.nii.gz"] = (on_grid(found.healthy, grid), np.float32, grid)
        for (source, ending), (volume, dtype, like) in written.items():
            save_volume(volume, self.file(source, ending), dtype, like=like)
        lesions = numbered_lesions(self.postprocessing.mask(score, 1.0))
        content = self._content(name, known, found, score, lesions)
        files = [str(self.file(*key)) for key in written]
        record = {**content, "fingerprint": fingerprint, "results": files}
        if self.shown:
            write_whole(self.file(best, "session_report.html"), self._page(found, score, lesions, content))
        write_whole(self.file(best, "session_report.json"), json.dumps(record, indent=1, default=str))
        alone = ", ".join(f"{scan['modality']} {scan['lesion_volume_ml']:.2f}" for scan in content["scans"])
        left = "".join(f"; left out: {why}" for why in found.left_out.values())
        return (
            f"session {name}: {content['lesion_count']} lesions, {content['lesion_volume_ml']:.2f} ml together "
            f"(alone: {alone}){left}"
        )

    def _content(
        self, name: str, known: Mapping[str, Any], found: Together, score: MetaTensor, lesions: MetaTensor
    ) -> dict[str, Any]:
        healthy = found.healthy
        locate = AtlasRegionsd("regions", ["healthy"], "lesions", self.atlas)
        regions = locate({"healthy": healthy, "lesions": lesions}).get("regions")
        brain = MetaTensor((healthy.as_tensor() > 0).float(), affine=healthy.affine)
        names = {} if self.atlas is None else region_names(self.atlas)
        located = {"mirror": estimate_mirror(healthy, brain), "regions": regions, "names": names}
        content = scan_report(score, lesions, **located)
        numbers = np.asarray(lesions[0])
        for number, row in enumerate(content["lesions"], start=1):
            inside = torch.from_numpy(numbers == number)
            row["scores"] = {
                Path(look.name).name: round(float(own[0][inside].mean()), 3)
                for look, own in zip(found.looks, found.scores)
            }
        scans = [
            {
                "scan": look.name,
                "modality": look.modality,
                "motion": np.round(motion, 5).tolist(),
                "likeness": round(alike, 3),
                "lesion_volume_ml": known[look.name]["lesion_volume_ml"],
            }
            for look, motion, alike in zip(found.looks, found.motions, found.likeness)
        ]
        return {
            "session": name,
            "scans": scans,
            "left_out": found.left_out,
            "limit": self.session.limit(found, self.calibration),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **content,
            "settings": {**self.session.settings, "threshold": self.threshold},
            "versions": {"una": __version__},
            "notice": "Research use only, not for clinical decisions.",
        }

    def _page(self, found: Together, score: MetaTensor, lesions: MetaTensor, content: Mapping[str, Any]) -> str:
        grid = Spacing(pixdim=1.0)(MetaTensor(score.as_tensor(), affine=score.affine))
        scans, images = {}, self.images(content["session"])
        for look, motion in zip(found.looks, found.motions):
            scans[_title(look, scans)] = moved_onto(read_volume(images[look.name]), np.linalg.inv(motion), grid)
        picture = io.BytesIO()
        drawn = found.looks[0].drawn if found.looks[0].modality == "t1" else found.healthy
        shown = (on_grid(drawn, grid), on_grid(score, grid), on_grid(lesions, grid, "nearest"))
        session_figure(scans, *shown, picture, self.shown)
        return written_page(
            "session.html",
            picture,
            **content,
            columns=[(title, Path(look.name).name) for title, look in zip(scans, found.looks)],
            shown=min(self.shown, content["lesion_count"]),
        )


def _title(look: Look, taken: Mapping[str, Any]) -> str:
    names = {"t1": "T1w", "t1c": "T1w, contrast agent", "t2": "T2w", "flair": "FLAIR", "ct": "CT"}
    title = names.get(look.modality, look.modality)
    return title if title not in taken else f"{title} {len(taken) + 1}"
