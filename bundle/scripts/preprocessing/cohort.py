"""Prepare a cohort: every subject once, in parallel, resumable, with a summary of what did not work."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from monai.data import MetaTensor

from .. import __version__
from ..errors import InputError
from ..jobs import Crew, reason
from ..saving import save_volume, write_whole
from ..symmetry import estimate_mirror, mid_plane_reflection, symmetry
from ..volumes import on_grid, read_volume
from .coregister import moved_onto, rigid_registration
from .masks import lesion_mask
from .names import COMPANIONS
from .sources import Scan, find_subjects
from .tissues import tissue_labels

__all__ = ["prepare_cohort", "prepare_subject"]

ENDING = {  # of the file names of BIDS derivatives
    "t1": "desc-preproc_T1w",
    "t1c": "ce-gadolinium_desc-preproc_T1w",
    "t2": "desc-preproc_T2w",
    "flair": "desc-preproc_FLAIR",
    "ct": "desc-preproc_ct",
}


def _fingerprint(scans: Sequence[Scan], settings: Mapping[str, Any]) -> str:
    """Of the contents of the files, of what is done to them and of the version; not of their names or dates."""
    digest = hashlib.sha256(json.dumps({**settings, "version": __version__}, sort_keys=True, default=str).encode())
    for scan in sorted(scans, key=lambda scan: scan.name):
        digest.update(f"{scan.name} {scan.modality}".encode())
        for file in scan.files:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _folder(subject: str) -> Path:
    parts = subject.split("_") if subject.startswith("sub-") else [f"sub-{subject.replace('_', '-')}"]
    return Path(*parts)


def _refuse_one_folder_for_two(subjects: Mapping[str, Sequence[Scan]]) -> None:
    """Two people must not become one."""
    folders: dict[Path, str] = {}
    for subject in subjects:
        first = folders.setdefault(_folder(subject), subject)
        if first != subject:
            raise InputError(
                f"'{first}' ({subjects[first][0].files[0]}) and '{subject}' ({subjects[subject][0].files[0]}) would both become "
                f"{_folder(subject)}; rename one"
            )


def _companion(scan: Scan, grid: MetaTensor, label_value: int | Sequence[int] | None) -> MetaTensor:
    """A label map or lesion mask on the grid of the reference, in whole numbers.

    Raises:
        InputError: when it cannot be read, or nothing of it is left on the grid.
    """
    volume = read_volume(scan.path)
    if scan.modality == "lesion":
        volume = lesion_mask(volume, label_value)
    placed = on_grid(volume, grid, "nearest")
    if not placed.round().any():
        raise InputError(
            f"{scan.files[0]} is empty on the grid of its scan: it has no voxel of 0.5 or more, or lies elsewhere; check it in a "
            "viewer"
        )
    return placed


def _row(subject: str, scan: Scan) -> dict[str, Any]:
    """How a row of the summary begins."""
    return {"subject": subject, "scan": scan.name, "file": str(scan.files[0])}


def _prepare_scans(
    subject: str, scans: Sequence[Scan], transform: Callable
) -> tuple[list[dict[str, Any]], dict[str, tuple[dict, dict]]]:
    """Prepare every scan of a subject; a row of the summary for each, and by modality the row and the data of its first scan."""
    rows, prepared = [], {}
    for scan in scans:
        if scan.modality in COMPANIONS:
            continue
        row = {**_row(subject, scan), "status": "done", "message": ""}
        rows.append(row)
        try:
            path = scan.path
            data = transform({"image": path if isinstance(path, tuple) else str(path), "modality": scan.modality})
        except Exception as error:  # one scan must not stop a cohort; the message says what it was
            row.update(status="failed", message=reason(error))
            continue
        row.update(modality=data["modality"], modality_confidence=round(float(data["modality_confidence"]), 2))
        row["brain_ml"] = round(float(data["brain"].sum()) * abs(np.linalg.det(data["brain"].affine[:3, :3])) / 1e3)
        other = prepared.get(data["modality"])
        if other is not None:
            row.update(status="left out", message=f"{other[0]['scan']} is this subject's {data['modality']} already")
            continue
        prepared[data["modality"]] = (row, data)
    return rows, prepared


def _save_aligned(
    prepared: Mapping[str, tuple[dict, dict]], reference: str, folder: Path, prefix: str, files: dict[str, str]
) -> dict[str, list]:
    """Save the scans of a subject on the grid of its reference, and note their names in `files`.

    Returns:
        by modality, the rigid motion from the reference to the scan, in RAS mm.
    """
    image, brain = (prepared[reference][1][key] for key in ("image", "brain"))
    motions = {}
    for modality, (_, data) in prepared.items():
        volume = data["image"]
        if modality != reference:
            motion = rigid_registration(image, volume)
            motions[modality] = motion.tolist()
            volume = moved_onto(volume, np.linalg.inv(motion), image)
            volume = MetaTensor(volume.as_tensor() * (brain.as_tensor() > 0), affine=image.affine)
        files[modality] = f"{prefix}_{ENDING[modality]}.nii.gz"
        save_volume(volume, folder / files[modality], np.float32)
    return motions


def prepare_subject(
    subject: str,
    scans: Sequence[Scan],
    transform: Callable,
    output_dir: str | Path,
    settings: Mapping[str, Any],
    make_labels: bool = True,
    label_value: int | Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """Prepare the scans of one subject on the grid of its reference scan, the T1w where there is one.

    Writes ``sub-<subject>/anat`` with ``*_desc-preproc_<suffix>.nii.gz``, ``*_desc-brain_mask.nii.gz``, label map and
    lesion where there are any, and ``*_desc-preproc.json``. The folder appears whole or not at all.

    Args:
        subject: its name.
        scans: its scans, and companions (label map, lesion) in the world coordinates of the reference.
        transform: from ``image`` (a path) to the prepared ``image``, ``brain`` and ``modality``.
        output_dir: root of the tree.
        settings: what `transform` depends on; a subject with the same settings and files is not done again.
        make_labels: give a T1w without a label map a three-tissue one.
        label_value: which labels of a lesion mask are lesion, see `lesion_mask`. A patient whose mask is none does not train.

    Returns:
        a row of the summary for each scan.
    """
    start = time.perf_counter()
    folder = Path(output_dir) / _folder(subject)
    prefix = "_".join(_folder(subject).parts)
    record_path = folder / "anat" / f"{prefix}_desc-preproc.json"
    fingerprint = _fingerprint(scans, settings)
    if record_path.is_file():
        record = json.loads(record_path.read_text())
        whole = all((folder / "anat" / name).is_file() for name in record["files"].values())
        if whole and record["fingerprint"] == fingerprint:
            return [row if row["status"] == "failed" else {**row, "status": "kept"} for row in record["summary"]]
    elif folder.exists():
        raise InputError(
            f"{folder} exists and is not of an earlier run; it will not be replaced: use another output_dir"
        )

    rows, prepared = _prepare_scans(subject, scans, transform)
    if not prepared:
        return rows

    reference_modality = next(modality for modality in ENDING if modality in prepared)
    _, reference = prepared[reference_modality]
    image, brain = reference["image"], reference["brain"]
    mirror = estimate_mirror(image, brain)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    anat = partial / "anat"
    anat.mkdir(parents=True, exist_ok=True)
    files = {"brain": f"{prefix}_desc-brain_mask.nii.gz"}
    save_volume(brain, anat / files["brain"], np.uint8)
    unusable: list[str] = []
    motions = _save_aligned(prepared, reference_modality, anat, prefix, files)
    for scan in scans:
        if scan.modality in COMPANIONS:
            name = f"{prefix}_desc-{COMPANIONS[scan.modality]}.nii.gz"
            try:
                save_volume(_companion(scan, image, label_value), anat / name, np.int16)
                files[scan.modality] = name
            except Exception as error:  # the scan is good without it, but no healthy person of a patient
                unusable.append(scan.modality)
                failed = {"modality": scan.modality, "status": "failed", "message": reason(error)}
                rows.append({**_row(subject, scan), **failed})
    if make_labels and "label" not in files and reference_modality == "t1":
        files["label"] = f"{prefix}_desc-threetissue_dseg.nii.gz"
        save_volume(tissue_labels(image, brain, mirror), anat / files["label"], np.int16)
    scores = {"before": symmetry(image, brain, mid_plane_reflection(brain)), "after": symmetry(image, brain, mirror)}
    seconds = round((time.perf_counter() - start) / max(1, len(rows)), 1)
    rows = [{**row, "symmetry": round(scores["after"], 3), "seconds": seconds} for row in rows]
    record = {
        "fingerprint": fingerprint,
        "settings": settings,
        "reference": reference_modality,
        "files": files,
        "unusable": unusable,
        "mirror_transform": mirror.tolist(),
        "symmetry": scores,
        "reference_to_scan": motions,
        "summary": rows,
    }
    write_whole(anat / record_path.name, json.dumps(record, indent=1, default=str))
    if folder.exists():
        shutil.rmtree(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(folder)
    return rows


def _prepare(common: Mapping[str, Any], job: tuple[str, Sequence[Scan]]) -> list[dict[str, Any]]:
    return prepare_subject(*job, **common)


def _write_tables(output_dir: Path, rows: Sequence[Mapping[str, Any]], validation_every: int) -> None:
    entries, scans = [], []
    for path in sorted(output_dir.glob("sub-*/**/*_desc-preproc.json")):
        record = json.loads(path.read_text())
        files = {key: str(path.parent.relative_to(output_dir) / file) for key, file in record["files"].items()}
        name = path.name.removesuffix("_desc-preproc.json")
        entry = {"subject": name, "mirror_transform": record["mirror_transform"]}
        if "lesion" not in record.get("unusable", ()):
            entries.append({**entry, **{key: file for key, file in files.items() if key != "brain"}})
        scans += [
            {
                **entry,
                "image": files[key],
                "modality": key,
                "original": row["file"],
                **({"lesion": files["lesion"]} if "lesion" in files else {}),
            }
            for row in record["summary"]
            if (key := row.get("modality")) in files and row["status"] != "left out"
        ]

    def person(entry: Mapping[str, Any]) -> str:
        return entry["subject"].split("_")[0]

    healthy = sorted({person(entry) for entry in entries if "lesion" not in entry})
    held_out = healthy[::validation_every] if validation_every and len(healthy) > 1 else []
    sections = {
        "training": [entry for entry in entries if person(entry) not in held_out],
        "validation": [entry for entry in entries if person(entry) in held_out],
        "test": scans,
    }
    description = {"Name": "UNA preprocessing", "BIDSVersion": "1.9.0", "DatasetType": "derivative"}
    description["GeneratedBy"] = [{"Name": "una_healthy_anatomy"}]
    for name, content in {
        "dataset_description.json": description,
        "datalist.json": {name: section for name, section in sections.items() if section or name != "validation"},
    }.items():
        write_whole(output_dir / name, json.dumps(content, indent=1))
    write_whole(output_dir / "summary.csv", pd.DataFrame(rows).to_csv(index=False))


def prepare_cohort(
    source: str | Path,
    output_dir: str | Path,
    transform: Callable,
    settings: Mapping[str, Any],
    modality: str | None = None,
    crew: Crew | None = None,
    make_labels: bool = True,
    label_value: int | Sequence[int] | None = None,
    validation_every: int = 10,
) -> pd.DataFrame:
    """Prepare all subjects that a path stands for; see `find_subjects` and `prepare_subject`.

    Every finished subject is on disk: a run that was killed goes on where it stopped.

    Args:
        source: a scan, a DICOM folder, a folder of any, or a BIDS data set.
        output_dir: where the tree, ``datalist.json`` and ``summary.csv`` go.
        transform: see `prepare_subject`.
        settings: see `prepare_subject`.
        modality: of all scans, when it is known.
        crew: who does it; None for this process alone.
        make_labels, label_value: see `prepare_subject`.
        validation_every: of so many healthy people one is listed for validation, with all sessions; 0: none.

    Returns:
        the summary.

    Raises:
        InputError: when there is nothing to do; and at the end, when scans failed, after everything else was done.
    """
    output_dir = Path(output_dir)
    if source and output_dir.resolve() in (Path(source).resolve(), *Path(source).resolve().parents):
        raise InputError(f"the results would be written among the scans of {source}; use another output_dir")
    output_dir.mkdir(parents=True, exist_ok=True)
    found = find_subjects(source, modality)
    _refuse_one_folder_for_two(found)
    for left_over in output_dir.glob("**/.*.partial-*"):
        if not Path(f"/proc/{left_over.name.rsplit('-', 1)[1]}").exists():
            shutil.rmtree(left_over, ignore_errors=True)
    common = {"transform": transform, "output_dir": output_dir, "settings": settings}
    common |= {"make_labels": make_labels, "label_value": label_value}
    jobs, rows = list(found.items()), []
    for (subject, scans), done in zip(
        jobs, (crew or Crew()).map(_prepare, common, jobs, desc="preparing", unit="subject"), strict=True
    ):
        # A subject that fails as a whole becomes a row of the summary and stops no other.
        failed = isinstance(done, Exception)
        rows += [{**_row(subject, scans[0]), "status": "failed", "message": reason(done)}] if failed else done
    _write_tables(output_dir, rows, validation_every)
    summary = pd.DataFrame(rows)
    failed = summary[summary["status"] == "failed"] if len(summary) else summary
    print(summary.drop(columns=["file"], errors="ignore").to_string(index=False), flush=True)
    if len(failed):
        first = failed.iloc[0]
        raise InputError(
            f"{len(failed)} of {len(summary)} scans could not be prepared (the others are done), see "
            f"{output_dir / 'summary.csv'}; the first: {first['message']}"
        )
    return summary
