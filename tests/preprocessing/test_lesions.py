"""Traced lesion masks brought from the template to a subject, against a known deformation of the template."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import bundle_run, config, dice
from monai.data import MetaTensor
from monai.transforms.utils import create_rotate
from nilearn import datasets
from scipy.ndimage import map_coordinates
from scripts.data import register_lesions
from scripts.errors import InputError
from scripts.fluid import RandFluidAnomalyd, traced_seed
from scripts.preprocessing import template_displacement

VOXEL = 3.0


def to_template(points: np.ndarray) -> np.ndarray:
    """A known way from subject to template, RAS mm: turned by 8 degrees, 8 % smaller, and bent by up to 5 mm."""
    turn = create_rotate(3, np.deg2rad([5.0, -4.0, 6.0]))[:3, :3]
    bend = 5.0 * np.sin(2.0 * np.pi * points[..., [1, 2, 0]] / 120.0)
    return (points - [15.0, 5.0, -8.0]) @ (0.92 * turn).T + bend


def warped(image: nib.Nifti1Image, points: np.ndarray, order: int) -> np.ndarray:
    inverse = np.linalg.inv(image.affine)
    voxels = to_template(points) @ inverse[:3, :3].T + inverse[:3, 3]
    return map_coordinates(image.get_fdata(), voxels.transpose(3, 0, 1, 2), order=order)


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    """A subject made of the template, a mask in the template, and where that mask truly lies in the subject."""
    folder = tmp_path_factory.mktemp("subject")
    affine = np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    affine[:3, 3] = -105.0
    shape = (70, 75, 70)
    points = np.indices(shape).transpose(1, 2, 3, 0) * VOXEL + affine[:3, 3]
    template, mask = datasets.load_mni152_template(resolution=2), datasets.load_mni152_brain_mask(resolution=2)
    t1 = warped(template, points, 1) * (warped(mask, points, 0) > 0)
    lesion = np.zeros(mask.shape, dtype=np.uint8)
    lesion[22:38, 40:66, 34:52] = 1
    nib.save(nib.Nifti1Image(lesion, mask.affine), folder / "mask.nii.gz")
    nib.save(nib.Nifti1Image(t1.astype(np.float32), affine), folder / "t1.nii.gz")
    truth = warped(nib.Nifti1Image(lesion.astype(float), mask.affine), points, 1) > 0.5
    return folder, MetaTensor(torch.as_tensor(t1, dtype=torch.float32)[None], affine=affine), points, truth


@pytest.mark.slow
def test_a_known_deformation_is_found(subject):
    _, t1, points, _ = subject
    displacement, quality = template_displacement(t1, grid_spacing=16.0, bending=5.0)
    at = points[::2, ::2, ::2]
    brain = np.asarray(t1[0, ::2, ::2, ::2]) > 0
    error = np.linalg.norm(at + displacement.numpy().transpose(1, 2, 3, 0) - to_template(at), axis=-1)[brain]
    before = np.linalg.norm(at - to_template(at), axis=-1)[brain]
    assert np.median(before) > 10.0 and np.median(error) < 1.5 and np.percentile(error, 95) < 4.0
    assert quality["dice"] > 0.95 and quality["least_jacobian"] > 0.0


@pytest.mark.slow
def test_masks_reach_subjects_and_training(subject, tmp_path):
    folder, t1, _, truth = subject
    flat = tmp_path / "flat.nii.gz"
    nib.save(nib.Nifti1Image(np.pad(np.ones((2, 2, 2), np.float32), 20), np.eye(4)), flat)
    entry = {"subject": "one", "t1": str(folder / "t1.nii.gz")}
    datalist = tmp_path / "list.json"
    datalist.write_text(json.dumps({"training": [entry, {"subject": "tiny", "t1": str(flat)}], "validation": [entry]}))
    command = [
        "run",
        "registering",
        *config("register_lesions"),
        "--datalist",
        datalist,
        "--output_dir",
        tmp_path / "out",
    ]
    done = bundle_run(*command, "--workers", "2", check=False)
    assert done.returncode != 0 and "1 of 2 subjects" in done.stderr.strip().splitlines()[-1]
    assert "tiny" in done.stderr.strip().splitlines()[-1]
    results = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert "template_displacement" not in results["training"][1]
    field = results["training"][0]["template_displacement"]
    assert results["validation"][0]["template_displacement"] == field

    brain = (t1 > 0).float()
    placed = traced_seed(folder / "mask.nii.gz", brain, field)
    assert dice(placed, truth) > 0.85 > 0.5 > dice(traced_seed(folder / "mask.nii.gz", brain), truth)
    still = RandFluidAnomalyd(
        keys="brain",
        traced_masks=[folder / "mask.nii.gz"],
        traced_probability=1.0,
        velocity_scale=0.0,
        diffusivity_scale=0.0,
    ).set_random_state(0)
    drawn = still({"brain": brain, **results["training"][0]})["anomaly"]
    assert dice(drawn[0], truth & (np.asarray(t1[0]) > 0)) > 0.85

    again = bundle_run(*command, check=False)
    assert "subject one  status kept" in again.stdout
    content = json.loads(datalist.read_text())
    content["training"][1]["subject"] = "one"
    datalist.write_text(json.dumps(content))
    with pytest.raises(InputError, match="two subjects 'one' with different files"):
        register_lesions(datalist, dict, tmp_path / "out", {})
    with pytest.raises(InputError, match="no datalist at"):
        register_lesions(tmp_path / "absent.json", dict, tmp_path / "out", {})
