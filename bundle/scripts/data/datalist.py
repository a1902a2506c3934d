"""Datalists: which files belong to which subject, and what a user's input path stands for."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..modalities import MODALITIES, modality_of
from ..preprocessing.names import COMPANIONS
from ..preprocessing.sources import find_subjects
from ..volumes import volume_stem
from .masks import matched_masks
from .sample_subject import write_sample_subject

__all__ = ["FILE_KEYS", "find_scans", "find_splits", "load_datalist"]

FILE_KEYS = ("label", *MODALITIES, "lesion", "image", "healthy", "anomaly", "template_displacement")
KNOWN_KEYS = (
    *FILE_KEYS,
    "mirrored",
    "typical_t1",
    "subject",
    "session",
    "modality",
    "mirror_transform",
    "diseased",
    "anatomy",
    "group",
    "original",
    "label_value",
)


NO_CONTENT = hashlib.sha256().hexdigest()  # of a file that cannot be read


def _read_json(path: Path) -> dict[str, Any]:
    """A datalist's content.

    Raises:
        InputError: when it is no JSON, or no object with lists.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin a file with a mark
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not JSON: {error}; a comma after the last entry is a common cause") from error
    if not isinstance(content, dict):
        raise InputError(
            f'{path} is a {type(content).__name__} at the top, not an object; write {{"training": [...], "validation": [...]}} or '
            '{"test": [...]}'
        )
    return content


def _check_entries(path: Path, section: str, entries: Any) -> None:
    """Refuse entries of the wrong form, by number and key, with the key that may be meant."""
    if not isinstance(entries, list):
        raise InputError(f"{path}: '{section}' is a {type(entries).__name__}, not a list of entries")
    for number, entry in enumerate(entries):
        where = f"{path}, '{section}', entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f'{where} is a {type(entry).__name__}; write an object such as {{"image": "scan.nii.gz"}}')
        for key in [key for key, value in entry.items() if value is None and key not in FILE_KEYS]:
            del entry[key]  # as if it were not there
        for key, value in entry.items():
            if key not in KNOWN_KEYS:
                near = difflib.get_close_matches(key.lower(), KNOWN_KEYS, 1)
                raise InputError(f"{where} has the key '{key}', which nothing reads{f'; {near[0]}?' if near else ''}")
            if key == "subject" and not str(value).strip(" ."):
                raise InputError(f"{where} has an empty 'subject'; give it a name, or leave the key out")
            if key in ("subject", "session") and re.search(r"[/\\\0]", str(value)):
                raise InputError(f"{where}: the {key} '{value}' has a slash, and names files; write it without")
            if key == "modality":
                try:
                    entry[key] = modality_of(value)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from error
            if key in FILE_KEYS and not isinstance(value, str):
                raise InputError(f"{where}: '{key}' must be a file name, not {json.dumps(value)}")


def load_datalist(path: str | Path | None, section: str, sample_dir: str | Path | None = None) -> list[dict[str, Any]]:
    """Read one section of a decathlon-style JSON datalist.

    Args:
        path: datalist; its file names are relative to its folder. None for the sample subject.
        section: "training", "validation" or "test".
        sample_dir: where the sample subject is written when `path` is None.

    Returns:
        one dictionary a subject, with absolute file names and ``subject``.

    Raises:
        InputError: when the file is missing, is not such a datalist, has no entry, or names a missing file.
    """
    path = Path(write_sample_subject(sample_dir) if path is None else path)
    if not path.is_file():
        raise InputError(f"no datalist at {path}; give --datalist FILE, or leave it out for the sample subject")
    content = _read_json(path)
    entries = content.get(section)
    if not entries:
        raise InputError(
            f"{path} has no entry under '{section}'; add subjects to it, see the data format in the README"
        )
    _check_entries(path, section, entries)
    subjects = []
    for number, entry in enumerate(entries):
        subject = {"subject": f"{section}_{number:04d}", **entry}
        for key in set(FILE_KEYS) & set(subject):
            file = path.parent / subject[key]
            if not file.is_file():
                raise InputError(
                    f"{path}, subject {subject['subject']}: {key} {file} does not exist; mend the datalist"
                )
            subject[key] = str(file.absolute())
        subjects.append(subject)
    return subjects


def find_scans(
    source: str | Path | None,
    sections: Sequence[str] = ("test", "validation", "training"),
    modality: str | None = None,
    label_dir: str | Path | None = None,
    label_value: int | Sequence[int] | None = None,
) -> list[dict]:
    """What ``--input`` stands for: a scan, a folder of scans, or a datalist whose entries have ``image``.

    Args:
        source: what `find_subjects` takes, or a datalist.
        sections: sections of a datalist, the first present one is taken.
        modality: of all scans, when it is known; else what names tell.
        label_dir: a folder with lesion masks, see `matched_masks`; an entry that has a lesion keeps its own.
        label_value: which labels of a mask are lesion, see `lesion_mask`; an entry that says it keeps its own.

    Returns:
        one dictionary a scan, with ``image``, ``subject`` (a name of the scan, that no other has), ``person`` (the same for all
        scans of one), ``session`` (the same for all scans of one session of one person), ``modality`` (None where nothing tells),
        ``content`` (a hash), and ``mirror_transform`` where a datalist gives it.

    Raises:
        InputError: when nothing is given, nothing is there, or nothing in it is a scan.
    """
    if not source:
        raise InputError("no scan given; add --input FILE, FOLDER or DATALIST.json")
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist; give --input a scan, a folder of scans or a datalist")
    if path.suffix == ".json":
        content = _read_json(path)
        section = next((name for name in sections if content.get(name)), sections[0])
        scans = [
            {**_without_original(scan), "modality": scan.get("modality") if modality is None else modality_of(modality)}
            for scan in load_datalist(path, section)
            if "image" in scan
        ]
        if not scans:
            raise InputError(f"{path} has no entry with an 'image' under '{section}'; add the scans to analyse")
        scans = [{**scan, "person": scan["subject"], "session": _session(scan)} for scan in scans]
        scans = _with_people(_with_content(_named_apart(scans)))
        return _with_masks(scans, label_dir, path.parent, label_value)
    everything = [(person, scan) for person, found in find_subjects(path, modality).items() for scan in found]
    scans = [(person, scan) for person, scan in everything if scan.modality not in COMPANIONS]
    masks = [scan.files[0] for _, scan in everything if scan.modality == "lesion"]
    if masks and label_dir is None:
        print(
            f"{len(masks)} lesion masks in {path} are not read, {masks[0].name} for one; --label_dir says where masks lie",
            flush=True,
        )
    if not scans:
        raise InputError(f"{path} holds label maps or lesion masks, but no scan")
    items = []
    for person, scan in scans:
        # The path is not resolved: a link names the results, which lie below the folder of the link, not beside what it points to.
        files = [str(file.absolute()) for file in scan.files]
        single = not isinstance(scan.files if scan.problem else scan.path, tuple)
        # What has no ending gets one: a name may have dots, and is cut at the last.
        named = scan.files[0] if single else scan.files[0].parent / f"{scan.name}.dcm"
        items.append(
            {
                "image": files[0] if single else files,
                "subject": scan.name,
                "person": person,
                "session": scan.session,
                "modality": scan.modality,
                "output_name": str(named.absolute()),
                "notes": list(scan.notes),
            }
            | ({"problem": scan.problem} if scan.problem else {})
        )
    _refuse_same_outputs([Path(item["output_name"]) for item in items])
    root = path if path.is_dir() else path.parent
    return _with_masks(_with_people(_with_content(_named_apart(items))), label_dir, root, label_value)


def _with_masks(items: list[dict], label_dir: str | Path | None, root: Path, label_value: Any) -> list[dict]:
    """Add the lesion masks of a folder, and which labels of a mask are lesion."""
    found = matched_masks(items, label_dir, root) if label_dir is not None else {}
    for number, item in enumerate(items):
        if number in found and "lesion" not in item and item.get("diseased", True):
            item["lesion"] = found[number]
        if label_value is not None:
            item.setdefault("label_value", label_value)
    return items


def find_splits(source: str | Path, splits: Sequence[str]) -> dict[str, list[dict]]:
    """The scans of each split of a datalist, see `find_scans`.

    Raises:
        InputError: when a split has no entry.
    """
    return {split: find_scans(source, [split]) for split in splits}


def _with_content(items: list[dict]) -> list[dict]:
    """Add a hash of the files, so that a cache of prepared scans notices when a file changes."""
    for item in items:
        digest = hashlib.sha256()
        for file in item["image"] if isinstance(item["image"], list) else [item["image"]]:
            if Path(file).is_file():  # what cannot be read is named when it is read
                digest.update(Path(file).read_bytes())
        item["content"] = digest.hexdigest()
    return items


def _session(entry: Mapping[str, Any]) -> str:
    """The session of an entry of a datalist: its subject, and its ``session`` where it has one."""
    return "_".join(str(entry[key]) for key in ("subject", "session") if key in entry)


def _without_original(scan: dict) -> dict:
    """`preprocessing` notes the file that a scan was made from under a key that a prepared case uses for the scan as read."""
    return {key: value for key, value in scan.items() if key != "original"}


def _named_apart(items: list[dict]) -> list[dict]:
    """Scans whose ``subject`` is a name of their own: several scans of one person get that of their modality, or a number.

    Files of one name in several folders get results that are named after the subject.
    """
    for told in ("modality", None):
        names = Counter(item["subject"] for item in items)
        seen: Counter[str] = Counter()
        for item in items:
            name = item["subject"]
            if names[name] > 1:
                seen[name] += 1
                item["subject"] = f"{name}_{(item.get(told) if told else None) or seen[name]}"
    if len({item["subject"] for item in items}) < len(items):
        raise InputError("two entries of the datalist have the same 'subject'; give each scan its own")
    files = Counter(volume_stem(item["image"]) for item in items if isinstance(item["image"], str))
    for item in items:
        if "output_name" not in item and files[volume_stem(item["image"])] > 1:
            ending = Path(item["image"]).name[len(volume_stem(item["image"])) :]
            item["output_name"] = str(Path(item["image"]).with_name(f"{item['subject']}{ending}"))
    return items


def _with_people(items: list[dict]) -> list[dict]:
    """Sessions and runs are of one person, and so are equal files, which are named."""
    first: dict[str, dict] = {}
    for item in items:
        item["person"] = re.sub(r"_(?:ses|run|acq)-[^_]+", "", str(item["person"]))
        known = first.setdefault(item["content"], item)
        if known is not item and item["content"] != NO_CONTENT:
            item["person"] = known["person"]
            print(f"{item['image']} is the same file as {known['image']}; both are one person's", flush=True)
    return items


def _refuse_same_outputs(files: Sequence[Path]) -> None:
    """Results are named by the scan without its ending: one must not overwrite another's."""
    outputs: dict[Path, Path] = {}
    for file in files:
        output = file.with_name(volume_stem(file))
        if output in outputs:
            raise InputError(
                f"the results of {outputs[output]} and {file} would both be written to {output.name}_*; rename one"
            )
        outputs[output] = file
