"""What lies around each voxel: the largest value, what a mask encloses, and what a small network is told of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.networks.layers import GaussianFilter
from scipy.ndimage import distance_transform_edt
from torch.nn.functional import max_pool3d

from .blur import gaussian_blur

__all__ = ["SURROUNDINGS", "closed", "largest_nearby", "mean_nearby", "surroundings"]

WIDTHS = (1.0, 2.0, 4.0)  # standard deviations of the smoothed image, voxels
DEPTHS = (6.0, 20.0)  # mm below the surface, up to which a depth is told
PLACE = 70.0  # mm from the middle of the brain, about its half length
SURROUNDINGS = 8 + len(WIDTHS) + len(DEPTHS)  # numbers a voxel


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


def mean_nearby(
    values: torch.Tensor, where: torch.Tensor, width: float, spacing: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of the voxels that count, by a Gaussian around each voxel, and which share of its weight lies on such voxels.

    Args:
        values: ``(1, X, Y, Z)``.
        where: mask of the same shape.
        width: standard deviation, mm.
        spacing: voxel size, mm.
    """
    gaussian = GaussianFilter(3, [width / edge for edge in spacing], truncated=3.0)
    counted = where.float()
    share = gaussian(counted[None])[0]
    return gaussian((values * counted)[None])[0] / share.clamp(min=1e-2), share


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


def surroundings(image: torch.Tensor, brain: torch.Tensor, spacing: float) -> torch.Tensor:
    """An image around a voxel, the depth of the voxel below the surface of the brain, and its place in it.

    Args:
        image: ``(1, X, Y, Z)`` in [0, 1], its first axis from left to right.
        brain: mask of the same shape.
        spacing: voxel size, mm.

    Returns:
        ``(N, SURROUNDINGS)``, a row a voxel of the brain: its value, smoothed ones, the largest and least of the neighbours, the
        slope; depths; the place, in which left and right are the same.
    """
    inside = brain > 0
    image, mask = image * inside, inside.to(image)
    smooth = [gaussian_blur(image, width) / gaussian_blur(mask, width).clamp(min=1e-3) for width in WIDTHS]
    largest = max_pool3d(image, 3, 1, 1)
    least = 1.0 - max_pool3d((1.0 - image) * inside, 3, 1, 1)
    slopes = torch.stack([torch.gradient(smooth[0][0], dim=axis)[0][None] for axis in range(3)])
    depth = torch.from_numpy(distance_transform_edt(inside[0].cpu().numpy(), sampling=spacing)).to(image)[None]
    columns = [image, *smooth, largest, least, slopes.norm(dim=0) * 4.0]
    columns += [depth.clamp(max=limit) / limit for limit in DEPTHS]
    voxels = inside[0].nonzero()
    place = (voxels - voxels.float().mean(dim=0)) * (spacing / PLACE)
    place[:, 0] = place[:, 0].abs()
    return torch.cat([torch.stack([column[inside] for column in columns], dim=1), place, place[:, 1:2] ** 2], dim=1)
