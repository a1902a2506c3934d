"""Where a scan may be ill: nothing of it is taken for the healthy T1w there."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.networks.layers import GaussianFilter
from monai.utils import convert_to_tensor

from ..neighbourhood import largest_nearby

__all__ = ["doubt"]

NEARLY = 0.5  # score from which a voxel is in doubt altogether; 1 is the limit of healthy people
UNUSUAL = 8.0  # difference of scan and intact scan that is, too, in robust standard deviations
PATCH = 1.0  # standard deviation of the Gaussian by which that difference is averaged, mm


def doubt(
    prepared: MetaTensor, brain: torch.Tensor, score: torch.Tensor | None = None, intact: torch.Tensor | None = None
) -> torch.Tensor:
    """How far a voxel is in doubt, by what a score marks or nearly marks, and by where the intact scan differs from the scan.

    Args:
        prepared: the scan that the network saw, ``(1, X, Y, Z)``.
        brain: mask of the same shape.
        score: anomaly score, same shape; None where there is none.
        intact: the scan without its anomaly, in its own contrast, same shape; None where there is none.

    Returns:
        in [0, 1], same shape, a voxel further than the signs.
    """
    inside = convert_to_tensor(brain, track_meta=False) > 0.5
    found = torch.zeros(prepared.shape, device=prepared.device)
    if score is not None:
        found = (convert_to_tensor(score, track_meta=False).to(found) / NEARLY).clamp(0.0, 1.0) ** 2
    if intact is not None and bool(inside.any()):
        off = (prepared.as_tensor() - convert_to_tensor(intact, track_meta=False).to(found)) * inside
        width = [PATCH / edge for edge in affine_to_spacing(prepared.affine).tolist()]
        averaged = GaussianFilter(3, width, truncated=3.0)(off[None])[0].abs()
        limit = UNUSUAL * 1.4826 * float(averaged[inside].median()) + 1e-6
        found = torch.maximum(found, ((averaged / limit) ** 2).clamp(max=1.0))
    return largest_nearby(found, 1)
