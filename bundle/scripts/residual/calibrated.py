"""The score of UNA: a difference in units of what healthy people show."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from ..errors import InputError
from ..modalities import known_as
from ..saving import file_hash
from .symmetric import extreme_of_other_side
from .usual_error import UsualError, scan_error

__all__ = [
    "AnomalyScored",
    "Calibration",
    "difference",
    "load_calibration",
]


def difference(
    image: torch.Tensor,
    healthy: torch.Tensor,
    brain: torch.Tensor,
    brighter: bool = False,
    other_side: torch.Tensor | None = None,
) -> torch.Tensor:
    """|scan - healthy| inside the brain (paper Sec. 5.3), not negative. Meaningful where both have one contrast.

    Args:
        image, healthy: ``(1, X, Y, Z)``, on one scale.
        brain: mask of the same shape.
        brighter: only what is brighter than the healthy brain counts.
        other_side: what is darker than the healthy brain counts as far as it is darker than this, too; with `brighter`, what is
            brighter. See `extreme_of_other_side`.
    """
    off = image - healthy
    if other_side is not None and brighter:
        off = torch.minimum(off, (image - other_side).clamp(min=0.0))
    elif other_side is not None:
        off = torch.where(off < 0, torch.maximum(off, (image - other_side).clamp(max=0.0)), off)
    return (off.clamp(min=0.0) if brighter else off.abs()) * (brain > 0)


class Calibration:
    """What healthy people showed under given weights.

    Args:
        modalities: by modality, ``limit`` (the score that becomes 1) and ``usual``, by reference the table of a `UsualError`, empty
            for modalities that are weighed by the scan itself.
        about: what it rests on: the promise, the hash of the weights, the settings of the score.
    """

    def __init__(self, modalities: Mapping[str, Mapping[str, Any]], about: Mapping[str, Any]) -> None:
        self.about = dict(about)
        self.usual = {
            name: {reference: UsualError(table) for reference, table in known["usual"].items()}
            for name, known in modalities.items()
        }
        self.limit = {name: float(known["limit"]) for name, known in modalities.items()}


def load_calibration(
    path: str | Path | bool | None, weights: str | Path, settings: Mapping[str, Any] | None = None
) -> Calibration | None:
    """Read the JSON file that ``run calibrating`` writes.

    Args:
        path: of the file; None or False, which a command line can say, for no calibration.
        weights: file of the weights that the score comes from.
        settings: what shapes the score beside the weights, values that JSON has.

    Raises:
        InputError: when it is missing, is no such file, or was made with other weights or settings.
    """
    if not path:
        return None
    remedy = (
        "run calibrating with your weights and settings (see bundle/configs/calibrate.yaml), or leave it out by --method_settings "
        "\"{'calibration':False}\" with a --threshold of your own"
    )
    try:
        content = json.loads(Path(path).read_text())
        calibration = Calibration(content["modalities"], content["about"])
        made_with = calibration.about["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no calibration of a score; {remedy}") from error
    if Path(weights).is_file() and file_hash(weights) != made_with:
        raise InputError(f"{path} was made with other weights than {weights}; {remedy}")
    wanted, had = json.loads(json.dumps(dict(settings or {}))), calibration.about.get("settings", {})
    if differing := sorted(key for key in {*wanted, *had} if wanted.get(key) != had.get(key)):
        raise InputError(f"{path} was made with other values of {', '.join(differing)}; {remedy}")
    return calibration


class AnomalyScored(MapTransform):
    """Score how far a scan is from what it would be without disease, in units of what healthy people show.

    The difference from each reference is divided by what it usually is at the place: of other, healthy people (`UsualError`), or,
    in the modalities that are `weighed`, of the scan itself (`scan_error`). The score is the geometric mean over the references,
    divided by the limit of the calibration, below which healthy scans stay. So both references must see an anomaly: one alone is
    often wrong. With one reference and without a calibration the score is the difference itself.

    In the modalities that are `symmetric` what is dark (of those that are `brighter`, what is bright) counts as far as the other
    side of the brain is not the same, see `extreme_of_other_side`: wide ventricles are the usual false finding of old age, and a
    large lesion is rarely on both sides.

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
        symmetric: by modality in which the other side counts, the reach in voxels, see `extreme_of_other_side`.
        mirrored_key: the mirrored scan.
        depth, radius: voxels, see `extreme_of_other_side`.

    Raises:
        InputError: when the calibration does not know the modality.
    """

    def __init__(
        self,
        keys: KeysCollection,
        only: Mapping[str, Sequence[str]] | None = None,
        image_key: str = "scan",
        brain_key: str = "brain",
        healthy_key: str = "pred_healthy",
        modality_key: str = "modality",
        score_key: str = "score",
        calibration: Calibration | None = None,
        weighed: Sequence[str] = (),
        brighter: Sequence[str] = (),
        symmetric: Mapping[str, int] | None = None,
        mirrored_key: str = "mirrored",
        depth: float = 0.0,
        radius: int = 0,
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
        self.symmetric = dict(symmetric or {})
        self.mirrored_key = mirrored_key
        self.depth = depth
        self.radius = radius

    def references(self, modality: str | None) -> tuple[Hashable, ...]:
        """Keys of the references that count in a modality."""
        return tuple(self.only.get(modality, self.keys))

    def differences(
        self, data: Mapping[Hashable, torch.Tensor], both_sides: bool = True
    ) -> dict[Hashable, torch.Tensor]:
        """By reference, the difference of the scan from it, weighed by the scan itself where that is wanted.

        Args:
            data: a case with the references.
            both_sides: False leaves the other side out, for what is usual at a place.
        """
        image, brain, modality = data[self.image_key], data[self.brain_key], data.get(self.modality_key)
        found, brighter, other_side = {}, modality in self.brighter, None
        if both_sides and modality in self.symmetric:
            place = {"reach": self.symmetric[modality], "depth": self.depth, "radius": self.radius}
            other_side = extreme_of_other_side(data[self.mirrored_key], brain, **place, brightest=brighter)
        for key in self.references(modality):
            found[key] = difference(image, data[key], brain, brighter, other_side)
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
        modality, limit, usual = data.get(self.modality_key), 1.0, {}
        if self.calibration is not None:
            modality = known_as(modality, self.calibration.limit)
            if modality not in self.calibration.limit:
                raise InputError(
                    f"the calibration knows {', '.join(self.calibration.limit)}, not {modality}; run calibrating with such scans, "
                    "or name the nearest --modality"
                )
            limit, usual = self.calibration.limit[modality], self.calibration.usual[modality]
        found = self.differences({**data, self.modality_key: modality})
        for key in usual:
            found[key] = found[key] / usual[key](data[self.healthy_key], data[self.brain_key])
        return {**data, self.score_key: self.combine(found) / limit}
