"""How well a score tells lesion voxels from the others, from counts by level: exact, pooled by addition, without a sort."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

__all__ = ["LEVELS", "count_voxels", "precision_recall", "quantile", "slice_metrics", "slice_scores", "voxel_metrics"]

# A score is rounded to half precision, 11 bits of its leading digits. The bits of half precision numbers that are not negative,
# read as integers, are in the order of the numbers: each of them is a level.
LEVELS = np.arange(int(np.float16(np.inf).view(np.uint16)), dtype=np.uint16).view(np.float16).astype(np.float64)
LESION, OTHER, REGION = range(3)
PRO_LIMIT = 0.3  # false positive rate up to which the PRO curve counts


def count_voxels(score: np.ndarray, truth: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Voxels of the brain by the level of their score.

    Args:
        score: any shape, not negative.
        truth, brain: boolean masks of the same shape; lesion voxels outside the brain count, with a score of 0.

    Returns:
        ``(3, levels)``: lesion voxels; other voxels; lesion voxels, each weighed by one over the volume of its connected lesion.
    """
    values = np.minimum(np.where(brain, score, 0.0), LEVELS[-1]).astype(np.float16)
    level = np.abs(values).view(np.uint16).astype(np.int64)
    parts, number = ndimage.label(truth)
    sizes = np.bincount(parts.ravel(), minlength=number + 1).astype(np.float64)
    share = 1.0 / sizes[parts[truth]]
    count = len(LEVELS)
    return np.stack(
        [
            np.bincount(level[truth], minlength=count).astype(np.float64),
            np.bincount(level[brain & ~truth], minlength=count).astype(np.float64),
            np.bincount(level[truth], share, minlength=count),
        ]
    )


def _weighted(counts: np.ndarray, positive: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, scores and weights as scikit-learn takes them."""
    seen = [np.flatnonzero(counts[row]) for row in (positive, OTHER)]
    labels = np.repeat([1, 0], [len(part) for part in seen])
    weights = np.concatenate([counts[row][part] for row, part in zip((positive, OTHER), seen)])
    return labels, LEVELS[np.concatenate(seen)], weights


def precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall at every level that occurs, in the order of thresholds that rise, and these thresholds."""
    labels, scores, weights = _weighted(counts, LESION)
    precision, recall, thresholds = precision_recall_curve(labels, scores, sample_weight=weights)
    return precision[:-1], recall[:-1], thresholds


def _dice(precision: np.ndarray, recall: np.ndarray) -> np.ndarray:
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def quantile(counts: np.ndarray, share: float) -> float:
    """The score below which a share of the other voxels lies."""
    total = np.cumsum(counts[OTHER])
    return float(LEVELS[np.searchsorted(total, share * total[-1])]) if total[-1] else 0.0


def voxel_metrics(counts: np.ndarray) -> dict[str, float]:
    """Area under the ROC curve, average precision, the best Dice and its threshold, and PRO.

    The best Dice is that of the best threshold for this very scan: an oracle, an upper bound that no reader has. PRO is the area
    under the curve of the mean share of each lesion that is found, up to a false positive rate of 0.3, normalized.

    Args:
        counts: of `count_voxels`; those of several scans add up to pooled ones.

    Returns:
        ``auroc``, ``auprc``, ``best_dice``, ``best_threshold``, ``pro``.

    Raises:
        ValueError: when there is no lesion voxel, or nothing else.

    References:
        P. Bergmann et al., MVTec AD, CVPR 2019 (per-region overlap).
    """
    if not counts[LESION].any() or not counts[OTHER].any():
        raise ValueError("without lesion voxels, and others, precision and recall are undefined")
    labels, scores, weights = _weighted(counts, LESION)
    precision, recall, thresholds = precision_recall(counts)
    dice = _dice(precision, recall)
    best = int(dice.argmax())
    *of_regions, shares = _weighted(counts, REGION)
    false, overlap, _ = roc_curve(*of_regions, sample_weight=shares)
    within = np.append(false[false < PRO_LIMIT], PRO_LIMIT)
    return {
        "auroc": float(roc_auc_score(labels, scores, sample_weight=weights)),
        "auprc": float(average_precision_score(labels, scores, sample_weight=weights)),
        "best_dice": float(dice[best]),
        "best_threshold": float(thresholds[best]),
        "pro": float(auc(within, np.interp(within, false, overlap)) / PRO_LIMIT),
    }


def slice_scores(
    score: np.ndarray, truth: np.ndarray, brain: np.ndarray, affine: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The highest score of every axial slice that holds some of the brain, and whether there is a lesion in it.

    Args:
        score: ``(X, Y, Z)`` in any orientation.
        truth, brain: boolean masks of the same shape.
        affine: of all three; slices lie across the axis that is nearest to head-feet.
    """
    axial = int(np.abs(np.asarray(affine)[2, :3]).argmax())
    across = tuple(axis for axis in range(3) if axis != axial)
    held = brain.any(axis=across)
    return np.where(brain, score, 0.0).max(axis=across)[held], truth.any(axis=across)[held]


def slice_metrics(scores: np.ndarray, diseased: np.ndarray) -> dict[str, float]:
    """How well slices with a lesion are told from those without, over the slices of all scans.

    Args:
        scores, diseased: of `slice_scores`, one after the other.

    Returns:
        ``slice_auroc``, ``slice_auprc``, ``slice_best_dice``, at the best threshold for these very slices, and
        ``slice_prevalence``, the share with a lesion: calling every slice diseased has a Dice of ``2 p / (1 + p)``.
        Empty where one kind is missing.
    """
    prevalence = float(diseased.mean()) if len(diseased) else 0.0
    if prevalence in (0.0, 1.0):
        return {}
    precision, recall, _ = precision_recall_curve(diseased, scores)
    return {
        "slice_auroc": float(roc_auc_score(diseased, scores)),
        "slice_auprc": float(average_precision_score(diseased, scores)),
        "slice_best_dice": float(_dice(precision, recall).max()),
        "slice_prevalence": prevalence,
    }
