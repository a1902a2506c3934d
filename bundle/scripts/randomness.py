"""What the random transforms of the project share: reproducible voxel noise, and the dictionary form."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable

__all__ = ["RandDictionaryTransform", "voxel_noise", "weighted_choice"]


def voxel_noise(seed: int, like: torch.Tensor) -> torch.Tensor:
    """Standard normal noise with the shape and on the device of `like`, float32; the same on every device for the same seed."""
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(int(seed))).to(like.device)


def weighted_choice(random: np.random.RandomState, options: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """One of the options, each as often as its ``weight`` (1 where it has none) among those of all."""
    weights = np.array([option.get("weight", 1.0) for option in options], dtype=float)
    return options[random.choice(len(options), p=weights / weights.sum())]


class RandDictionaryTransform(Randomizable, MapTransform):
    """Dictionary form of a random array transform: one draw, applied to every key.

    Args:
        keys: items to transform.
        transform: the array transform. It is called as ``transform(item, randomize=False)`` after one
            ``transform.randomize(first_item)``, and shares the random state of this object.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __init__(self, keys: KeysCollection, transform: Randomizable, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None):
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        present = list(self.key_iterator(d))
        if present:
            self.transform.randomize(d[present[0]])
        for key in present:
            d[key] = self.transform(d[key], randomize=False)
        return d
