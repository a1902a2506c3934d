"""Lesions of one hemisphere alone: most strokes and tumours leave the other side healthy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import RandomizableTransform, create_grid
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor

from ..randomness import RandDictionaryTransform
from .mirror import mirror_transform_of

__all__ = ["RandOneSided", "RandOneSidedd"]


class RandOneSided(RandomizableTransform):
    """Keep an anomaly on that side of the mid-sagittal plane which has more of it.

    Args:
        prob: probability that the other side is cleared; else the anomaly stays as it is.
    """

    def __call__(
        self, anomaly: MetaTensor, transform: Sequence[Sequence[float]] | np.ndarray, randomize: bool = True
    ) -> MetaTensor:
        """
        Args:
            anomaly: ``(1, X, Y, Z)`` lesion probability with an affine to RAS mm.
            transform: 4x4 matrix on RAS mm that maps a point to its contralateral partner, see `Mirror`.
        """
        if randomize:
            self.randomize(None)
        if not self._do_transform:
            return anomaly
        values = convert_to_tensor(anomaly, track_meta=False)
        shape = values.shape[1:]
        # The right coordinate of a point less that of its partner is positive on the right of the plane.
        apart = (np.eye(4) - np.asarray(transform, dtype=np.float64))[0] @ anomaly.affine.double().cpu().numpy()
        apart[3] += apart[:3] @ (np.asarray(shape) - 1) / 2
        grid = create_grid(shape, dtype=torch.float32, device=values.device, backend=TransformBackends.TORCH)
        right = torch.tensordot(torch.as_tensor(apart, dtype=torch.float32, device=values.device), grid, dims=1) > 0
        kept = right if values[0][right].sum() > values[0][~right].sum() else ~right
        return convert_to_dst_type(values * kept, anomaly)[0]


class RandOneSidedd(RandDictionaryTransform):
    """Dictionary form of `RandOneSided`.

    Args:
        keys: one key, the lesion probability.
        brain_key: brain mask, from which the plane is found where the data has no mirror transform.
        transform_key: see `Mirrord`.
        prob: see `RandOneSided`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        brain_key: str = "brain",
        transform_key: str = "mirror_transform",
        prob: float = 1.0,
    ) -> None:
        super().__init__(keys, RandOneSided(prob))
        self.brain_key = brain_key
        self.transform_key = transform_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        key = self.keys[0]
        plane = mirror_transform_of(data, self.transform_key, self.brain_key)
        return {**data, key: self.transform(data[key], plane)}
