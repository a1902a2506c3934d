"""Where the healthy truth of a sample is unknown."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor

__all__ = ["UnknownTruthd"]


class UnknownTruthd(MapTransform):
    """Add ``diseased``, the d of Eq. 7, voxel by voxel: 1 in the traced lesion of a real scan, whose healthy tissue nobody knows.

    The paper has one d a scan. By voxels a real patient may have a painted lesion, too, whose truth is known.

    Args:
        keys: one key, the lesion probability. The traced lesion is added to it.
        lesion_key: the traced lesion; a subject without one is healthy.
        diseased_key: where d goes, same shape, 0 or 1.
    """

    def __init__(self, keys: KeysCollection, lesion_key: str = "lesion", diseased_key: str = "diseased") -> None:
        super().__init__(keys)
        self.lesion_key = lesion_key
        self.diseased_key = diseased_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        anomaly = data[self.keys[0]]
        probability = convert_to_tensor(anomaly, track_meta=False)
        traced = convert_to_tensor(data.get(self.lesion_key, torch.zeros_like(probability)), track_meta=False)
        found = {self.keys[0]: torch.maximum(probability, traced.to(probability)), self.diseased_key: traced > 0}
        return {**data, **{key: convert_to_dst_type(value.to(probability), anomaly)[0] for key, value in found.items()}}
