"""What was found in one scan: numbers as JSON, and a page with a table and pictures."""

from __future__ import annotations

import collections
import io
import json
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Spacing
from scipy import ndimage

from .. import __version__
from ..preprocessing import region_names
from ..saving import output_base, write_whole
from ..volumes import on_grid, voxel_ml, without_header
from .figures import finding_figure
from .page import written_page

__all__ = ["ScanReportd", "lesion_table", "numbered_lesions", "scan_report"]


def _side(points: np.ndarray, mirror: np.ndarray) -> str:
    """On which side of the mid-sagittal plane points lie: "left", "right", or "both" where each holds a tenth of them.

    Args:
        points: ``(N, 3)`` in RAS mm.
        mirror: 4x4 reflection in RAS mm.
    """
    moved = points @ mirror[:3, :3].T + mirror[:3, 3]
    normal = np.eye(3)[0] - mirror[:3, 0]  # Its x is positive in any case, so it points to the right.
    rightwards = (points - moved) @ normal
    right = float((rightwards > 0).mean())
    return "right" if right > 0.9 else "left" if right < 0.1 else "both"


def _nearest(regions: MetaTensor, names: Mapping[int, str]) -> tuple[np.ndarray, np.ndarray]:
    """The name of the region at every voxel, and of the nearest one that is not white matter; "" where there is none."""
    numbers = np.asarray(regions[0]).astype(int)
    table = np.array([names.get(number, "") for number in range(numbers.max() + 1)], dtype=object)
    told = np.array([bool(name) and "White Matter" not in name for name in table])[numbers]
    here = table[numbers]
    if not told.any():
        return here, np.full_like(here, "")
    spacing = regions.pixdim.tolist()
    nearest = ndimage.distance_transform_edt(~told, sampling=spacing, return_distances=False, return_indices=True)
    return here, here[tuple(nearest)]


def _located(points: np.ndarray, regions: MetaTensor, named: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    affine = np.asarray(regions.affine, dtype=np.float64)
    at = np.round((points - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
    at = np.clip(at, 0, np.array(named[0].shape) - 1)
    (inside, count), (near, _) = (collections.Counter(texts[tuple(at.T)]).most_common(1)[0] for texts in named)
    return {
        "region": inside or None,
        "share_in_region": round(count / len(points), 2) if inside else None,
        "near": near if near and near != inside else None,
    }


def numbered_lesions(lesion: MetaTensor) -> MetaTensor:
    """The number of the connected lesion in every voxel of a mask ``(1, X, Y, Z)``: 1 the largest, 0 elsewhere."""
    parts, _ = ndimage.label(np.asarray(lesion[0]) > 0)
    sizes = np.bincount(parts.ravel())[1:]
    numbers = np.zeros(len(sizes) + 1, dtype=np.int32)
    numbers[1 + np.argsort(-sizes, kind="stable")] = np.arange(1, len(sizes) + 1)
    return MetaTensor(torch.from_numpy(numbers[parts])[None], affine=lesion.affine)


def lesion_table(
    score: MetaTensor,
    lesions: MetaTensor,
    mirror: np.ndarray | torch.Tensor,
    regions: MetaTensor | None = None,
    names: Mapping[int, str] | None = None,
) -> list[dict[str, Any]]:
    """A row a lesion, the largest first: volume, centre, side, score, the region that holds most of it, and the nearest other one.

    Args:
        score: ``(1, X, Y, Z)``.
        lesions: of the same shape, see `numbered_lesions`; both have the affine of the scan.
        mirror: 4x4 reflection about the mid-sagittal plane, RAS mm.
        regions: numbers of an atlas, ``(1, X', Y', Z')`` on any grid; None for no regions.
        names: of its numbers; what has none is no region.
    """
    each = voxel_ml(lesions)
    affine = np.asarray(lesions.affine, dtype=np.float64)
    parts = np.asarray(lesions[0])
    scored = np.asarray(score[0], dtype=np.float32)
    named = None if regions is None else _nearest(regions, dict(names or {}))
    rows = []
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        inside = np.argwhere(parts[box] == number) + [part.start for part in box]
        points = inside @ affine[:3, :3].T + affine[:3, 3]
        values = scored[tuple(inside.T)]
        row = {
            "ml": round(len(inside) * each, 3),
            "centre_mm": np.round(points.mean(axis=0), 1).tolist(),
            "side": _side(points, np.asarray(mirror, dtype=np.float64)),
            "mean_score": round(float(values.mean()), 3),
            "max_score": round(float(values.max()), 3),
        }
        if regions is not None:
            row |= _located(points, regions, named)
        rows.append(row)
    return rows


def scan_report(score: MetaTensor, lesions: MetaTensor, **located) -> dict[str, Any]:
    """Volumes in ml, a table of the lesions, and a summary of the score.

    Args:
        score: ``(1, X, Y, Z)`` anomaly score.
        lesions: of the same shape, see `numbered_lesions`; both have the affine of the scan.
        located: ``mirror``, ``regions`` and ``names`` of `lesion_table`.
    """
    rows = lesion_table(score, lesions, **located)
    mask = np.asarray(lesions[0]) > 0
    scored = np.asarray(score[0], dtype=np.float32)
    inside = scored[scored > 0]
    summary = {
        "mean": float(inside.mean()) if inside.size else 0.0,
        "max": float(scored.max()),
        "percentile_99": float(np.percentile(inside, 99)) if inside.size else 0.0,
        "mean_in_lesion": float(scored[mask].mean()) if mask.any() else None,
    }
    return {
        "lesion_volume_ml": float(mask.sum() * voxel_ml(lesions)),
        "lesion_count": len(rows),
        "lesion_volumes_ml": [row["ml"] for row in rows],
        "lesions": rows,
        "score": summary,
    }


SURE = 0.5  # confidence of a guess of the modality, from which on it may contradict a name


class ScanReportd(MapTransform):
    """Write ``<name>_report.json`` and a page, ``<name>_report.html``, beside the images of a scan, and print a line of it.

    Args:
        keys: score and lesion mask; the data also has ``modality``, ``mirror_transform``, the prepared ``scan``, and ``brain``,
            whose meta data tell how it was found.
        source_key: the scan; its file name is taken.
        healthy_key: the reconstruction, shown where there is one.
        regions_key: where the regions of an atlas are, if there are any.
        atlas: the atlas of the regions, see `scripts.preprocessing.region_names`.
        shown: lesions that the page shows in three planes, the largest first; 0 for no page.
        output_dir: where to write.
        data_root_dir: folder of the inputs; its sub-folders are kept below `output_dir`.
        settings: what the result depends on, copied into the report.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str,
        output_dir: str | Path,
        data_root_dir: str = "",
        settings: Mapping[str, Any] | None = None,
        healthy_key: str = "pred_healthy",
        regions_key: str = "regions",
        atlas: str | None = None,
        shown: int = 3,
    ) -> None:
        super().__init__(keys)
        self.source_key = source_key
        self.healthy_key = healthy_key
        self.regions_key = regions_key
        self.names = {} if atlas is None else region_names(atlas)
        self.shown = shown
        self.output_dir = str(output_dir)
        self.data_root_dir = data_root_dir
        self.settings = dict(settings or {})

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        score, lesion = (data[key].cpu() for key in self.keys)
        lesions = numbered_lesions(lesion)
        source = data[self.source_key].meta["filename_or_obj"]
        flags = [
            *(data[self.source_key].meta.get("scan_warnings") or []),
            *(data["brain"].meta.get("brain_warnings") or []),
        ]
        guess, confidence = data.get("modality_guess"), float(data.get("modality_confidence", 0.0))
        if guess not in (None, data["modality"]) and confidence > SURE:
            flags.append(f"it is called {data['modality']}, and its intensities look like {guess}")
        content = {
            "scan": str(source),
            "modality": data["modality"],
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            **scan_report(
                score,
                lesions,
                mirror=data["mirror_transform"],
                regions=data.get(self.regions_key),
                names=self.names,
            ),
            "brain": {key: data["brain"].meta.get(f"{key}") for key in ("brain_method", "trimmed_ml")},
            "flags": flags,
            "settings": self.settings,
            "versions": {"una": __version__, "monai": monai.__version__, "torch": torch.__version__},
            "notice": "Research use only, not for clinical decisions.",
        }
        base = output_base(str(source), "report", self.output_dir, self.data_root_dir)
        write_whole(f"{base}.json", json.dumps(content, indent=1, default=str))
        if self.shown:
            write_whole(f"{base}.html", self._page(data, lesions, content))
        found = f"{content['lesion_count']} lesions, {content['lesion_volume_ml']:.2f} ml"
        print(f"{source}: {data['modality']}, {found}{'; look at: ' + '; '.join(flags) if flags else ''}", flush=True)
        return dict(data)

    def _page(self, data: Mapping[Hashable, Any], lesions: MetaTensor, content: Mapping[str, Any]) -> str:
        # A millimetre is finer than what was found, and any scan is drawn in the same time.
        grid = Spacing(pixdim=1.0)(without_header(data["scan"].cpu()))
        placed = {"scan": data[self.source_key], "score": data[self.keys[0]]}
        if self.healthy_key in data:
            placed["healthy"] = data[self.healthy_key]
        volumes = {key: on_grid(value.cpu(), grid) for key, value in placed.items()}
        numbers = on_grid(lesions, grid, "nearest")
        picture = io.BytesIO()
        finding_figure(volumes["scan"], volumes.get("healthy"), volumes["score"], numbers, picture, self.shown)
        return written_page(
            "scan_report.html",
            picture,
            **content,
            shown=min(self.shown, content["lesion_count"]),
            has_healthy="healthy" in volumes,
            has_regions=self.regions_key in data,
        )
