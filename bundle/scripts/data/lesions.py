"""Bring the library of traced lesion masks, which lie in template space, to each training subject."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib

from ..errors import InputError
from ..jobs import Crew, reason
from ..preprocessing import template_displacement
from ..saving import whole_file, write_whole
from .datalist import load_datalist
from .sample_subject import write_sample_subject

__all__ = ["register_lesions"]


def _register(common: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    prepare, output_dir, settings = common["prepare"], common["output_dir"], common["settings"]
    subject = str(entry["subject"])
    path, record_path = (output_dir / f"{subject}_to-template_displacement{end}" for end in (".nii", ".json"))
    source = Path(entry.get("t1", entry.get("label")))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + source.read_bytes()).hexdigest()
    if record_path.is_file() and path.is_file():
        record = json.loads(record_path.read_text())
        if record["fingerprint"] == digest:
            return {**record["summary"], "status": "kept"}
    # The field of another file or other settings must not be taken for this one's if this one fails.
    path.unlink(missing_ok=True)
    row: dict[str, Any] = {"subject": subject, "status": "done", "message": ""}
    data = prepare(dict(entry))
    displacement, quality = template_displacement(data.get("t1", data.get("typical_t1")), **settings)
    row |= {name: round(value, 3) for name, value in quality.items()}
    image = nib.Nifti1Image(displacement.numpy().transpose(1, 2, 3, 0)[:, :, :, None], displacement.affine.numpy())
    image.header.set_intent("vector")
    with whole_file(path) as partial:
        image.to_filename(partial)
    write_whole(record_path, json.dumps({"fingerprint": digest, "settings": dict(settings), "summary": row}, indent=1))
    return row


def register_lesions(
    datalist: str | Path | None,
    prepare: Callable,
    output_dir: str | Path,
    settings: Mapping[str, float],
    crew: Crew | None = None,
) -> list[dict[str, Any]]:
    """Register every subject of a datalist to the template in which lesions are traced.

    One displacement field a subject brings any mask of the library to it when the mask is drawn, in one interpolation:
    the same lesions as a warped copy of every mask for every subject, without writing masks x subjects files, and masks that
    join the library later need no new registration. A subject that was done with the same file and settings is kept.

    Args:
        datalist: of the subjects, training and validation; None for the sample subject.
        prepare: from an entry to a brain-extracted ``t1`` or ``typical_t1``.
        output_dir: fields, their records, and ``datalist.json`` with ``template_displacement`` in every entry go here.
        settings: arguments of `template_displacement`.
        crew: who does it; None for this process alone.

    Returns:
        a row a subject: ``status``, ``dice``, ``least_jacobian``.

    Raises:
        InputError: when two subjects share a name; and at the end, when subjects failed, after everything else was done.
    """
    output_dir = Path(output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if datalist is None:
        datalist = write_sample_subject(output_dir / "sample_subject")
    sections = {"training": load_datalist(datalist, "training")}
    if json.loads(Path(datalist).read_text(encoding="utf-8-sig")).get("validation"):
        sections["validation"] = load_datalist(datalist, "validation")
    subjects: dict[str, dict[str, Any]] = {}
    for entry in (entry for entries in sections.values() for entry in entries):
        if "t1" not in entry and "label" not in entry:
            continue
        name = entry["subject"] = str(entry["subject"]).replace("/", "-")
        first = subjects.setdefault(name, entry)
        if (first.get("t1"), first.get("label")) != (entry.get("t1"), entry.get("label")):
            raise InputError(f"{datalist} has two subjects '{name}' with different files; give each a name of its own")
    common = {"prepare": prepare, "output_dir": output_dir, "settings": dict(settings)}
    done = (crew or Crew()).map(_register, common, list(subjects.values()), desc="registering", unit="subject")
    rows = [
        {"subject": subject, "status": "failed", "message": reason(row)} if isinstance(row, Exception) else row
        for subject, row in zip(subjects, done, strict=True)
    ]
    for entry in (entry for entries in sections.values() for entry in entries):
        field = output_dir / f"{entry['subject']}_to-template_displacement.nii"
        if field.is_file():
            entry["template_displacement"] = str(field.resolve())
    write_whole(output_dir / "datalist.json", json.dumps(sections, indent=1))
    failed = [row for row in rows if row["status"] == "failed"]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items() if value != ""), flush=True)
    if failed:
        raise InputError(
            f"{len(failed)} of {len(rows)} subjects could not be registered (the others are done); the first, "
            f"{failed[0]['subject']}: {failed[0]['message']}"
        )
    return rows
