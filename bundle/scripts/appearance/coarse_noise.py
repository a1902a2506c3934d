"""Coarse noise, which a denoising autoencoder learns to take away, and a lesion with it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.config import KeysCollection
from monai.transforms import RandomizableTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch.nn.functional import interpolate

from ..randomness import RandDictionaryTransform, voxel_noise

__all__ = ["RandCoarseNoise", "RandCoarseNoised"]


class RandCoarseNoise(RandomizableTransform):
    """Add normal noise of a coarse grid, interpolated to the image, where the image is not 0.

    Args:
        coarseness: edge of a cell of the coarse grid, voxels [paper: 8, 16 x 16 cells on 128 x 128].
        std: range of the standard deviation of the noise on the coarse grid [paper: 0.2].

    References:
        A. Kascenas et al., Denoising Autoencoders for Unsupervised Anomaly Detection in Brain MRI, MIDL 2022.
    """

    def __init__(self, coarseness: int = 8, std: Sequence[float] = (0.2, 0.2)) -> None:
        super().__init__(prob=1.0)
        self.coarseness = coarseness
        self.std = tuple(std)
        self._std, self._seed = std[0], 0

    def randomize(self, data=None) -> None:
        super().randomize(None)
        self._std = self.R.uniform(*self.std)
        self._seed = self.R.randint(2**31 - 1)

    def __call__(self, image: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        """
        Args:
            image: ``(C, X, Y)`` or ``(C, X, Y, Z)``.
            randomize: draw anew.
        """
        if randomize:
            self.randomize()
        values = convert_to_tensor(image, track_meta=False).float()
        cells = [max(1, round(n / self.coarseness)) for n in values.shape[1:]]
        coarse = voxel_noise(self._seed, values.new_empty((1, len(values), *cells)))
        mode = "bilinear" if values.ndim == 3 else "trilinear"
        noise = interpolate(coarse, values.shape[1:], mode=mode, align_corners=False)[0]
        return convert_to_dst_type(values + self._std * noise * (values != 0), image, dtype=torch.float32)[0]


class RandCoarseNoised(RandDictionaryTransform):
    """Dictionary form of `RandCoarseNoise`: the same noise in every key.

    Args:
        keys: images.
        noise: arguments of `RandCoarseNoise`.
    """

    def __init__(self, keys: KeysCollection, **noise) -> None:
        super().__init__(keys, RandCoarseNoise(**noise))
