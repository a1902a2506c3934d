"""From scan and healthy reconstruction to an anomaly score and a lesion mask."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
from monai.transforms import MapTransform, MedianSmooth, RemoveSmallObjects, ResampleToMatch, Transform
from monai.utils import convert_to_dst_type

from ..errors import InputError
from .usual_error import UsualError, scan_error

__all__ = [
    "AnomalyScored",
    "Calibration",
    "LesionMask",
    "LesionMaskd",
    "SmoothScore",
    "SmoothScored",
    "difference",
    "load_calibration",
]


def difference(image: torch.Tensor, healthy: torch.Tensor, brain: torch.Tensor, brighter: bool = False) -> torch.Tensor:
    """|scan - healthy| inside the brain (paper Sec. 5.3), not negative. Meaningful where both have one contrast.

    Args:
        image, healthy: ``(1, X, Y, Z)``, on one scale.
        brain: mask of the same shape.
        brighter: only what is brighter than the healthy brain counts.
    """
    off = image - healthy
    return (off.clamp(min=0.0) if brighter else off.abs()) * (brain > 0)


class Calibration:
    """What healthy people showed under given weights.

    Args:
        modalities: by modality, ``limit`` (the score that becomes 1), ``references``, the keys of the references of the score,
            and ``usual``, by reference the table of a `UsualError`, empty for modalities that are weighed by the scan itself.
        about: what it rests on: the promise, the hash of the weights.
    """

    def __init__(self, modalities: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.references = {name: tuple(known["references"]) for name, known in modalities.items()}
        self.usual = {
            name: {reference: UsualError(table) for reference, table in known["usual"].items()}
            for name, known in modalities.items()
        }
        self.limit = {name: float(known["limit"]) for name, known in modalities.items()}


def load_calibration(path: str | Path | bool | None, weights: str | Path) -> Calibration | None:
    """Read the JSON file that ``run calibrating`` writes.

    Args:
        path: of the file; None or False, which a command line can say, for no calibration.
        weights: file of the weights that the score comes from.

    Raises:
        InputError: when it is missing, is no such file, or was made with other weights.
    """
    if not path:
        return None
    remedy = (
        "run calibrating with your weights (see bundle/configs/calibrate.yaml), or set --calibration False and a --threshold of "
        "your own"
    )
    try:
        content = json.loads(Path(path).read_text())
        calibration = Calibration(content["modalities"], content["about"])
        made_with = content["about"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no calibration of a score; {remedy}") from error
    if Path(weights).is_file() and hashlib.sha256(Path(weights).read_bytes()).hexdigest() != made_with:
        raise InputError(f"{path} was made with other weights than {weights}; {remedy}")
    return calibration


class AnomalyScored(MapTransform):
    """Score how far a scan is from what it would be without disease, in units of what healthy people show.

    The difference from each reference is divided by what it usually is at the place: of other, healthy people (`UsualError`), or,
    in the modalities that are `weighed`, of the scan itself (`scan_error`). The score is the geometric mean over the references,
    divided by the limit of the calibration, below which healthy scans stay. So both references must see an anomaly: one alone is
    often wrong. With one reference and without a calibration the score is the difference itself.

    Args:
        keys: the references, each a healthy scan in the scan's own contrast, as a match of contrasts or the network gives it.
        only: by modality, the references that count, where not all of them do.
        image_key: the scan.
        brain_key: brain mask.
        healthy_key: healthy T1w, in which a place is looked up.
        modality_key: modality of the scan.
        score_key: where the score goes, ``(1, X, Y, Z)``, not negative, 0 outside the brain.
        calibration: a `Calibration`, or None.
        weighed: modalities whose difference is weighed by the scan itself.
        brighter: modalities in which only what is brighter than the healthy brain counts.

    Raises:
        InputError: when the calibration does not know the modality, or was made with other references.
    """

    def __init__(
        self,
        keys: KeysCollection,
        only: Mapping[str, Sequence[str]] | None = None,
        image_key: str = "scan",
        brain_key: str = "brain",
        healthy_key: str = "pred_healthy",
        modality_key: str = "modality",
        score_key: str = "anomaly",
        calibration: Calibration | None = None,
        weighed: Sequence[str] = (),
        brighter: Sequence[str] = (),
    ) -> None:
        super().__init__(keys)
        self.only = only or {}
        self.image_key = image_key
        self.brain_key = brain_key
        self.healthy_key = healthy_key
        self.modality_key = modality_key
        self.score_key = score_key
        self.calibration = calibration
        self.weighed = tuple(weighed)
        self.brighter = tuple(brighter)

    def references(self, modality: str | None) -> tuple[Hashable, ...]:
        """Keys of the references that count in a modality."""
        return tuple(self.only.get(modality, self.keys))

    def differences(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        """By reference, the difference of the scan from it, weighed by the scan itself where that is wanted."""
        image, brain, modality = data[self.image_key], data[self.brain_key], data.get(self.modality_key)
        found = {}
        for key in self.references(modality):
            found[key] = difference(image, data[key], brain, modality in self.brighter)
            if modality in self.weighed:
                found[key] = found[key] / scan_error(image - data[key], data[self.healthy_key], brain)
        return found

    @staticmethod
    def combine(differences: Mapping[Hashable, torch.Tensor]) -> torch.Tensor:
        """Geometric mean over the references."""
        if len(differences) == 1:
            return next(iter(differences.values()))
        return sum(values.log() for values in differences.values()).div(len(differences)).exp()

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        found, modality, limit = self.differences(data), data.get(self.modality_key), 1.0
        if self.calibration is not None:
            if modality not in self.calibration.limit:
                raise InputError(
                    f"the calibration knows {', '.join(self.calibration.limit)}, not {modality}; run calibrating with such scans, "
                    "or name the nearest --modality"
                )
            if self.calibration.references[modality] != self.references(modality):
                raise InputError(
                    f"the calibration compares a {modality} with {', '.join(self.calibration.references[modality])}, not with "
                    f"{', '.join(self.references(modality))}; run calibrating with these references, or set --calibration False "
                    "and a --threshold of your own"
                )
            limit, usual = self.calibration.limit[modality], self.calibration.usual[modality]
            for key in usual:
                found[key] = found[key] / usual[key](data[self.healthy_key], data[self.brain_key])
        return {**data, self.score_key: self.combine(found) / limit}


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


class SmoothScored(MapTransform):
    """Dictionary form of `SmoothScore`."""

    def __init__(self, keys: KeysCollection, radius: float) -> None:
        super().__init__(keys)
        self.transform = SmoothScore(radius)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key])
        return d


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
            grid: volume whose grid the mask is wanted on; None for that of the score.

        Returns:
            uint8 mask.
        """
        above = convert_to_dst_type((score > self.threshold).to(torch.uint8), score, dtype=torch.uint8)[0]
        kept = convert_to_dst_type(self.remove_small(above), score, dtype=torch.uint8)[0]
        # What was dropped sinks to the threshold, so that no interpolation lifts it again.
        cut = torch.where((above > 0) & (kept == 0), float(self.threshold), score)
        if grid is not None:
            cut = ResampleToMatch(mode="bilinear", padding_mode="zeros", dtype=torch.float32)(cut, img_dst=grid)
        return convert_to_dst_type((cut > self.threshold).to(torch.uint8), cut, dtype=torch.uint8)[0]


class LesionMaskd(MapTransform):
    """Dictionary form of `LesionMask`.

    Args:
        keys: one key, the score.
        mask_key: where the mask goes.
        grid_key: volume whose grid the mask is wanted on; None for that of the score.
        lesion_mask: arguments of `LesionMask`.
    """

    def __init__(
        self, keys: KeysCollection, mask_key: str = "lesion", grid_key: str | None = None, **lesion_mask
    ) -> None:
        super().__init__(keys)
        self.transform = LesionMask(**lesion_mask)
        self.mask_key = mask_key
        self.grid_key = grid_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        grid = None if self.grid_key is None else data[self.grid_key]
        return {**data, self.mask_key: self.transform(data[self.keys[0]], grid)}
