"""How alike two images are, and how one is brought to the scale of another."""

from __future__ import annotations

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch.nn.functional import pad

__all__ = ["ssim_map", "to_scale_of"]

SAMPLES = 1_000_000  # voxels that tell the factor between two images


def to_scale_of(image: torch.Tensor, reference: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Multiply an image by the one factor that brings it to the scale of another of its contrast: the median ratio.

    Args:
        image, reference: same shape, not negative.
        where: mask of the voxels to compare, most of them healthy.
    """
    counted = ((where > 0) & (image > 0.1 * image.max()) & (reference > 0)).flatten().nonzero()[:, 0]
    if not len(counted):
        return image
    chosen = counted[:: max(1, len(counted) // SAMPLES)]
    return image * float((reference.flatten()[chosen] / image.flatten()[chosen]).median())


def ssim_map(one: torch.Tensor, other: torch.Tensor, window: int, sigma: float) -> torch.Tensor:
    """SSIM in every voxel of ``(1, X, Y, Z)`` volumes of data range 1, on their own grid.

    MONAI's map comes from a valid convolution, which is smaller: the volumes are padded first, by their outermost voxels.
    """
    volumes = [pad(v[None], (window // 2,) * 6, mode="replicate") for v in (one, other)]
    return compute_ssim_and_cs(
        *volumes,
        spatial_dims=3,
        kernel_size=(window,) * 3,
        kernel_sigma=(sigma,) * 3,
        data_range=1.0,
        kernel_type="gaussian",
    )[0][0]
