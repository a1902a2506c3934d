"""How good a lesion mask is: overlap, surface, lesion by lesion, and what is found where nothing is."""

from __future__ import annotations

import numpy as np
import torch
from monai.metrics import DiceHelper, compute_average_surface_distance, compute_hausdorff_distance
from scipy import ndimage

__all__ = ["mask_metrics"]

NEIGHBOURS = np.ones((3, 3, 3))


def mask_metrics(found: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...], surface: bool) -> dict[str, float]:
    """Compare a mask with the truth.

    Args:
        found, truth: boolean ``(X, Y, Z)``.
        spacing: mm of a voxel.
        surface: whether the distances of the surfaces are wanted, which take the longest.

    Returns:
        ``found_ml`` and ``false_ml``; where there is a lesion also ``dice``, ``sensitivity`` (share of the true lesions that the
        mask touches), ``precision`` (share of the found lesions that touch a true one), ``f1`` of these two, and, with surfaces,
        ``found`` (1 where anything was found, else 0), and in mm ``hausdorff_95`` and ``surface_distance``, which are the diagonal
        of the volume, the worst there is, when nothing was found: who misses a lesion must not have the better mean.
    """
    each = float(np.prod(spacing)) / 1000.0
    said = {"found_ml": float(found.sum()) * each, "false_ml": float((found & ~truth).sum()) * each}
    if not truth.any():
        return said
    pair = [torch.from_numpy(mask[None, None].astype(np.float32)) for mask in (found, truth)]
    dice, _ = DiceHelper(include_background=False, num_classes=2)(*pair)
    (true_parts, true_number), (found_parts, found_number) = (
        ndimage.label(mask, NEIGHBOURS) for mask in (truth, found)
    )
    hit = len(np.unique(true_parts[found & truth]))
    right = len(np.unique(found_parts[found & truth]))
    sensitivity, precision = hit / true_number, right / found_number if found_number else 0.0
    both = sensitivity + precision
    said |= {"dice": float(dice), "sensitivity": sensitivity, "precision": precision}
    said["f1"] = 2 * sensitivity * precision / both if both else 0.0
    if surface:
        worst = float(np.linalg.norm(np.multiply(found.shape, spacing)))
        distances = {"found": float(found.any()), "hausdorff_95": worst, "surface_distance": worst}
        if found.any():
            given = {"include_background": True, "spacing": list(spacing)}
            distances["hausdorff_95"] = float(compute_hausdorff_distance(*pair, percentile=95, **given))
            distances["surface_distance"] = float(compute_average_surface_distance(*pair, symmetric=True, **given))
        said |= distances
    return said
