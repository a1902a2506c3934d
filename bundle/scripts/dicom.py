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
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .errors import InputError

__all__ = ["Stack", "find_stacks", "read_pixels", "stack_geometry"]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's world to RAS and back
UNEVEN = 0.1  # share of the slice distance by which a step may differ
LOST = 0.1  # share of the images of a series that may lie otherwise than the rest
COSINE = 0.01  # by which direction cosines of one stack may differ
PLACE = 0.02  # mm, below which two images lie at one place
SIDEWAYS = 0.5  # pixels by which an image may lie beside the line of its stack
# What tells volumes in one series apart, how it is called in a name, and by what share it may drift within a volume.
SPLITTERS = {
    "EchoTime": ("echo", 0.03),
    "DiffusionBValue": ("b", 0.03),
    "InversionTime": ("ti", 0.03),
    "FlipAngle": ("flip", 0.03),
    "TemporalPositionIdentifier": ("time", 0.0),
    "AcquisitionNumber": ("acquisition", 0.0),
    "SeriesNumber": ("series", 0.0),
}
CONTRASTS = ("EchoTime", "DiffusionBValue", "InversionTime", "FlipAngle")  # two values of these are two contrasts
SOP_CLASSES = {
    "MR": ("1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4"),
    "CT": ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"),
}
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
NO_AGENT = ("", "no", "none", "n", "0", "without", "nil", "no contrast")


Images = list[tuple[Path, Any]]  # file and header of each


@dataclass
class Stack:
    """The images of one volume, from one end to the other.

    Args:
        files: of the images; one for an enhanced multi-frame image.
        description: of the series, with what tells this volume from others of the series.
        modality: "MR" or "CT".
        patient: PatientID, or the name of the folder.
        study: date, time and StudyInstanceUID, so that studies sort by when they were.
        notes: what was left out, and why.
        problem: why this is no volume; None for a sound one.
        agent: whether a contrast agent is told.
    """

    files: tuple[Path, ...]
    description: str
    modality: str
    patient: str
    study: str
    notes: list[str] = field(default_factory=list)
    problem: str | None = None
    agent: bool = False


def _read_header(file: Path) -> Any:
    """The data elements of a DICOM file before its pixels; one without the preamble that the standard asks for is read, too.

    Raises:
        InvalidDicomError: when it is no DICOM file.
    """
    with file.open("rb") as stream:
        start = stream.read(132)
    # Without a preamble a file begins with an element of its first group.
    bare = start[128:] != b"DICM" and start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    header = pydicom.dcmread(file, stop_before_pixels=True, force=bare)
    if bare and "SOPClassUID" not in header:
        raise InvalidDicomError(f"{file} is no DICOM file")
    return header


def _headers(files: Iterable[Path], passed: Counter[str]) -> Images:
    """The images among files; why the others are passed over is counted."""
    found = []
    for file in files:
        try:
            header = _read_header(file)
        except Exception:  # whatever a file of another type does to the reader
            passed["no DICOM file"] += 1
            continue
        if "Rows" not in header:
            passed["no image"] += 1
        elif header.get("SOPClassUID") == SECONDARY_CAPTURE:
            passed["a screen capture"] += 1
        elif _modality(header) is None:
            passed[f"of modality {header.get('Modality') or 'unknown'}"] += 1
        else:
            found.append((file, header))
    return found


def _modality(header: Any) -> str | None:
    """ "MR" or "CT", as the tag or the SOP class says; None for anything else."""
    if told := str(header.get("Modality") or ""):
        return told if told in SOP_CLASSES else None
    return next((name for name, classes in SOP_CLASSES.items() if header.get("SOPClassUID") in classes), None)


def _numbers(header: Any, keyword: str, count: int) -> np.ndarray | None:
    """The numbers of an element, or None where it is missing, empty or holds something else."""
    try:
        values = np.atleast_1d(np.array(header.get(keyword), dtype=float))
    except (TypeError, ValueError):
        return None
    return values if values.shape == (count,) and np.isfinite(values).all() else None


def _text(images: Images, keyword: str) -> str:
    """The text of an element in the first image that has one."""
    return next(filter(None, (str(header.get(keyword) or "").strip() for _, header in images)), "")


def _whole(header: Any, keyword: str, default: int = 0) -> int:
    values = _numbers(header, keyword, 1)
    return default if values is None else int(values[0])


def _orientation(header: Any) -> np.ndarray | None:
    values = _numbers(header, "ImageOrientationPatient", 6)
    return values if values is not None and abs(np.linalg.norm(values[:3]) - 1.0) < 0.1 else None


def _place(header: Any, orientation: np.ndarray | None) -> float:
    """Where an image lies along the normal of its stack, mm."""
    position = _numbers(header, "ImagePositionPatient", 3)
    if position is None or orientation is None:
        return float(_whole(header, "InstanceNumber"))
    return float(np.cross(orientation[:3], orientation[3:]) @ position)


def _alike(one: Any, other: Any) -> bool:
    """Whether two images may belong to one stack: their size and their orientation."""
    if (one.Rows, one.Columns) != (other.Rows, other.Columns):
        return False
    for read, tolerance in ((_orientation, COSINE), (lambda h: _numbers(h, "PixelSpacing", 2), 1e-3)):
        values = [read(header) for header in (one, other)]
        if (values[0] is None) != (values[1] is None):
            return False
        if values[0] is not None and np.abs(values[0] - values[1]).max() > tolerance:
            return False
    return True


def _shapes(images: Images) -> list[Images]:
    """Images by size and orientation, the largest group first."""
    groups: list[Images] = []
    for image in images:
        group = next((group for group in groups if _alike(group[0][1], image[1])), None)
        if group is None:
            groups.append([image])
        else:
            group.append(image)
    return sorted(groups, key=len, reverse=True)


def _by_value(images: Images, keyword: str, drift: float) -> dict[str, Images]:
    """Images by the number that an element has; numbers that differ by no more than a share count as one. {} where one has none."""
    values = [_numbers(header, keyword, 1) for _, header in images]
    if any(value is None for value in values):
        return {}
    numbers = np.concatenate(values)
    order = np.argsort(numbers, kind="stable")
    steps = np.diff(numbers[order]) > drift * np.abs(numbers[order][1:]) + 1e-9
    parts = np.split(order, np.flatnonzero(steps) + 1)
    return {f"{numbers[part[0]]:g}": [images[i] for i in sorted(part)] for part in parts}


def _places(images: Images) -> list[Images]:
    """Images by where they lie, from one end to the other; those of a place in the order in which they were made."""
    orientation = _orientation(images[0][1])
    along = sorted(images, key=lambda image: _place(image[1], orientation))
    groups: list[Images] = []
    for image in along:
        if groups and _place(image[1], orientation) - _place(groups[-1][0][1], orientation) < PLACE:
            groups[-1].append(image)
        else:
            groups.append([image])
    return [sorted(group, key=lambda image: _whole(image[1], "InstanceNumber")) for group in groups]


def _volumes(images: Images) -> dict[str, Images]:
    """Images of one shape by volume. They are parted only where each part repeats the places of the others."""
    places = _places(images)
    if len(places) == len(images):
        return {"": images}
    for keyword, (name, drift) in SPLITTERS.items():
        parts = _by_value(images, keyword, drift)
        if len(parts) < 2 or any(len(_places(part)) != len(places) for part in parts.values()):
            continue
        return {
            f"{name}{value}{'_' if inner else ''}{inner}": volume
            for value, part in parts.items()
            for inner, volume in _volumes(part).items()
        }
    repeats = {len(at) for at in places}
    if len(repeats) > 1:
        return {"": images}
    return {f"volume{number}": [at[number] for at in places] for number in range(repeats.pop())}


def _mixed(images: Images) -> str | None:
    """Why images of one volume are of several contrasts, or None."""
    for keyword in CONTRASTS:
        parts = _by_value(images, keyword, SPLITTERS[keyword][1])
        if len(parts) > 1:
            return f"mixes images of {keyword} {', '.join(list(parts)[:4])} in one stack; export each as a series of its own"
    return None


def _uneven(headers: Sequence[Any]) -> str | None:
    """Why sorted images are no even stack, or None."""
    orientation = _orientation(headers[0])
    positions = [_numbers(header, "ImagePositionPatient", 3) for header in headers]
    if orientation is None or any(position is None for position in positions):
        return "holds images that do not say where they lie; export the series again"
    places = np.array([_place(header, orientation) for header in headers])
    steps = np.diff(places)
    usual = float(np.median(steps))
    if usual <= 1e-3 or steps.min() < PLACE:
        return (
            "has several images at one place, and nothing tells them apart; export the volumes as series of their own"
        )
    odd = np.flatnonzero(np.abs(steps / usual - 1.0) > UNEVEN)
    if len(odd):
        gaps = ", ".join(f"{places[i]:.1f} and {places[i + 1]:.1f} mm" for i in odd[:3])
        return (
            f"has slices every {usual:.2f} mm, but not between {gaps}{' and elsewhere' if len(odd) > 3 else ''}: slices are "
            "missing or uneven; export the whole series again"
        )
    line = np.linspace(positions[0], positions[-1], len(positions))
    pixel = _numbers(headers[0], "PixelSpacing", 2)
    if pixel is not None and np.abs(np.stack(positions) - line).max() > max(SIDEWAYS * pixel.min(), UNEVEN * usual):
        return "has images that are shifted sideways against each other; export the series again, one volume a series"
    return None


def find_stacks(files: Iterable[Path]) -> tuple[list[Stack], Counter[str]]:
    """Group DICOM files into volumes.

    Copies of an image are dropped. A few images of another orientation or size inside a series (a localizer) are left out and
    named. Echoes, b-values and time points of one series become volumes of their own.

    Returns:
        the volumes, and how many files were passed over by the reason.
    """
    passed: Counter[str] = Counter()
    series: dict[str, Images] = defaultdict(list)
    seen: set[tuple] = set()
    for file, header in _headers(files, passed):
        # Some anonymizers give every image one UID: a copy has the place and the number of the first one, too.
        own = ("SOPInstanceUID", "SeriesInstanceUID", "ImagePositionPatient", "InstanceNumber", *SPLITTERS)
        uid = tuple(str(header.get(keyword, file if keyword == "SOPInstanceUID" else "")) for keyword in own)
        if uid in seen:
            passed["a copy of another"] += 1
            continue
        seen.add(uid)
        series[str(header.get("SeriesInstanceUID", file.parent))].append((file, header))
    stacks = []
    for number, images in enumerate(series.values()):
        first = images[0][1]
        known = {
            "modality": _modality(first),
            "patient": _text(images, "PatientID") or images[0][0].parent.name,
            "study": " ".join(
                filter(None, (_text(images, word) for word in ("StudyDate", "StudyTime", "StudyInstanceUID")))
            ),
            "agent": _text(images, "ContrastBolusAgent").lower() not in NO_AGENT,
        }
        name = _text(images, "SeriesDescription") or f"series{number}"
        alone = len(series) == 1
        colour = "is a colour image, not a scan; give the scan itself"
        frames = [image for image in images if _whole(image[1], "NumberOfFrames", 1) > 1]
        for file, header in frames:
            problem = colour if _whole(header, "SamplesPerPixel", 1) > 1 else None
            stacks.append(Stack((file,), name if alone else f"{name}_{number}", problem=problem, **known))
        single = [image for image in images if _whole(image[1], "NumberOfFrames", 1) <= 1]
        shapes = _shapes(single)
        if not shapes or len(shapes[0]) < 2:
            if single:
                passed["alone in its series"] += len(single)
            continue
        main, others = shapes[0], [image for shape in shapes[1:] for image in shape]
        notes = [f"{file.name} has another orientation or size than the series, and is left out" for file, _ in others]
        for told, volume in _volumes(main).items():
            orientation = _orientation(volume[0][1])
            volume = sorted(volume, key=lambda image: _place(image[1], orientation))
            headers = [header for _, header in volume]
            problem = _uneven(headers) or _mixed(volume)
            if len(others) > LOST * len(main):
                problem = (
                    f"has {len(others)} of {len(single)} images of another orientation or size; export each as a series"
                )
            if _whole(first, "SamplesPerPixel", 1) > 1:
                problem = colour
            description = "_".join(filter(None, (name, told, "" if alone else str(number))))
            stacks.append(Stack(tuple(file for file, _ in volume), description, notes=notes, problem=problem, **known))
    return stacks, passed


def stack_geometry(files: Sequence[Path]) -> tuple[np.ndarray, list[int]]:
    """Affine to RAS mm of a stack, a gantry tilt included as shear, and the order of its frames.

    Args:
        files: of `Stack`, sorted.

    Raises:
        InputError: when the images do not say where they lie, or lie unevenly.
    """
    headers = [_read_header(file) for file in files]
    first = headers[0]
    try:
        if _whole(first, "NumberOfFrames", 1) > 1:
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


def _frame_slopes(header: Any) -> np.ndarray | None:
    """Slope and intercept of each frame of a multi-frame image, ``(frames, 2)``, where they differ; else None."""
    if _whole(header, "NumberOfFrames", 1) <= 1 or "PerFrameFunctionalGroupsSequence" not in header:
        return None
    shared = header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()]
    scales = []
    for frame in header.PerFrameFunctionalGroupsSequence:
        group = next((part for part in (frame, shared[0]) if "PixelValueTransformationSequence" in part), None)
        scale = pydicom.Dataset() if group is None else group.PixelValueTransformationSequence[0]
        scales.append((float(scale.get("RescaleSlope", 1.0)), float(scale.get("RescaleIntercept", 0.0))))
    scales = np.array(scales)
    return scales if (np.ptp(scales, axis=0) > 0).any() else None


def read_pixels(files: Sequence[Path]) -> np.ndarray | None:
    """Values of images that ITK cannot read or scales wrongly, ``(slices, rows, columns)`` in the order of the files; else None.

    These are files without a preamble, and multi-frame images whose frames have slopes of their own.
    """
    if len(files) == 1:
        slopes = _frame_slopes(_read_header(files[0]))
        if slopes is None:
            return None
        stored = pydicom.dcmread(files[0]).pixel_array.astype(np.float32)
        return (stored * slopes[:, :1, None] + slopes[:, 1:, None]).astype(np.float32)
    if all(is_dicom(file) for file in files):
        return None
    slices = []
    for file in files:
        image = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in image.file_meta:
            image.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if image.is_implicit_VR else ExplicitVRLittleEndian
            )
        slope, intercept = (float(image.get(k, d)) for k, d in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)))
        slices.append(image.pixel_array.astype(np.float32) * slope + intercept)
    return np.stack(slices)
