"""127 healthy people of 20 to 82 years, T1w and label map, who train, calibrate and test: ``../shared/data/healthy_t1w_2mm``.

The rule, written before any of them was trained on: in the order of their ages, of every ten people the third, the sixth and the
ninth calibrate, the fifth tests, and the other six train.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from monai.data import MetaTensor
from scipy.ndimage import binary_closing, generate_binary_structure
from scripts.preprocessing import CorrectBiasd
from scripts.volumes import read_volume

from . import SHARED

FOLDER = SHARED / "healthy_t1w_2mm"
PLACES = {"calibration": (2, 5, 8), "test": (4,), "training": (0, 1, 3, 6, 7, 9)}  # of every ten, in the order of age
MIDDLE = np.array([0.0, -22.0, 9.5])  # of the brain of the ICBM template, mm: there the traced masks lie
CSF, CLOSING = 24, 3  # FreeSurfer's number; voxels over which a brain without the CSF of its sulci is closed
# MUSE's numbers (checked on 20 people by place and intensity) to FreeSurfer's; right is even in the cortex.
FREESURFER = {
    1: CSF, 4: 14, 11: 15, 46: CSF, 23: 58, 30: 26, 31: 54, 32: 18, 35: 16, 36: 50, 37: 11, 38: 47, 39: 8, 40: 46, 41: 7, 47: 53,
    48: 17, 49: 44, 50: 5, 51: 43, 52: 4, 55: 52, 56: 13, 57: 51, 58: 12, 59: 49, 60: 10, 61: 60, 62: 28, 69: 85, 75: 3, 76: 42,
    **dict.fromkeys((81, 83, 85, 87, 89, 91, 93), 41), **dict.fromkeys((82, 84, 86, 88, 90, 92, 94), 2), 95: 253,
    **{number: 42 if number % 2 == 0 else 3 for number in range(100, 208)},
}  # fmt: skip
VERMIS = (71, 72, 73)  # on both sides of the midline


def people() -> dict[str, list[str]]:
    """Names of the people by what they are used for, each list in the order of age."""
    table = pd.read_csv(FOLDER / "participants.tsv", sep="\t").sort_values(["age", "participant_id"])
    names = table["participant_id"].tolist()
    return {use: [name for n, name in enumerate(names) if n % 10 in places] for use, places in PLACES.items()}


def freesurfer_labels(muse: MetaTensor) -> np.ndarray:
    """A label map of MUSE, RAS, in FreeSurfer's numbers; the unlabelled CSF of wide sulci becomes CSF.

    Args:
        muse: ``(1, X, Y, Z)``.

    Returns:
        ``(X, Y, Z)``, int16.
    """
    numbers = np.asarray(muse[0]).astype(int)
    table = np.zeros(numbers.max() + 1, dtype=np.int16)
    for number, label in FREESURFER.items():
        if number < len(table):
            table[number] = label
    labels = table[numbers]
    vermis = np.isin(numbers, VERMIS)
    left = np.indices(numbers.shape)[0] < np.median(np.argwhere(vermis)[:, 0]) if vermis.any() else vermis
    labels[vermis] = np.where(left, 8, 47)[vermis]
    closed = binary_closing(np.pad(labels > 0, CLOSING), generate_binary_structure(3, 1), CLOSING)
    inside = closed[(slice(CLOSING, -CLOSING),) * 3]
    return np.where(inside & (labels == 0), CSF, labels)


def write_subject(folder: Path, name: str) -> dict[str, str]:
    """Write T1w and label map, their middle moved to that of the template; the entry of a datalist.

    The coil of this scanner is brightest in the middle of the head: thalamus is at 1.17 of white matter as acquired, at 0.93 after
    N4, where other sequences have it. As a target it must be even.
    """
    t1, muse = (read_volume(FOLDER / f"{name}_{kind}.nii.gz") for kind in ("T1w", "muse"))
    labels = freesurfer_labels(muse)
    t1 = CorrectBiasd("t1")({"t1": t1, "brain": MetaTensor((labels > 0)[None].astype(np.float32), affine=t1.affine)})[
        "t1"
    ]
    affine = np.asarray(t1.affine).copy()
    middle = affine[:3, :3] @ np.argwhere(labels > 0).mean(axis=0) + affine[:3, 3]
    affine[:3, 3] += MIDDLE - middle
    folder.mkdir(parents=True, exist_ok=True)
    entry = {"subject": name}
    for key, values in {"t1": np.asarray(t1[0] * 10.0) * (labels > 0), "label": labels}.items():
        file = folder / f"{name}_{key}.nii.gz"
        nib.save(nib.Nifti1Image(np.round(values).astype(np.int16), affine), file)
        entry[key] = str(file)
    return entry
