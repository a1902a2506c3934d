"""Rigid registration of a subject's scans."""

from __future__ import annotations

import itk
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.itk_torch_bridge import metatensor_to_itk_image
from monai.transforms import ResampleToMatch

__all__ = ["moved_onto", "rigid_registration"]

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world to RAS and back


def moved_onto(volume: MetaTensor, motion: np.ndarray, grid: MetaTensor) -> MetaTensor:
    """A volume whose points went where `motion` (4x4 on RAS mm) takes them, on another grid; one interpolation."""
    moved = MetaTensor(volume.as_tensor().float(), affine=torch.as_tensor(motion) @ volume.affine.double())
    return ResampleToMatch(mode="bilinear", padding_mode="zeros")(moved, img_dst=grid)


def rigid_registration(
    fixed: MetaTensor,
    moving: MetaTensor,
    resolutions: int = 3,
    fixed_mask: MetaTensor | None = None,
    start: str = "CenterOfGravity",
) -> np.ndarray:
    """The rigid motion that takes a point of the fixed scan to the same point of the moving scan, by mutual information.

    Args:
        fixed: ``(1, X, Y, Z)``, with an affine to RAS mm; brain-extracted.
        moving: the same person's other scan, any contrast; brain-extracted.
        resolutions: levels of the pyramid.
        fixed_mask: where the fixed scan counts; None for everywhere.
        start: elastix's first guess of the translation.

    Returns:
        4x4 matrix on RAS mm.
    """
    parameters = itk.ParameterObject.New()
    rigid = parameters.GetDefaultParameterMap("rigid", resolutions)
    rigid["Metric"] = ["AdvancedMattesMutualInformation"]
    rigid["AutomaticTransformInitializationMethod"] = [start]
    rigid["ErodeMask"] = ["false"]
    rigid["WriteResultImage"] = ["false"]
    parameters.AddParameterMap(rigid)
    images = [metatensor_to_itk_image(volume, channel_dim=0, dtype="float32") for volume in (fixed, moving)]
    elastix = itk.ElastixRegistrationMethod.New(*images)
    elastix.SetParameterObject(parameters)
    elastix.SetLogToConsole(False)
    # An iteration looks at 2,000 points: threads would wait for each other more than they compute, minutes instead of seconds.
    elastix.SetNumberOfThreads(1)
    if fixed_mask is not None:
        elastix.SetFixedMask(metatensor_to_itk_image(fixed_mask, channel_dim=0, dtype="uint8"))
    elastix.UpdateLargestPossibleRegion()
    found = elastix.GetTransformParameterObject().GetParameterMap(0)
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
