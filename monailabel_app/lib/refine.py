"""A reader's clicks on a lesion mask: what was missed is added, what is wrong goes, both along the anomaly score."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage
from scripts.errors import InputError

__all__ = ["refined"]

REACH = 25.0  # mm that one click can change
SNAP = 3.0  # mm around a click in which the score's peak, or the lesion meant, is looked for
SHARE = 0.5  # of the peak's score that still belongs to the lesion


def _distance(shape: Sequence[int], point: Sequence[int], spacing: np.ndarray) -> np.ndarray:
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return np.sqrt(sum(((axis - p) * s) ** 2 for axis, p, s in zip(axes, point, spacing)))


def refined(
    mask: np.ndarray,
    score: np.ndarray,
    brain: np.ndarray,
    affine: np.ndarray,
    add: Sequence[Sequence[float]] = (),
    remove: Sequence[Sequence[float]] = (),
) -> np.ndarray:
    """Apply clicks to a mask.

    A click that adds takes the connected region around the peak of the score near it, down to half of that peak; where the
    score is flat it takes a ball of 3 mm, so that a click never does nothing. A click that removes takes away the lesion under
    it. No click reaches further than 25 mm.

    Args:
        mask, score, brain: ``(X, Y, Z)``, one grid; mask and brain boolean.
        affine: of that grid, for distances.
        add, remove: voxel indices.

    Returns:
        the new mask.

    Raises:
        InputError: when a click lies outside the scan, or is not three numbers.
    """
    mask = mask.copy()
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for points, adds in ((add, True), (remove, False)):
        for point in points:
            try:
                voxel = tuple(round(float(value)) for value in point)
            except (TypeError, ValueError, OverflowError) as error:  # text, NaN, infinity
                raise InputError(f"a click must be three voxel indices, got {point!r}") from error
            if len(voxel) != 3 or not all(0 <= v < n for v, n in zip(voxel, mask.shape)):
                raise InputError(f"the click {list(point)} lies outside the scan of {list(mask.shape)} voxels")
            distance = _distance(mask.shape, voxel, spacing)
            if adds:
                mask |= _around_peak(score, brain, distance)
            else:
                mask &= ~_under(mask, distance)
    return mask


def _around_peak(score: np.ndarray, brain: np.ndarray, distance: np.ndarray) -> np.ndarray:
    near = (distance <= SNAP) & brain
    if not near.any():
        return near
    peak = np.unravel_index(np.where(near, score, -1.0).argmax(), score.shape)
    region, _ = ndimage.label((score >= SHARE * score[peak]) & brain & (distance <= REACH))
    inside = region == region[peak]
    # Where nothing stands out, half of the peak is everywhere: the click alone counts.
    return near if inside.sum() > 0.5 * ((distance <= REACH) & brain).sum() else inside


def _under(mask: np.ndarray, distance: np.ndarray) -> np.ndarray:
    lesions, _ = ndimage.label(mask)
    near = np.where((distance <= SNAP) & mask, distance, np.inf)
    if not np.isfinite(near).any():
        return np.zeros_like(mask)
    meant = lesions[np.unravel_index(near.argmin(), near.shape)]
    return (lesions == meant) & (distance <= REACH)
