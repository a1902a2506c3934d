"""Read the volumes of a subject, and refuse what cannot be one."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import CropForeground, MapTransform

from ..errors import InputError
from ..volumes import read_volume, same_grid

__all__ = ["BrainMaskd", "CropToBraind", "ReadVolumesd"]


class ReadVolumesd(MapTransform):
    """Load 3D volumes that share a grid.

    Args:
        keys: file names; each becomes a float32 MetaTensor ``(1, X, Y, Z)``.
        allow_missing_keys: skip keys that the data does not have.

    Raises:
        InputError: when a file is missing, unreadable or not 3D, has NaN or infinite voxels, or the volumes of a subject
            have different grids.
    """

    def __call__(self, data: Mapping[Hashable, str]) -> dict[Hashable, MetaTensor]:
        d = dict(data)
        present = list(self.key_iterator(d))
        for key in present:
            path = d[key]
            d[key] = read_volume(path)
            if not torch.isfinite(d[key]).all():
                raise InputError(f"{path} has NaN or infinite voxels; replace them (0 outside the brain) and try again")
        for key in present[1:]:
            first, other = d[present[0]], d[key]
            if not same_grid(first, other):
                raise InputError(
                    f"{other.meta['filename_or_obj']} and {first.meta['filename_or_obj']} are on different grids "
                    f"(shapes {tuple(other.shape[1:])} and {tuple(first.shape[1:])}, or other affines); "
                    "resample one to the other"
                )
        return d


class BrainMaskd(MapTransform):
    """Add the brain mask of a skull-stripped scan: its voxels above 0, as float32 0/1.

    Args:
        keys: one key, the scan.
        mask_key: where the mask goes.
    """

    def __init__(self, keys: KeysCollection, mask_key: str = "brain") -> None:
        super().__init__(keys)
        self.mask_key = mask_key

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        return {**data, self.mask_key: (data[self.keys[0]] > 0).float()}


class CropToBraind(MapTransform):
    """Crop the volumes of a subject to the bounding box of its brain, so that the middle of the grid is its middle.

    Args:
        keys: volumes on one grid; the voxels above 0 of the first one present are the brain.
        allow_missing_keys: skip keys that the data does not have.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.crop = CropForeground()

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        d = dict(data)
        present = list(self.key_iterator(d))
        start, end = self.crop.compute_bounding_box(d[present[0]])
        for key in present:
            d[key] = self.crop.crop_pad(d[key], start, end)
        return d
