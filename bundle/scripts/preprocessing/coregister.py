"""Registration by elastix, and the rigid one of a subject's scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.itk_torch_bridge import metatensor_to_itk_image
from monai.utils import optional_import

from ..dicom import LPS
from ..errors import InputError
from ..volumes import on_grid

itk, _ = optional_import("itk")  # a training on packed subjects has no need of it

__all__ = ["elastix", "moved_onto", "parameter_map", "rigid_registration"]


def moved_onto(volume: MetaTensor, motion: np.ndarray, grid: MetaTensor, mode: str = "bilinear") -> MetaTensor:
    """A volume whose points went where `motion` (4x4 on RAS mm) takes them, on another grid; one interpolation."""
    moved = MetaTensor(volume.as_tensor().float(), affine=torch.as_tensor(motion) @ volume.affine.double())
    return on_grid(moved, grid, mode)


def parameter_map(kind: str, grid_spacing: float = 16.0, resolutions: int = 3, bending: float = 0.0):
    """elastix's default parameters of a "rigid", "affine" or "bspline" registration by mutual information.

    Args:
        kind: of transform.
        grid_spacing: of a B-spline's control points, mm.
        resolutions: levels of the pyramid.
        bending: weight of a B-spline's bending energy; 0 leaves it out, which takes a fifth of the time and may fold.
    """
    found = itk.ParameterObject.New().GetDefaultParameterMap(kind, resolutions, grid_spacing)
    found["Metric"] = ["AdvancedMattesMutualInformation"]
    # elastix's default pyramid smooths the images anew in every iteration: minutes instead of seconds.
    for image in ("Fixed", "Moving"):
        found[f"{image}ImagePyramid"] = [f"{image}RecursiveImagePyramid"]
    if bending:
        found["Registration"] = ["MultiMetricMultiResolutionRegistration"]
        found["Metric"] = ["AdvancedMattesMutualInformation", "TransformBendingEnergyPenalty"]
        found["Metric0Weight"], found["Metric1Weight"] = ["1.0"], [str(float(bending))]
    found["AutomaticTransformInitialization"] = ["true"]
    found["AutomaticTransformInitializationMethod"] = ["CenterOfGravity"]
    found["ErodeMask"] = ["false"]
    found["WriteResultImage"] = ["false"]
    return found


def elastix(
    fixed: MetaTensor,
    moving: MetaTensor,
    maps: Sequence,
    fixed_mask: MetaTensor | None = None,
    moving_mask: MetaTensor | None = None,
):
    """Run elastix, one parameter map after the other.

    Args:
        fixed: ``(1, X, Y, Z)`` with an affine to RAS mm.
        moving: likewise.
        maps: see `parameter_map`.
        fixed_mask: where the fixed scan counts; None for everywhere.
        moving_mask: where the moving scan counts; None for everywhere.

    Returns:
        ITK's registration filter. Its transforms go from points of `fixed` to points of `moving`.

    Raises:
        InputError: when elastix gives up, as it does where the two do not overlap.
    """
    parameters = itk.ParameterObject.New()
    for parameter in maps:
        parameters.AddParameterMap(parameter)
    images = [metatensor_to_itk_image(volume, channel_dim=0, dtype="float32") for volume in (fixed, moving)]
    registration = itk.ElastixRegistrationMethod.New(*images)
    registration.SetParameterObject(parameters)
    registration.SetLogToConsole(False)
    # An iteration looks at 2,000 points: threads would wait for each other more than they compute, minutes instead of seconds.
    registration.SetNumberOfThreads(1)
    if fixed_mask is not None:
        registration.SetFixedMask(metatensor_to_itk_image(fixed_mask, channel_dim=0, dtype="uint8"))
    if moving_mask is not None:
        registration.SetMovingMask(metatensor_to_itk_image(moving_mask, channel_dim=0, dtype="uint8"))
    try:
        registration.UpdateLargestPossibleRegion()
    except RuntimeError as error:
        name = fixed.meta.get("filename_or_obj", "the scan")
        raise InputError(f"{name} cannot be registered: is it a brain, and is its affine right?") from error
    return registration


def rigid_registration(
    fixed: MetaTensor,
    moving: MetaTensor,
    resolutions: int = 3,
    fixed_mask: MetaTensor | None = None,
    start: str | None = "CenterOfGravity",
) -> np.ndarray:
    """The rigid motion that takes a point of the fixed scan to the same point of the moving scan, by mutual information.

    Args:
        fixed: ``(1, X, Y, Z)``, with an affine to RAS mm; brain-extracted.
        moving: the same person's other scan, any contrast; brain-extracted.
        resolutions: levels of the pyramid.
        fixed_mask: where the fixed scan counts; None for everywhere.
        start: elastix's first guess of the translation; None for none, where both lie in one world.

    Returns:
        4x4 matrix on RAS mm.
    """
    rigid = parameter_map("rigid", resolutions=resolutions)
    rigid["AutomaticTransformInitialization"] = ["false" if start is None else "true"]
    if start is not None:
        rigid["AutomaticTransformInitializationMethod"] = [start]
    found = elastix(fixed, moving, [rigid], fixed_mask).GetTransformParameterObject().GetParameterMap(0)
    angles = [float(value) for value in found["TransformParameters"]]
    euler = itk.Euler3DTransform[itk.D].New()
    euler.SetComputeZYX(found["ComputeZYX"][0] == "true" if "ComputeZYX" in found else False)
    euler.SetCenter([float(value) for value in found["CenterOfRotationPoint"]])
    euler.SetRotation(*angles[:3])
    euler.SetTranslation(angles[3:])
    matrix = np.eye(4)
    matrix[:3, :3] = itk.array_from_matrix(euler.GetMatrix())
    matrix[:3, 3] = list(euler.GetOffset())
    return LPS @ matrix @ LPS
