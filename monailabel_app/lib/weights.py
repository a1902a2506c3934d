"""Versions of a model's weights: which is in use, where it came from, and the way back."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.errors import InputError
from scripts.saving import write_whole

__all__ = ["WeightStore"]


class WeightStore:
    """Numbered weights in a folder. Version 0 is what the bundle ships; nothing is ever overwritten.

    Args:
        folder: holds ``0001.pt``, ``0001.json`` (what was published and why), and ``current.json``.
        shipped: weights of the bundle.
    """

    def __init__(self, folder: str | Path, shipped: str | Path) -> None:
        self.folder = Path(folder)
        self.shipped = Path(shipped)

    def _number(self) -> int:
        pointer = self.folder / "current.json"
        return int(json.loads(pointer.read_text())["version"]) if pointer.is_file() else 0

    def current(self) -> Path:
        """Weights in use."""
        return self.path(self._number())

    def path(self, version: int) -> Path:
        """
        Raises:
            InputError: when there is no such version.
        """
        path = self.folder / f"{version:04d}.pt" if version else self.shipped
        if not path.is_file():
            raise InputError(f"there are no weights of version {version}; there are {self.versions()}")
        return path

    def versions(self) -> list[int]:
        return [0, *sorted(int(path.stem) for path in self.folder.glob("[0-9]*.pt"))]

    def info(self) -> dict[str, Any]:
        """Version in use, all versions, and the record of the newest."""
        newest = self.versions()[-1]
        record = self.folder / f"{newest:04d}.json"
        return {
            "version": self._number(),
            "versions": self.versions(),
            "newest": json.loads(record.read_text()) if record.is_file() else None,
        }

    def publish(self, weights: str | Path, record: dict[str, Any]) -> int:
        """Add weights as a new version and use them.

        Args:
            weights: file to copy.
            record: where they come from, JSON.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        version = self.versions()[-1] + 1
        created = {"version": version, "parent": self._number(), "created": datetime.now(UTC).isoformat(), **record}
        (self.folder / f"{version:04d}.json").write_text(json.dumps(created, indent=1))
        partial = self.folder / f"{version:04d}.partial"
        shutil.copyfile(weights, partial)
        partial.replace(self.folder / f"{version:04d}.pt")
        self.use(version)
        return version

    def use(self, version: int) -> None:
        """Make an older or newer version the one in use.

        Raises:
            InputError: when there is no such version.
        """
        self.path(version)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.folder / "current.json", json.dumps({"version": version}))
