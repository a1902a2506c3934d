"""From a raw score to a lesion mask, the same for every method. Lengths are in mm, volumes in ml."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, MedianSmooth, RemoveSmallObjects, Transform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import distance_transform_edt

from ..errors import InputError
from ..volumes import on_grid

__all__ = ["ErodeScore", "LesionMask", "LesionMaskd", "PostProcessing", "PostProcessingd", "SmoothScore"]

# MONAI's RemoveSmallObjects still gives scikit-image the older name of a parameter, and every scan would say so.
warnings.filterwarnings("ignore", message="Parameter `min_size` is deprecated", category=FutureWarning)


class ErodeScore(Transform):
    """Set a score to 0 near the surface of the brain, where every mask is a little wrong.

    Args:
        depth: mm; 0 leaves the score as it is.
    """

    def __init__(self, depth: float) -> None:
        self.depth = depth

    def __call__(self, score: MetaTensor, brain: torch.Tensor) -> MetaTensor:
        """
        Args:
            score: ``(1, X, Y, Z)``.
            brain: mask of the same shape.
        """
        if self.depth <= 0:
            return score
        inside = convert_to_tensor(brain, track_meta=False).cpu().numpy()[0] > 0
        deep = distance_transform_edt(inside, sampling=affine_to_spacing(score.affine).tolist()) > self.depth
        return score * torch.from_numpy(deep)[None]


class SmoothScore(Transform):
    """Median filter of a score, by a length in mm, not in voxels.

    Args:
        radius: mm; 0 leaves the score as it is.
    """

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def __call__(self, score: MetaTensor) -> MetaTensor:
        """
        Args:
            score: ``(1, X, Y, Z)``.
        """
        voxels = [round(self.radius / size) for size in affine_to_spacing(score.affine).tolist()]
        return MedianSmooth(voxels)(score) if any(voxels) else score


class LesionMask(Transform):
    """Cut a score, and drop what is too small to be a lesion.

    Both happen on the grid of the score, and the score is brought to the grid of the scan before it is cut there: the volume does
    not depend on the voxel size of the scan.

    Args:
        threshold: score above which a voxel is lesion.
        min_volume_ml: smaller connected components are dropped.
    """

    def __init__(self, threshold: float, min_volume_ml: float) -> None:
        self.threshold = threshold
        self.remove_small = RemoveSmallObjects(
            min_size=1000.0 * min_volume_ml, by_measure=True, independent_channels=True
        )

    def __call__(self, score: MetaTensor, grid: MetaTensor | None = None) -> MetaTensor:
        """
        Args:
            score: ``(1, X, Y, Z)``, not negative.
            grid: volume that gives the grid of the mask; None for the grid of the score.

        Returns:
            uint8 mask.
        """
        above = convert_to_dst_type((score > self.threshold).to(torch.uint8), score, dtype=torch.uint8)[0]
        kept = convert_to_dst_type(self.remove_small(above), score, dtype=torch.uint8)[0]
        # What was dropped sinks to the threshold, so that no interpolation lifts it again.
        cut = torch.where((above > 0) & (kept == 0), float(self.threshold), score)
        if grid is not None:
            cut = on_grid(cut, grid)
        return convert_to_dst_type((cut > self.threshold).to(torch.uint8), cut, dtype=torch.uint8)[0]


class PostProcessing:
    """All that happens between the raw score of any method and its mask, on the working grid.

    Args:
        erosion: mm, of `ErodeScore`.
        smoothing: mm, of `SmoothScore`.
        min_volume_ml: of `LesionMask`.
    """

    def __init__(self, erosion: float, smoothing: float, min_volume_ml: float) -> None:
        self.erode = ErodeScore(erosion)
        self.smooth = SmoothScore(smoothing)
        self.min_volume_ml = min_volume_ml

    def __call__(self, score: MetaTensor, brain: torch.Tensor) -> MetaTensor:
        """The post-processed score.

        Args:
            score: ``(1, X, Y, Z)``, raw.
            brain: mask of the same shape.
        """
        return self.smooth(self.erode(score, brain))

    def mask(self, score: MetaTensor, threshold: float, grid: MetaTensor | None = None) -> MetaTensor:
        """The lesions of a post-processed score, on the grid of a scan."""
        return LesionMask(threshold, self.min_volume_ml)(score, grid)


class PostProcessingd(MapTransform):
    """Dictionary form of `PostProcessing`.

    Args:
        keys: scores; the post-processed ones take their places.
        postprocessing: shared by all methods.
        brain_key: brain mask.
    """

    def __init__(self, keys: KeysCollection, postprocessing: PostProcessing, brain_key: str = "brain") -> None:
        super().__init__(keys)
        self.postprocessing = postprocessing
        self.brain_key = brain_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.postprocessing(d[key], d[self.brain_key])
        return d


class LesionMaskd(MapTransform):
    """Post-process a score and cut it, see `PostProcessing`.

    Args:
        keys: one key, the score; the post-processed score takes its place.
        postprocessing: shared by all methods.
        threshold: score above which a voxel is lesion.
        brain_key: brain mask.
        mask_key: where the mask goes.
        grid_key: volume that gives the grid of the mask; None for the grid of the score.

    Raises:
        InputError: when there is no threshold.
    """

    def __init__(
        self,
        keys: KeysCollection,
        postprocessing: PostProcessing,
        threshold: float | None,
        brain_key: str = "brain",
        mask_key: str = "lesion",
        grid_key: str | None = None,
    ) -> None:
        super().__init__(keys)
        if threshold is None:
            raise InputError(
                "this method brings no threshold of its own: give --threshold, for example one of the 'thresholds' that "
                "run comparing wrote to comparison.json"
            )
        self.postprocessing = postprocessing
        self.threshold = threshold
        self.brain_key = brain_key
        self.mask_key = mask_key
        self.grid_key = grid_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        score = self.postprocessing(data[self.keys[0]], data[self.brain_key])
        grid = None if self.grid_key is None else data[self.grid_key]
        return {**data, self.keys[0]: score, self.mask_key: self.postprocessing.mask(score, self.threshold, grid)}
