"""Where each point of a brain lies in the template: the way of template-space lesion masks to a subject."""

from __future__ import annotations

import tempfile
from functools import lru_cache

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.itk_torch_bridge import metatensor_to_itk_image
from monai.utils import optional_import
from nilearn import datasets

from .coregister import LPS, elastix, parameter_map

itk, _ = optional_import("itk")  # a training on packed subjects has no need of it

__all__ = ["template_displacement"]

VOXEL = 2  # mm, of the registration
STEP = 2  # voxels of the registration to one of the stored field; the B-spline's grid is far coarser


@lru_cache(maxsize=1)
def template_brain() -> tuple[MetaTensor, MetaTensor]:
    """Brain-extracted T1w of the ICBM 2009 template, and its brain mask."""
    t1, mask = datasets.load_mni152_template(resolution=VOXEL), datasets.load_mni152_brain_mask(resolution=VOXEL)
    brain = torch.as_tensor(mask.get_fdata() > 0, dtype=torch.float32)[None]
    values = torch.as_tensor(t1.get_fdata(), dtype=torch.float32)[None]
    return MetaTensor(values * brain, affine=t1.affine), MetaTensor(brain, affine=t1.affine)


def template_displacement(t1: MetaTensor, grid_spacing: float, bending: float) -> tuple[MetaTensor, dict[str, float]]:
    """From every point of a subject to the same point of the template: affine, then B-spline, by mutual information.

    Args:
        t1: ``(1, X, Y, Z)`` brain-extracted T1w with an affine to RAS mm, background 0.
        grid_spacing: of the B-spline's control points, mm.
        bending: weight of its bending energy.

    Returns:
        displacement ``(3, X', Y', Z')`` in RAS mm, on a grid of `STEP` voxels of the input, and how good it is: ``dice`` of
        the brains, and the smallest Jacobian determinant in the brain (folded where it is not above 0).

    Raises:
        InputError: when the registration fails, as it does where no brain is.
    """
    template, its_brain = template_brain()
    affine, spline = parameter_map("affine"), parameter_map("bspline", grid_spacing, bending=bending)
    found = elastix(t1, template, [affine, spline]).GetTransformParameterObject()
    transformix = itk.TransformixFilter.New(metatensor_to_itk_image(its_brain, channel_dim=0, dtype="float32"))
    transformix.SetTransformParameterObject(found)
    transformix.SetComputeDeformationField(True)
    transformix.SetLogToConsole(False)
    with tempfile.TemporaryDirectory() as directory:  # transformix writes the field to a file in any case
        transformix.SetOutputDirectory(directory)
        transformix.UpdateLargestPossibleRegion()
    moved = itk.array_from_image(transformix.GetOutput()).transpose(2, 1, 0) > 0.5
    field = itk.array_from_image(transformix.GetOutputDeformationField()).transpose(2, 1, 0, 3) @ LPS[:3, :3]

    brain = np.asarray(t1[0]) > 0
    points = np.indices(brain.shape).transpose(1, 2, 3, 0) @ np.asarray(t1.affine)[:3, :3].T + field
    jacobian = np.stack([np.stack(np.gradient(points[..., axis]), axis=-1) for axis in range(3)], axis=-2)
    determinant = np.linalg.det(jacobian)[brain] / np.linalg.det(np.asarray(t1.affine)[:3, :3])
    quality = {
        "dice": float(2 * (moved & brain).sum() / (moved.sum() + brain.sum())),
        "least_jacobian": float(determinant.min()),
    }
    coarse = np.diag([STEP, STEP, STEP, 1.0])
    values = np.ascontiguousarray(field[::STEP, ::STEP, ::STEP].transpose(3, 0, 1, 2), dtype=np.float32)
    return MetaTensor(torch.from_numpy(values), affine=np.asarray(t1.affine) @ coarse), quality
