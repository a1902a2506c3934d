"""The intensity scale that training and use share: [0, 1], robust to a few bright voxels."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform

from ..errors import InputError

__all__ = ["ScaleToUnit", "ScaleToUnitd"]


class ScaleToUnit(Transform):
    """Cut below 0, divide by a high percentile of the voxels above 0, cut at 1.

    The paper's code divides by the maximum, which noise decides.

    Args:
        percentile: percentile that becomes 1.

    Raises:
        InputError: on values that are not finite, or no value above 0, or a constant image.
    """

    def __init__(self, percentile: float = 99.9) -> None:
        self.percentile = percentile

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        source = img.meta.get("filename_or_obj", "image") if isinstance(img, MetaTensor) else "image"
        if not torch.isfinite(img).all():
            raise InputError(f"{source} has NaN or infinite voxels; replace them (0 outside the brain) and try again")
        img = img.clamp(min=0.0)
        positive = img[img > 0]
        if not len(positive) or img.min() == img.max():
            raise InputError(f"{source} is constant or has no voxel above 0; is it the brain scan you meant?")
        white = float(np.percentile(positive.cpu().numpy(), self.percentile))
        return (img / white).clamp(max=1.0)


class ScaleToUnitd(MapTransform):
    """Dictionary form of `ScaleToUnit`."""

    def __init__(self, keys: KeysCollection, percentile: float = 99.9, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ScaleToUnit(percentile)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d
