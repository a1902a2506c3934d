"""Prepared subjects and traced masks in one file: a training elsewhere needs neither their scans nor what prepares them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import CropForeground
from monai.utils import convert_to_tensor

from ..errors import InputError
from ..saving import whole_file
from ..volumes import read_volume
from .survey import code_hash

__all__ = ["PackedSubjects", "packed_subjects", "write_packed"]

LEVELS = 4095  # of an intensity
# Keys of the generator that the preparation depends on.
PREPARATION = ("voxel_size", "csf_closing", "typical_texture", "labels", "typical_t1", "prepare")


def _as_integers(volume: torch.Tensor) -> tuple[np.ndarray, dict[str, Any]]:
    """The values of a volume as small integers, and what brings them back."""
    values = convert_to_tensor(volume, track_meta=False).numpy()
    whole = np.array_equal(values, np.round(values)) and np.abs(values).max() <= np.iinfo(np.int16).max
    scale = 1.0 if whole else float(np.abs(values).max()) / LEVELS
    numbers = np.round(values / scale).astype(np.int16)
    if numbers.min() >= 0 and numbers.max() <= np.iinfo(np.uint8).max:
        numbers = numbers.astype(np.uint8)
    affine = volume.affine.tolist() if isinstance(volume, MetaTensor) else None
    return numbers, {"scale": scale, "affine": affine, "dtype": str(values.dtype)}


def _as_volume(numbers: np.ndarray, note: Mapping[str, Any]) -> torch.Tensor:
    values = torch.from_numpy(numbers * note["scale"] if note["scale"] != 1.0 else numbers)
    values = values.to(getattr(torch, note["dtype"]))
    return values if note["affine"] is None else MetaTensor(values, affine=torch.tensor(note["affine"]).double())


def write_packed(
    path: str | Path,
    sections: Mapping[str, Sequence[Mapping[str, Any]]],
    traced_masks: Sequence[str | Path],
    settings: Mapping[str, Any],
) -> Path:
    """Write prepared subjects and traced masks as one compressed ``.npz``.

    Label maps and masks keep their values. An intensity is rounded to the nearest of 4095 levels up to the volume's largest. A
    mask is cropped to its bounding box.

    Args:
        path: of the file.
        sections: prepared subjects, ``training`` and ``validation``.
        traced_masks: NIfTI files.
        settings: keys of the generator; those that the preparation depends on are noted.

    Raises:
        InputError: when a subject needs a file beside it (``template_displacement``).
    """
    arrays: dict[str, np.ndarray] = {}
    notes: dict[str, Any] = {name: [] for name in sections}
    for section, subjects in sections.items():
        for number in range(len(subjects)):
            note: dict[str, Any] = {}
            for key, value in subjects[number].items():
                if key == "template_displacement":
                    raise InputError(
                        f"{subjects[number]['subject']} has a template_displacement, which cannot be packed; train without packing"
                    )
                if torch.is_tensor(value) and value.ndim == 4:
                    arrays[f"{section}/{number}/{key}"], note[key] = _as_integers(value)
                else:
                    note[key] = np.asarray(value).tolist() if not isinstance(value, str) else value
            notes[section].append(note)
    crop = CropForeground(margin=1)
    notes["masks"] = []
    for file in traced_masks:
        mask = (read_volume(file) >= 0.5).float()
        if mask.any():
            arrays[f"masks/{len(notes['masks'])}"], note = _as_integers(crop(mask))
            notes["masks"].append({**note, "name": Path(file).name})
    notes["code"] = code_hash()
    notes["settings"] = {key: settings[key] for key in PREPARATION if key in settings}
    with whole_file(path) as partial, partial.open("wb") as stream:
        np.savez_compressed(stream, notes=np.array(json.dumps(notes)), **arrays)
    found = ", ".join(f"{len(notes[name])} {name}" for name in (*sections, "masks"))
    print(f"{path}: {found}; {Path(path).stat().st_size / 2**20:.1f} MiB", flush=True)
    return Path(path)


class PackedSubjects(Sequence):
    """The subjects of a section of a packed file, in the place of a `SubjectCache`.

    Args:
        subjects: prepared, their volumes on the device where samples are made.
    """

    def __init__(self, subjects: Sequence[Mapping[str, Any]]) -> None:
        self.data = list(subjects)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number):
        return dict(self.data[number])

    def finish(self) -> None:
        """Nothing was left out."""


def packed_subjects(
    path: str | Path | None, settings: Mapping[str, Any], device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """What replaces keys of ``generator.yaml`` when a packed file is used.

    Args:
        path: of the file; None for no packed file.
        settings: keys of the generator, which must be those of the packing where the preparation depends on them.
        device: on which the volumes of the subjects shall lie.

    Returns:
        ``subjects``, ``validation_cache`` and ``traced_masks``; nothing without a file.

    Raises:
        InputError: when the file is missing, is not a packed file, or was made with other settings.
    """
    if path is None:
        return {}
    if not Path(path).is_file():
        raise InputError(
            f"there are no packed subjects at {path}; write them with 'run packing', or leave --packed out"
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        notes = json.loads(str(arrays.pop("notes")))
    except Exception as error:
        raise InputError(f"{path} is damaged or was not written by 'run packing'; pack the subjects again") from error
    wanted = {key: settings[key] for key in PREPARATION if key in settings}
    if wanted != notes["settings"]:
        raise InputError(
            f"{path} was packed with {notes['settings']}, this run asks for {wanted}; pack again, or set these keys as then"
        )
    if notes["code"] != code_hash():
        print(f"{path} was packed by another version of the code", flush=True)

    def section(name: str) -> PackedSubjects:
        subjects = []
        for number, note in enumerate(notes[name]):
            volumes = {key: f"{name}/{number}/{key}" for key in note if f"{name}/{number}/{key}" in arrays}
            known = {key: value for key, value in note.items() if key not in volumes}
            placed = {key: _as_volume(arrays[at], note[key]).to(device) for key, at in volumes.items()}
            subjects.append({**known, **placed})
        return PackedSubjects(subjects)

    masks = []
    for number, note in enumerate(notes["masks"]):
        mask = _as_volume(arrays[f"masks/{number}"], note | {"dtype": "uint8"})
        mask.meta["filename_or_obj"] = note["name"]
        masks.append(mask)
    return {"subjects": section("training"), "validation_cache": section("validation"), "traced_masks": masks}
