"""The intensity scales that training and use share: [0, 1], robust to a few bright voxels; for healthy T1w, by white matter."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from skimage.filters import threshold_multiotsu

from ..errors import InputError

__all__ = ["ScaleToUnit", "ScaleToUnitd", "ScaleToWhiteMatter", "ScaleToWhiteMatterd"]


class ScaleToUnit(Transform):
    """Cut below 0, bring a high percentile of the voxels above 0 to one level, cut at 1.

    The paper's code divides by the maximum, which noise decides. At the 99th percentile no vessel and no contrast agent decides
    either; the level leaves room above it, for lesions that are brighter than all tissue.

    Args:
        percentile: of the voxels above 0.
        level: what becomes of it.

    Raises:
        InputError: on values that are not finite, or no value above 0, or a constant image.
    """

    def __init__(self, percentile: float = 99.0, level: float = 0.8) -> None:
        self.percentile = percentile
        self.level = level

    def factor(self, img: torch.Tensor) -> float:
        """By how much the intensities have to be multiplied."""
        source = img.meta.get("filename_or_obj", "image") if isinstance(img, MetaTensor) else "image"
        if not torch.isfinite(img).all():
            raise InputError(f"{source} has NaN or infinite voxels; replace them (0 outside the brain) and try again")
        positive = img[img > 0]
        if not len(positive) or img.clamp(min=0.0).min() == img.max():
            raise InputError(f"{source} is constant or has no voxel above 0; is it the brain scan you meant?")
        return self.level / float(np.percentile(positive.cpu().numpy(), self.percentile))

    def __call__(self, img: torch.Tensor, reference: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            img: any shape.
            reference: what decides the factor; None for `img` itself.
        """
        return (img * self.factor(img if reference is None else reference)).clamp(0.0, 1.0)


class ScaleToUnitd(MapTransform):
    """Dictionary form of `ScaleToUnit`.

    Args:
        keys: images.
        reference_key: the image that decides the factor of all keys; None lets every image decide its own.
        scale: arguments of `ScaleToUnit`.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference_key: str | None = None,
        allow_missing_keys: bool = False,
        **scale,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ScaleToUnit(**scale)
        self.reference_key = reference_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        reference = None if self.reference_key is None else data[self.reference_key]
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], reference)
        return d


class ScaleToWhiteMatter(Transform):
    """Cut below 0, bring the white matter of a brain-extracted T1w to one level, cut at 1.

    Reconstructions have one scale only if their targets have one: a percentile sets the white matter of one subject at 0.67
    and of the next at 0.91, and nothing in a scan of random modality tells which. White matter is the brightest of three classes
    (multi-Otsu).

    Args:
        level: of the white matter's median.

    Raises:
        InputError: as `ScaleToUnit`.
    """

    def __init__(self, level: float = 0.75) -> None:
        self.level = level
        self.to_unit = ScaleToUnit()

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        img = self.to_unit(img)
        brain = img[img > 0].cpu().numpy()
        brain = np.minimum(brain, np.percentile(brain, 98.0))  # vessels must not become the third class
        few = len(np.unique(brain)) <= 3
        white_matter = brain[brain >= brain.max()] if few else brain[brain > threshold_multiotsu(brain, classes=3)[1]]
        return (img * (self.level / float(np.median(white_matter)))).clamp(max=1.0)


class ScaleToWhiteMatterd(MapTransform):
    """Dictionary form of `ScaleToWhiteMatter`."""

    def __init__(self, keys: KeysCollection, level: float = 0.75, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = ScaleToWhiteMatter(level)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d
