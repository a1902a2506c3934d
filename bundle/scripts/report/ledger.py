"""What a run before has done of a cohort."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.transforms import Transform

from .. import __version__
from ..evaluation.truth import known_hash
from ..saving import output_base, write_whole

__all__ = ["Ledger"]


class Ledger(Transform):
    """Which scans are done: from the same files, with the same settings and version, and with all results that were written.

    As the last transform of a case it writes that down, into ``<scan>_<postfix>.json``.

    Args:
        scans: entries, see `scripts.data.find_scans`.
        output_dir: where the results are.
        data_root_dir: folder of the inputs; its sub-folders are kept below `output_dir`.
        settings: what a result depends on, see `scripts.config.run_settings`.
        postfix: of the record.
        results: endings of the names of what a scan may have, such as ``lesion.nii.gz``.
        record_key: item of a case that goes into the record; None adds to the file that is there.
    """

    def __init__(
        self,
        scans: Sequence[Mapping[str, Any]],
        output_dir: str | Path,
        data_root_dir: str,
        settings: Mapping[str, Any],
        postfix: str,
        results: Sequence[str],
        record_key: str | None = None,
    ) -> None:
        self.output_dir = output_dir
        self.data_root_dir = data_root_dir
        self.settings = {**settings, "version": __version__}
        self.postfix = postfix
        self.results = tuple(results)
        self.record_key = record_key
        self.entries = {self.source(scan): scan for scan in scans}

    @staticmethod
    def source(scan: Mapping[str, Any]) -> str:
        """The name of a scan by which its results are called."""
        return str(scan.get("output_name", scan["image"]))

    def base(self, source: str, postfix: str) -> Path:
        """Path of a result without its ending."""
        return output_base(source, postfix, self.output_dir, self.data_root_dir)

    def _fingerprint(self, source: str) -> str:
        scan = self.entries[source]
        content = [known_hash(scan), scan.get("modality"), self.settings]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def record(self, source: str) -> dict[str, Any] | None:
        """Of a scan that is done; None for one that is not."""
        file = Path(f"{self.base(source, self.postfix)}.json")
        record = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        whole = all((file.parent / name).is_file() for name in record.get("results", ()))
        # Most scans of a first run have no record, and nothing of them is read.
        return (
            record if whole and "fingerprint" in record and record["fingerprint"] == self._fingerprint(source) else None
        )

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of the scans that are done."""
        return [record for source in self.entries if (record := self.record(source)) is not None]

    @cached_property
    def todo(self) -> list[Mapping[str, Any]]:
        """The entries that are not done yet."""
        left = [scan for source, scan in self.entries.items() if self.record(source) is None]
        if done := len(self.entries) - len(left):
            print(
                f"{done} of {len(self.entries)} scans were done before, with these settings, and are kept", flush=True
            )
        return left

    def __call__(self, case: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        source = str(case["original"].meta["filename_or_obj"])
        base = self.base(source, self.postfix)
        file, stem = Path(f"{base}.json"), base.name.removesuffix(self.postfix)
        known = json.loads(file.read_text(encoding="utf-8")) if self.record_key is None else case[self.record_key]
        names = [f"{stem}{ending}" for ending in self.results if (base.parent / f"{stem}{ending}").is_file()]
        record = {**known, "fingerprint": self._fingerprint(source), "results": names}
        write_whole(file, json.dumps(record, indent=1))
        return dict(case)
