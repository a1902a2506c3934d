"""How far a scan is from what it would be without disease: the choices that every reconstruction has."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_tensor
from torch.nn.functional import interpolate

from ..similarity import ssim_map
from ..slices import AxialSlices

__all__ = ["Absolute", "Dissimilarity", "Fusion", "Mahalanobis", "Perceptual", "Product", "Residuald", "Squared"]

# A measure takes the scan (1, X, Y, Z), one or several predictions of it without disease (N, X, Y, Z), and the brain (1, X, Y, Z).
Measure = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class Absolute:
    """L1: the size of the difference."""

    def __call__(self, scan: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        return (scan - healthy.mean(dim=0, keepdim=True)).abs()


class Squared:
    """L2: its square."""

    def __call__(self, scan: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        return (scan - healthy.mean(dim=0, keepdim=True)).square()


class Dissimilarity:
    """1 - SSIM, in [0, 1]; with several windows their mean, the SSIM ensemble.

    Args:
        windows: edges of the Gaussian windows, odd, voxels; the standard deviation is a seventh of the edge.

    References:
        F. Behrendt et al., Diffusion Models with Ensembled Structure-Based Anomaly Scoring for Unsupervised Anomaly
        Detection, 2024.
    """

    def __init__(self, windows: Sequence[int] = (7,)) -> None:
        self.windows = tuple(windows)

    def __call__(self, scan: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        healthy = healthy.mean(dim=0, keepdim=True)
        unlike = [(1.0 - ssim_map(scan, healthy, window, window / 7)).clamp(0.0, 1.0) for window in self.windows]
        return torch.stack(unlike).mean(dim=0)


class Perceptual:
    """Distance of the features that a pretrained network sees in axial slices, summed over its levels and brought to the grid.

    Args:
        extractor: see `scripts.networks.FeatureExtractor`.
        slice_size: of a slice, voxels.
    """

    def __init__(self, extractor: torch.nn.Module, slice_size: Sequence[int]) -> None:
        self.extractor = extractor
        self.slicer = AxialSlices(slice_size)

    def __call__(self, scan: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        both = torch.cat([scan, healthy.mean(dim=0, keepdim=True)])
        pieces, index = self.slicer.cut(both, brain)
        distance = sum(
            interpolate(
                (one - other).square().mean(dim=1, keepdim=True), pieces.shape[2:], mode="bilinear", align_corners=False
            )
            for one, other in zip(self.extractor(pieces[:, :1]), self.extractor(pieces[:, 1:]), strict=True)
        )
        return self.slicer.stack(distance.sqrt(), index, scan.shape[1:])


class Mahalanobis:
    """Distance of the scan from the mean of several reconstructions, in standard deviations of these.

    Args:
        least: lowest standard deviation, in intensities.
    """

    def __init__(self, least: float = 0.02) -> None:
        self.least = least

    def __call__(self, scan: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        deviation = healthy.std(dim=0, keepdim=True, unbiased=False).square() + self.least**2
        return (scan - healthy.mean(dim=0, keepdim=True)).abs() / deviation.sqrt()


class Product:
    """What all measures see, for example ``|difference| (1 - SSIM)``."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self.measures = list(measures)

    def __call__(self, scan: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        return torch.stack([measure(scan, healthy, brain) for measure in self.measures]).prod(dim=0)


class Fusion:
    """The mean of several measures, each in units of its own mean in the brain."""

    def __init__(self, measures: Sequence[Measure]) -> None:
        self.measures = list(measures)

    def __call__(self, scan: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor) -> torch.Tensor:
        found = [measure(scan, healthy, brain) for measure in self.measures]
        inside = brain > 0
        return torch.stack([values / values[inside].mean().clamp(min=1e-6) for values in found]).mean(dim=0)


class Residuald(MapTransform):
    """Add ``score``, the distance of the scan from its predictions.

    Args:
        keys: one or several predictions of the scan without disease.
        measure: one of the measures of this module.
        image_key: the scan.
        brain_key: brain mask.
        score_key: where the distance goes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        measure: Measure,
        image_key: str = "scan",
        brain_key: str = "brain",
        score_key: str = "score",
    ) -> None:
        super().__init__(keys)
        self.score_key = score_key
        self.measure = measure
        self.image_key = image_key
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        scan, brain, *healthy = (
            convert_to_tensor(data[key], track_meta=False).float()
            for key in (self.image_key, self.brain_key, *self.keys)
        )
        score = self.measure(scan, torch.cat(healthy), brain)
        return {**data, self.score_key: MetaTensor(score, meta=dict(data[self.image_key].meta))}
