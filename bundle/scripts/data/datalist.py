"""Datalists: which files belong to which subject, and what a user's input path stands for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .sample_subject import write_sample_subject

__all__ = ["FILE_KEYS", "find_scans", "load_datalist"]

FILE_KEYS = ("label", "t1", "t2", "flair", "ct", "lesion", "image")
SCAN_ENDINGS = (".nii.gz", ".nii", ".mgz", ".nrrd")


def load_datalist(path: str | Path | None, section: str, sample_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """Read one section of a decathlon-style JSON datalist.

    Args:
        path: datalist; its file names are relative to its folder. None for the sample subject.
        section: "training", "validation" or "test". A datalist without "validation" validates on "training".
        sample_dir: where the sample subject is written when `path` is None.

    Returns:
        one dictionary a subject, with absolute file names and ``subject``.

    Raises:
        InputError: when the file is missing, is not such a datalist, has no entry, or names a missing file.
    """
    path = Path(write_sample_subject(sample_dir) if path is None else path)
    if not path.is_file():
        raise InputError(f"no datalist at {path}; give --datalist FILE, or leave it out for the sample subject")
    try:
        content = json.loads(path.read_text())
        entries = content.get(section) or (content.get("training") if section == "validation" else None)
    except (json.JSONDecodeError, AttributeError) as error:
        raise InputError(f"{path} is not a JSON datalist with a '{section}' list: {error}") from error
    if not entries:
        raise InputError(
            f"{path} has no entry under '{section}'; add subjects to it, see the data format in the README"
        )
    subjects = []
    for number, entry in enumerate(entries):
        subject = {"subject": f"{section}_{number:04d}", **entry}
        for key in set(FILE_KEYS) & set(subject):
            file = path.parent / subject[key]
            if not file.is_file():
                raise InputError(
                    f"{path}, subject {subject['subject']}: {key} {file} does not exist; mend the datalist"
                )
            subject[key] = str(file.resolve())
        subjects.append(subject)
    return subjects


def find_scans(source: str | Path | None, sections: Sequence[str] = ("test", "validation", "training")) -> list[dict]:
    """What ``--input`` stands for: a scan, a folder of scans, or a datalist whose entries have ``image``.

    Args:
        source: file, folder (searched for .nii, .nii.gz, .mgz and .nrrd, sub-folders included) or datalist.
        sections: sections of a datalist, the first present one is taken.

    Returns:
        one dictionary a scan, with ``image`` and ``subject``, and ``mirror_transform`` where a datalist gives it.

    Raises:
        InputError: when nothing is given, nothing is there, or nothing in it is a scan.
    """
    if not source:
        raise InputError("no scan given; add --input FILE, FOLDER or DATALIST.json")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist; give --input a scan, a folder of scans or a datalist")
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        section = next((name for name in sections if content.get(name)), sections[0])
        scans = [scan for scan in load_datalist(path, section) if "image" in scan]
        if not scans:
            raise InputError(f"{path} has no entry with an 'image' under '{section}'; add the scans to analyse")
        _refuse_same_outputs([Path(Path(scan["image"]).name) for scan in scans])
        return scans
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    scans = [file for file in files if file.name.lower().endswith(SCAN_ENDINGS)]
    if not scans:
        raise InputError(f"{path} holds no scan; files must end in {', '.join(SCAN_ENDINGS)}")
    _refuse_same_outputs(scans)
    return [{"image": str(file.resolve()), "subject": _stem(file)} for file in scans]


def _stem(file: Path) -> str:
    lower = file.name.lower()
    return next((file.name[: -len(ending)] for ending in SCAN_ENDINGS if lower.endswith(ending)), file.stem)


def _refuse_same_outputs(files: Sequence[Path]) -> None:
    """Results are named by the scan without its ending: one must not overwrite another's."""
    outputs: dict[Path, Path] = {}
    for file in files:
        output = file.with_name(_stem(file))
        if output in outputs:
            raise InputError(
                f"the results of {outputs[output]} and {file} would both be written to {output.name}_*; rename one"
            )
        outputs[output] = file
