"""Bring the background of an MR scan to 0 and its tissue above it, however the intensities were shifted before."""

from __future__ import annotations

import torch

__all__ = ["zero_background"]

CONSTANT = 0.5  # share of the border of a scan that has one value, from which on that value is its background
BELOW = 0.02  # share of the tissue below the background, from which on it is no undershoot: the scan was demeaned
# A demeaned scan has lost its zero. In twelve brain-extracted scans as they came (T1w, T2w, FLAIR) the darkest thousandth of the
# tissue was at 0.4 to 3.5 % of the brightest hundredth, so the zero is put there.
DARKEST, BRIGHTEST, LEVEL = 0.1, 99.0, 0.015  # percentiles of the tissue, and the first as a share of the second


def _percentile(values: torch.Tensor, percent: float) -> float:
    thinned = values[:: max(1, len(values) // 1_000_000)]
    return float(torch.quantile(thinned, percent / 100.0))


def zero_background(values: torch.Tensor) -> torch.Tensor:
    """Shift intensities so that the background is 0 and no tissue lies below.

    - Voxels that are not finite are background.
    - A constant background, of any value, becomes 0.
    - Tissue below a constant background (a z-scored or demeaned brain) is shifted above it.
    - A noisy background below 0 (a z-scored head) is shifted to 0.

    Single voxels below the background, as resampling leaves them, decide nothing.

    Args:
        values: ``(1, X, Y, Z)``.

    Returns:
        float32, not negative.
    """
    finite = torch.isfinite(values)
    border = torch.cat([values.select(axis, end).flatten() for axis in (1, 2, 3) for end in (0, -1)])
    known = border[torch.isfinite(border)]
    values = torch.where(
        finite, values, 0.0
    )  # This is a copy, and what follows works in it: a scan of 0.4 mm takes half a gigabyte.
    if len(known) < CONSTANT * len(border):
        tissue = finite
        background = None
    else:
        options, counts = known.unique(return_counts=True)
        background = float(options[counts.argmax()])
        if int(counts.max()) < CONSTANT * len(known):
            low = _percentile(known, 25.0)
            return values.sub_(min(low, 0.0)).clamp_(min=0.0).mul_(finite)
        tissue = finite & (values != background)
    inside = values[tissue]
    if not len(inside):
        return torch.zeros_like(values)
    reference = 0.0 if background is None else background
    demeaned = int((inside < reference).sum()) > BELOW * len(inside)
    if demeaned:
        darkest, brightest = (_percentile(inside, percent) for percent in (DARKEST, BRIGHTEST))
        reference = darkest - LEVEL / (1.0 - LEVEL) * (brightest - darkest)
    return values.sub_(reference).clamp_(min=0.0).mul_(tissue)
