"""What is known of a scan: its lesions, or that there are none."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor

from ..errors import InputError
from ..fluid import LESION_THRESHOLD
from ..preprocessing.masks import lesion_mask
from ..saving import file_hash
from ..volumes import read_volume, same_grid

__all__ = ["check_truth", "known_hash", "known_scans", "read_on_grid", "true_lesion"]


def check_truth(entry: Mapping[str, Any]) -> None:
    """
    Raises:
        InputError: when a datalist entry does not say what is known of its scan.
    """
    if "lesion" not in entry and "anomaly" not in entry and entry.get("diseased", True):
        raise InputError(
            f"nothing is known of {entry['subject']}: add 'lesion', 'anomaly' or \"diseased\": false to its datalist entry"
        )


def known_hash(entry: Mapping[str, Any]) -> str:
    """Of the content of a scan and of all that is known of it: what was made of another mask under the same path is made again."""
    files = [file_hash(entry[key]) if key in entry else None for key in ("lesion", "anomaly")]
    known = [entry["content"], *files, entry.get("label_value"), entry.get("diseased")]
    return hashlib.sha256(json.dumps(known, default=str).encode()).hexdigest()


def known_scans(scans: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Entries of a datalist by their ``subject``.

    Raises:
        InputError: when nothing is known of a scan, or two entries have one ``subject``.
    """
    entries = {entry["subject"]: entry for entry in scans}
    if len(entries) < len(scans):
        raise InputError("two entries of the datalist have the same 'subject'; give each scan its own")
    for entry in entries.values():
        check_truth(entry)
    return entries


def read_on_grid(path: str, grid: MetaTensor) -> MetaTensor:
    """Read a volume that belongs to a scan.

    Raises:
        InputError: when it lies on another grid than the scan.
    """
    volume = read_volume(path)
    if not same_grid(volume, grid):
        raise InputError(f"{path} is not on the grid of its scan; resample it to the scan")
    return volume


def true_lesion(entry: Mapping[str, Any], grid: MetaTensor) -> torch.Tensor:
    """Boolean mask on the grid of the scan: ``lesion``, a traced mask, or ``anomaly``, a probability, of a datalist entry.

    Raises:
        InputError: when the file is no lesion mask, see `lesion_mask`. It would make a healthy person of a patient.
    """
    if "lesion" in entry:
        return lesion_mask(read_on_grid(entry["lesion"], grid), entry.get("label_value")).as_tensor() > 0
    if "anomaly" in entry:
        return read_on_grid(entry["anomaly"], grid) > LESION_THRESHOLD
    return torch.zeros(grid.shape, dtype=torch.bool)
