"""Single voxels that a broken receiver, a spike or a damaged file left far outside of the range of a scan."""

from __future__ import annotations

import itertools

import torch

__all__ = ["without_hot_voxels"]

RANGE = (2.0, 97.0)  # percentiles of what is not background; a hundredth of it may be hot voxels
BEYOND = 1.0  # of that range, by which a voxel must lie outside of it
APART = 1.0  # of that range, by which it must differ from the median of its neighbours
COMPANY = 4  # neighbours that lie outside of it, too, make a vessel or a clip
MOST = 0.01  # share of the voxels; what is more is no noise of this kind, and stays
THINNED = 1_000_000
AROUND = [step for step in itertools.product((-1, 0, 1), repeat=3) if any(step)]


def without_hot_voxels(values: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Replace each voxel far outside of the range of a scan, and of its neighbours, by the median of these.

    A vessel or a clip is larger than a voxel, and stays.

    Args:
        values: ``(1, X, Y, Z)``; voxels that are not finite stay.

    Returns:
        the values, and how many were replaced.
    """
    volume = values[0]
    finite = torch.isfinite(volume)
    known = volume[finite & (volume != volume[finite].median())]
    if len(known) < 100:
        return values, 0
    low, high = torch.quantile(known[:: max(1, len(known) // THINNED)].float(), torch.tensor(RANGE) / 100.0).tolist()
    width = high - low
    far = finite & ((volume > high + BEYOND * width) | (volume < low - BEYOND * width))
    where = far.nonzero()
    if not len(where) or len(where) > MOST * volume.numel():
        return values, 0
    limit = torch.tensor(volume.shape) - 1
    places = [torch.minimum((where + torch.tensor(step)).clamp(min=0), limit).unbind(dim=1) for step in AROUND]
    neighbours = torch.stack([volume[place] for place in places]).nan_to_num(0.0, 0.0, 0.0)
    around = neighbours.median(dim=0).values
    hot = (volume[tuple(where.T)] - around).abs() > APART * width
    hot &= torch.stack([far[place] for place in places]).sum(dim=0) < COMPANY
    if not hot.any():
        return values, 0
    cleaned = values.clone()
    cleaned[0][tuple(where[hot].T)] = around[hot]
    return cleaned, int(hot.sum())
