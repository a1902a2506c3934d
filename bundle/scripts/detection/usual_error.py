"""How far a reconstruction is usually off at a place of a healthy brain: the unit of an anomaly score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_gradient_magnitude

__all__ = ["UsualError"]

SMOOTHING = 2.0  # mm, of the T1w in which a place is looked up
EDGES = {
    "healthy": (
        0.1,
        0.2,
        0.3,
        0.4,
        0.5,
        0.56,
        0.62,
        0.68,
        0.74,
        0.8,
        0.9,
    ),  # of the healthy T1w, white matter being 0.75
    "gradient": (0.01, 0.02, 0.03, 0.045, 0.06, 0.08),  # of the healthy T1w, per mm
    "depth": (2.0, 4.0, 6.0, 9.0, 14.0, 20.0),  # mm below the surface of the brain mask
}
PRIOR = 2000.0  # voxels that speak for the mean of all places where few healthy voxels were seen


def _places(healthy: torch.Tensor, brain: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mask of the brain, and the number of the place of each of its voxels."""
    t1, mask = (convert_to_tensor(v, track_meta=False).cpu().numpy()[0].astype(np.float64) for v in (healthy, brain))
    inside = mask > 0
    spacing = affine_to_spacing(healthy.affine).numpy() if isinstance(healthy, MetaTensor) else np.ones(3)
    sigma = SMOOTHING / spacing
    share = np.maximum(gaussian_filter(inside.astype(np.float64), sigma), 1e-3)
    t1 = np.where(inside, t1, 0.0)
    values = {
        "healthy": gaussian_filter(t1, sigma) / share,
        "gradient": gaussian_gradient_magnitude(t1, sigma) / spacing.mean(),
        "depth": distance_transform_edt(inside, sampling=spacing),
    }
    bins = [np.digitize(values[name][inside], edges) for name, edges in EDGES.items()]
    return inside, np.ravel_multi_index(bins, _shape())


def _shape() -> tuple[int, ...]:
    return tuple(len(edges) + 1 for edges in EDGES.values())


class UsualError:
    """The mean |scan - reconstruction| of healthy people who were never trained on, by place.

    A place is its healthy T1w intensity (the tissue), how steeply that changes (the distance to a boundary), and its depth below
    the surface of the brain. Since other people fill the table, no lesion of the scan at hand can raise its own unit.

    Args:
        table: mean error by place, as `fit` returns it in ``table``.

    Shape:
        of the table: a bin more than the edges of intensity, gradient and depth.
    """

    def __init__(self, table: Any) -> None:
        self.table = np.asarray(table, dtype=np.float64).reshape(_shape())

    @classmethod
    def fit(cls, cases: Iterable[Mapping[str, torch.Tensor]]) -> UsualError:
        """Fill the table.

        Args:
            cases: of healthy people, each with ``difference`` (scan less reconstruction), ``healthy`` (T1w) and ``brain``,
                ``(1, X, Y, Z)`` on one grid.
        """
        total, count = np.zeros(int(np.prod(_shape()))), np.zeros(int(np.prod(_shape())))
        for case in cases:
            inside, places = _places(case["healthy"], case["brain"])
            size = np.abs(convert_to_tensor(case["difference"], track_meta=False).cpu().numpy()[0])[inside]
            total += np.bincount(places, size, minlength=len(total))
            count += np.bincount(places, minlength=len(total))
        mean = total.sum() / max(count.sum(), 1.0)
        return cls((total + PRIOR * mean) / (count + PRIOR))

    def __call__(self, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """The usual error in every voxel of a brain, not below a fifth of the mean; 1 outside.

        Args:
            healthy: ``(1, X, Y, Z)`` healthy T1w, white matter at 0.75.
            brain: mask of the same shape.
        """
        inside, places = _places(healthy, brain)
        error = np.ones(inside.shape, dtype=np.float32)
        error[inside] = np.maximum(self.table.ravel()[places], 0.2 * self.table.mean())
        return convert_to_dst_type(error[None], healthy, dtype=torch.float32)[0]
