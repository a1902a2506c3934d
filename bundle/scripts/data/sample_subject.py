"""A real anatomy that needs nothing outside the installed packages: the ICBM 2009 templates inside nilearn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from monai.data import MetaTensor
from nilearn import datasets

from ..saving import save_volume, write_whole

__all__ = ["write_sample_subject"]

LEFT = {"white_matter": 2, "gray_matter": 3, "csf": 24}
RIGHT = {"white_matter": 41, "gray_matter": 42, "csf": 24}


def write_sample_subject(directory: str | Path) -> Path:
    """Write the sample subject: healthy T1w, label map, and a datalist that trains and validates on it.

    Each brain voxel gets its most likely tissue: white matter, gray matter, or CSF for what the two leave over, with
    FreeSurfer's numbers, left and right of the template's mid-sagittal plane at x = 0.

    Args:
        directory: where to write; existing files are kept.

    Returns:
        path of the datalist.

    References:
        V. S. Fonov et al., Unbiased average age-appropriate atlases for pediatric studies, NeuroImage 54 (2011).
    """
    directory = Path(directory)
    datalist = directory / "datalist.json"
    if datalist.is_file():
        return datalist
    directory.mkdir(parents=True, exist_ok=True)
    t1 = datasets.load_mni152_template(resolution=1)
    brain = datasets.load_mni152_brain_mask(resolution=1).get_fdata() > 0
    gray, white = (
        load(resolution=1).get_fdata() for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    tissue = np.argmax(np.stack([1.0 - gray - white, gray, white]), axis=0)
    right = (np.arange(t1.shape[0]) * t1.affine[0, 0] + t1.affine[0, 3] > 0)[:, None, None]
    label = np.zeros(t1.shape, dtype=np.int16)
    for index, name in enumerate(("csf", "gray_matter", "white_matter")):
        label[brain & (tissue == index)] = LEFT[name]
        label[brain & (tissue == index) & right] = RIGHT[name]
    for name, values in {"t1": (t1.get_fdata() * brain).astype(np.float32), "label": label}.items():
        # Several processes may come here at once; each file appears whole.
        save_volume(MetaTensor(values[None], affine=t1.affine), directory / f"{name}.nii.gz", values.dtype)
    subject = {
        "subject": "icbm2009",
        "label": "label.nii.gz",
        "t1": "t1.nii.gz",
        "mirror_transform": np.diag([-1.0, 1.0, 1.0, 1.0]).tolist(),
    }
    write_whole(datalist, json.dumps({"training": [subject], "validation": [subject]}, indent=1))
    return datalist
