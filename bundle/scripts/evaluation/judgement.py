"""Weights judged on scans with a known truth: a row for each scan, a table, a picture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.metrics import DiceHelper
from monai.transforms import CropForeground

from ..report.figures import detection_figure
from ..saving import write_whole
from ..volumes import on_grid, voxel_ml
from .errors import psnr_in_lesion, region_errors
from .handler import CaseHandler, sharp_scan
from .likeness import likeness
from .truth import known_scans, read_on_grid, true_lesion
from .voxels import count_voxels, voxel_metrics

__all__ = ["Judgement"]


class Judgement(CaseHandler):
    """Evaluator handler: compare what was found with what is known, and write ``cases.csv``, ``cases.json``,
    ``similarity.csv``, ``t1w.csv`` and a picture a scan.

    What is known of a scan stands in its datalist entry: ``lesion`` (a traced mask) or ``anomaly`` (a probability), else
    ``"diseased": false``; ``healthy``, the true T1w on the scale of the network, where the lesion is simulated; ``t1``, the real
    T1w of the person on the grid of the scan, which the healthy T1w is compared with outside of the lesion (`likeness`); and
    ``anatomy``, a name that scans of the same or similar brains share.

    Args:
        scans: entries of the datalist, with ``subject``.
        scores: keys of the scores that are compared.
        fillings: name to key of the ways to fill a lesion that are compared, each brought to the scale of the truth by one factor.
        output_dir: where to write.

    Raises:
        InputError: when nothing is known of a scan, or two entries have one ``subject``.
    """

    def __init__(
        self,
        scans: Sequence[Mapping[str, Any]],
        scores: Sequence[str],
        fillings: Mapping[str, str],
        output_dir: str | Path,
    ) -> None:
        self.entries = known_scans(scans)
        self.scores = list(scores)
        self.fillings = dict(fillings)
        self.output_dir = Path(output_dir)
        self.rows: list[dict[str, Any]] = []
        self.t1w: list[dict[str, Any]] = []
        self.reconstructions: dict[str, tuple[MetaTensor, MetaTensor]] = {}

    def note(self, case: Mapping[str, Any]) -> None:
        entry = self.entries[case["subject"]]
        truth = true_lesion(entry, case["original"])
        self.rows.append(self._row(entry, case, truth))
        if "t1" in entry:
            real, drawn = read_on_grid(entry["t1"], case["original"]), case["pred_healthy"].cpu()
            where = np.asarray((case["brain"].cpu() > 0.5) & ~truth)
            figures = likeness(*(np.asarray(volume, dtype=np.float64)[where] for volume in (drawn, real)))
            self.t1w.append({"subject": entry["subject"], "modality": case["modality"], **figures})
        if "anatomy" in entry:
            self.reconstructions[entry["subject"]] = (case["pred_healthy"].cpu(), case["brain"].cpu())
        self._picture(entry, case, truth)

    def _row(self, entry: Mapping[str, Any], case: Mapping[str, Any], truth: torch.Tensor) -> dict[str, Any]:
        each = voxel_ml(case["original"])
        brain, found = case["brain"].cpu() > 0.5, case["lesion"].cpu() > 0
        row: dict[str, Any] = {
            "subject": entry["subject"],
            "modality": case["modality"],
            "true_ml": float(truth.sum()) * each,
            "found_ml": float(found.sum()) * each,
            "false_ml": float((found & ~truth).sum()) * each,
        }
        if truth.any():
            dice, _ = DiceHelper(include_background=False, num_classes=2)(found[None].float(), truth[None].float())
            row["dice"] = float(dice)
            for name in self.scores:
                counts = count_voxels(*(np.asarray(v)[0] for v in (case[name].cpu(), truth, brain)))
                row.update({f"{measure}_{name}": value for measure, value in voxel_metrics(counts).items()})
        if "healthy" in entry and truth.any():
            healthy = read_on_grid(entry["healthy"], case["original"])
            for name, key in self.fillings.items():
                row[f"psnr_{name}"] = psnr_in_lesion(case[key].cpu(), healthy, brain, truth)
        return row

    def _picture(self, entry: Mapping[str, Any], case: Mapping[str, Any], truth: torch.Tensor) -> None:
        detection_figure(
            sharp_scan(case),
            *(case[key] for key in ("pred_healthy", "score", "lesion")),
            case["original"].affine,
            self.output_dir / f"{entry['subject']}.png",
            truth=truth,
            title=f"{entry['subject']}, {case['modality']}",
        )

    def write(self, engine: Engine) -> None:
        table = pd.DataFrame(self.rows).set_index("subject")
        write_whole(self.output_dir / "cases.csv", table.to_csv())
        write_whole(self.output_dir / "cases.json", json.dumps(self.rows, indent=1))
        similar = pd.DataFrame(
            [
                {"one": one, "other": other, "ssim": self._similarity(one, other)}
                for one, other in combinations(self.reconstructions, 2)
                if self.entries[one]["anatomy"] == self.entries[other]["anatomy"]
            ],
            columns=["one", "other", "ssim"],
        )
        write_whole(self.output_dir / "similarity.csv", similar.to_csv(index=False))
        if self.t1w:
            write_whole(self.output_dir / "t1w.csv", pd.DataFrame(self.t1w).to_csv(index=False))
        engine.logger.info(
            f"{len(table)} scans judged: {self.output_dir / 'cases.csv'}\n{table.T.round(3).to_string()}"
            + (f"\n{similar.round(3).to_string(index=False)}" if len(similar) else "")
        )

    def _similarity(self, one: str, other: str) -> float:
        (first, brain), (second, other_brain) = self.reconstructions[one], self.reconstructions[other]
        second, other_brain = (on_grid(v, first) for v in (second, other_brain))
        both = ((brain > 0.5) & (other_brain > 0.5)).float()
        crop = CropForeground(k_divisible=1, allow_smaller=True)
        box = crop.compute_bounding_box(both)
        one_brain, other_one, inside = (torch.as_tensor(crop.crop_pad(v, *box)) for v in (first, second, both))
        return float(
            region_errors(
                other_one, one_brain, inside > 0, torch.zeros_like(inside, dtype=torch.bool), ["SSIM_F_region"]
            )
        )
