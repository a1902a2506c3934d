"""DICOM files as stacks: which images make one volume, in which order, and where each lies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.misc import is_dicom

from .errors import InputError

__all__ = ["Stack", "find_stacks", "stack_geometry"]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's world to RAS and back
UNEVEN = 0.1  # share of the slice distance by which a step may differ
# What tells volumes in one series apart, and how it is called in a name.
SPLITTERS = {
    "EchoTime": "echo",
    "DiffusionBValue": "b",
    "TemporalPositionIdentifier": "time",
    "InversionTime": "ti",
    "FlipAngle": "flip",
}


@dataclass
class Stack:
    """The images of one volume, from one end to the other.

    Args:
        files: of the images; one for an enhanced multi-frame image.
        description: of the series, with what tells this volume from others of the series.
        modality: "MR" or "CT".
        patient: PatientID, or the name of the folder.
        study: StudyInstanceUID.
        notes: what was left out, and why.
        problem: why this is no volume; None for a sound one.
    """

    files: tuple[Path, ...]
    description: str
    modality: str
    patient: str
    study: str
    notes: list[str] = field(default_factory=list)
    problem: str | None = None


def _headers(files: Iterable[Path]) -> list[tuple[Path, Any]]:
    found = []
    for file in files:
        try:
            if file.suffix.lower() in (".dcm", ".ima", "") or is_dicom(file):
                header = pydicom.dcmread(file, stop_before_pixels=True)
                if "SeriesInstanceUID" in header and "Rows" in header:
                    found.append((file, header))
        except (InvalidDicomError, OSError):
            continue
    return found


def _orientation(header: Any) -> tuple[float, ...] | None:
    if "ImageOrientationPatient" not in header:
        return None
    return tuple(np.round(np.array(header.ImageOrientationPatient, dtype=float), 2).tolist())


def _place(header: Any) -> float:
    """Where an image lies along the normal of its plane, mm."""
    if "ImagePositionPatient" not in header or "ImageOrientationPatient" not in header:
        return float(header.get("InstanceNumber", 0) or 0)
    row, column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return float(np.cross(row, column) @ np.array(header.ImagePositionPatient, dtype=float))


def _shape(header: Any) -> tuple:
    return (_orientation(header), header.Rows, header.Columns)


def _volumes(images: list[tuple[Path, Any]]) -> dict[str, list[tuple[Path, Any]]]:
    """Images of one shape by volume: what differs in them tells, else the order in which they were made."""
    for keyword, name in SPLITTERS.items():
        values = {str(header.get(keyword, "")) for _, header in images}
        if len(values) > 1:
            parts = {value: [(f, h) for f, h in images if str(h.get(keyword, "")) == value] for value in sorted(values)}
            if len({len(part) for part in parts.values()}) == 1 or keyword in ("EchoTime", "DiffusionBValue"):
                return {
                    f"{name}{value}{'_' if inner else ''}{inner}": volume
                    for value, part in parts.items()
                    for inner, volume in _volumes(part).items()
                }
    places = defaultdict(list)
    for file, header in sorted(images, key=lambda image: int(image[1].get("InstanceNumber", 0) or 0)):
        places[round(_place(header), 2)].append((file, header))
    repeats = {len(at) for at in places.values()}
    if repeats == {1} or len(repeats) > 1:
        return {"": images}
    return {f"volume{number}": [at[number] for at in places.values()] for number in range(repeats.pop())}


def _uneven(headers: Sequence[Any]) -> str | None:
    """Why sorted images are no even stack, or None."""
    places = np.array([_place(header) for header in headers])
    steps = np.diff(places)
    usual = float(np.median(steps))
    if usual <= 1e-3:
        return (
            "has several images at one place, and nothing tells them apart; export the volumes as series of their own"
        )
    odd = np.flatnonzero(np.abs(steps / usual - 1.0) > UNEVEN)
    if not len(odd):
        return None
    gaps = ", ".join(f"{places[i]:.1f} and {places[i + 1]:.1f} mm" for i in odd[:3])
    return (
        f"has slices every {usual:.2f} mm, but not between {gaps}{' and elsewhere' if len(odd) > 3 else ''}: slices are missing or "
        "uneven; export the whole series again"
    )


def find_stacks(files: Iterable[Path]) -> list[Stack]:
    """Group DICOM files into volumes; files of other types, and series that are no images of CT or MR, are passed over.

    Copies of an image are dropped. A few images of another orientation or size inside a series (a localizer) are left out and
    named. Echoes, b-values and time points of one series become volumes of their own.
    """
    series: dict[str, list[tuple[Path, Any]]] = defaultdict(list)
    seen: set[str] = set()
    for file, header in _headers(files):
        uid = str(header.get("SOPInstanceUID", file))
        if uid not in seen and header.get("Modality") in ("CT", "MR"):
            seen.add(uid)
            series[str(header.SeriesInstanceUID)].append((file, header))
    stacks = []
    for number, images in enumerate(series.values()):
        first = images[0][1]
        known = (str(first.Modality), str(first.get("PatientID", "")) or images[0][0].parent.name)
        known += (str(first.get("StudyInstanceUID", "")),)
        name = str(first.get("SeriesDescription", "")) or f"series{number}"
        if int(first.get("NumberOfFrames", 1) or 1) > 1:
            stacks += [Stack((file,), f"{name}_{number}" if len(series) > 1 else name, *known) for file, _ in images]
            continue
        shapes = Counter(_shape(header) for _, header in images)
        main, count = shapes.most_common(1)[0]
        if count < 2:
            continue
        notes = [
            f"{file.name} has another orientation or size than the series, and is left out"
            for file, header in images
            if _shape(header) != main
        ]
        volumes = _volumes([image for image in images if _shape(image[1]) == main])
        for told, volume in volumes.items():
            volume = sorted(volume, key=lambda image: _place(image[1]))
            if len(volume) < 2:
                continue
            description = "_".join(filter(None, (name, told, str(number) if len(series) > 1 else "")))
            problem = _uneven([header for _, header in volume])
            stacks.append(Stack(tuple(file for file, _ in volume), description, *known, notes, problem))
    return stacks


def stack_geometry(files: Sequence[Path]) -> tuple[np.ndarray, list[int]]:
    """Affine to RAS mm of a stack, a gantry tilt included as shear, and the order of its frames.

    Args:
        files: of `Stack`, sorted.

    Raises:
        InputError: when the images do not say where they lie, or lie unevenly.
    """
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in files]
    first = headers[0]
    try:
        if int(first.get("NumberOfFrames", 1) or 1) > 1:
            shared, frames = first.SharedFunctionalGroupsSequence[0], first.PerFrameFunctionalGroupsSequence

            def group(frame: Any, name: str) -> Any:
                return (frame if name in frame else shared)[name][0]

            orientation = group(frames[0], "PlaneOrientationSequence").ImageOrientationPatient
            pixel = group(frames[0], "PixelMeasuresSequence").PixelSpacing
            positions = np.array([group(f, "PlanePositionSequence").ImagePositionPatient for f in frames], dtype=float)
        else:
            orientation, pixel = first.ImageOrientationPatient, first.PixelSpacing
            positions = np.array([header.ImagePositionPatient for header in headers], dtype=float)
    except (AttributeError, KeyError, IndexError) as error:
        raise InputError(
            f"{files[0].parent} holds DICOM images that do not say where they lie ({error}); export the series again"
        ) from error
    row, column = np.array(orientation, dtype=float).reshape(2, 3)
    along = positions @ np.cross(row, column)
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    if len(steps) == 0 or steps.min() <= 1e-3 or (np.abs(steps / np.median(steps) - 1.0) > UNEVEN).any():
        raise InputError(
            f"{files[0].parent} holds DICOM images that are no even stack (steps of {np.min(steps, initial=0):.2f} to "
            f"{np.max(steps, initial=0):.2f} mm); export the series again, one volume a series"
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * float(pixel[1]), column * float(pixel[0])
    affine[:3, 2] = (positions[order[-1]] - positions[order[0]]) / (len(order) - 1)
    affine[:3, 3] = positions[order[0]]
    return LPS @ affine, order.tolist()
