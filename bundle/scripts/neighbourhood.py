"""What lies around each voxel: the largest value, and what a mask encloses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn.functional import max_pool3d

__all__ = ["closed", "largest_nearby"]


def closed(mask: torch.Tensor, radius: float, spacing: Sequence[float], beyond: float = 0.0) -> torch.Tensor:
    """The morphological closing of a mask by a ball: the mask, and its clefts up to twice the radius wide.

    Two thresholds of distances make it, so that the ball is the same for any voxel size. Nothing lies beyond the grid.

    Args:
        mask: ``(1, X, Y, Z)``, bool, on the CPU.
        radius: mm.
        spacing: voxel size, mm.
        beyond: mm around the closing that are added, less than `radius`.

    Returns:
        ``(1, X, Y, Z)``, bool.
    """
    margin = [(int(n), int(n)) for n in np.ceil(radius / np.asarray(spacing)) + 1]
    inside = np.pad(mask[0].numpy(), margin)
    near = distance_transform_edt(~inside, sampling=spacing) <= radius
    whole = inside | (distance_transform_edt(near, sampling=spacing) > radius - beyond)
    return torch.from_numpy(whole[tuple(slice(low, -high) for low, high in margin)])[None]


def largest_nearby(values: torch.Tensor, reach: int) -> torch.Tensor:
    """A grey dilation by a cube, axis by axis; its edge is 2 `reach` + 1 voxels. Nothing lies beyond the grid.

    Args:
        values: ``(C, X, Y, Z)`` or ``(B, C, X, Y, Z)``, floating point.
        reach: voxels.

    Returns:
        the shape of `values`.
    """
    for axis in range(3):
        reaches = [reach if other == axis else 0 for other in range(3)]
        values = max_pool3d(values, [2 * r + 1 for r in reaches], stride=1, padding=reaches)
    return values
