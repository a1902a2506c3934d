"""The largest value around each voxel."""

from __future__ import annotations

import torch
from torch.nn.functional import max_pool3d

__all__ = ["largest_nearby"]


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
