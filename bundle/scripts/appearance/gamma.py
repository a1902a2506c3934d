"""Random gamma with a fixed white point (paper Table B.1)."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform

from ..randomness import RandDictionaryTransform

__all__ = ["RandGamma", "RandGammad"]


class RandGamma(Randomizable, Transform):
    """I -> w (I / w)^gamma with gamma = exp(N(0, std)); intensities are cut to [0, w].

    MONAI's `RandAdjustContrast` stretches between minimum and maximum instead, so that one bright voxel changes all.

    Args:
        std: standard deviation of log gamma [code: 0.1].
        white_point: w, the value that gamma leaves alone [code: 300 on the scale to 255].
    """

    def __init__(self, std: float = 0.1, white_point: float = 300.0 / 255.0) -> None:
        self.std = std
        self.white_point = white_point
        self.gamma = 1.0

    def randomize(self, data=None) -> None:
        self.gamma = float(np.exp(self.R.normal(0.0, self.std)))

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        return (img / self.white_point).clamp(0.0, 1.0) ** self.gamma * self.white_point


class RandGammad(RandDictionaryTransform):
    """Dictionary form of `RandGamma`; `gamma` are its arguments."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **gamma) -> None:
        super().__init__(keys, RandGamma(**gamma), allow_missing_keys)
