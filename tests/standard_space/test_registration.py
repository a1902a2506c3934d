"""The way to a template and back, on a brain that was made from the template by a known deformation."""

import itk
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from conftest import dice
from monai.data import MetaTensor
from monai.transforms import Spacing
from monai.transforms.utils import create_rotate
from scipy.ndimage import map_coordinates
from scripts.errors import InputError
from scripts.standard_space import load_template, register_to_template
from scripts.volumes import voxel_ml


def at(volume: MetaTensor, points: np.ndarray, order: int) -> np.ndarray:
    """Values of a volume at points ``(..., 3)`` in RAS mm."""
    inverse = np.linalg.inv(np.asarray(volume.affine))
    voxels = points @ inverse[:3, :3].T + inverse[:3, 3]
    return map_coordinates(np.asarray(volume[0]), np.moveaxis(voxels, -1, 0), order=order)


def to_template(points: np.ndarray) -> np.ndarray:
    """From a point of the subject to its template: turned, smaller, and bent by up to 4 mm."""
    turn = create_rotate(3, np.deg2rad([5.0, -4.0, 6.0]))[:3, :3]
    return (points - [12.0, 5.0, -8.0]) @ (0.92 * turn).T + 4.0 * np.sin(2.0 * np.pi * points[..., [1, 2, 0]] / 150.0)


def grid(shape: tuple[int, ...], spacing: list[float], turned: float) -> tuple[np.ndarray, np.ndarray]:
    """Affine of an oblique grid that runs from right to left, its middle near that of the brain; and its points in RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = create_rotate(3, [0.0, 0.0, turned])[:3, :3] @ np.diag([-spacing[0], *spacing[1:]])
    affine[:3, 3] = np.array([12.0, -14.0, 10.0]) - affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine, np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


@pytest.fixture(scope="module")
def template() -> MetaTensor:
    fine = load_template("icbm_2009a_symmetric")
    return Spacing([3.0] * 3)(MetaTensor(fine.as_tensor(), affine=fine.affine))


@pytest.fixture(scope="module")
def subject(template):
    """A brain on an oblique grid of 3 x 3 x 5 mm, a mask in its right hemisphere, and its maps."""
    affine, points = grid((64, 76, 38), [3.0, 3.0, 5.0], turned=0.3)
    t1 = MetaTensor(torch.from_numpy(at(template, to_template(points), 1))[None], affine=torch.from_numpy(affine))
    there = to_template(points)
    box = (np.abs(there - [35.0, -20.0, 20.0]) < [14.0, 20.0, 14.0]).all(axis=-1)
    mask = MetaTensor(torch.from_numpy(box.astype(np.float32))[None], affine=t1.affine)
    return t1, mask, points, register_to_template(t1, template, bending=0.0)


def test_a_known_deformation_is_found(subject):
    t1, _, points, maps = subject
    inside = points[np.asarray(t1[0]) > 0][::50]
    error = np.linalg.norm(maps.points_to_template(inside) - to_template(inside), axis=1)
    before = np.linalg.norm(inside - to_template(inside), axis=1)
    assert before.mean() > 12.0
    assert error.mean() < 2.0


def test_the_way_back_is_the_inverse(subject):
    t1, _, points, maps = subject
    inside = points[np.asarray(t1[0]) > 0][::20]
    apart = np.linalg.norm(maps.points_to_scan(maps.points_to_template(inside)) - inside, axis=1)
    assert apart.max() < 0.5
    assert np.abs(maps.points_to_template(inside) - inside).max() > 5.0


def test_right_stays_right(subject, template):
    _, mask, _, maps = subject
    placed = maps.onto_template(mask, template) >= 0.5
    index = np.argwhere(np.asarray(placed[0]))
    centre = np.asarray(template.affine)[:3, :3] @ index.mean(axis=0) + np.asarray(template.affine)[:3, 3]
    assert np.linalg.norm(centre - [35.0, -20.0, 20.0]) < 4.0
    assert centre[0] > 25.0
    # And back on the scan it lies where it was.
    assert dice(maps.onto_scan(placed.float(), mask), mask) > 0.85


def test_volume_changes_as_the_jacobian_says(subject, template):
    _, mask, points, maps = subject
    placed = float((maps.onto_template(mask, template) >= 0.5).sum()) * voxel_ml(template)
    own = points[np.asarray(mask[0]) > 0]
    step = 0.5 * np.eye(3)
    columns = [(maps.points_to_template(own + d) - maps.points_to_template(own - d)) for d in step]
    jacobian = np.abs(np.linalg.det(np.stack(columns, axis=-1)))
    assert placed == pytest.approx(jacobian.sum() * voxel_ml(mask), rel=0.05)
    assert not np.isclose(jacobian.mean(), 1.0, atol=0.1)


def test_stored_transforms_are_read_by_itk(subject, tmp_path):
    _, _, points, maps = subject
    file = str(tmp_path / "to_mni.h5")
    sitk.WriteTransform(maps.to_scan, file)
    known = itk.transformread(file)[0]
    for point in points[::20, ::20, ::10].reshape(-1, 3).tolist():
        np.testing.assert_allclose(list(known.TransformPoint(point)), maps.to_scan.TransformPoint(point), atol=1e-6)


def test_a_masked_lesion_does_not_count(subject, template):
    """With the hole of a lesion masked, the registration ends nearer to the truth than with it."""
    t1, mask, points, _ = subject
    hole = MetaTensor(t1.as_tensor() * (mask < 0.5), affine=t1.affine)
    near = points[np.asarray(mask[0]) > 0][::20]
    errors = []
    for counted in (None, MetaTensor((mask < 0.5).float().as_tensor(), affine=t1.affine)):
        maps = register_to_template(hole, template, bending=0.0, counted=counted)
        errors.append(np.linalg.norm(maps.points_to_template(near) - to_template(near), axis=1).mean())
    assert errors[1] < errors[0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t1: register_to_template(t1, t1, engine="demons"), "elastix, ants"),
        (lambda t1: load_template("talairach"), "icbm_2009c_asymmetric"),
    ],
)
def test_what_is_not_there_is_named(subject, call, says):
    with pytest.raises(InputError, match=says):
        call(subject[0])


def test_a_template_with_skull_is_refused(tmp_path):
    import nibabel as nib

    nib.save(
        nib.Nifti1Image(np.ones((20, 20, 20), np.float32), np.diag([8.0, 8.0, 8.0, 1.0])), tmp_path / "head.nii.gz"
    )
    with pytest.raises(InputError, match="brain-extracted"):
        load_template(str(tmp_path / "head.nii.gz"))


def test_loading_gives_the_brain_in_mni_space():
    known = load_template("icbm_2009c_asymmetric")
    inside = np.argwhere(np.asarray(known[0]) > 0)
    centre = np.asarray(known.affine)[:3, :3] @ inside.mean(axis=0) + np.asarray(known.affine)[:3, 3]
    np.testing.assert_allclose(centre, [0.0, -20.0, 8.0], atol=6.0)
    assert len(inside) * voxel_ml(known) == pytest.approx(1900.0, rel=0.1)
