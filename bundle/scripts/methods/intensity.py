"""Methods without a network: what every other method must beat."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import HistogramNormalize, generate_spatial_bounding_box
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import gaussian_filter

from ..errors import InputError
from ..modalities import known_as
from .method import Method

__all__ = ["Contralateral", "GaussianAtlas", "IntensityThreshold", "equalized_intensity"]


def equalized_intensity(image: MetaTensor, brain: torch.Tensor) -> MetaTensor:
    """Rank of each voxel's intensity among those of the brain, in [0, 1]; 0 outside.

    Args:
        image: ``(1, X, Y, Z)``.
        brain: mask of the same shape.
    """
    mask = brain > 0
    if not mask.any():
        return torch.zeros_like(image)
    equalize = HistogramNormalize(num_bins=1024, min=0, max=1, mask=mask.cpu().numpy(), dtype=None)
    return convert_to_dst_type(equalize(image), image)[0] * mask


class IntensityThreshold(Method):
    """Bright or dark voxels, after a histogram equalization. Unsupervised methods are often found not to beat it.

    Args:
        bright: modalities in which lesions are taken to be bright; they are dark in the others.
        priors: see `Method`.

    References:
        F. Meissen, G. Kaissis, D. Rueckert, Challenging Current Semi-Supervised Anomaly Segmentation Methods for Brain MRI, 2021.
    """

    def __init__(self, bright: Sequence[str], priors: Sequence[str] = ()) -> None:
        super().__init__((), priors)
        self.bright = tuple(bright)

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        rank = equalized_intensity(case["scan"], case["brain"])
        return {"score": rank if case["modality"] in self.bright else 1.0 - rank}


class Contralateral(Method):
    """The difference between the scan and its mirror image: a brain is nearly symmetric, most lesions are not."""

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        return {"score": (case["scan"] - case["mirrored"]).abs(), "pred_healthy": case["mirrored"]}


class GaussianAtlas(Method):
    """Mean and standard deviation of healthy scans of each modality in every voxel; the score is the distance in deviations.

    Brains are laid over each other by the boxes around them: coarse, but without a registration that a lesion could mislead.

    Args:
        grid: of the atlas, voxels.
        smoothing: standard deviation of a Gaussian filter of scans before they are compared, voxels of the atlas.
        least: lowest standard deviation, in intensities.
        sees: see `Method`.
    """

    def __init__(
        self, grid: Sequence[int], smoothing: float, least: float, sees: Sequence[str] = ("healthy scans",)
    ) -> None:
        super().__init__(sees)
        self.grid = tuple(grid)
        self.smoothing = smoothing
        self.least = least
        self.atlas: dict[str, torch.Tensor] = {}

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        return dict(self.atlas)

    def set_extra_state(self, state: Mapping[str, torch.Tensor]) -> None:
        self.atlas = dict(state)

    def _box(self, brain: torch.Tensor) -> tuple[slice, ...]:
        start, end = generate_spatial_bounding_box(convert_to_tensor(brain, track_meta=False))
        return (slice(None), *map(slice, start, end))

    def _on_atlas(self, case: Mapping[Hashable, Any]) -> torch.Tensor:
        scan = convert_to_tensor(case["scan"], track_meta=False)[self._box(case["brain"])]
        fitted = torch.nn.functional.interpolate(scan[None], self.grid, mode="trilinear", align_corners=False)[0, 0]
        return torch.from_numpy(gaussian_filter(fitted.numpy(), self.smoothing))

    def fit(self, cases: Iterable[Mapping[Hashable, Any]]) -> None:
        sums: dict[str, list[torch.Tensor]] = {}
        for case in cases:
            values = self._on_atlas(case).double()
            known = sums.setdefault(str(case["modality"]), [torch.zeros_like(values) for _ in range(3)])
            for total, more in zip(known, (torch.ones_like(values), values, values.square())):
                total += more
        for modality, (count, total, squares) in sums.items():
            mean = total / count
            deviation = (squares / count - mean.square()).clamp(min=0.0).sqrt().clamp(min=self.least)
            self.atlas[modality] = torch.stack([mean, deviation]).float()

    def maps(self, case: Mapping[Hashable, Any]) -> dict[str, MetaTensor]:
        modality = known_as(case["modality"], self.atlas)
        if modality not in self.atlas:
            known = ", ".join(self.atlas) or "nothing"
            raise InputError(f"the atlas knows {known}, not {modality}; add healthy scans of it to 'training'")
        mean, deviation = self.atlas[modality]
        distance = (self._on_atlas(case) - mean).abs() / deviation
        box = self._box(case["brain"])
        healthy, score = (torch.zeros(case["scan"].shape) for _ in range(2))
        size = case["scan"][box].shape[1:]
        for volume, values in ((healthy, mean), (score, distance)):
            volume[box] = torch.nn.functional.interpolate(
                values[None, None], size, mode="trilinear", align_corners=False
            )[0]
        meta = dict(case["scan"].meta)
        return {"score": MetaTensor(score, meta=meta), "pred_healthy": MetaTensor(healthy, meta=meta)}
