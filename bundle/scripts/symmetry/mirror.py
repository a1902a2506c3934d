"""The mirrored partner: what lies at the same place in the other hemisphere (paper Sec. 4, contralateral-paired input)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SpatialResample, Transform
from monai.utils import convert_to_tensor, ensure_tuple

from ..errors import InputError

__all__ = ["Mirror", "Mirrord", "mid_plane_reflection"]


def mid_plane_reflection(brain: torch.Tensor) -> np.ndarray:
    """Reflection across the sagittal plane that halves the brain voxels, for scans without a known mirror transform.

    Args:
        brain: ``(1, X, Y, Z)`` mask with an affine to RAS mm.

    Returns:
        4x4 matrix on RAS mm coordinates.

    Raises:
        InputError: when the mask is empty.
    """
    voxels = convert_to_tensor(brain, track_meta=False)[0].nonzero()
    if not len(voxels):
        raise InputError("cannot find the mid-sagittal plane of an empty brain mask")
    affine = torch.as_tensor(brain.affine, dtype=torch.float64, device=voxels.device)
    right = voxels.double() @ affine[0, :3] + affine[0, 3]
    reflection = np.diag([-1.0, 1.0, 1.0, 1.0])
    reflection[0, 3] = 2.0 * float(right.median())
    return reflection


def mirror_transform_of(data: Mapping[Hashable, Any], transform_key: str, brain_key: str) -> np.ndarray:
    """The mirror transform of a case, 4x4 on RAS mm: the one it has, else `mid_plane_reflection` of its brain."""
    given = data[transform_key] if transform_key in data else mid_plane_reflection(data[brain_key])
    return np.asarray(given, dtype=np.float64)


class Mirror(Transform):
    """Resample an image at the contralateral partner of each of its voxels.

    Args:
        mode: interpolation, "bilinear" or "nearest".
    """

    def __init__(self, mode: str = "bilinear") -> None:
        self.resample = SpatialResample(mode=mode, padding_mode="zeros", align_corners=True)

    def __call__(self, img: MetaTensor, transform: Sequence[Sequence[float]] | np.ndarray) -> MetaTensor:
        """
        Args:
            img: ``(C, X, Y, Z)`` with an affine to RAS mm.
            transform: 4x4 matrix on RAS mm that maps a point to its contralateral partner: a reflection across the
                mid-sagittal plane, or an affine registration to the mirrored scan that contains one.

        Raises:
            InputError: when the matrix does not exchange left and right.
        """
        matrix = torch.as_tensor(np.asarray(transform, dtype=np.float64))
        if matrix.shape != (4, 4) or torch.linalg.det(matrix[:3, :3]) >= 0:
            raise InputError(
                "mirror_transform must be a 4x4 matrix with a negative determinant (it exchanges left and right), got "
                f"{matrix.tolist()}"
            )
        affine = img.affine.double().cpu()
        # Moving the image by the inverse and looking at it on its own grid reads it at the transformed points.
        moved = MetaTensor(convert_to_tensor(img, track_meta=False).float(), affine=torch.linalg.inv(matrix) @ affine)
        mirrored = self.resample(moved, dst_affine=affine, spatial_size=img.shape[1:])
        return MetaTensor(mirrored.as_tensor().to(img.dtype), meta=dict(img.meta))


class Mirrord(MapTransform):
    """Add the mirrored partner of images, ``mirrored_keys``, to a dictionary.

    The mirror transform is the item ``transform_key`` where the data has one (datalist entry, 4x4 nested list), else
    `mid_plane_reflection` of the brain mask; the one used is left in the data.

    Args:
        keys: images, on one grid.
        mirrored_keys: where their partners go.
        brain_key: brain mask, on the grid of the images.
        transform_key: mirror transform on RAS mm.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __init__(
        self,
        keys: KeysCollection,
        mirrored_keys: KeysCollection,
        brain_key: str = "brain",
        transform_key: str = "mirror_transform",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mirrored_keys = ensure_tuple(mirrored_keys)
        self.brain_key = brain_key
        self.transform_key = transform_key
        self.mirror = Mirror()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        transform = d[self.transform_key] = mirror_transform_of(d, self.transform_key, self.brain_key)
        pairs = list(self.key_iterator(d, self.mirrored_keys))
        # The volumes are stacked, since the weights of the interpolation are the same for all of them.
        stacked = torch.cat([convert_to_tensor(d[key], track_meta=False).float() for key, _ in pairs])
        mirrored = self.mirror(MetaTensor(stacked, affine=d[pairs[0][0]].affine), transform)
        channels = [d[key].shape[0] for key, _ in pairs]
        for (key, mirrored_key), volume in zip(pairs, mirrored.as_tensor().split(channels)):
            d[mirrored_key] = MetaTensor(volume.to(d[key].dtype), meta=dict(d[key].meta))
        return d
