"""What a user's input stands for: the scans in a file, a folder, a DICOM file set or a BIDS data set, by subject."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..dicom import find_stacks
from ..errors import InputError
from ..modalities import modality_of
from ..volumes import VOLUME_ENDINGS, volume_stem
from .names import COMPANIONS, OUTPUTS, modality_by_words, read_name

__all__ = ["Scan", "find_subjects"]


@dataclass(frozen=True)
class Scan:
    """One scan of a subject.

    Args:
        subject: name of the subject, with the session where there are several.
        name: of the scan, unique within the subject.
        files: the file, or the slices of a DICOM series.
        modality: one of `MODALITIES`, "label", "lesion", or None where no name tells.
        notes: what a reader should know, for example images of a series that were left out.
        problem: why it cannot be read; None for a sound one.
        study: of a DICOM series whose patient has several studies; "" else.
    """

    subject: str
    name: str
    files: tuple[Path, ...]
    modality: str | None = None
    notes: tuple[str, ...] = ()
    problem: str | None = None
    study: str = ""

    @property
    def session(self) -> str:
        """What the scans of one session have in common: subject and study."""
        return "_".join(filter(None, (self.subject, self.study)))

    @property
    def path(self) -> Path | tuple[Path, ...]:
        """What `read_volume` takes.

        Raises:
            InputError: when the scan has a problem.
        """
        if self.problem:
            raise InputError(f"{self.files[0].parent}: the series '{self.name}' {self.problem}")
        return self.files[0] if len(self.files) == 1 and _is_volume(self.files[0]) else self.files


def _is_volume(path: Path) -> bool:
    return path.name.lower().endswith(VOLUME_ENDINGS)


def _readable(name: str) -> str:
    """A name that can be part of a file name: letters of any alphabet, digits, and the separators it has."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "unknown"


def _dicom_scans(files: list[Path], root: Path, passed: Counter[str]) -> Iterator[Scan]:
    stacks, reasons = find_stacks(files)
    passed.update(reasons)
    folders, studies = defaultdict(set), defaultdict(set)

    def folder(stack) -> str:
        relative = stack.files[0].parent.relative_to(root).parts if stack.files[0].is_relative_to(root) else ()
        return relative[0] if relative else ""

    for stack in stacks:
        folders[stack.patient].add(folder(stack))
        studies[stack.patient].add(stack.study)
    for stack in stacks:
        # Anonymized archives give everybody one PatientID: folders that hold studies of their own are people of their own.
        shared = len(folders[stack.patient]) > 1 and len(studies[stack.patient]) > 1
        subject = _readable("_".join(filter(None, (stack.patient, folder(stack) if shared else ""))))
        modality = "ct" if stack.modality == "CT" else modality_by_words(stack.description)
        modality = "t1c" if modality == "t1" and stack.agent else modality
        several = sorted(studies[stack.patient])
        study = f"study{several.index(stack.study) + 1}" if len(several) > 1 else ""
        yield Scan(
            subject, _readable(stack.description), stack.files, modality, tuple(stack.notes), stack.problem, study
        )


def _files(root: Path) -> list[Path]:
    """All files below a folder, also behind links to folders; a link to a folder that is read already is named and not followed."""
    files, seen = [], {os.path.realpath(folder) for folder, _, _ in os.walk(root)}
    for folder, folders, names in os.walk(root, followlinks=True):
        seen.add(os.path.realpath(folder))
        for name in list(folders):
            path = Path(folder) / name
            if path.is_symlink() and (os.path.realpath(path) in seen or root.resolve().is_relative_to(path.resolve())):
                print(f"{path} is a link to a folder that is read already; it is not followed", flush=True)
                folders.remove(name)
        folders.sort()
        files += [Path(folder) / name for name in names if not name.startswith("._")]
    return sorted(file for file in files if file.is_symlink() or file.is_file())


def _bids_scans(root: Path) -> Iterator[Scan]:
    for file in _files(root):
        relative = file.relative_to(root)
        if not _is_volume(file) or not relative.parts[0].startswith("sub-") or relative.parts[-2] not in ("anat", "ct"):
            continue
        suffix = volume_stem(file).rsplit("_", 1)[-1].lower()
        modality = {"t1w": "t1", "t2w": "t2", "flair": "flair", "ct": "ct", "dseg": "label"}.get(suffix)
        if modality == "t1" and modality_by_words(volume_stem(file)) == "t1c":
            modality = "t1c"
        if suffix in ("mask", "roi") and read_name(volume_stem(file)).kind == "lesion":
            modality = "lesion"
        if modality:
            subject = "_".join(part for part in relative.parts[:-1] if part.startswith(("sub-", "ses-")))
            yield Scan(subject, volume_stem(file), (file,), modality)


def _own_outputs(files: list[Path]) -> set[Path]:
    """Results of an earlier ``run inferring`` or ``run normalizing`` that lie among the scans."""
    by_stem = {(file.parent, volume_stem(file)): file for file in files}
    return {
        by_stem[parent, f"{stem}_{ending}"]
        for parent, stem in by_stem
        if all((parent, f"{stem}_{ending}") in by_stem for ending in ("healthy", "anomaly"))
        for ending in OUTPUTS
        if (parent, f"{stem}_{ending}") in by_stem
    }


def _folder_scans(root: Path, passed: Counter[str]) -> Iterator[Scan]:
    files = _files(root)
    volumes = [file for file in files if _is_volume(file)]
    outputs = _own_outputs(volumes)
    if outputs:
        print(
            f"{len(outputs)} results of an earlier run in {root} are left out, {sorted(outputs)[0].name} for one",
            flush=True,
        )
    for file in volumes:
        if file in outputs:
            continue
        parts, stem = file.relative_to(root).parts[:-1], volume_stem(file)
        named = read_name(stem)
        if named.kind != "other":
            # "patA_T1w" and "patA_flair" are one subject; "t1" and "flair" belong to the folder.
            subject = "_".join(map(_readable, parts)) or _readable(named.person or root.absolute().name)
            yield Scan(subject, stem, (file,), named.kind)
    rest = [file for file in files if not _is_volume(file) and file.is_file() and file.name != "DICOMDIR"]
    yield from _dicom_scans(rest, root, passed)


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
    root, passed = Path(source).absolute(), Counter()
    if not root.exists():
        raise InputError(f"{root} does not exist; give --input a scan, a folder of scans or a BIDS data set")
    modality = None if modality is None else modality_of(modality)
    if root.is_file() and _is_volume(root):
        stem = volume_stem(root)
        scans = [Scan(_readable(read_name(stem).person or stem), stem, (root,), read_name(stem).kind)]
    elif root.is_file():
        scans = list(_dicom_scans([root], root.parent, passed))
    elif (root / "dataset_description.json").is_file():
        scans = list(_bids_scans(root))
    else:
        scans = list(_folder_scans(root, passed))
    told = ", ".join(f"{count} {why}" for why, count in passed.most_common())
    if not scans:
        raise InputError(
            f"{root} holds no scan: no file ends in {', '.join(VOLUME_ENDINGS)}, and no DICOM series of CT or MR was found"
            + (f" (files passed over: {told})" if told else "")
        )
    if sum(passed.values()) > passed["no DICOM file"]:
        print(f"DICOM files of {root} passed over: {told}", flush=True)
    subjects: dict[str, list[Scan]] = {}
    for scan in scans:
        companion = scan.modality in COMPANIONS
        known = scan if modality is None or companion else replace(scan, modality=modality)
        subjects.setdefault(scan.subject, []).append(known)
    return subjects
