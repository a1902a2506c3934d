"""What a user's input stands for: the scans in a file, a folder, a DICOM file set or a BIDS data set, by subject."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from ..errors import InputError
from ..volumes import VOLUME_ENDINGS, volume_stem

__all__ = ["COMPANIONS", "Scan", "find_subjects"]

MODALITIES = ("t1", "t2", "flair", "ct")
# What comes with a scan, in its world coordinates, and the ending of its file in the derivatives.
COMPANIONS = {"label": "label_dseg", "lesion": "lesion_mask"}
# Of file names, BIDS suffixes and DICOM series descriptions. FLAIR first: a "T2 FLAIR" is one.
NAMES = {
    "label": r"synthseg|aseg|aparc|dseg|label",
    "lesion": r"lesion|consensus_gt",
    "flair": r"flair|dark.?fluid|tirm",
    "ct": r"(^|[^a-z])ct([^a-z]|$)",
    "t1": r"t1|mprage|spgr|bravo|tfl3d",
    "t2": r"t2",
}


@dataclass(frozen=True)
class Scan:
    """One scan of a subject.

    Args:
        subject: name of the subject, with the session where there are several.
        name: of the scan, unique within the subject.
        files: the file, or the slices of a DICOM series.
        modality: "t1", "t2", "flair", "ct", "label", "lesion", or None where no name tells.
    """

    subject: str
    name: str
    files: tuple[Path, ...]
    modality: str | None = None

    @property
    def path(self) -> Path | tuple[Path, ...]:
        """What `read_volume` takes."""
        return self.files[0] if len(self.files) == 1 and _is_volume(self.files[0]) else self.files


@dataclass
class _Series:
    description: str
    modality: str
    patient: str
    files: list[tuple[float, Path]] = field(default_factory=list)


def modality_by_name(text: str) -> str | None:
    """The modality that a file name or a series description tells, or None."""
    return next((modality for modality, pattern in NAMES.items() if re.search(pattern, text.lower())), None)


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(VOLUME_ENDINGS)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "", name) or "unknown"


def _along_slices(header) -> float:
    """Where a slice lies in its stack."""
    if "ImagePositionPatient" not in header or "ImageOrientationPatient" not in header:
        return float(header.get("InstanceNumber", 0) or 0)
    row, column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return float(np.cross(row, column) @ np.array(header.ImagePositionPatient, dtype=float))


def _dicom_scans(files: list[Path]) -> Iterator[Scan]:
    """Group DICOM slices by series; files of other types, and series that are no image volume, are passed over."""
    series: dict[str, _Series] = {}
    for file in files:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True)
        except (InvalidDicomError, OSError):
            continue
        if "SeriesInstanceUID" not in header or "Rows" not in header:
            continue
        one = series.setdefault(
            header.SeriesInstanceUID,
            _Series(
                str(header.get("SeriesDescription", "")),
                str(header.get("Modality", "")),
                str(header.get("PatientID", "")) or file.parent.name,
            ),
        )
        one.files.append((_along_slices(header), file))
    for number, one in enumerate(series.values()):
        if one.modality in ("CT", "MR") and len(one.files) > 1:
            name = _safe(one.description) if one.description else f"series{number}"
            modality = "ct" if one.modality == "CT" else modality_by_name(one.description)
            files = tuple(path for _, path in sorted(one.files))
            yield Scan(_safe(one.patient), f"{name}{number}", files, modality)


def _bids_scans(root: Path) -> Iterator[Scan]:
    for file in sorted(root.glob("sub-*/**/*")):
        relative = file.relative_to(root)
        if _is_volume(file) and relative.parts[-2] in ("anat", "ct"):
            suffix = volume_stem(file).rsplit("_", 1)[-1].lower()
            modality = {"t1w": "t1", "t2w": "t2", "flair": "flair", "ct": "ct", "dseg": "label"}.get(suffix)
            if modality:
                subject = "_".join(part for part in relative.parts[:-1] if part.startswith(("sub-", "ses-")))
                yield Scan(subject, volume_stem(file), (file,), modality)


def _folder_scans(root: Path) -> Iterator[Scan]:
    others = []
    for file in sorted(path for path in root.rglob("*") if path.is_file()):
        if _is_volume(file):
            parts = file.relative_to(root).parts[:-1]
            stem = volume_stem(file)
            # "patA_T1w" and "patA_flair" are one subject; "t1" and "flair" belong to the folder.
            alone = re.sub("|".join([*NAMES.values(), "brain"]) + "w?", "", stem, flags=re.IGNORECASE).strip("_-. wW")
            subject = "_".join(map(_safe, parts)) or _safe(alone or root.resolve().name)
            yield Scan(subject, stem, (file,), modality_by_name(stem))
        elif file.suffix.lower() in (".dcm", ".ima", "") and file.name != "DICOMDIR":
            others.append(file)
    yield from _dicom_scans(others)


def find_subjects(source: str | Path | None, modality: str | None = None) -> dict[str, list[Scan]]:
    """Scans by subject.

    Args:
        source: a volume, a DICOM slice's folder, a folder of any of these, or a BIDS data set (``dataset_description.json``).
            In a plain folder a sub-folder is a subject, and so are files that differ in the modality in their name only.
        modality: of all scans, when it is known.

    Raises:
        InputError: when nothing is given or found.
    """
    if not source:
        raise InputError("no scan given; add --input FILE, FOLDER or a BIDS data set")
    root = Path(source)
    if not root.exists():
        raise InputError(f"{root} does not exist; give --input a scan, a folder of scans or a BIDS data set")
    if modality is not None and modality not in MODALITIES:
        raise InputError(f"modality '{modality}' is not known; use one of {', '.join(MODALITIES)}, or leave it out")
    if root.is_file() and _is_volume(root):
        stem = volume_stem(root)
        scans = [Scan(_safe(stem), stem, (root,), modality_by_name(stem))]
    elif root.is_file():
        scans = list(_dicom_scans([root]))
    elif (root / "dataset_description.json").is_file():
        scans = list(_bids_scans(root))
    else:
        scans = list(_folder_scans(root))
    if not scans:
        raise InputError(
            f"{root} holds no scan: no file ends in {', '.join(VOLUME_ENDINGS)}, and no DICOM series of CT or MR was found"
        )
    subjects: dict[str, list[Scan]] = {}
    for scan in scans:
        companion = scan.modality in COMPANIONS
        known = scan if modality is None or companion else Scan(scan.subject, scan.name, scan.files, modality)
        subjects.setdefault(scan.subject, []).append(known)
    return subjects
