"""Random acquisition: voxel size, slice thickness and noise of a scanner (paper Table B.1)."""

from __future__ import annotations

import math

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from torch.nn.functional import interpolate

from ..blur import gaussian_blur
from ..randomness import RandDictionaryTransform, voxel_noise

__all__ = ["RandAcquisition", "RandAcquisitiond"]


class RandAcquisition(Randomizable, Transform):
    """See an image as a scanner of random resolution would, and return it on its own grid.

    Blur by the slice profile, sample on the acquired grid, add noise there, interpolate back. The blur's standard
    deviation is (0.85-1.15) ln 5 / pi x thickness in mm [code]. Kinds of acquisition: low-field axial, 1.3 x 1.3 x 5 mm
    plus up to 0.4 mm; anisotropic, one random axis at 2.5-8.5 mm with slices of up to 4-6 mm; isotropic of 2-5 mm; and
    otherwise the resolution of the image itself.

    Args:
        voxel_size: voxel size of the image, mm.
        noise_std: range of the noise's standard deviation, on the scale where white is 1.
        low_field_prob: [paper: mild 0.1, medium 0.3, severe 0.5].
        anisotropic_prob: [paper: 0, 0.1, 0.25].
        isotropic_prob: coarse isotropic voxels [in the code only, a quarter of the time; paper: 0].

    Returns (of a call):
        ``(1, X, Y, Z)``, not negative.
    """

    def __init__(
        self,
        voxel_size: float,
        noise_std: tuple[float, float],
        low_field_prob: float,
        anisotropic_prob: float,
        isotropic_prob: float = 0.0,
    ) -> None:
        self.voxel_size = voxel_size
        self.noise_std = noise_std
        self.kinds = {
            "low_field": low_field_prob,
            "anisotropic": anisotropic_prob,
            "isotropic": isotropic_prob,
            "native": 1.0 - low_field_prob - anisotropic_prob - isotropic_prob,
        }
        self.spacing = self.thickness = np.full(3, float(voxel_size))

    def randomize(self, data=None) -> None:
        native = np.full(3, float(self.voxel_size))
        kind = self.R.choice(list(self.kinds), p=list(self.kinds.values()))
        if kind == "low_field":
            spacing = np.array([1.3, 1.3, 5.0]) + self.R.uniform(0.0, 0.4, size=3)
            thickness = spacing.copy()
        elif kind == "anisotropic":
            spacing, thickness, axis = native.copy(), native.copy(), self.R.randint(3)
            spacing[axis] = self.R.uniform(2.5, 8.5)
            thickness[axis] = min(spacing[axis], self.R.uniform(4.0, 6.0))
        elif kind == "isotropic":
            spacing = np.full(3, self.R.uniform(2.0, 5.0))
            thickness = spacing.copy()
        else:
            spacing, thickness = native, native
        self.spacing = np.maximum(spacing, native)
        self.thickness = np.maximum(thickness, native)
        self._blur = self.R.uniform(0.85, 1.15) * math.log(5.0) / math.pi
        self._std = self.R.uniform(*self.noise_std)
        self._noise_seed = self.R.randint(2**31 - 1)

    def __call__(self, img: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        image = convert_to_tensor(img, track_meta=False)
        coarser = self.spacing > self.voxel_size
        sigma = np.where(coarser, self._blur * self.thickness / self.voxel_size, 0.0)
        image = gaussian_blur(image, sigma.tolist())
        size = [max(1, round(n * self.voxel_size / s)) for n, s in zip(image.shape[1:], self.spacing)]
        acquired = (
            interpolate(image[None], size, mode="trilinear", align_corners=False) if coarser.any() else image[None]
        )
        seen = acquired + self._std * voxel_noise(self._noise_seed, acquired)
        if coarser.any():
            seen = interpolate(seen, image.shape[1:], mode="trilinear", align_corners=False)
        return convert_to_dst_type(seen[0].clamp(min=0.0), img, dtype=torch.float32)[0]


class RandAcquisitiond(RandDictionaryTransform):
    """Dictionary form of `RandAcquisition`; `acquisition` are its arguments."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **acquisition) -> None:
        super().__init__(keys, RandAcquisition(**acquisition), allow_missing_keys)
