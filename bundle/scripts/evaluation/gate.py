"""The gate: what a method finds in brains where nothing is to be found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from scipy import ndimage

from ..errors import InputError
from ..report.figures import detection_figure
from ..saving import write_whole
from ..volumes import voxel_ml
from .handler import CaseHandler, sharp_scan

__all__ = ["HealthyGate", "findings", "gate_summary"]

# Upper bounds of a healthy T1w, white matter at 0.75.
TISSUES = ((0.45, "CSF"), (0.66, "gray matter"), (np.inf, "white matter"))
THIRDS = ("lower", "middle", "upper"), ("posterior", "middle", "anterior")
SURFACE = 5.0  # mm


def findings(
    lesion: MetaTensor,
    score: MetaTensor,
    healthy: MetaTensor,
    brain: torch.Tensor,
    mirror_transform: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """A row a connected lesion, the largest first: volume, place and tissue.

    Args:
        lesion, score, healthy, brain: ``(1, X, Y, Z)`` on one grid: mask, score, healthy T1w, mask.
        mirror_transform: 4x4 on RAS mm; without it the left half of the brain's box is left.

    Returns:
        ``ml``, ``centre_mm`` (RAS), ``side``, ``third`` of the brain's height and length, ``depth_mm`` of its centre of mass
        below the surface of the mask, ``at_surface``, ``tissue`` (by the median healthy T1w), ``mean_score``.
    """
    mask, values, t1, inside = (np.asarray(v[0].cpu()) for v in (lesion, score, healthy, brain))
    inside = inside > 0.5
    parts, count = ndimage.label(mask > 0, np.ones((3, 3, 3)))
    if not count:
        return []
    affine = np.asarray(lesion.affine, dtype=np.float64)
    depth = ndimage.distance_transform_edt(inside, sampling=affine_to_spacing(lesion.affine).tolist())
    world = np.argwhere(inside)[:: max(1, int(inside.sum()) // 20_000)] @ affine[:3, :3].T + affine[:3, 3]
    low, high = world.min(axis=0), world.max(axis=0)
    rows = []
    for number, box in enumerate(ndimage.find_objects(parts), 1):
        part = parts[box] == number
        voxels = np.argwhere(part) + [axis.start for axis in box]
        centre = voxels.mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]
        if mirror_transform is None:
            off_plane = centre[0] - (low[0] + high[0]) / 2
        else:
            partner = np.asarray(mirror_transform)[:3, :3] @ centre + np.asarray(mirror_transform)[:3, 3]
            off_plane = (centre - partner)[0] / 2
        thirds = np.clip(((centre - low) / (high - low) * 3).astype(int), 0, 2)
        level = float(np.median(t1[box][part]))
        rows.append(
            {
                "ml": len(voxels) * voxel_ml(lesion),
                "centre_mm": [round(float(c), 1) for c in centre],
                "side": "middle" if abs(off_plane) < 3.0 else ("right" if off_plane > 0 else "left"),
                "third": f"{THIRDS[0][thirds[2]]} {THIRDS[1][thirds[1]]}",
                "depth_mm": round(float(depth[tuple(voxels.T)].mean()), 1),
                "at_surface": bool(depth[tuple(voxels.T)].min() <= SURFACE),
                "tissue": next(name for bound, name in TISSUES if level < bound),
                "mean_score": round(float(values[box][part].mean()), 3),
            }
        )
    return sorted(rows, key=lambda row: -row["ml"])


def gate_summary(cases: pd.DataFrame, median_ml: float, high_ml: float) -> dict[str, dict[str, Any]]:
    """By modality and over all: the median and the 95th percentile of what was found, and whether both are within their targets.

    Args:
        cases: with ``modality`` and ``found_ml``.
        median_ml, high_ml: targets.
    """
    groups = {"all": cases, **dict(iter(cases.groupby("modality")))}
    return {
        name: {
            "scans": len(group),
            "median_ml": round(float(group["found_ml"].median()), 3),
            "percentile_95_ml": round(float(np.percentile(group["found_ml"], 95, method="higher")), 3),
            "most_ml": round(float(group["found_ml"].max()), 3),
            "passed": bool(
                group["found_ml"].median() <= median_ml
                and np.percentile(group["found_ml"], 95, method="higher") <= high_ml
            ),
        }
        for name, group in groups.items()
    }


class HealthyGate(CaseHandler):
    """Evaluator handler: write ``gate.csv`` (a row a scan), ``findings.csv`` (a row a false finding), ``gate.json`` (what the
    gate says) and a picture of every scan in which something was found.

    Args:
        output_dir: where to write.
        median_ml: target of the median volume that is found in a healthy scan.
        high_ml: target of the 95th percentile.

    Raises:
        InputError: at the end, when a target is missed, after everything was written.
    """

    def __init__(self, output_dir: str | Path, median_ml: float, high_ml: float) -> None:
        self.output_dir = Path(output_dir)
        self.targets = {"median_ml": median_ml, "high_ml": high_ml}
        self.cases: list[dict[str, Any]] = []
        self.findings: list[dict[str, Any]] = []

    def note(self, case: Mapping[str, Any]) -> None:
        found = findings(
            *(case[key] for key in ("lesion", "score", "pred_healthy", "brain")), case.get("mirror_transform")
        )
        known = {"subject": case["subject"], "modality": case["modality"]}
        self.findings += [{**known, **row} for row in found]
        self.cases.append(
            {
                **known,
                "found_ml": sum(row["ml"] for row in found),
                "findings": len(found),
                "largest_ml": max((row["ml"] for row in found), default=0.0),
            }
        )
        if found:
            self._picture(case)

    def _picture(self, case: Mapping[str, Any]) -> None:
        title = f"{case['subject']}, {case['modality']}: {self.cases[-1]['found_ml']:.1f} ml found, none is there"
        volumes = (case[key] for key in ("pred_intact", "score", "lesion"))
        detection_figure(
            sharp_scan(case), *volumes, case["lesion"].affine, self.output_dir / f"{case['subject']}.png", title=title
        )

    def write(self, engine: Engine) -> None:
        cases = pd.DataFrame(self.cases)
        write_whole(self.output_dir / "gate.csv", cases.to_csv(index=False))
        write_whole(self.output_dir / "findings.csv", pd.DataFrame(self.findings).to_csv(index=False))
        summary = gate_summary(cases, **self.targets)
        write_whole(self.output_dir / "gate.json", json.dumps({"targets": self.targets, **summary}, indent=1))
        engine.logger.info(
            f"{len(cases)} healthy scans: {self.output_dir / 'gate.csv'}\n{pd.DataFrame(summary).T.to_string()}"
        )
        missed = [name for name, said in summary.items() if not said["passed"]]
        if missed:
            raise InputError(
                f"healthy brains are not left alone ({', '.join(missed)}; targets {self.targets}): see "
                f"{self.output_dir / 'findings.csv'}; train on, or calibrate again, before these weights are shipped"
            )
