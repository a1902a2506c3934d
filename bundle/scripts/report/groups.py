"""Results of several scans of one person, from which something further is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from .. import __version__
from ..errors import InputError
from ..evaluation.session import Look
from ..jobs import Crew
from ..volumes import read_volume
from .ledger import Ledger

__all__ = ["ResultGroups"]


class ResultGroups:
    """Groups of scans whose results lie in files. A subclass has `made`, which makes what a group is for.

    Args:
        groups: by name, entries of `scripts.data.find_scans`.
        kind: what a group is, for messages.
        ledger: knows the results of each scan. A scan without results, or of a method that draws no healthy scan, does not count.
        threshold: of the score of a scan.
        crew: who works on the groups.
    """

    def __init__(
        self,
        groups: Mapping[str, Sequence[Mapping[str, Any]]],
        kind: str,
        ledger: Ledger,
        threshold: float,
        crew: Crew | None = None,
    ) -> None:
        self.groups = dict(groups)
        self.kind = kind
        self.ledger = ledger
        self.threshold = threshold
        self.crew = crew or Crew()

    def made(self, name: str) -> str:
        """Make what a group is for, unless that was done; lines to print, or "" where there is nothing to say."""
        raise NotImplementedError

    def run(self) -> None:
        """Go through all groups; an error of one stops no other.

        Raises:
            InputError: at the end, when something could not be made.
        """
        problems = []
        for name, told in zip(self.groups, self.crew.results(type(self).made, self, list(self.groups))):
            if isinstance(told, Exception):
                problems.append(f"{self.kind} {name}: {told}")
                told = problems[-1]
            if told:
                print(told, flush=True)
        if problems:
            raise InputError(
                f"{len(problems)} of {len(self.groups)} ({self.kind}) could not be done, their scans are: {problems[0]}"
            )

    def known(self, name: str) -> dict[str, dict[str, Any]]:
        """By its name, the record of each scan of a group that has results."""
        sources = [Ledger.source(scan) for scan in self.groups[name]]
        records = {source: self.ledger.record(source) for source in sources}
        return {
            source: record
            for source, record in records.items()
            if record and self.file(source, "healthy.nii.gz").is_file()
        }

    def file(self, source: str, ending: str) -> Path:
        """A result of a scan."""
        postfix, dot, rest = ending.partition(".")
        return Path(f"{self.ledger.base(source, postfix)}{dot}{rest}")

    def look(self, source: str, record: Mapping[str, Any]) -> Look:
        """What a scan says, from its results."""
        score, drawn = (read_volume(self.file(source, ending)) for ending in ("anomaly.nii.gz", "healthy.nii.gz"))
        score = MetaTensor(
            score.as_tensor() / self.threshold, meta=dict(score.meta)
        )  # the header of results on its grid
        return Look(source, record["modality"], score, drawn)

    def images(self, name: str) -> dict[str, Any]:
        """By its name, the file of each scan of a group."""
        return {Ledger.source(scan): scan["image"] for scan in self.groups[name]}

    @staticmethod
    def fingerprint(made_of: Mapping[str, Any]) -> str:
        """Of all that a report depends on, and of the version."""
        said = {**made_of, "version": __version__}
        return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()

    def done(self, report: Path, fingerprint: str) -> bool:
        """Whether a report was made of these very results, and the files that it names are there."""
        record = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
        return record.get("fingerprint") == fingerprint and all(Path(name).is_file() for name in record["results"])
