"""What the healthy brain would look like in the contrast of the scan: the reconstruction is T1w, the scan may be anything."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from sklearn.linear_model import Ridge
from sklearn.preprocessing import SplineTransformer

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
    """Predict the healthy scan from the healthy T1w: one smooth curve from T1w to scan intensity, whose gain and offset drift
    slowly through the head as a bias field does.

    The curve is fitted to the scan itself. What is diseased must not bend it: the fit is repeated, and each time a voxel counts
    less the further the scan lies from its prediction (Tukey's biweight), not at all beyond 4.7 robust standard deviations.

    Args:
        knots: of the cubic spline in T1w intensity.
        iterations: of the robust fit.
        samples: voxels that the fit looks at.

    References:
        P. J. Rousseeuw, A. M. Leroy, Robust Regression and Outlier Detection, 1987 (biweight, median absolute deviation).
    """

    def __init__(self, knots: int = 6, iterations: int = 10, samples: int = 40_000) -> None:
        self.knots = knots
        self.iterations = iterations
        self.samples = samples

    def __call__(self, healthy: torch.Tensor, image: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        """
        Args:
            healthy: ``(1, X, Y, Z)`` healthy T1w.
            image: the scan, any contrast, same shape.
            brain: mask of the same shape.

        Returns:
            the scan as it would be without disease; 0 outside the brain.
        """
        t1, scan, mask = (
            convert_to_tensor(v, track_meta=False).cpu().numpy()[0].astype(np.float64) for v in (healthy, image, brain)
        )
        inside = mask > 0
        expected = np.zeros_like(scan)
        if inside.any():
            position = 2.0 * np.argwhere(inside) / (np.array(scan.shape) - 1) - 1.0
            expected[inside] = self._fitted(t1[inside], scan[inside], position)
        return convert_to_dst_type(expected[None], healthy, dtype=torch.float32)[0].clamp(min=0.0)

    def _fitted(self, t1: np.ndarray, scan: np.ndarray, position: np.ndarray) -> np.ndarray:
        chosen = np.random.RandomState(0).permutation(len(t1))[: self.samples]
        spread = np.unique(np.quantile(t1[chosen], np.linspace(0.005, 0.995, self.knots)))
        if len(spread) < 2:
            return np.full_like(scan, np.median(scan))
        spline = SplineTransformer(degree=min(3, len(spread) - 1), knots=spread[:, None], extrapolation="constant")
        spline.fit(t1[chosen, None])

        def features(of: np.ndarray) -> np.ndarray:
            curve, where = spline.transform(t1[of, None]), position[of]
            return np.hstack([curve, t1[of, None] * where, where, where**2])

        inputs, targets = features(chosen), scan[chosen]
        weights = np.ones(len(chosen))
        for _ in range(self.iterations):
            model = Ridge(alpha=1e-3).fit(inputs, targets, sample_weight=weights)
            residual = targets - model.predict(inputs)
            # The spread of the healthy voxels: lesions beyond the cut do not enter it from the second round on.
            counted = weights > 0
            width = 4.685 * 1.4826 * np.median(np.abs(residual[counted])) + 1e-6
            weights = np.clip(1.0 - (residual / width) ** 2, 0.0, None) ** 2
        return np.concatenate([model.predict(features(part)) for part in np.array_split(np.arange(len(t1)), 20)])


class MatchContrastd(MapTransform):
    """Dictionary form of `MatchContrast`. A scan of another modality is expected to look like the reconstruction itself, but for
    its scale.

    Args:
        keys: one key, the reconstruction.
        modalities: of scans whose contrast is matched; others, T1w for one, have that of the reconstruction.
        image_key: the scan.
        brain_key: brain mask.
        modality_key: modality of the scan.
        expected_key: where the predicted healthy scan goes.
        match: arguments of `MatchContrast`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        modalities: Sequence[str] = ("t2", "flair", "ct"),
        image_key: str = "image",
        brain_key: str = "brain",
        modality_key: str = "modality",
        expected_key: str = "expected",
        **match,
    ) -> None:
        super().__init__(keys)
        self.transform = MatchContrast(**match)
        self.modalities = tuple(modalities)
        self.image_key = image_key
        self.brain_key = brain_key
        self.modality_key = modality_key
        self.expected_key = expected_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        match = self.transform if data[self.modality_key] in self.modalities else to_scale_of
        expected = match(data[self.keys[0]], data[self.image_key], data[self.brain_key])
        return {**data, self.expected_key: expected}
