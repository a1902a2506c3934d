"""A lesion is one thing: its faint border counts by its clear core."""

from __future__ import annotations

import numpy as np
import torch
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import gaussian_filter, generate_binary_structure
from skimage.morphology import reconstruction

__all__ = ["connected_score"]

SMOOTHING = 0.5  # voxels, standard deviation: a single voxel of noise is no core, and no bridge


def connected_score(score: torch.Tensor, share: float) -> torch.Tensor:
    """Let every voxel count as much as the highest score that it is connected with, up to its own score over `share`.

    Cutting the result at t is hysteresis thresholding of the score: what exceeds ``share * t``, where it is connected with
    something that exceeds t. One map serves every threshold: it is the grey reconstruction of ``score / share`` from the score.
    Voxels are connected through their faces.

    Args:
        score: ``(1, X, Y, Z)``, not negative.
        share: in (0, 1]; 1 leaves the score as it is, a little smoothed.

    References:
        L. Vincent, Morphological grayscale reconstruction in image analysis, IEEE Transactions on Image Processing 2, 1993.
    """
    values = convert_to_tensor(score, track_meta=False).cpu().numpy()[0].astype(np.float32)
    values = gaussian_filter(values, SMOOTHING)
    grown = reconstruction(values, values / share, method="dilation", footprint=generate_binary_structure(3, 1))
    return convert_to_dst_type(grown[None].astype(np.float32), score, dtype=torch.float32)[0]
