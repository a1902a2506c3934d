"""Left-right flip that makes another person: positions are mirrored and lateral labels change sides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import Flip, RandomizableTransform

from ..labels import LabelTable
from ..randomness import RandDictionaryTransform

__all__ = ["RandLateralFlip", "RandLateralFlipd"]


class RandLateralFlip(RandomizableTransform):
    """Flip the first spatial axis (left-right in RAS) with a probability, and exchange the lateral labels of label maps.

    Args:
        labels: label scheme.
        prob: probability of a flip [paper: 0.5].
    """

    def __init__(self, labels: LabelTable, prob: float = 0.5) -> None:
        super().__init__(prob)
        self.labels = labels
        self.flip = Flip(spatial_axis=0)

    def __call__(self, img: torch.Tensor, randomize: bool = True, is_label: bool = False) -> torch.Tensor:
        if randomize:
            self.randomize(None)
        if not self._do_transform:
            return img
        flipped = self.flip(img)
        return self.labels.swap_sides(flipped) if is_label else flipped


class RandLateralFlipd(RandDictionaryTransform):
    """Dictionary form of `RandLateralFlip`.

    Args:
        keys: items to flip.
        labels: label scheme.
        label_keys: those of `keys` that are label maps.
        prob: probability of a flip.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: LabelTable,
        label_keys: tuple[str, ...] = ("label",),
        prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandLateralFlip(labels, prob), allow_missing_keys)
        self.label_keys = tuple(label_keys)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.transform.randomize(None)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], randomize=False, is_label=key in self.label_keys)
        return d
