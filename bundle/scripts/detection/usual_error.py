"""How far a predicted healthy scan is off where nothing is wrong: further at the edge of the brain and beside the sulci."""

from __future__ import annotations

import numpy as np
import torch
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import distance_transform_edt, gaussian_filter, gaussian_gradient_magnitude
from sklearn.ensemble import HistGradientBoostingRegressor

__all__ = ["usual_error"]

DEEP = 6.0  # voxels from the edge of the brain, beyond which the edge no longer matters
SAMPLES = 40_000  # voxels that are looked at


def usual_error(difference: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
    """What |scan - predicted healthy scan| usually is at places of this kind in this very scan, relative to the whole brain.

    A place is described by its healthy T1w intensity, by how steeply that changes, and by its depth in the brain; the median
    difference is regressed on the three. A lesion does not raise it, unless it fills most of the places of its kind.

    Args:
        difference: ``(1, X, Y, Z)`` of scan and prediction.
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
