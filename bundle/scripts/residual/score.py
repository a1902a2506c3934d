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
from .connected import connected_score
from .scan_error import scan_error

__all__ = [
    "AnomalyScored",
    "Calibration",
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
        modalities: by modality, ``limit``, the score that becomes 1.
        about: what it rests on: the promise, the hash of the weights, the settings of the score.
        sessions: what `scripts.evaluation.SessionScore` takes: limits of the scores of several scans together.
    """

    def __init__(
        self,
        modalities: Mapping[str, Mapping[str, Any]],
        about: Mapping[str, Any],
        sessions: Mapping[str, Any] | None = None,
    ) -> None:
        self.about = dict(about)
        self.sessions = dict(sessions or {})
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
        calibration = Calibration(content["modalities"], content["about"], content.get("sessions"))
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

    The difference from the reference is divided by what it usually is at such places of this very scan (`scan_error`), lets faint
    borders count by their core (`connected_score`), and is divided by the limit of the calibration, below which healthy scans stay.

    Args:
        keys: one key, the reference: the healthy scan in the scan's own contrast, as a match of contrasts gives it.
        reference_of: by modality, the key of another reference.
        image_key: the scan.
        brain_key: brain mask.
        healthy_key: healthy T1w, in which a place is looked up.
        modality_key: modality of the scan.
        score_key: where the score goes, ``(1, X, Y, Z)``, not negative, 0 outside the brain.
        calibration: a `Calibration`, or None.
        brighter: modalities in which only what is brighter than the healthy brain counts.
        core_share: see `connected_score`.

    Raises:
        InputError: when the calibration does not know the modality.
    """

    def __init__(
        self,
        keys: KeysCollection,
        reference_of: Mapping[str, str] | None = None,
        image_key: str = "scan",
        brain_key: str = "brain",
        healthy_key: str = "pred_healthy",
        modality_key: str = "modality",
        score_key: str = "score",
        calibration: Calibration | None = None,
        brighter: Sequence[str] = (),
        core_share: float = 1.0,
    ) -> None:
        super().__init__(keys)
        self.reference_of = dict(reference_of or {})
        self.image_key = image_key
        self.brain_key = brain_key
        self.healthy_key = healthy_key
        self.modality_key = modality_key
        self.score_key = score_key
        self.calibration = calibration
        self.brighter = tuple(brighter)
        self.core_share = core_share

    def limit(self, modality: str | None) -> float:
        """The score that becomes 1 in a modality."""
        if self.calibration is None:
            return 1.0
        known = known_as(modality, self.calibration.limit)
        if known not in self.calibration.limit:
            raise InputError(
                f"the calibration knows {', '.join(self.calibration.limit)}, not {modality}; run calibrating with such scans, "
                "or name the nearest --modality"
            )
        return self.calibration.limit[known]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        image, brain, modality = data[self.image_key], data[self.brain_key], data.get(self.modality_key)
        limit = self.limit(modality)
        reference = data[self.reference_of.get(modality, self.keys[0])]
        usual = scan_error(image - reference, data[self.healthy_key], brain)
        found = difference(image, reference, brain, modality in self.brighter) / usual
        return {**data, self.score_key: connected_score(found, self.core_share) * (brain > 0) / limit}
