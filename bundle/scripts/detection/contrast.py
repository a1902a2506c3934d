"""What the healthy brain would look like in the contrast of the scan: the reconstruction is T1w, the scan may be anything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from sklearn.isotonic import IsotonicRegression

from ..symmetry import Mirror

__all__ = ["MatchContrast", "MatchContrastd", "to_scale_of"]


def to_scale_of(image: torch.Tensor, reference: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Multiply an image by the one factor that brings it to the scale of another of its contrast: the median ratio.

    Args:
        image, reference: same shape, not negative.
        where: mask of the voxels to compare, most of them healthy.
    """
    counted = (where > 0) & (image > 0.1 * image.max()) & (reference > 0)
    if not counted.any():
        return image
    return image * float((reference[counted] / image[counted]).median())


class MatchContrast(Transform):
    """Predict the healthy scan from the healthy T1w, as physics has it: ``scan = gain(x) curve(healthy T1w)``.

    The curve says what the sequence makes of a tissue; the gain is that of the coils, smooth and bounded. Both are fitted to the
    scan itself in turns. A lesion must bend neither:

    - a voxel counts less the further the scan lies from its prediction (Tukey's biweight), not at all beyond 4.7 robust standard
      deviations;
    - the gain is a factor between ``1 / largest_gain`` and ``largest_gain`` and cannot turn tissue into fluid;
    - where the mirror transform is known, a voxel that disagrees with its partner on the other side more sharply than a gain could,
      does not speak for the gain: the healthy side does.

    Args:
        monotone: whether the curve rises with the T1w, as that of another T1w sequence does.
        sigma: smoothness of the gain, mm.
        largest_gain: bound of the gain.
        iterations: turns.
        bins: of T1w intensity, in which the curve is found.

    References:
        P. J. Rousseeuw, A. M. Leroy, Robust Regression and Outlier Detection, 1987 (biweight, median absolute deviation).
    """

    def __init__(
        self,
        monotone: bool = False,
        sigma: float = 30.0,
        largest_gain: float = 1.65,
        iterations: int = 6,
        bins: int = 64,
    ) -> None:
        self.monotone = monotone
        self.sigma = sigma
        self.log_bound = float(np.log(largest_gain))
        self.iterations = iterations
        self.bins = bins
        self.mirror = Mirror()

    def __call__(
        self,
        healthy: torch.Tensor,
        image: torch.Tensor,
        brain: torch.Tensor,
        mirror_transform: np.ndarray | None = None,
    ) -> torch.Tensor:
        """
        Args:
            healthy: ``(1, X, Y, Z)`` healthy T1w.
            image: the scan, any contrast, same shape; a MetaTensor whose affine gives the voxel size (else 1 mm).
            brain: mask of the same shape.
            mirror_transform: 4x4 on RAS mm, from a point to its contralateral partner; None where it is not known.

        Returns:
            the scan as it would be without disease; 0 outside the brain.
        """
        t1, scan, mask = (
            convert_to_tensor(v, track_meta=False).cpu().numpy()[0].astype(np.float64) for v in (healthy, image, brain)
        )
        inside = mask > 0
        if not inside.any():
            return convert_to_dst_type(np.zeros_like(scan)[None], healthy, dtype=torch.float32)[0]
        affine = np.asarray(image.affine) if isinstance(image, MetaTensor) else np.eye(4)
        sigma = self.sigma / np.linalg.norm(affine[:3, :3], axis=0)
        gain, weight = np.ones_like(scan), inside.astype(np.float64)
        floor = 0.05 * np.percentile(scan[inside], 95)
        for _ in range(self.iterations):
            curve = np.where(inside, self._curve(t1[inside], (scan / gain)[inside], weight[inside])(t1), 0.0)
            weight = np.where(inside, self._biweight(scan - gain * curve, inside), 0.0)
            ratio = np.clip(np.log(np.maximum(scan, floor) / np.maximum(curve, floor)), -1.5, 1.5) * inside
            speaks = weight * (curve > 2.0 * floor) * self._agrees(ratio, inside, affine, sigma, mirror_transform)
            share = gaussian_filter(speaks, sigma)
            log_gain = gaussian_filter(ratio * speaks, sigma) / np.maximum(share, 1e-3 * max(share.max(), 1e-9))
            gain = np.exp(np.clip(log_gain, -self.log_bound, self.log_bound))
        return convert_to_dst_type((gain * curve * inside)[None], healthy, dtype=torch.float32)[0].clamp(min=0.0)

    def _curve(self, t1: np.ndarray, scan: np.ndarray, weight: np.ndarray):
        """Weighted mean of the scan over T1w intensity, smoothed along it."""
        low, high = np.quantile(t1, [0.002, 0.998])
        edges = np.linspace(low, max(high, low + 1e-6), self.bins + 1)
        centres = (edges[1:] + edges[:-1]) / 2
        index = np.clip(np.searchsorted(edges, t1) - 1, 0, self.bins - 1)
        count = np.bincount(index, weight, minlength=self.bins)
        total = np.bincount(index, weight * scan, minlength=self.bins)
        if self.monotone:
            counted = count > 0
            rising = IsotonicRegression().fit(centres[counted], total[counted] / count[counted], count[counted])
            total = count * np.interp(centres, rising.X_thresholds_, rising.y_thresholds_)
        total, count = (gaussian_filter1d(values, 1.5, mode="nearest") for values in (total, count))
        smooth, known = total / np.maximum(count, 1e-9), count > 1e-6
        return lambda values: np.interp(values, centres[known], smooth[known])

    @staticmethod
    def _biweight(residual: np.ndarray, inside: np.ndarray) -> np.ndarray:
        width = 4.685 * 1.4826 * np.median(np.abs(residual[inside])) + 1e-6
        return np.clip(1.0 - (residual / width) ** 2, 0.0, None) ** 2

    def _agrees(self, ratio, inside, affine, sigma, mirror_transform) -> np.ndarray:
        """Weight of each voxel for the gain: 0 where it, rather than its partner, is odd in a way that is too sharp for a gain."""
        if mirror_transform is None:
            return np.ones_like(ratio)
        stacked = MetaTensor(torch.from_numpy(np.stack([ratio, inside.astype(np.float64)])).float(), affine=affine)
        partner, both = self.mirror(stacked, mirror_transform).numpy().astype(np.float64)
        both = (both > 0.5) & inside
        if not both.any():
            return np.ones_like(ratio)
        share = np.maximum(gaussian_filter(both.astype(np.float64), sigma), 1e-6)
        asymmetry = np.where(both, ratio - partner, 0.0)
        # A coil's asymmetry is smooth: the median over the brain of what is left tells what noise and gyri do.
        sharp = gaussian_filter(asymmetry, sigma / 10) - gaussian_filter(asymmetry, sigma) / share
        weight = self._biweight(np.where(both, sharp, 0.0), both)
        middle = np.median(ratio[inside])
        own = np.abs(gaussian_filter(ratio, sigma / 10) - middle) >= np.abs(
            gaussian_filter(partner, sigma / 10) - middle
        )
        return np.where(both & own, weight, 1.0)


class MatchContrastd(MapTransform):
    """Dictionary form of `MatchContrast`. The curve of a T1w is monotone.

    Args:
        keys: one key, the reconstruction.
        image_key: the scan.
        brain_key: brain mask.
        modality_key: modality of the scan.
        transform_key: mirror transform, where the data has one.
        expected_key: where the predicted healthy scan goes.
        match: further arguments of `MatchContrast`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        brain_key: str = "brain",
        modality_key: str = "modality",
        transform_key: str = "mirror_transform",
        expected_key: str = "expected",
        **match,
    ) -> None:
        super().__init__(keys)
        self.rising, self.any = MatchContrast(monotone=True, **match), MatchContrast(**match)
        self.image_key = image_key
        self.brain_key = brain_key
        self.modality_key = modality_key
        self.transform_key = transform_key
        self.expected_key = expected_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        match = self.rising if str(data[self.modality_key]).startswith("t1") else self.any
        volumes = (data[key] for key in (self.keys[0], self.image_key, self.brain_key))
        return {**data, self.expected_key: match(*volumes, data.get(self.transform_key))}
