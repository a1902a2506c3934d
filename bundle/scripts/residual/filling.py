"""A scan whose lesions are filled with healthy tissue, for tools that fail on lesions (enantiomorphic filling)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, SpatialCrop, Transform, generate_spatial_bounding_box
from monai.utils import convert_to_tensor
from scipy.ndimage import distance_transform_edt, generate_binary_structure, label

from ..similarity import to_scale_of
from ..volumes import at_partners

__all__ = ["FillLesion", "FillLesiond"]


class FillLesion(Transform):
    """The scan outside of the lesion. Inside, the other side of the brain where that is healthy, else the intact scan.

    In real scans the other side is the better filling (docs/laboratory.md). A factor for each lesion brings it to the brightness of
    the tissue around, since coils are brighter on one side.

    Args:
        edge: mm outside of the lesion over which the one goes over into the other.
        ring: mm outside of the lesion in which both sides are compared.
        limits: of that factor.

    References:
        P. Nachev, E. Coulthard, H. R. Jaeger, C. Kennard, M. Husain, Enantiomorphic normalization of focally lesioned brains,
        NeuroImage 2008.
    """

    def __init__(self, edge: float, ring: float = 8.0, limits: tuple[float, float] = (0.8, 1.25)) -> None:
        self.edge = edge
        self.ring = ring
        self.limits = limits

    def __call__(
        self, intact: MetaTensor, image: MetaTensor, lesion: torch.Tensor, mirror_transform: np.ndarray | None = None
    ) -> MetaTensor:
        """
        Args:
            intact: ``(1, X, Y, Z)`` intact scan, 0 outside of the brain; its scale is brought to that of the scan by one factor.
            image: the scan, same shape.
            lesion: mask of the same shape.
            mirror_transform: 4x4 matrix on RAS mm that maps a point to its partner of the other side; None fills from the intact
                scan alone.

        Returns:
            float32, equal to the scan further than `edge` from the lesion.
        """
        scan, mask = image.as_tensor().float().clone(), convert_to_tensor(lesion, track_meta=False) > 0
        if mask.any():
            spacing = affine_to_spacing(image.affine).numpy()
            margin = np.ceil(max(self.edge, self.ring) / spacing).astype(int) + 1
            start, end = generate_spatial_bounding_box(mask, margin=margin.tolist(), allow_smaller=True)
            box = (slice(None), *(slice(first, last) for first, last in zip(start, end, strict=True)))
            inside = np.asarray(mask[box][0].cpu())
            away, nearest = distance_transform_edt(~inside, sampling=spacing, return_indices=True)
            share = torch.from_numpy(np.clip(1.0 - away / max(self.edge, 1e-6), 0.0, 1.0)).float()[None].to(scan.device)
            filling = to_scale_of(intact.as_tensor(), scan, (intact > 0) & ~mask)[box]
            if mirror_transform is not None:
                healthy = (intact.as_tensor() > 0) & ~mask
                part = SpatialCrop(roi_start=start, roi_end=end)(image)
                other, usable = (
                    at_partners(MetaTensor(volume, affine=image.affine), mirror_transform, part).as_tensor()
                    for volume in (scan, healthy.float())
                )
                around = (usable > 0.5) & healthy[box] & torch.from_numpy(away <= self.ring).to(scan.device)
                lesions = label(inside, generate_binary_structure(3, 3))[0][tuple(nearest)]
                factors = self._factors(scan[box], other, around, lesions)
                filling = torch.where(usable > 0.5, other * factors, filling)
            scan[box] = torch.where(share > 0, torch.lerp(scan[box], filling, share), scan[box])
        return MetaTensor(scan, meta=dict(image.meta))

    def _factors(
        self, scan: torch.Tensor, other: torch.Tensor, around: torch.Tensor, lesions: np.ndarray
    ) -> torch.Tensor:
        """How much brighter this side is around each lesion; `lesions` has the number of the nearest one."""
        counted = np.asarray(around[0].cpu())
        here, there = (
            # of nothing bincount gives whole numbers
            np.bincount(lesions[counted], np.asarray(v[0].cpu())[counted], lesions.max() + 1).astype(float)
            for v in (scan, other)
        )
        factors = np.divide(here, there, out=np.ones_like(here), where=there > 0)
        return torch.from_numpy(np.clip(factors, *self.limits)[lesions]).float()[None].to(scan.device)


class FillLesiond(MapTransform):
    """Dictionary form of `FillLesion`.

    Args:
        keys: one key, the intact scan.
        image_key: the scan.
        mask_key: lesion mask.
        filled_key: where the filled scan goes.
        mirror_key: mirror transform, see `FillLesion`.
        edge: mm, see `FillLesion`.
        allow_missing_keys: do nothing where there is no intact scan.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str,
        mask_key: str,
        filled_key: str = "filled",
        mirror_key: str = "mirror_transform",
        edge: float = 2.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = FillLesion(edge)
        self.image_key = image_key
        self.mask_key = mask_key
        self.filled_key = filled_key
        self.mirror_key = mirror_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.filled_key] = self.transform(d[key], d[self.image_key], d[self.mask_key], d[self.mirror_key])
        return d
