"""Random modality: an image of any contrast from a label map (paper Eq. 4)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..blur import gaussian_blur
from ..errors import InputError
from ..labels import LabelTable
from ..randomness import RandDictionaryTransform, voxel_noise, weighted_choice

__all__ = ["RandModality", "RandModalityd"]


class RandModality(Randomizable, Transform):
    """Draw an image from a label map: voxel ~ N(mu_l, sigma_l) with mu_l and sigma_l drawn for each label (Eq. 4).

    Left and right partners share a draw. The background is 0 half of the time, else drawn like a label. Partial volume:
    mu and sigma are mixed between neighbouring labels, as a voxel at a border mixes its tissues, before the voxel noise.

    Args:
        labels: label scheme.
        appearances: kinds of contrast to choose from. Each is a mapping with ``weight`` (relative frequency),
            ``mean`` (range of mu_l), ``std`` (range of sigma_l), and optionally ``tissues``: ranges of mu_l by tissue
            name of the label scheme. [paper: mean (25, 225), std (5, 25); code also: a CT-like one]
        background_prob: probability that the background is not 0 [paper: 0.5].
        partial_volume: width (standard deviation, voxels) over which labels mix at a border.
        intensity_scale: value that becomes 1 [paper's scale: 255].

    Returns (of a call):
        float32 ``(1, X, Y, Z)``, not negative.

    Raises:
        InputError: when a tissue of an appearance is not in the label scheme.
    """

    def __init__(
        self,
        labels: LabelTable,
        appearances: Sequence[Mapping[str, Any]] = ({"weight": 1.0, "mean": (25.0, 225.0), "std": (5.0, 25.0)},),
        background_prob: float = 0.5,
        partial_volume: float = 0.5,
        intensity_scale: float = 255.0,
    ) -> None:
        self.labels = labels
        self.appearances = list(appearances)
        for appearance in self.appearances:
            for tissue in set(appearance.get("tissues", {})) - set(labels.tissues):
                raise InputError(
                    f"appearance names the tissue '{tissue}', the label table has {sorted(labels.tissues)}"
                )
        self.background_prob = background_prob
        self.partial_volume = partial_volume
        self.intensity_scale = intensity_scale
        self.mu = self.sigma = torch.zeros(1)

    def randomize(self, data=None) -> None:
        appearance = weighted_choice(self.R, self.appearances)
        ranges = {
            label: span
            for tissue, span in appearance.get("tissues", {}).items()
            for label in self.labels.tissues[tissue]
        }
        partner = dict(zip(self.labels.right, self.labels.left))
        mu: dict[int, float] = {}
        sigma: dict[int, float] = {}
        for label in [0, *self.labels.neutral, *self.labels.left]:
            mu[label] = self.R.uniform(*ranges.get(label, appearance["mean"]))
            sigma[label] = self.R.uniform(*appearance["std"])
        if self.R.uniform() >= self.background_prob:
            mu[0] = sigma[0] = 0.0
        for right, left in partner.items():
            mu[right], sigma[right] = mu[left], sigma[left]
        self.mu, self.sigma = self.labels.lookup(mu), self.labels.lookup(sigma)
        self._noise_seed = self.R.randint(2**31 - 1)

    def __call__(self, label_map: torch.Tensor, randomize: bool = True) -> torch.Tensor:
        if randomize:
            self.randomize()
        labels = convert_to_tensor(label_map, track_meta=False).long()
        means, deviations = (table.to(labels.device)[labels] for table in (self.mu, self.sigma))
        if self.partial_volume > 0:
            means, deviations = (gaussian_blur(values, self.partial_volume) for values in (means, deviations))
        image = (means + deviations * voxel_noise(self._noise_seed, means)).clamp(min=0.0) / self.intensity_scale
        return convert_to_dst_type(image, label_map, dtype=torch.float32)[0]


class RandModalityd(RandDictionaryTransform):
    """Dictionary form of `RandModality`.

    Args:
        keys: one key, the label map.
        labels: label scheme.
        image_key: where the image goes.
        overwrite: False keeps an image that is already there, for example a real T1w.
        modality: further arguments of `RandModality`.
    """

    def __init__(
        self, keys: KeysCollection, labels: LabelTable, image_key: str = "image", overwrite: bool = True, **modality
    ) -> None:
        super().__init__(keys, RandModality(labels, **modality))
        self.image_key = image_key
        self.overwrite = overwrite

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        if not self.overwrite and self.image_key in data:
            return dict(data)
        return {**data, self.image_key: super().__call__(data)[self.keys[0]]}
