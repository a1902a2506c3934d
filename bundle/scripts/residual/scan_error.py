"""How far a reconstruction is usually off at places of a kind, in the scan at hand: the unit of an anomaly score."""

from __future__ import annotations

import numpy as np
import torch
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_gradient_magnitude
from sklearn.ensemble import HistGradientBoostingRegressor

__all__ = ["scan_error"]

DEEP = 6.0  # voxels from the edge, beyond which the depth no longer matters
SAMPLES = 20_000  # voxels of each half that are looked at


def _places(healthy: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What tells one place from another, a row a voxel of the brain: healthy T1w intensity, its gradient, and depth."""
    share = gaussian_filter(inside.astype(np.float32), 1.0)
    t1 = np.where(inside, healthy, 0.0)
    smooth = gaussian_filter(t1, 1.0) / np.maximum(share, 1e-3)
    depth = np.minimum(distance_transform_edt(inside), DEEP)
    return np.stack([volume[inside] for volume in (smooth, gaussian_gradient_magnitude(t1, 1.0), depth)], axis=1)


def scan_error(difference: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
    """What |scan - reconstruction| usually is at places of this kind in this very scan, relative to the whole brain.

    Gyri and the surface of the brain are drawn less well than white matter, and a noisy or blurred scan less well than a clear
    one. The median difference is regressed on healthy T1w intensity, its gradient and depth. A large lesion would raise its own
    unit, since it fills many of the places of its kind. So each half of the brain is asked alone, and the smaller answer counts: a
    lesion is rarely large on both sides.

    Args:
        difference: ``(1, X, Y, Z)`` of scan and reconstruction, the first axis from left to right.
        healthy: healthy T1w, same shape.
        brain: mask of the same shape.

    Returns:
        ``(1, X, Y, Z)``, 1 where the usual difference is that of the brain's middle voxel or less, more elsewhere.
    """
    off, t1, mask = (convert_to_tensor(v, track_meta=False).cpu().numpy()[0] for v in (difference, healthy, brain))
    inside = mask > 0
    ratio = np.ones(off.shape, dtype=np.float32)
    if inside.any():
        places, sizes, across = _places(t1, inside), np.abs(off[inside]), np.argwhere(inside)[:, 0]
        left, answers = across < np.median(across), []
        for half in (left, ~left):
            voxels = np.flatnonzero(half)
            chosen = voxels[np.random.RandomState(0).permutation(len(voxels))[:SAMPLES]]
            model = HistGradientBoostingRegressor(
                loss="absolute_error", max_iter=60, max_leaf_nodes=15, min_samples_leaf=200, random_state=0
            )
            if len(chosen):  # a brain of one voxel's width has one half
                answers.append(model.fit(places[chosen], sizes[chosen]).predict(places))
        usual = np.min(answers, axis=0)
        ratio[inside] = np.maximum(usual / max(float(np.median(usual)), 1e-6), 1.0)
    return convert_to_dst_type(ratio[None], healthy, dtype=torch.float32)[0]
