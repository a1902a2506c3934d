"""What changed between two scans of one person in one modality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.networks.layers import GaussianFilter
from monai.transforms import CropForeground
from scipy import ndimage
from scipy.linalg import sqrtm
from torch.nn.functional import avg_pool3d, interpolate

from ..errors import InputError
from ..neighbourhood import mean_nearby
from ..preprocessing.align import AlignToRAS
from ..preprocessing.coregister import moved_onto
from ..residual.scan_error import scan_error
from ..volumes import voxel_ml
from .session import Look, placed

__all__ = ["CHANGES", "Change", "ChangeScore", "changed_parts"]

CHANGES = {1: "new", 2: "grown", 3: "shrunk", 4: "gone"}  # value in a map of changes
RING = 4  # voxels around a part that are its surroundings
SEEN = 1 / 3  # share of the contrast of a part that the other visit must have for the part to be there, too
CORE_SHARE = 0.3  # of the score of the core of a change, down to which it reaches
ALIKE = 0.3  # difference of the logarithms of both scans, beyond which a voxel says nothing of the coils


@dataclass
class Change:
    """Two scans of one person, halfway between both.

    Attributes:
        score: ``(1, X, Y, Z)``, how far both differ in units of what is usual at such places; positive where the second is more
            anomalous, negative where the first is.
        scans: both on that grid, on one scale.
        scores: of both, 1 at the limit of healthy people.
        drawn: healthy T1w of both.
        motions: of both, the rigid motion from this grid to the scan, 4x4 on RAS mm.
        likeness: of both healthy T1w, see `Together`.
    """

    score: MetaTensor
    scans: tuple[MetaTensor, MetaTensor]
    scores: tuple[MetaTensor, MetaTensor]
    drawn: tuple[MetaTensor, MetaTensor]
    motions: tuple[np.ndarray, np.ndarray]
    likeness: float


class ChangeScore:
    """Compare two scans of one person.

    A difference of the scans tells more than two scores: it knows no healthy brain that may be drawn wrong. A score tells that a
    difference is one of lesions. So both count:

    - The healthy T1w of both scans are registered rigidly. Both scans are resampled once, to a space halfway between them, so that
      neither is sharper (M. Reuter et al., Within-subject template estimation, NeuroImage 2012).
    - A factor and a smooth field, found where both are alike, bring them to one scale.
    - The difference is averaged over a millimetre, and divided by what it usually is at places of this kind (`scan_error`).
    - It counts where one of the two scores at least comes near its limit.

    Args:
        voxel_size: of the space halfway, mm.
        near: score from which a place may have changed; 1 is the limit of healthy people.
        smoothing: standard deviation of the Gaussian that averages the difference, mm.
        coil: the same of the field between both, mm.
        likeness: of two healthy T1w below which they are not of one brain.
    """

    def __init__(
        self, voxel_size: float, near: float, smoothing: float = 1.0, coil: float = 15.0, likeness: float = 0.5
    ) -> None:
        self.align = AlignToRAS(voxel_size)
        self.coarse = AlignToRAS(2.0)
        self.near = near
        self.smoothing = smoothing
        self.coil = coil
        self.likeness = likeness

    def __call__(self, first: tuple[Look, MetaTensor], second: tuple[Look, MetaTensor]) -> Change:
        """
        Args:
            first, second: what a scan says, and the scan as it was read.

        Raises:
            InputError: when both are not of one brain.
        """
        motion, _, likeness = placed(*(self.coarse(look.drawn) for look, _ in (first, second)), self.likeness)
        if likeness < self.likeness:
            raise InputError(
                f"{first[0].name} and {second[0].name} are not alike (likeness {likeness:.2f}, below {self.likeness}): one of them "
                "is damaged, or they are of two people"
            )
        half = np.real(sqrtm(motion))
        ways = (half, np.linalg.inv(half))
        there = MetaTensor(first[0].drawn.as_tensor(), affine=torch.as_tensor(half) @ first[0].drawn.affine.double())
        grid = CropForeground(margin=5, allow_smaller=True)(self.align(there))

        def on_it(volume: MetaTensor, way: np.ndarray) -> MetaTensor:
            return moved_onto(volume, way, grid)

        scans, scores, drawn = (
            tuple(on_it(volume, way) for volume, way in zip(volumes, ways))
            for volumes in zip(*((scan, look.score, look.drawn) for look, scan in (first, second)))
        )
        brain = (drawn[0].as_tensor() > 0) & (drawn[1].as_tensor() > 0)
        scans = self._on_one_scale(scans, brain)
        score = self._score(scans, scores, drawn, brain)
        return Change(score, scans, scores, drawn, (np.linalg.inv(half), half), likeness)

    def _on_one_scale(self, scans: tuple[MetaTensor, MetaTensor], brain: torch.Tensor) -> tuple[MetaTensor, MetaTensor]:
        """Both scans, white matter at about 1, without the factor and the field between them; 0 outside of the brain."""
        first, second = (scan.as_tensor().clamp(min=0.0) * brain for scan in scans)
        if not bool(brain.any()):
            return scans
        levels = [float(values[brain].median().clamp(min=1e-6)) for values in (first, second)]
        floor = 0.01
        ratio = torch.log((second / levels[1]).clamp(min=floor) / (first / levels[0]).clamp(min=floor))
        alike = brain & ((ratio - ratio[brain].median()).abs() < ALIKE)
        field = self._field(ratio, alike, scans[0])
        white = float(np.percentile((first / levels[0])[brain].numpy(), 75))
        return (
            MetaTensor(first / levels[0] * torch.exp(field / 2) / white * brain, affine=scans[0].affine),
            MetaTensor(second / levels[1] * torch.exp(-field / 2) / white * brain, affine=scans[0].affine),
        )

    def _field(self, ratio: torch.Tensor, alike: torch.Tensor, grid: MetaTensor) -> torch.Tensor:
        """The ratio, smoothed as far as a field of coils is smooth: on a grid that is a third as wide as the Gaussian."""
        step = max(1, round(self.coil / 3.0 / float(min(affine_to_spacing(grid.affine)))))
        share, total = (
            avg_pool3d(values[None], step, ceil_mode=True, count_include_pad=False)
            for values in (alike.float(), ratio * alike)
        )
        gaussian = GaussianFilter(3, self.coil / step / float(min(affine_to_spacing(grid.affine))), truncated=3.0)
        coarse = gaussian(total) / gaussian(share).clamp(min=1e-2)
        return interpolate(coarse, ratio.shape[1:], mode="trilinear")[0]

    def _score(self, scans, scores, drawn, brain: torch.Tensor) -> MetaTensor:
        grid = scans[0]
        deep = torch.from_numpy(ndimage.binary_erosion(brain[0].numpy()))[None]
        difference, spacing = scans[1].as_tensor() - scans[0].as_tensor(), affine_to_spacing(grid.affine).tolist()
        off = mean_nearby(difference, deep, self.smoothing, spacing)[0] * deep
        healthy = (drawn[0].as_tensor() + drawn[1].as_tensor()) / 2 * brain
        noise = 1.4826 * float(off[deep].abs().median()) + 1e-6 if bool(deep.any()) else 1.0
        size = off.abs() / noise / scan_error(off, healthy, deep.float())
        first, second = (score.as_tensor() for score in scores)
        size = size * (torch.maximum(first, second) >= self.near)
        return MetaTensor(torch.where(second >= first, size, -size), affine=grid.affine)


def changed_parts(change: Change, limit: float, min_volume_ml: float) -> MetaTensor:
    """What became anomalous or normal again, as `CHANGES` name it, uint8.

    A part is new where the scan before had less than a third of its contrast to the surroundings, and touches nothing that was over
    the limit of healthy people before; else it grew. The same backwards for what is gone and what shrank.

    Args:
        change: of two scans.
        limit: of its score.
        min_volume_ml: smaller connected parts are dropped.
    """
    found = np.zeros(change.score.shape[1:], dtype=np.uint8)
    values = np.asarray(change.score[0])
    least = min_volume_ml / voxel_ml(change.score)
    for sign, alone, beside, other in ((1.0, 1, 2, 0), (-1.0, 4, 3, 1)):
        anomalous = np.asarray(change.scores[other][0]) > 1.0
        parts, _ = ndimage.label(sign * values > limit)
        for number, box in enumerate(ndimage.find_objects(parts), start=1):
            wide = tuple(slice(max(0, part.start - RING), part.stop + RING) for part in box)
            inside = parts[wide] == number
            # Of a strong change even what two interpolations blur exceeds the limit.
            core = np.percentile(np.abs(values[wide])[inside], 95)
            inside &= np.abs(values[wide]) >= CORE_SHARE * core
            if inside.sum() < least:
                continue
            touched = (ndimage.binary_dilation(inside) & ~inside & anomalous[wide]).any()
            ring = ndimage.binary_dilation(inside, iterations=RING) & ~ndimage.binary_dilation(inside)
            ring &= np.asarray(change.drawn[0][0])[wide] > 0
            contrasts = [
                float(scan[inside].mean() - np.median(scan[ring])) if ring.any() else 0.0
                for scan in (np.asarray(volume[0])[wide] for volume in change.scans)
            ]
            seen = contrasts[other] / contrasts[1 - other] if contrasts[1 - other] else 0.0
            found[wide][inside] = beside if touched or seen > SEEN else alone
    return MetaTensor(torch.from_numpy(found)[None], affine=change.score.affine)
