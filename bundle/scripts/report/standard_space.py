"""Pictures of scans in the space of a template, and the page of a cohort."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from monai.data import MetaTensor
from monai.transforms import Orientation

from ..saving import write_whole
from .figures import PLANES, centre_of, contour, save_figure, section_of, show

__all__ = ["cohort_page", "placed_figure"]

SLICES = 8  # axial ones of the overlap
ROWS = 30  # regions that the page lists


def _upright(volume: MetaTensor) -> np.ndarray:
    return Orientation("RAS", labels=None)(volume)[0].numpy()


def _outlines(template: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mask of the brain and one of its white matter: their borders are drawn."""
    inside = template > 0
    return inside, template > np.percentile(template[inside], 60)


def placed_figure(placed: Mapping[str, MetaTensor], template: MetaTensor, path: Path, title: str) -> Path:
    """A scan in the space of a template, with the template's outlines, through the largest extent of the lesion.

    Args:
        placed: ``mni``, ``mni_lesion`` and, where there is one, ``mni_healthy``, each ``(1, X, Y, Z)`` on the template's grid.
        template: brain-extracted T1w.
        path: PNG to write.
        title: heading.
    """
    volumes = {
        name: _upright(MetaTensor(volume.as_tensor(), affine=template.affine)) for name, volume in placed.items()
    }
    known = _upright(template)
    lesion, outlines = volumes.pop("mni_lesion") > 0, _outlines(known)
    columns = {"scan": volumes["mni"], "healthy T1w": volumes.get("mni_healthy"), "template": known}
    columns = {name: values for name, values in columns.items() if values is not None}
    figure, rows = plt.subplots(3, len(columns), figsize=(3.0 * len(columns), 8.6), squeeze=False)
    centre = centre_of(lesion)
    for row, axis in zip(rows, (2, 1, 0)):
        for axes, (name, values) in zip(row, columns.items()):
            bright = np.percentile(values[known > 0], 99.5) if (known > 0).any() else 1.0
            show(axes, values, axis, centre[axis], vmin=0.0, vmax=max(float(bright), 1e-6))
            for outline, color in zip(outlines, ("cyan", "gold")):
                if name != "template":
                    contour(axes, outline, axis, centre[axis], color, width=0.5)
            contour(axes, lesion, axis, centre[axis], "red")
            if axis == 2:
                axes.set_title(name, fontsize=9)
        row[0].set_ylabel(PLANES[axis], fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    return save_figure(figure, path)


def _overlap_figure(overlap: np.ndarray, template: np.ndarray) -> str:
    where = np.argwhere(overlap > 0) if (overlap > 0).any() else np.argwhere(template > 0)
    low, high = np.percentile(where[:, 2], [2, 98])
    levels = np.unique(np.linspace(low, high, SLICES).astype(int))
    figure, cells = plt.subplots(1, len(levels), figsize=(2.0 * len(levels), 2.8), squeeze=False)
    bright = float(np.percentile(template[template > 0], 99.5))
    most = max(1, int(overlap.max()))
    shades = plt.get_cmap("autumn", most)
    for axes, level in zip(cells[0], levels):
        show(axes, template, 2, level, vmin=0.0, vmax=bright)
        axes.imshow(section_of(np.ma.masked_equal(overlap, 0), 2, level), cmap=shades, vmin=0.5, vmax=most + 0.5)
    bar = figure.colorbar(cells[0, -1].images[-1], ax=list(cells[0]), fraction=0.01, pad=0.01)
    bar.set_ticks(np.unique(np.linspace(1, most, min(most, 5)).astype(int)))
    bar.set_label("scans", fontsize=8)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, facecolor="white", format="png", bbox_inches="tight")
    plt.close(figure)
    return base64.b64encode(picture.getvalue()).decode()


def cohort_page(
    overlap: MetaTensor,
    template: MetaTensor,
    scans: Sequence[Mapping[str, Any]],
    regions: pd.DataFrame,
    pictures: Sequence[Path],
    folder: Path,
) -> None:
    """Write ``normalized.html``: in how many people a voxel is lesion, the regions that are hit most, a picture a scan.

    Args:
        overlap: number of people, ``(1, X, Y, Z)`` on the grid of the template.
        template: brain-extracted T1w.
        scans: a row a scan: ``subject``, ``scan``, ``lesion_ml``, ``lesion_ml_in_mni``, ``least_jacobian``, ``folds``.
        regions: loads of all scans, see `scripts.standard_space.region_loads`.
        pictures: of the scans, in their order.
        folder: where to write.
    """
    hit = regions[regions["lesion_ml"] > 0].groupby(["region", "side"])
    loads = hit.agg(people=("scan", "nunique"), ml=("lesion_ml", "sum"), percent=("percent", "max")).reset_index()
    page = jinja2.Template((Path(__file__).parent / "standard_space.html").read_text(encoding="utf-8"), autoescape=True)
    text = page.render(
        overlap=_overlap_figure(_upright(overlap), _upright(template)),
        scans=[{**scan, "name": Path(scan["scan"]).name} for scan in scans],
        regions=loads.sort_values(["people", "ml"], ascending=False).head(ROWS).to_dict("records"),
        pictures=[
            base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else None for picture in pictures
        ],
    )
    write_whole(folder / "normalized.html", text)
