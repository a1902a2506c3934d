"""How much the loss looks at each lesion: by lesion, not by voxel."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import generate_binary_structure, label

from ..fluid import LESION_THRESHOLD

__all__ = ["LesionAttention", "LesionAttentiond"]


class LesionAttention(Transform):
    """Give the voxels of small lesions more weight: ``(reference_ml / volume)^power`` in a lesion of that volume, within `limits`.

    In an average over voxels a lesion of 100 ml counts as much as a thousand of 0.1 ml, and a network learns to leave small ones
    alone. ``power=1`` lets every lesion count the same, ``power=0`` every voxel (paper).

    Args:
        reference_ml: volume with a weight of 1.
        power: 0 to 1.
        limits: of the weight.
        lesion_threshold: probability above which a voxel belongs to a lesion [paper's code: 0.2].
    """

    def __init__(
        self,
        reference_ml: float = 5.0,
        power: float = 0.5,
        limits: tuple[float, float] = (0.5, 8.0),
        lesion_threshold: float = LESION_THRESHOLD,
    ) -> None:
        self.reference_ml = reference_ml
        self.power = power
        self.limits = limits
        self.lesion_threshold = lesion_threshold

    def __call__(self, anomaly: torch.Tensor, voxel_size: float) -> torch.Tensor:
        """
        Args:
            anomaly: lesion probability ``(1, X, Y, Z)``.
            voxel_size: mm.

        Returns:
            weight, same shape; 1 where no lesion is.
        """
        probability = convert_to_tensor(anomaly, track_meta=False)
        lesions, count = label((probability[0] > self.lesion_threshold).cpu().numpy(), generate_binary_structure(3, 3))
        volumes = np.bincount(lesions.ravel(), minlength=count + 1) * voxel_size**3 / 1000.0
        weights = np.clip((self.reference_ml / np.maximum(volumes, 1e-6)) ** self.power, *self.limits)
        weights[0] = 1.0
        return convert_to_dst_type(weights[lesions][None], anomaly, dtype=torch.float32)[0]


class LesionAttentiond(MapTransform):
    """Dictionary form of `LesionAttention`.

    Args:
        keys: one key, the lesion probability.
        voxel_size: mm.
        attention_key: where the weight goes.
        attention: arguments of `LesionAttention`.
    """

    def __init__(self, keys: KeysCollection, voxel_size: float, attention_key: str = "attention", **attention) -> None:
        super().__init__(keys)
        self.transform = LesionAttention(**attention)
        self.voxel_size = voxel_size
        self.attention_key = attention_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        return {**data, self.attention_key: self.transform(data[self.keys[0]], self.voxel_size)}
