"""Paint an anomaly into an image (paper Eq. 5-6)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import Randomizable, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor

from ..blur import gaussian_blur
from ..errors import InputError
from ..fluid import LESION_THRESHOLD
from ..labels import LabelTable
from ..randomness import RandDictionaryTransform, voxel_noise

__all__ = ["RandAnomalyEncoding", "RandAnomalyEncodingd"]

CORE_BLUR = 2.0  # voxels; a traced mask has one value inside, and only its blurred map tells the core from the rim


class RandAnomalyEncoding(Randomizable, Transform):
    """I = I0 + dI x P, with dI ~ N(-+mu_w / 2, mu_w / 2): darker where white matter is brighter than gray (T1w-like),
    brighter elsewhere, and of random sign a fifth of the time. mu_w, mu_g: mean of I0 in white and gray matter.

    Eq. 6 gives the distribution of dI in every voxel, not how voxels depend on each other. Drawn anew in every voxel a
    lesion would be salt and pepper; here most of the variance is one draw for the lesion, which keeps Eq. 6 in each
    voxel (``voxel_share=1`` is the other extreme).

    The paper adds dI to the tissue, whose texture shows through. In a real lesion the tissue is gone, faint lesions are common, and
    one lesion differs from the next; a tumour has a core, a rim and an oedema. `texture`, `strength`, `scale`, `cavity_prob` and
    `compartments` draw these; their defaults are the paper's encoding.

    Args:
        labels: label scheme, with the tissues ``white_matter`` and ``gray_matter``, and ``csf`` for cavities.
        shift: |mean of dI| / mu_w [paper: 0.5].
        std: standard deviation of dI / mu_w [paper: 0.5].
        voxel_share: share of the variance of dI that is drawn anew in every voxel.
        random_sign_prob: probability of a random instead of the expected sign [paper: 0.2].
        texture: range of how much of the tissue's texture shows through the lesion: 1 keeps it, 0 replaces the tissue by its mean
            in the lesion [paper: 1].
        strength: range of a factor of dI; small values make faint lesions [paper: 1].
        scale: standard deviation in voxels over which the draw of the lesion varies smoothly in space, so that one lesion differs
            from the next and the core from the rim; 0 for one draw in the whole image [paper: 0].
        cavity_prob: probability that the lesion is a cavity filled with CSF instead [paper: 0].
        compartments: range of the number of parts of a lesion, from its rim to its core, each with a draw and a sign of its own
            [paper: 1].

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
        texture: tuple[float, float] = (1.0, 1.0),
        strength: tuple[float, float] = (1.0, 1.0),
        scale: float = 0.0,
        cavity_prob: float = 0.0,
        compartments: tuple[int, int] = (1, 1),
    ) -> None:
        self.labels = labels
        self.shift = shift
        self.std = std
        self.voxel_share = voxel_share
        self.random_sign_prob = random_sign_prob
        self.texture = texture
        self.strength = strength
        self.scale = scale
        self.cavity_prob = cavity_prob
        self.compartments = compartments

    def randomize(self, data=None) -> None:
        self._lesion_draw = self.R.normal()
        self._random_sign = self.R.choice([-1.0, 1.0]) if self.R.uniform() < self.random_sign_prob else None
        self._noise_seed = self.R.randint(2**31 - 1)
        self._texture = self.R.uniform(*self.texture)
        self._strength = self.R.uniform(*self.strength)
        self._cavity = self.R.uniform() < self.cavity_prob
        further = self.R.randint(self.compartments[0], self.compartments[1] + 1) - 1
        self._borders = np.sort(self.R.uniform(0.15, 0.85, size=further))
        self._further_draws = self.R.normal(size=further)
        self._turned = self.R.uniform(size=further) < 0.5

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
        voxel_draw = voxel_noise(self._noise_seed, image)
        csf = self.labels.mask(label_map, "csf") if self._cavity else None
        if csf is not None and csf.any():
            fluid = image[csf].median() + self.voxel_share**0.5 * 0.1 * means["white_matter"] * voxel_draw
            return convert_to_dst_type(torch.lerp(image, fluid, p).clamp(min=0.0), img, dtype=torch.float32)[0]
        expected = -1.0 if means["white_matter"] > means["gray_matter"] else 1.0
        sign = expected if self._random_sign is None else self._random_sign
        sign, lesion_draw = self._by_compartment(p, sign, self._varied(voxel_draw))
        draw = (1.0 - self.voxel_share) ** 0.5 * lesion_draw + self.voxel_share**0.5 * voxel_draw
        change = self._strength * means["white_matter"] * (sign * self.shift + self.std * draw)
        if self._texture < 1.0 and p.any():
            plain = (image * p).sum() / p.sum()
            change = change + (1.0 - self._texture) * (plain - image)
        return convert_to_dst_type((image + change * p).clamp(min=0.0), img, dtype=torch.float32)[0]

    def _by_compartment(self, p: torch.Tensor, sign: float, draw: torch.Tensor | float):
        """Sign and draw in every voxel, where the lesion has compartments."""
        inside = p > LESION_THRESHOLD * p.amax()
        if not len(self._borders) or not inside.any():
            return sign, draw
        nearness = gaussian_blur(p, CORE_BLUR)
        borders = torch.quantile(nearness[inside], torch.as_tensor(self._borders, dtype=p.dtype, device=p.device))
        part = torch.bucketize(nearness, borders)
        signs = torch.tensor([sign, *np.where(self._turned, -sign, sign)], dtype=p.dtype, device=p.device)
        own = torch.tensor([0.0, *self._further_draws], dtype=p.dtype, device=p.device)
        # Half of the variance is the compartment's own, so that the draw stays standard normal.
        mixed = torch.where(
            part > 0, 0.5**0.5 * (own[part] + draw), torch.as_tensor(draw, dtype=p.dtype, device=p.device)
        )
        return signs[part], mixed

    def _varied(self, voxel_draw: torch.Tensor) -> torch.Tensor | float:
        """The draw of the lesion in every voxel, standard normal."""
        if self.scale <= 0:
            return self._lesion_draw
        smooth = gaussian_blur(voxel_draw, self.scale)
        return (smooth - smooth.mean()) / smooth.std()


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
