"""Paint an anomaly into an image (paper Eq. 5-6)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..errors import InputError
from ..labels import LabelTable
from ..randomness import RandDictionaryTransform, voxel_noise

__all__ = ["RandAnomalyEncoding", "RandAnomalyEncodingd"]


class RandAnomalyEncoding(Randomizable, Transform):
    """I = I0 + dI x P, with dI ~ N(-+mu_w / 2, mu_w / 2): darker where white matter is brighter than gray (T1w-like),
    brighter elsewhere, and of random sign a fifth of the time. mu_w, mu_g: mean of I0 in white and gray matter.

    Eq. 6 gives the distribution of dI in every voxel, not how voxels depend on each other. Drawn anew in every voxel a
    lesion would be salt and pepper; here most of the variance is one draw for the lesion, which keeps Eq. 6 in each
    voxel (``voxel_share=1`` is the other extreme).

    Args:
        labels: label scheme, with the tissues ``white_matter`` and ``gray_matter``.
        shift: |mean of dI| / mu_w [paper: 0.5].
        std: standard deviation of dI / mu_w [paper: 0.5].
        voxel_share: share of the variance of dI that is drawn anew in every voxel.
        random_sign_prob: probability of a random instead of the expected sign [paper: 0.2].

    Returns (of a call):
        ``(1, X, Y, Z)`` image, cut at 0; equal to the input where the anomaly is 0.

    Raises:
        InputError: when image, anomaly and label map are not on one grid, or the label map has no white or gray matter.
    """

    def __init__(
        self,
        labels: LabelTable,
        shift: float = 0.5,
        std: float = 0.5,
        voxel_share: float = 0.04,
        random_sign_prob: float = 0.2,
    ) -> None:
        self.labels = labels
        self.shift = shift
        self.std = std
        self.voxel_share = voxel_share
        self.random_sign_prob = random_sign_prob

    def randomize(self, data=None) -> None:
        self._lesion_draw = self.R.normal()
        self._random_sign = self.R.choice([-1.0, 1.0]) if self.R.uniform() < self.random_sign_prob else None
        self._noise_seed = self.R.randint(2**31 - 1)

    def __call__(
        self, img: torch.Tensor, anomaly: torch.Tensor, label_map: torch.Tensor, randomize: bool = True
    ) -> torch.Tensor:
        if randomize:
            self.randomize()
        if not img.shape == anomaly.shape == label_map.shape:
            raise InputError(
                f"image {tuple(img.shape)}, anomaly {tuple(anomaly.shape)} and label map {tuple(label_map.shape)} "
                "must share one grid; resample them to it first"
            )
        image, p = (convert_to_tensor(t, track_meta=False) for t in (img, anomaly))
        means = {}
        for tissue in ("white_matter", "gray_matter"):
            mask = self.labels.mask(label_map, tissue)
            if not mask.any():
                raise InputError(f"the label map has no voxel of {tissue}; is the label table the right one?")
            means[tissue] = image[mask].mean()
        expected = -1.0 if means["white_matter"] > means["gray_matter"] else 1.0
        sign = expected if self._random_sign is None else self._random_sign
        voxel_draw = voxel_noise(self._noise_seed, image)
        draw = (1.0 - self.voxel_share) ** 0.5 * self._lesion_draw + self.voxel_share**0.5 * voxel_draw
        change = means["white_matter"] * (sign * self.shift + self.std * draw)
        return convert_to_dst_type((image + change * p).clamp(min=0.0), img, dtype=torch.float32)[0]


class RandAnomalyEncodingd(RandDictionaryTransform):
    """Dictionary form of `RandAnomalyEncoding`.

    Args:
        keys: images to paint into, one draw for all.
        labels: label scheme.
        anomaly_key: probability map.
        label_key: label map.
        encoding: further arguments of `RandAnomalyEncoding`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        labels: LabelTable,
        anomaly_key: str = "anomaly",
        label_key: str = "label",
        **encoding,
    ) -> None:
        super().__init__(keys, RandAnomalyEncoding(labels, **encoding))
        self.anomaly_key = anomaly_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        self.transform.randomize()
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], d[self.anomaly_key], d[self.label_key], randomize=False)
        return d
