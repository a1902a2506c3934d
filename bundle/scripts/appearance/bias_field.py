"""Random smooth multiplicative bias field (paper Table B.1)."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from torch.nn.functional import interpolate

from ..randomness import RandDictionaryTransform

__all__ = ["RandGridBiasField", "RandGridBiasFieldd"]


class RandGridBiasField(Randomizable, Transform):
    """Multiply by exp(b), b Gaussian on a coarse grid and interpolated: the inhomogeneity of a receive coil.

    MONAI's `RandBiasField` draws a polynomial; the paper's levels are given for a grid.

    Args:
        scale: range of the grid's size, as a share of the image size [mild (0.01, 0.02), medium (0.02, 0.03), severe
            (0.02, 0.04)].
        std: range of the standard deviation of b [mild (0.01, 0.05), medium (0.05, 0.3), severe (0.1, 0.6)].
    """

    def __init__(self, scale: tuple[float, float], std: tuple[float, float]) -> None:
        self.scale = scale
        self.std = std
        self.log_field = np.zeros((2, 2, 2))

    def randomize(self, img: torch.Tensor) -> None:
        share, std = self.R.uniform(*self.scale), self.R.uniform(*self.std)
        points = [max(2, math.ceil(share * n)) for n in img.shape[1:]]
        self.log_field = std * self.R.normal(size=points)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize(img)
        coarse = torch.as_tensor(self.log_field, dtype=torch.float32, device=img.device)
        return img * interpolate(coarse[None, None], img.shape[1:], mode="trilinear", align_corners=True)[0].exp()


class RandGridBiasFieldd(RandDictionaryTransform):
    """Dictionary form of `RandGridBiasField`; `field` are its arguments."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **field) -> None:
        super().__init__(keys, RandGridBiasField(**field), allow_missing_keys)
