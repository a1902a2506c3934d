"""What both sides of a brain have in common is anatomy."""

from __future__ import annotations

import torch
from monai.utils import convert_to_tensor

from ..fluid import deeper_than
from ..neighbourhood import largest_nearby

__all__ = ["extreme_of_other_side"]


def extreme_of_other_side(
    mirrored: torch.Tensor, brain: torch.Tensor, reach: int, depth: float, radius: int = 0, brightest: bool = False
) -> torch.Tensor:
    """The darkest space near the same place of the other side, or the brightest.

    A scan that is no darker there shows a ventricle or a cistern that is as wide on both sides, not a lesion. A sulcus of the
    other side says nothing: it is too narrow to be such a space, and a morphological closing takes it away.

    Args:
        mirrored: ``(1, X, Y, Z)``, the scan mirrored at its mid-sagittal plane, 0 outside of its brain.
        brain: mask of the same shape.
        reach: voxels along each axis: both sides are never quite equal.
        depth: voxels below the surface of the brain, above which the other side tells nothing.
        radius: voxels; only a space counts in which a cube of 2 `radius` + 1 fits.
        brightest: for contrasts with bright CSF.

    Returns:
        ``(1, X, Y, Z)``, infinite where the other side tells nothing (negative for the brightest).
    """
    values, inside = (convert_to_tensor(volume, track_meta=False) for volume in (mirrored, brain))
    sign = 1.0 if brightest else -1.0
    tissue = torch.where(values > 0, sign * values.float(), -torch.inf)
    inner = -largest_nearby(-tissue, radius)
    extreme = largest_nearby(inner, radius + reach)
    return sign * torch.where(deeper_than(inside[0] > 0, depth), extreme, -torch.inf)
