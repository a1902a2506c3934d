"""Where a score is cut. Each rule says how much supervision its threshold had."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from monai.data import MetaTensor
from skimage.filters import threshold_otsu

from ..errors import InputError
from ..modalities import known_as
from ..volumes import voxel_ml
from .postprocess import LesionMask
from .voxels import LEVELS, precision_recall, quantile

__all__ = [
    "Conformal",
    "DiseasedValidation",
    "Fixed",
    "HealthyPercentile",
    "Otsu",
    "Record",
    "Rule",
    "keep_worst",
    "lowest_limit",
    "split_conformal",
]


@dataclass
class Record:
    """What is known of the score of one scan.

    Attributes:
        subject, modality: of the scan.
        diseased: whether it has a lesion.
        counts: see `count_voxels`, of the post-processed score.
        limits: by volume in ml, the lowest threshold at which no more than that is found; of healthy scans for validation alone.
        person: the person of the scan; "" for the subject.
    """

    subject: str
    modality: str
    diseased: bool
    counts: np.ndarray
    limits: Mapping[float, float] = field(default_factory=dict)
    person: str = ""


def lowest_limit(score: MetaTensor, largest_ml: float, min_volume_ml: float) -> float:
    """The lowest threshold at which no more than a volume is found in a scan.

    Args:
        score: ``(1, X, Y, Z)``, smoothed.
        largest_ml: the volume.
        min_volume_ml: of `LesionMask`.
    """
    each = voxel_ml(score)
    low, high = 0.0, float(score.max())
    for _ in range(20):
        middle = (low + high) / 2
        found = float(LesionMask(middle, min_volume_ml)(score).sum()) * each
        low, high = (middle, high) if found > largest_ml else (low, middle)
    return high


def keep_worst(people: dict[str, tuple[float, ...]], person: str, limits: Iterable[float]) -> None:
    """Note the limits of a scan: a person with several scans is left alone when the worst of them is."""
    limits = tuple(limits)
    people[person] = tuple(map(max, limits, people.get(person, limits)))


def split_conformal(limits: Sequence[float], share: float) -> float:
    """The limit below which the next exchangeable person's lies with probability `share` or more.

    The ``ceil((n + 1) share)``-th smallest of n limits (V. Vovk, A. Gammerman, G. Shafer, Algorithmic Learning in a Random World,
    2005).

    Raises:
        InputError: when there are too few people for such a promise.
    """
    rank = math.ceil((len(limits) + 1) * share - 1e-9)
    if rank > len(limits):
        needed = math.ceil(share / (1.0 - share) - 1e-9)
        raise InputError(
            f"{len(limits)} healthy people cannot promise anything about {share:.0%} of all; {needed} are needed, or a lower "
            "--share"
        )
    return float(sorted(limits)[rank - 1])


class Rule:
    """How a threshold is chosen: from validation scans, of the modality of the scan where there are any, else of all.

    Attributes:
        diseased: which validation scans the rule looks at, diseased or healthy ones; None for no scan at all.
        volumes: ml, for which it wants the limits of healthy scans, see `Record`.
        supervision: what the threshold was told, for the tables.
    """

    diseased: ClassVar[bool | None] = None
    volumes: tuple[float, ...] = ()

    def __init__(self, supervision: str) -> None:
        self.supervision = supervision
        self.thresholds: dict[str, float] = {}

    def choose(self, records: Sequence[Record]) -> float:
        """The threshold that follows from such scans."""
        raise NotImplementedError

    def fit(self, records: Iterable[Record]) -> None:
        """Choose the thresholds.

        Args:
            records: of all validation scans.

        Raises:
            InputError: when there are too few scans for this rule.
        """
        if self.diseased is None:
            return
        usable = [record for record in records if record.diseased == self.diseased]
        if not usable:
            raise InputError(f"'validation' has no scan for the rule {type(self).__name__} ({self.supervision})")
        self.thresholds = {"": self.choose(usable)}
        for modality in {record.modality for record in usable}:
            try:
                self.thresholds[modality] = self.choose([r for r in usable if r.modality == modality])
            except InputError:  # too few of this modality: the threshold of all scans is used
                continue

    def __call__(self, record: Record) -> float:
        """The threshold for a scan."""
        return self.thresholds.get(known_as(record.modality, self.thresholds), self.thresholds[""])


class HealthyPercentile(Rule):
    """A percentile of the scores of all voxels of healthy brains.

    Args:
        percent: of the voxels that stay below it.
    """

    diseased = False

    def __init__(self, percent: float = 98.0) -> None:
        super().__init__("healthy validation scans")
        self.percent = percent

    def choose(self, records: Sequence[Record]) -> float:
        return quantile(sum(record.counts for record in records), self.percent / 100.0)


class Conformal(Rule):
    """The limit that the next healthy person exceeds with a known probability at most, see `split_conformal`.

    Args:
        largest_ml: volume that is found in a healthy scan at most.
        share: of healthy people for whom that holds.
        usual_ml: volume that is found in half of them at most.
    """

    diseased = False

    def __init__(self, largest_ml: float, share: float, usual_ml: float) -> None:
        super().__init__(f"healthy validation scans; at most {largest_ml:g} ml in {share:.0%} of healthy people")
        self.largest_ml, self.share, self.usual_ml = largest_ml, share, usual_ml
        self.volumes = (largest_ml, usual_ml)

    def choose(self, records: Sequence[Record]) -> float:
        people: dict[str, tuple[float, ...]] = {}
        for record in records:
            keep_worst(people, record.person or record.subject, [record.limits[ml] for ml in self.volumes])
        largest, usual = zip(*people.values())
        return max(split_conformal(largest, self.share), split_conformal(usual, 0.5))


class DiseasedValidation(Rule):
    """The threshold of the best mean Dice on validation scans with traced lesions: calibrated, and supervised."""

    diseased = True

    def __init__(self) -> None:
        super().__init__("traced lesions of validation scans")

    def choose(self, records: Sequence[Record]) -> float:
        levels = np.unique(np.concatenate([precision_recall(record.counts)[2] for record in records]))
        total = np.zeros_like(levels)
        for record in records:
            lesion, other = (np.append(np.cumsum(row[::-1])[::-1], 0.0) for row in record.counts[:2])
            at = np.searchsorted(LEVELS, levels, side="right")
            total += 2 * lesion[at] / np.maximum(lesion[at] + other[at] + lesion[0], 1e-12)
        return float(levels[total.argmax()])


class Otsu(Rule):
    """Otsu's threshold of each scan's own scores: it knows nothing, and always finds something."""

    def __init__(self) -> None:
        super().__init__("none")

    def __call__(self, record: Record) -> float:
        counts = record.counts[:2].sum(axis=0)
        last = np.flatnonzero(counts)[-1] if counts.any() else 0
        edges = np.linspace(0.0, max(LEVELS[last], 1e-6), 257)
        histogram, _ = np.histogram(LEVELS[: last + 1], edges, weights=counts[: last + 1])
        return float(threshold_otsu(hist=(histogram, (edges[1:] + edges[:-1]) / 2)))


class Fixed(Rule):
    """A number that a method brings with it.

    Args:
        threshold: the number.
        supervision: where it comes from.
    """

    def __init__(self, threshold: float, supervision: str = "the method's own number") -> None:
        super().__init__(supervision)
        self.thresholds = {"": float(threshold)}
