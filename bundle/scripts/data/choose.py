"""Choose the input scan of a real sample."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

__all__ = ["RandChooseScand"]


class RandChooseScand(Randomizable, MapTransform):
    """Copy one of the scans that a subject has, at random, to ``image_key``.

    Args:
        keys: scans to choose from; missing ones are left out.
        image_key: where the chosen one goes.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image") -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.image_key = image_key

    def randomize(self, count: int) -> None:
        self.choice = self.R.randint(count)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        present = list(self.key_iterator(dict(data)))
        self.randomize(len(present))
        return {**data, self.image_key: data[present[self.choice]]}
