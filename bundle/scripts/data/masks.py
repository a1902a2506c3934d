"""Which lesion mask of a folder belongs to which scan."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..modalities import MODALITIES
from ..preprocessing.names import read_name
from ..volumes import VOLUME_ENDINGS, volume_stem

__all__ = ["matched_masks"]

# What viewers, challenges and BIDS append to the name of a scan.
ENDINGS = re.compile(
    r"(?:[_.-](?:space-[a-z0-9]+|label-(?:lesions?|l)|desc-[a-z0-9]*lesions?|lesions?|lesionmask|labels?|mask|roi|seg(?:mentation)?|gt|manual))+$",
    re.IGNORECASE,
)


def _source(scan: Mapping[str, Any]) -> Path:
    """The file that names the results of a scan."""
    image = scan["image"] if isinstance(scan["image"], str) else scan["image"][0]
    return Path(scan.get("output_name", image))


def _bare(stem: str) -> str:
    return ENDINGS.sub("", stem)


def _below(path: Path, root: Path) -> tuple[str, ...]:
    """Folders of a file below a root; none where it lies elsewhere."""
    return path.relative_to(root).parts[:-1] if path.is_relative_to(root) else ()


def _rank(mask: Path, scan: Mapping[str, Any], label_dir: Path, root: Path) -> int | None:
    """How surely a mask belongs to a scan by its name, 0 the surest; None where it does not.

    0. the path of the scan, below another folder; 1. the same with a usual ending; 2. the name of the scan in another folder, in
    small or capital letters; 3. the name of the person, and no other modality.
    """
    source = _source(scan)
    own, other = volume_stem(source), volume_stem(mask)
    same_folder = _below(mask, label_dir) == _below(source, root)
    if same_folder and other == own:
        return 0
    if same_folder and _bare(other) == own:
        return 1
    if own.lower() in (other.lower(), _bare(other).lower()):
        return 2
    named, scanned = read_name(_bare(other)), read_name(own)
    if named.kind in MODALITIES and named.kind != scan.get("modality"):
        return None
    people = {str(scan["person"]).lower(), scanned.person.lower()} - {""}
    return 3 if {named.person.lower(), _bare(other).lower()} & people else None


def matched_masks(scans: Sequence[Mapping[str, Any]], label_dir: str | Path, root: str | Path) -> dict[int, str]:
    """The mask of each scan, by the names of the files below a folder.

    Args:
        scans: entries as `find_scans` gives them.
        label_dir: folder of the masks.
        root: folder of the scans.

    Returns:
        number of the scan to file. A scan without a mask is named, as is a mask that belongs to no scan.

    Raises:
        InputError: when there is no such folder, nothing in it belongs to a scan, a mask belongs to scans of two people, or a scan
            has two masks.
    """
    label_dir, root = Path(label_dir).absolute(), Path(root).absolute()
    if not label_dir.is_dir():
        raise InputError(f"there is no folder {label_dir}; give --label_dir the folder of the masks")
    images = {_source(scan).resolve() for scan in scans}
    files = [
        file
        for file in sorted(label_dir.rglob("*"))
        if file.name.lower().endswith(VOLUME_ENDINGS) and not file.name.startswith(".") and file.resolve() not in images
    ]
    candidates: dict[int, list[tuple[int, Path]]] = defaultdict(list)
    unused = []
    for file in files:
        ranks = {number: _rank(file, scan, label_dir, root) for number, scan in enumerate(scans)}
        known = {number: rank for number, rank in ranks.items() if rank is not None}
        best = min(known.values(), default=None)
        chosen = [number for number, rank in known.items() if rank == best]
        people = {str(scans[number]["person"]): scans[number] for number in chosen}
        if len(people) > 1:
            one, other = (_source(scan) for scan in list(people.values())[:2])
            raise InputError(
                f"{file} may belong to {one} or to {other}: sort the masks into folders as the scans are, or rename one"
            )
        for number in chosen:
            candidates[number].append((best, file))
        unused += [] if chosen else [file]
    if not candidates:
        example = (
            f"{files[0].name} and {len(files) - 1} more" if len(files) > 1 else (files[0].name if files else "nothing")
        )
        raise InputError(
            f"no mask in {label_dir} belongs to a scan: it holds {example}, the first scan is {_source(scans[0]).name}; name it "
            "as its scan, or with _lesion at the end"
        )
    found = {}
    for number, masks in candidates.items():
        best = min(rank for rank, _ in masks)
        surest = [file for rank, file in masks if rank == best]
        if len(surest) > 1:
            raise InputError(
                f"{_source(scans[number])} has two masks, {surest[0]} and {surest[1]}; leave one in {label_dir}"
            )
        found[number] = str(surest[0])
    without = [_source(scan).name for number, scan in enumerate(scans) if number not in found]
    if without:
        print(f"no mask in {label_dir} for {', '.join(without)}", flush=True)
    if unused:
        print(
            f"no scan for {', '.join(file.name for file in unused[:5])}{' ...' if len(unused) > 5 else ''}", flush=True
        )
    return found
