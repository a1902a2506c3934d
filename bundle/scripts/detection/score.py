"""From scan and healthy reconstruction to an anomaly score and a lesion mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, MedianSmooth, RemoveSmallObjects, Transform
from monai.utils import convert_to_dst_type

from .usual_error import usual_error

__all__ = ["AnomalyScored", "LesionMask", "LesionMaskd", "anomaly_score"]


def anomaly_score(
    image: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor, brighter: bool = False
) -> torch.Tensor:
    """|scan - healthy| inside the brain, cut to [0, 1] (paper Sec. 5.3). Meaningful where both have one contrast: the network's
    reconstruction is T1w whatever the scan is, see `MatchContrast`.

    Args:
        image, healthy: ``(1, X, Y, Z)``, on one scale.
        brain: mask of the same shape.
        brighter: only what is brighter than the healthy brain counts.
    """
    difference = image - healthy
    return ((difference if brighter else difference.abs()) * (brain > 0)).clamp(0.0, 1.0)


class AnomalyScored(MapTransform):
    """Dictionary form of `anomaly_score`, with what is known of a modality.

    Args:
        keys: one key, the healthy brain in the scan's contrast.
        image_key: the scan.
        brain_key: brain mask.
        score_key: where the score goes.
        healthy_key: the reconstruction, for `usual_error`.
        modality_key: modality of the scan.
        weighed: modalities whose score is divided by the `usual_error` at every place.
        brighter: modalities in which only what is brighter than the healthy brain counts.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        brain_key: str = "brain",
        score_key: str = "anomaly",
        healthy_key: str = "pred",
        modality_key: str = "modality",
        weighed: Sequence[str] = (),
        brighter: Sequence[str] = (),
    ) -> None:
        super().__init__(keys)
        self.image_key = image_key
        self.brain_key = brain_key
        self.score_key = score_key
        self.healthy_key = healthy_key
        self.modality_key = modality_key
        self.weighed = tuple(weighed)
        self.brighter = tuple(brighter)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        image, expected, brain = data[self.image_key], data[self.keys[0]], data[self.brain_key]
        modality = data.get(self.modality_key)
        score = anomaly_score(image, expected, brain, brighter=modality in self.brighter)
        if modality in self.weighed:
            score = score / usual_error(image - expected, data[self.healthy_key], brain)
        return {**data, self.score_key: score}


class LesionMask(Transform):
    """Smooth a score, cut it, and drop what is too small to be a lesion.

    Args:
        threshold: score above which a voxel is lesion.
        min_volume_ml: smaller connected components are dropped.
        median_radius: radius of the median filter, voxels; 0 leaves it out.
    """

    def __init__(self, threshold: float, min_volume_ml: float, median_radius: int = 1) -> None:
        self.threshold = threshold
        self.min_volume_ml = min_volume_ml
        self.smooth = MedianSmooth(median_radius) if median_radius else None
        self.remove_small = RemoveSmallObjects(
            min_size=1000.0 * min_volume_ml, by_measure=True, independent_channels=True
        )

    def __call__(self, score: MetaTensor) -> MetaTensor:
        """
        Args:
            score: ``(1, X, Y, Z)`` in [0, 1].

        Returns:
            uint8 mask of the same shape.
        """
        smooth = self.smooth(score) if self.smooth else score
        mask = convert_to_dst_type((smooth > self.threshold).to(torch.uint8), score, dtype=torch.uint8)[0]
        return convert_to_dst_type(self.remove_small(mask), score, dtype=torch.uint8)[0]


class LesionMaskd(MapTransform):
    """Dictionary form of `LesionMask`.

    Args:
        keys: one key, the score.
        mask_key: where the mask goes.
        lesion_mask: arguments of `LesionMask`.
    """

    def __init__(self, keys: KeysCollection, mask_key: str = "lesion", **lesion_mask) -> None:
        super().__init__(keys)
        self.transform = LesionMask(**lesion_mask)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, self.mask_key: self.transform(data[self.keys[0]])}
