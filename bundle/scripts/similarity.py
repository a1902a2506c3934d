"""How alike two images are, and how one is brought to the scale of another."""

from __future__ import annotations

import torch
from monai.metrics.regression import compute_ssim_and_cs
from torch.nn.functional import pad

__all__ = ["scale_factor", "ssim_map", "to_scale_of"]

SAMPLES = 1_000_000  # voxels that tell the factor between two images


def scale_factor(image: torch.Tensor, reference: torch.Tensor, where: torch.Tensor) -> float:
    """The factor that brings an image to the scale of another of its contrast: the median ratio, 1 where nothing can be compared.

    Args:
        image, reference: same shape, not negative.
        where: mask of the voxels to compare, most of them healthy.
    """
    counted = ((where > 0) & (image > 0) & (reference > 0)).flatten().nonzero()[:, 0]
    if not len(counted):
        return 1.0
    chosen = counted[:: max(1, len(counted) // SAMPLES)]
    values, wanted = image.flatten()[chosen], reference.flatten()[chosen]
    bright = values > 0.1 * values.median()  # the ratio of what is dark is noise
    return float((wanted[bright] / values[bright]).median())


def to_scale_of(image: torch.Tensor, reference: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """The image multiplied by its `scale_factor`."""
    return image * scale_factor(image, reference, where)


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
