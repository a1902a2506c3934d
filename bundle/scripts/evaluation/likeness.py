"""How much an image that was drawn looks like the real T1w of the same person."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import KMeans

__all__ = ["TISSUES", "likeness", "tissue_classes"]

TISSUES = ("csf", "gray", "white")
SAMPLES = 50_000  # voxels that tell the classes


def tissue_classes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of the intensities of a T1w, by k-means.

    Args:
        values: ``(N,)``, voxels of the brain.

    Returns:
        the class of each voxel, 0 the darkest, and the means of the classes, rising.
    """
    start = np.percentile(values, [5, 45, 85])[:, None]
    sample = values[:: max(1, len(values) // SAMPLES), None]
    means = np.sort(KMeans(3, init=start, n_init=1, random_state=0).fit(sample).cluster_centers_[:, 0])
    return np.searchsorted((means[1:] + means[:-1]) / 2, values), means


def likeness(drawn: np.ndarray, real: np.ndarray) -> dict[str, float]:
    """Correlation, contrast and tissues of two images of one brain. A factor between their scales changes nothing.

    Args:
        drawn: ``(N,)``, voxels of the brain outside of lesions.
        real: the real T1w of the person there.

    Returns:
        ``correlation``; ``gray_share`` and ``real_gray_share``, the mean of gray matter as a share of that of white matter;
        ``dice_csf``, ``dice_gray`` and ``dice_white`` of three classes of each image.
    """
    (found, means), (truth, real_means) = tissue_classes(drawn), tissue_classes(real)
    figures = {"correlation": float(np.corrcoef(drawn, real)[0, 1])}
    figures |= {"gray_share": float(means[1] / means[2]), "real_gray_share": float(real_means[1] / real_means[2])}
    for number, tissue in enumerate(TISSUES):
        one, other = found == number, truth == number
        figures[f"dice_{tissue}"] = float(2 * (one & other).sum() / max(1, one.sum() + other.sum()))
    return figures
