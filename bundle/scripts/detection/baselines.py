"""Anomaly scores that need no network: what a method must beat."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import HistogramNormalize, MapTransform
from monai.utils import convert_to_dst_type

from .score import difference

__all__ = ["BASELINES", "BaselineScoresd", "equalized_intensity"]

BASELINES = ("hyper", "hypo", "contralateral")


def equalized_intensity(image: MetaTensor, brain: torch.Tensor) -> MetaTensor:
    """Rank of each voxel's intensity among those of the brain, in [0, 1]; 0 outside.

    Thresholding it is the baseline that unsupervised methods are often found not to beat (F. Meissen, G. Kaissis, D. Rueckert,
    Challenging Current Semi-Supervised Anomaly Segmentation Methods for Brain MRI, 2021).

    Args:
        image: ``(1, X, Y, Z)``.
        brain: mask of the same shape.
    """
    mask = brain > 0
    if not mask.any():
        return torch.zeros_like(image)
    equalize = HistogramNormalize(num_bins=1024, min=0, max=1, mask=mask.cpu().numpy(), dtype=None)
    return convert_to_dst_type(equalize(image), image)[0] * mask


class BaselineScoresd(MapTransform):
    """Add the scores of `BASELINES`: bright intensity, dark intensity, and difference from the mirrored scan.

    Args:
        keys: one key, the scan.
        mirrored_key: its mirrored partner.
        brain_key: brain mask.
    """

    def __init__(self, keys: KeysCollection, mirrored_key: str = "mirrored", brain_key: str = "brain") -> None:
        super().__init__(keys)
        self.mirrored_key = mirrored_key
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        scan, brain = data[self.keys[0]], data[self.brain_key]
        bright = equalized_intensity(scan, brain)
        scores = (bright, (1.0 - bright) * (brain > 0), difference(scan, data[self.mirrored_key], brain))
        return {**data, **dict(zip(BASELINES, scores))}
