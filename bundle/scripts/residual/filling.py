"""A scan whose lesions are filled with healthy tissue, for tools that fail on lesions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, Transform, generate_spatial_bounding_box
from scipy.ndimage import distance_transform_edt

from ..similarity import to_scale_of

__all__ = ["FillLesion", "FillLesiond"]


class FillLesion(Transform):
    """The scan outside of the lesion, the intact scan inside, blended at the edge.

    Args:
        edge: mm outside of the lesion over which the one goes over into the other.
    """

    def __init__(self, edge: float) -> None:
        self.edge = edge

    def __call__(self, intact: MetaTensor, image: MetaTensor, lesion: torch.Tensor) -> MetaTensor:
        """
        Args:
            intact: ``(1, X, Y, Z)`` intact scan; its scale is brought to that of the scan by one factor.
            image: the scan, same shape.
            lesion: mask of the same shape.

        Returns:
            float32, equal to the scan further than `edge` from the lesion.
        """
        scan, mask = image.as_tensor().float().clone(), lesion > 0
        if mask.any():
            spacing = affine_to_spacing(image.affine).numpy()
            margin = np.ceil(self.edge / spacing).astype(int) + 1
            start, end = generate_spatial_bounding_box(mask, margin=margin.tolist())
            box = (slice(None), *(slice(first, last) for first, last in zip(start, end, strict=True)))
            away = distance_transform_edt(~np.asarray(mask[box][0].cpu()), sampling=spacing)
            share = torch.from_numpy(np.clip(1.0 - away / max(self.edge, 1e-6), 0.0, 1.0)).float()[None].to(scan.device)
            scaled = to_scale_of(intact.as_tensor(), scan, (intact > 0) & ~mask)[box]
            scan[box] = torch.where(share > 0, torch.lerp(scan[box], scaled, share), scan[box])
        return MetaTensor(scan, meta=dict(image.meta))


class FillLesiond(MapTransform):
    """Dictionary form of `FillLesion`.

    Args:
        keys: one key, the intact scan.
        image_key: the scan.
        mask_key: lesion mask.
        filled_key: where the filled scan goes.
        edge: mm, see `FillLesion`.
        allow_missing_keys: do nothing where there is no intact scan.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str,
        mask_key: str,
        filled_key: str = "filled",
        edge: float = 2.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = FillLesion(edge)
        self.image_key = image_key
        self.mask_key = mask_key
        self.filled_key = filled_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[self.filled_key] = self.transform(d[key], d[self.image_key], d[self.mask_key])
        return d
