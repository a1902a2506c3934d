"""Several scans of one person and session: one score, on the grid of the best of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing

from ..errors import InputError
from ..neighbourhood import mean_nearby
from ..preprocessing.align import AlignToRAS
from ..preprocessing.coregister import moved_onto, rigid_registration

__all__ = ["Look", "SessionScore", "Together", "placed", "sessions_of", "set_name"]

SURROUNDINGS = 6.0  # mm, standard deviation of the Gaussian that is their mean


@dataclass
class Look:
    """What one scan of a session says.

    Attributes:
        name: of the scan.
        modality: of the scan.
        score: ``(1, X, Y, Z)``, post-processed, 1 at the limit of the scan.
        drawn: the healthy T1w that was drawn from the scan, 0 outside of the brain, on any grid.
    """

    name: str
    modality: str
    score: MetaTensor
    drawn: MetaTensor


@dataclass
class Together:
    """The scans of a session on one grid, that of the best of them.

    Attributes:
        looks: the scans that count, the best first.
        motions: of each, the rigid motion from the best scan to it, 4x4 on RAS mm.
        likeness: of each, how its healthy T1w correlates with that of the best scan in what differs from the surroundings.
        scores: of each, ``(1, X, Y, Z)``.
        drawn: of each, the healthy T1w, likewise.
        left_out: by name of a scan, why it does not count.
    """

    looks: list[Look]
    motions: list[np.ndarray]
    likeness: list[float]
    scores: list[MetaTensor]
    drawn: list[MetaTensor]
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def modalities(self) -> str:
        """See `set_name`."""
        return set_name(look.modality for look in self.looks)

    def only(self, numbers: Sequence[int]) -> Together:
        """Some of its scans."""
        lists = (
            (values[n] for n in numbers)
            for values in (self.looks, self.motions, self.likeness, self.scores, self.drawn)
        )
        return Together(*map(list, lists), self.left_out)

    @property
    def healthy(self) -> MetaTensor:
        """The healthy T1w of the person: that of the T1w. Where there is none, each of the others draws it as well as it can, and
        this is their mean."""
        best = self.drawn[0]
        if self.looks[0].modality == "t1":
            return best
        drawn = torch.stack([t1.as_tensor() for t1 in self.drawn])
        return MetaTensor(drawn.sum(dim=0) / (drawn > 0).sum(dim=0).clamp(min=1), affine=best.affine)


def sessions_of(scans: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The entries of each session that has several scans, see `scripts.data.find_scans`."""
    sessions: dict[str, list[Mapping[str, Any]]] = {}
    for scan in scans:
        sessions.setdefault(scan.get("session", scan["subject"]), []).append(scan)
    return {name: entries for name, entries in sessions.items() if len(entries) > 1}


def set_name(modalities: Iterable[str]) -> str:
    """The name of a set of modalities: ``flair+t1``."""
    return "+".join(sorted(set(modalities)))


def _goodness(look: Look) -> tuple[bool, float]:
    """The finest T1w is the best scan, else the finest of all; the thickness of the slices counts."""
    return look.modality != "t1", max(affine_to_spacing(look.drawn.affine).tolist())


class SessionScore:
    """Combine the scores of the scans of one session.

    The healthy T1w of each scan is registered rigidly to that of the best one: both are T1w of the same brain without its lesion,
    whatever the scans are. A scan whose healthy T1w is not like it, because it moved or is of somebody else, is left out. The
    scores are combined by a weighted power mean, over those scans that reach a voxel::

        S = (sum w s^p / sum w)^(1/p) / limit

    p = 1 is the mean, and p towards 0 the geometric mean. No voxel gets more than its largest score. So at a limit of 1 a session
    finds nothing where all of its scans find nothing.

    Args:
        weights: by modality; 1 where it is not named.
        power: p, above 0.
        voxel_size: of the grid of the session, mm.
        likeness: of two healthy T1w, see `Together`, below which they are not of one brain.

    Raises:
        InputError: when the power is not above 0.
    """

    def __init__(self, weights: Mapping[str, float], power: float, voxel_size: float, likeness: float) -> None:
        if power <= 0:
            raise InputError(f"session_power {power} is not possible: it must be above 0; 1 is the mean")
        self.weights = {modality: float(weight) for modality, weight in weights.items()}
        self.power = float(power)
        self.align = AlignToRAS(voxel_size)
        self.likeness = likeness

    @property
    def settings(self) -> dict[str, Any]:
        """What a limit of the combined score depends on."""
        return {"weights": self.weights, "power": self.power}

    def register(self, looks: Sequence[Look]) -> Together:
        """The scans of a session, at least one, on one grid."""
        best, *others = sorted(looks, key=_goodness)
        fixed = self.align(best.drawn)
        found = Together([], [], [], [], [])
        for look in (best, *others):
            motion, drawn, similar = (
                (np.eye(4), fixed, 1.0) if look is best else placed(fixed, self.align(look.drawn), self.likeness)
            )
            if similar < self.likeness:
                found.left_out[look.name] = (
                    f"its healthy T1w is not like that of {best.name} (likeness {similar:.2f}, below {self.likeness}): the scan is "
                    "damaged, or of somebody else"
                )
                continue
            found.looks.append(look)
            found.motions.append(motion)
            found.likeness.append(similar)
            found.scores.append(moved_onto(look.score, np.linalg.inv(motion), fixed))
            found.drawn.append(drawn)
        return found

    def limit(self, found: Together, calibration: Mapping[str, Any] | None) -> float:
        """What the score of a session is divided by, see `combine`."""
        if not calibration or len(found.looks) < 2:
            return 1.0
        if calibration["settings"] != self.settings:
            raise InputError(
                f"the limits of sessions were made with {calibration['settings']}, not with {self.settings}; run calibrating "
                "with your session_weights and session_power, or give --sessions False"
            )
        return float(calibration["limits"].get(found.modalities, 1.0))

    def combine(self, found: Together, calibration: Mapping[str, Any] | None = None) -> MetaTensor:
        """The score of a session, ``(1, X, Y, Z)``.

        Args:
            found: its scans on one grid. A single one keeps its score.
            calibration: ``limits`` by `set_name` of the modalities, and the ``settings`` that they were made with; None, or a set
                that it does not know, for a limit of 1.

        Raises:
            InputError: when it was made with other settings.
        """
        scores = torch.stack([score.as_tensor() for score in found.scores]).clamp(min=0.0)
        weights = torch.stack(
            [
                (drawn.as_tensor() > 0) * self.weights.get(look.modality, 1.0)
                for look, drawn in zip(found.looks, found.drawn, strict=True)
            ]
        )
        mean = (weights * scores**self.power).sum(dim=0) / weights.sum(dim=0).clamp(min=1e-6)
        return MetaTensor(mean ** (1.0 / self.power) / self.limit(found, calibration), affine=found.drawn[0].affine)


def placed(fixed: MetaTensor, moving: MetaTensor, enough: float) -> tuple[np.ndarray, MetaTensor, float]:
    """The rigid motion from one healthy T1w to another, the other one where the first lies, and their likeness, see `Together`.

    Two scans of a session mostly lie in one world, also where one of them is cut off. Where they do not, the brains lie on each
    other at first.

    Args:
        fixed, moving: ``(1, X, Y, Z)``, 0 outside of the brain.
        enough: likeness with which the first guess is taken.
    """
    best = (np.eye(4), moving, 0.0)
    for start in (None, "CenterOfGravity"):
        try:
            motion = rigid_registration(fixed, moving, start=start)
        except InputError:  # elastix gives up where brains do not meet
            continue
        drawn = moved_onto(moving, np.linalg.inv(motion), fixed)
        best = max(best, (motion, drawn, _likeness(fixed, drawn)), key=lambda one: one[2])
        if best[2] >= enough:
            break
    return best


def _likeness(one: MetaTensor, other: MetaTensor) -> float:
    """Correlation of the folds of two brains on one grid: of what differs from the surroundings. 0 where they hardly meet.

    The whole images do not tell: two people of one scanner reach 0.77, and one person in two contrasts 0.86.
    """
    first, second = (volume.as_tensor().float() for volume in (one, other))
    both = ((first > 0) & (second > 0)).float()
    if float(both.sum()) < 0.3 * float((first > 0).sum()):
        return 0.0
    spacing = affine_to_spacing(one.affine).tolist()
    (mean, share), (other_mean, _) = (mean_nearby(volume, both, SURROUNDINGS, spacing) for volume in (first, second))
    deep = (share > 0.5) & (both > 0)
    folds = [(volume - around)[deep] for volume, around in ((first, mean), (second, other_mean))]
    return float(torch.corrcoef(torch.stack(folds))[0, 1])
