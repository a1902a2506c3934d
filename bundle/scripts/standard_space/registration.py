"""The way from a brain to a template, and back."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import itk
import numpy as np
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing, SpatialPad

from ..dicom import LPS
from ..errors import InputError
from ..preprocessing.coregister import elastix, parameter_map
from ..volumes import without_header

__all__ = ["ENGINES", "TemplateMaps", "register_to_template", "to_sitk"]

VOXEL = 2.0  # mm, of the registration
FIELD_VOXEL = 3.0  # mm, of the fields, which are smoother; one of 2 mm takes 40 MB as ITK stores it
MARGIN = 16.0  # mm around the template within which the fields are known
INVERSION = {"maximumNumberOfIterations": 60, "maxErrorToleranceThreshold": 0.02, "meanErrorToleranceThreshold": 0.001}
INTERPOLATORS = {"bilinear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}


def to_sitk(volume: MetaTensor) -> sitk.Image:
    """A volume ``(1, X, Y, Z)`` with an affine to RAS mm as SimpleITK has it."""
    image = sitk.GetImageFromArray(np.asarray(volume[0], dtype=np.float32).transpose(2, 1, 0))
    affine = LPS @ np.asarray(volume.affine, dtype=np.float64)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


@dataclass
class TemplateMaps:
    """Where the points of a template lie in a scan, and back.

    Attributes:
        to_scan: from a point of the template to the same point of the scan, LPS mm: what resamples a scan onto the template.
        to_template: its inverse.
        least_jacobian: smallest determinant of ``to_scan`` in the brain of the template, as a share of that of its affine part;
            not above 0 where it folds.
    """

    to_scan: sitk.Transform
    to_template: sitk.Transform
    least_jacobian: float

    def onto_template(self, volume: MetaTensor, template: MetaTensor, mode: str = "bilinear") -> MetaTensor:
        """A volume ``(1, X, Y, Z)`` of the scan on the grid of the template, 0 outside of its own."""
        return _resampled(volume, template, self.to_scan, mode)

    def onto_scan(self, volume: MetaTensor, scan: MetaTensor, mode: str = "bilinear") -> MetaTensor:
        """A volume ``(1, X, Y, Z)`` of the template on the grid of the scan, 0 outside of its own."""
        return _resampled(volume, scan, self.to_template, mode)

    def points_to_scan(self, points: np.ndarray) -> np.ndarray:
        """Where points ``(N, 3)`` of the template lie in the scan; RAS mm."""
        return _moved(points, self.to_scan)

    def points_to_template(self, points: np.ndarray) -> np.ndarray:
        """Where points ``(N, 3)`` of the scan lie in the template; RAS mm."""
        return _moved(points, self.to_template)


def _resampled(volume: MetaTensor, grid: MetaTensor, transform: sitk.Transform, mode: str) -> MetaTensor:
    moved = sitk.Resample(to_sitk(volume), to_sitk(grid), transform, INTERPOLATORS[mode], 0.0)
    values = sitk.GetArrayFromImage(moved).transpose(2, 1, 0)
    return MetaTensor(torch.from_numpy(np.ascontiguousarray(values))[None], meta=dict(grid.meta))


def _moved(points: np.ndarray, transform: sitk.Transform) -> np.ndarray:
    turn = LPS[:3, :3]
    return np.array([transform.TransformPoint(point) for point in (points @ turn).tolist()]) @ turn


def _with_elastix(
    template: MetaTensor, image: MetaTensor, counted: MetaTensor | None, grid_spacing: float, bending: float
) -> tuple[sitk.Transform, sitk.Transform]:
    affine, spline = parameter_map("affine"), parameter_map("bspline", grid_spacing, bending=bending)
    found = elastix(template, image, [affine, spline], moving_mask=counted)
    with tempfile.TemporaryDirectory() as folder:  # from ITK's Python to SimpleITK's
        file = str(Path(folder) / "found.h5")
        itk.transformwrite([itk.down_cast(found.ConvertToItkTransform(found.GetCombinationTransform()))], file)
        whole = sitk.CompositeTransform(sitk.ReadTransform(file))
    return whole.GetNthTransform(whole.GetNumberOfTransforms() - 1), whole


def _with_ants(
    template: MetaTensor, image: MetaTensor, counted: MetaTensor | None, grid_spacing: float, bending: float
) -> tuple[sitk.Transform, sitk.Transform]:
    try:
        import ants
    except ImportError as error:
        raise InputError("engine ants needs the package antspyx; pip install antspyx, or take elastix") from error

    def converted(volume: MetaTensor):
        known = to_sitk(volume)
        return ants.from_numpy(
            np.asarray(volume[0], dtype=np.float32),
            origin=list(known.GetOrigin()),
            spacing=list(known.GetSpacing()),
            direction=np.array(known.GetDirection()).reshape(3, 3),
        )

    with tempfile.TemporaryDirectory() as folder:
        found = ants.registration(
            converted(template),
            converted(image),
            "SyN",
            outprefix=f"{folder}/",
            moving_mask=None if counted is None else converted(counted),
            mask_all_stages=counted is not None,
            random_seed=1,
        )
        warp, matrix = found["fwdtransforms"]
        affine = sitk.AffineTransform(sitk.ReadTransform(matrix))
        displacement = sitk.DisplacementFieldTransform(sitk.ReadImage(warp, sitk.sitkVectorFloat64))
    return affine, sitk.CompositeTransform([affine, displacement])


ENGINES: dict[str, Callable] = {"elastix": _with_elastix, "ants": _with_ants}


def register_to_template(
    image: MetaTensor,
    template: MetaTensor,
    engine: str = "elastix",
    grid_spacing: float = 16.0,
    bending: float = 5.0,
    counted: MetaTensor | None = None,
) -> TemplateMaps:
    """Register a brain to a template: affine, then B-spline (elastix) or SyN (ANTs), by mutual information.

    What either finds becomes an affine transform and a field of displacements on a grid of `FIELD_VOXEL`, so that both ways agree.

    Args:
        image: brain-extracted scan, ``(1, X, Y, Z)`` with an affine to RAS mm, background 0.
        template: likewise, see `load_template`.
        engine: "elastix" or "ants".
        grid_spacing: mm between the control points of elastix's B-spline.
        bending: weight of its bending energy, see `parameter_map`.
        counted: where the image counts (cost-function masking); None for everywhere.

    Raises:
        InputError: when the registration fails, or the engine is not installed.
    """
    if engine not in ENGINES:
        raise InputError(f"there is no engine '{engine}'; the engines are {', '.join(ENGINES)}")
    template, image = (_coarse(volume, VOXEL) for volume in (template, image))
    affine, whole = ENGINES[engine](template, image, counted, grid_spacing, bending)
    back = affine.GetInverse()

    # In the space of the template, what is left after the affine part: U(x) = affine^-1(whole(x)).
    wide = _coarse(SpatialPad([size + 2 * int(MARGIN / VOXEL) for size in template.shape[1:]])(template), FIELD_VOXEL)
    left = sitk.CompositeTransform([back, whole])
    field = sitk.TransformToDisplacementField(left, sitk.sitkVectorFloat64, *_geometry(to_sitk(wide)))
    jacobian = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field)).transpose(2, 1, 0)
    inverse = sitk.InvertDisplacementField(field, **INVERSION)
    return TemplateMaps(
        sitk.CompositeTransform([affine, sitk.DisplacementFieldTransform(field)]),
        sitk.CompositeTransform([sitk.DisplacementFieldTransform(inverse), back]),
        float(jacobian[np.asarray(wide[0]) > 0].min()),
    )


def _coarse(volume: MetaTensor, spacing: float) -> MetaTensor:
    return Spacing([spacing] * 3)(without_header(volume)).clamp(min=0.0)


def _geometry(image: sitk.Image) -> tuple:
    return image.GetSize(), image.GetOrigin(), image.GetSpacing(), image.GetDirection()
