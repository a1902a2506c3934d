"""How far a reconstruction is usually off at a place of a healthy brain: the unit of an anomaly score."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_gradient_magnitude
from sklearn.ensemble import HistGradientBoostingRegressor

__all__ = ["UsualError", "scan_error"]

SMOOTHING = 2.0  # mm, of the T1w in which a place is looked up
EDGES = {
    # The healthy T1w, white matter being 0.75.
    "healthy": (0.1, 0.2, 0.3, 0.4, 0.5, 0.56, 0.62, 0.68, 0.74, 0.8, 0.9),
    "gradient": (0.01, 0.02, 0.03, 0.045, 0.06, 0.08),  # of the healthy T1w, per mm
    "depth": (2.0, 4.0, 6.0, 9.0, 14.0, 20.0),  # mm below the surface of the brain mask
}
DEEP = 6.0  # voxels from the edge, beyond which the depth no longer matters to `scan_error`
SAMPLES = 40_000  # voxels that `scan_error` looks at
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

    @staticmethod
    def sums(difference: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> np.ndarray:
        """What one healthy person adds to a table: sum of the errors and number of voxels by place, ``(2, places)``.

        Args:
            difference: scan less reconstruction, ``(1, X, Y, Z)``.
            healthy: healthy T1w, same shape.
            brain: mask of the same shape.
        """
        inside, places = _places(healthy, brain)
        size = np.abs(convert_to_tensor(difference, track_meta=False).cpu().numpy()[0])[inside]
        number = int(np.prod(_shape()))
        return np.stack([np.bincount(places, size, minlength=number), np.bincount(places, minlength=number)])

    @classmethod
    def fit(cls, people: Iterable[np.ndarray]) -> UsualError:
        """Fill the table.

        Args:
            people: the `sums` of each.
        """
        total, count = sum(people, np.zeros((2, int(np.prod(_shape())))))
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


def scan_error(difference: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
    """What |scan - reconstruction| usually is at places of this kind in this very scan, relative to the whole brain.

    For modalities of which no real healthy scan was at hand. The median difference is regressed on healthy T1w intensity, its
    gradient and depth. A lesion does not raise it, unless it fills most of the places of its kind.

    Args:
        difference: ``(1, X, Y, Z)`` of scan and reconstruction.
        healthy: healthy T1w, same shape.
        brain: mask of the same shape.

    Returns:
        ``(1, X, Y, Z)``, 1 where the usual difference is that of the brain's middle voxel or less, more elsewhere.
    """
    off, t1, mask = (convert_to_tensor(v, track_meta=False).cpu().numpy()[0] for v in (difference, healthy, brain))
    inside = mask > 0
    ratio = np.ones(off.shape, dtype=np.float32)
    if inside.any():
        share = gaussian_filter(inside.astype(np.float32), 1.0)
        t1 = np.where(inside, t1, 0.0)
        smooth = gaussian_filter(t1, 1.0) / np.maximum(share, 1e-3)
        depth = np.minimum(distance_transform_edt(inside), DEEP)
        places = np.stack([volume[inside] for volume in (smooth, gaussian_gradient_magnitude(t1, 1.0), depth)], axis=1)
        sizes = np.abs(off[inside])
        chosen = np.random.RandomState(0).permutation(len(sizes))[:SAMPLES]
        model = HistGradientBoostingRegressor(
            loss="absolute_error", max_iter=60, max_leaf_nodes=15, min_samples_leaf=200, random_state=0
        )
        usual = model.fit(places[chosen], sizes[chosen]).predict(places)
        ratio[inside] = np.maximum(usual / max(float(np.median(usual)), 1e-6), 1.0)
    return convert_to_dst_type(ratio[None], healthy, dtype=torch.float32)[0]
