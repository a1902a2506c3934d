"""Random affine and non-linear deformation (paper Table B.1), one draw and one interpolation for a whole subject."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Randomizable, Resample, Transform
from monai.transforms.utils import create_grid, create_rotate, create_scale, create_shear
from monai.utils import TransformBackends, convert_to_tensor, ensure_tuple_rep
from torch.nn.functional import interpolate

from ..randomness import RandDictionaryTransform

__all__ = ["RandDeformation", "RandDeformationd"]


class RandDeformation(Randomizable, Transform):
    """Rotate, shear, scale and bend a volume into a patch of a given size around its centre.

    The non-linear part is Gaussian noise on a coarse grid, interpolated to the patch. The affine part is written into
    the meta data, so that world coordinates keep pointing into the source subject: lesion masks and mirror transforms
    given there stay valid.

    Args:
        spatial_size: size of the patch.
        rotation: largest angle about each axis, degrees [paper: 15].
        shear: largest shear [paper: 0.2].
        scaling: largest deviation of the scaling from 1 [paper: 0.2].
        translation: largest shift of the patch centre, voxels.
        nonlinear_std: range of the standard deviation of the displacements, voxels [paper: (0, 4)].
        nonlinear_scale: range of the coarse grid's size, as a share of the patch size [paper: (0.03, 0.06)].
        mode: interpolation, see `monai.transforms.Resample`.

    Returns (of a call):
        ``(C, *spatial_size)``; integer inputs stay integer (use mode "nearest" for them).
    """

    def __init__(
        self,
        spatial_size: Sequence[int],
        rotation: float = 15.0,
        shear: float = 0.2,
        scaling: float = 0.2,
        translation: float = 0.0,
        nonlinear_std: tuple[float, float] = (0.0, 4.0),
        nonlinear_scale: tuple[float, float] = (0.03, 0.06),
        mode: str = "bilinear",
    ) -> None:
        self.spatial_size = tuple(spatial_size)
        self.rotation = rotation
        self.shear = shear
        self.scaling = scaling
        self.translation = translation
        self.nonlinear_std = nonlinear_std
        self.nonlinear_scale = nonlinear_scale
        self.mode = mode
        self.resample = Resample(padding_mode="zeros", dtype=torch.float32)
        self._affine = np.eye(4)
        self._displacement = np.zeros((3, 2, 2, 2))

    def randomize(self, data=None) -> None:
        angles = np.deg2rad(self.R.uniform(-self.rotation, self.rotation, size=3))
        shears = self.R.uniform(-self.shear, self.shear, size=6)
        scales = 1.0 + self.R.uniform(-self.scaling, self.scaling, size=3)
        self._affine = create_rotate(3, angles) @ create_shear(3, shears) @ create_scale(3, scales)
        self._affine[:3, 3] = self.R.uniform(-self.translation, self.translation, size=3)
        share, std = self.R.uniform(*self.nonlinear_scale), self.R.uniform(*self.nonlinear_std)
        points = [max(2, math.ceil(share * n)) for n in self.spatial_size]
        self._displacement = std * self.R.normal(size=(3, *points))

    def grid(self, device: torch.device) -> torch.Tensor:
        """Where the current draw samples: ``(4, *spatial_size)`` voxels from the centre of the volume, homogeneous."""
        grid = create_grid(self.spatial_size, dtype=torch.float32, device=device, backend=TransformBackends.TORCH)
        sampled = torch.tensordot(torch.as_tensor(self._affine, dtype=torch.float32, device=device), grid, dims=1)
        coarse = torch.as_tensor(self._displacement, dtype=torch.float32, device=device)
        sampled[:3] += interpolate(coarse[None], self.spatial_size, mode="trilinear", align_corners=True)[0]
        return sampled

    def __call__(
        self,
        img: torch.Tensor,
        randomize: bool = True,
        mode: str | None = None,
        grid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if randomize:
            self.randomize()
        volume = convert_to_tensor(img, track_meta=False)
        grid = self.grid(volume.device) if grid is None else grid
        out = convert_to_tensor(self.resample(volume, grid, mode=mode or self.mode), track_meta=False)
        out = out.round().to(volume.dtype) if not volume.is_floating_point() else out.to(volume.dtype)
        if not isinstance(img, MetaTensor):
            return out
        to_centre, from_centre = np.eye(4), np.eye(4)
        to_centre[:3, 3] = -(np.array(self.spatial_size) - 1) / 2
        from_centre[:3, 3] = (np.array(volume.shape[1:]) - 1) / 2
        tracked = img.affine.cpu().numpy() @ from_centre @ self._affine @ to_centre
        deformed = MetaTensor(out, meta=dict(img.meta))
        deformed.affine = torch.as_tensor(tracked)
        return deformed


class RandDeformationd(RandDictionaryTransform):
    """Dictionary form of `RandDeformation`: one draw for all keys.

    Args:
        keys: items on one grid.
        mode: interpolation of each key, "nearest" for label maps.
        allow_missing_keys: skip keys that the data does not have.
        deformation: further arguments of `RandDeformation`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mode: str | Sequence[str] = "bilinear",
        allow_missing_keys: bool = False,
        **deformation,
    ) -> None:
        super().__init__(keys, RandDeformation(**deformation), allow_missing_keys)
        self.mode = ensure_tuple_rep(mode, len(self.keys))

    def __call__(self, data):
        d = dict(data)
        self.transform.randomize()
        grid = None
        for key, mode in self.key_iterator(d, self.mode):
            grid = self.transform.grid(d[key].device) if grid is None else grid
            d[key] = self.transform(d[key], randomize=False, mode=mode, grid=grid)
        return d
