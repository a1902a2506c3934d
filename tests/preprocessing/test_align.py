"""One brain in every way a file can hold it, and files that hold none."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.errors import InputError
from scripts.preprocessing import AlignToRAS, ReadScand, WindowCTd


def phantom(world: np.ndarray) -> np.ndarray:
    """A smooth head without any symmetry, defined in RAS mm."""
    x, y, z = np.moveaxis(world, -1, 0)
    head = 100.0 / (1.0 + np.exp((np.sqrt((x / 60) ** 2 + (y / 75) ** 2 + (z / 55) ** 2) - 1.0) * 12.0))
    return head + 40.0 * np.exp(-((x - 20) ** 2 + (y - 30) ** 2 + (z + 10) ** 2) / 400.0)


def stored(path, affine, shape=(60, 70, 54), dtype=np.float32, **more) -> str:
    """The phantom sampled on a grid, written to a file."""
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    values = phantom(voxels @ affine[:3, :3].T + affine[:3, 3])
    image = nib.Nifti1Image(values.astype(dtype), affine)
    if "edit" in more:
        more["edit"](image)
    nib.save(image, path)
    return str(path)


def centred(columns: np.ndarray, shape=(60, 70, 54)) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = -columns @ ((np.array(shape) - 1) / 2)
    return affine


def aligned(path: str, voxel: float = 3.0) -> MetaTensor:
    return AlignToRAS(voxel)(ReadScand("image")({"image": path})["image"])


def error_at_grid(result: MetaTensor) -> float:
    """Largest difference to the phantom where the whole neighbourhood lies inside the scan."""
    shape = result.shape[1:]
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), axis=-1)
    affine = np.asarray(result.affine)
    world = voxels @ affine[:3, :3].T + affine[:3, 3]
    inside = (np.abs(world) < [55, 68, 50]).all(axis=-1)
    return float(np.abs(np.asarray(result[0]) - phantom(world))[inside].max())


def test_all_48_axis_orders(tmp_path):
    for order in permutations(range(3)):
        for signs in product((1.0, -1.0), repeat=3):
            columns = np.zeros((3, 3))
            columns[list(order), range(3)] = np.array(signs) * 2.5
            shape = tuple(np.array([60, 76, 54])[list(order)])
            result = aligned(stored(tmp_path / "scan.nii.gz", centred(columns, shape), shape))
            assert np.allclose(np.asarray(result.affine)[:3, :3], np.diag([3.0] * 3))
            assert error_at_grid(result) < 2.5, (order, signs)


def rotation(degrees) -> np.ndarray:
    a, b, c = np.deg2rad(degrees)
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return z @ y @ x


VARIANTS = {
    "oblique": {"columns": rotation((12, -9, 20)) * 2.5},
    "sheared": {"columns": np.array([[2.5, 0.4, 0.0], [0.0, 2.5, 0.3], [0.0, 0.0, 2.5]])},
    "thick slices": {"columns": np.diag([2.0, 2.0, 5.0]), "shape": (70, 84, 27), "tolerance": 9.0},
    "fine": {"columns": np.diag([1.0, 1.0, 2.5]), "shape": (140, 170, 54)},
    "float64": {"columns": np.diag([2.5] * 3), "dtype": np.float64},
    "int16": {"columns": np.diag([2.5] * 3), "dtype": np.int16, "tolerance": 3.5},
    "uint8": {"columns": np.diag([2.5] * 3), "dtype": np.uint8, "tolerance": 3.5},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_grids_and_types(name, tmp_path):
    variant = {"shape": (60, 76, 54), "dtype": np.float32, "tolerance": 2.5, **VARIANTS[name]}
    affine = centred(variant["columns"], variant["shape"])
    result = aligned(stored(tmp_path / "scan.nii", affine, variant["shape"], variant["dtype"]))
    assert error_at_grid(result) < variant["tolerance"]


@pytest.mark.parametrize("form", ["sform", "qform"])
def test_either_form_alone_is_enough(form, tmp_path):
    affine = centred(rotation((10, 5, -8)) * 2.5)

    def only(image):
        image.set_sform(affine if form == "sform" else None, 1 if form == "sform" else 0)
        image.set_qform(affine if form == "qform" else None, 1 if form == "qform" else 0)

    assert error_at_grid(aligned(stored(tmp_path / "scan.nii.gz", affine, edit=only))) < 2.5


def test_slopes_nan_background_and_a_fourth_axis(tmp_path):
    affine = centred(np.diag([2.5] * 3))
    plain = aligned(stored(tmp_path / "plain.nii.gz", affine))
    values = nib.load(tmp_path / "plain.nii.gz").get_fdata()

    scaled = nib.Nifti1Image((values * -4).astype(np.int16), affine)
    scaled.header.set_slope_inter(-0.25, 0.0)
    with_nan = values.copy()
    with_nan[values < 1e-3] = np.nan
    versions = {
        "slope.nii.gz": scaled,
        "nan.nii.gz": nib.Nifti1Image(with_nan.astype(np.float32), affine),
        "4d.nii.gz": nib.Nifti1Image(values[..., None].astype(np.float32), affine),
    }
    for name, image in versions.items():
        nib.save(image, tmp_path / name)
        scan = WindowCTd("image")(ReadScand("image")({"image": str(tmp_path / name)}))["image"]
        torch.testing.assert_close(AlignToRAS(3.0)(scan).as_tensor(), plain.as_tensor(), atol=0.3, rtol=0)


def test_results_return_to_the_grid_of_the_scan(tmp_path):
    from monai.transforms import ResampleToMatch

    affine = centred(rotation((12, -9, 20)) @ np.diag([1.5, 1.5, 4.0]), (110, 120, 36))
    path = stored(tmp_path / "scan.nii.gz", affine, (110, 120, 36))
    scan = ReadScand("image")({"image": path})["image"]
    back = ResampleToMatch(mode="bilinear", padding_mode="zeros")(AlignToRAS(1.5)(scan), img_dst=scan)
    assert back.shape == scan.shape and torch.allclose(back.affine, scan.affine)
    inner = (slice(None), slice(8, -8), slice(8, -8), slice(4, -4))
    assert (back.as_tensor() - scan.as_tensor())[inner].abs().max() < 5.0


def broken(tmp_path) -> dict[str, str]:
    affine = centred(np.diag([2.5] * 3))
    path = tmp_path / "good.nii.gz"
    stored(path, affine)
    values = nib.load(path).get_fdata().astype(np.float32)
    files = {}

    def add(name: str, array, matrix=affine, edit=None) -> None:
        image = nib.Nifti1Image(array, matrix)
        if edit:
            edit(image)
        nib.save(image, tmp_path / f"{name}.nii.gz")
        files[name] = str(tmp_path / f"{name}.nii.gz")

    colour = np.zeros((20, 20, 20), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    add("several", np.stack([values, values], axis=-1))
    add("colour", colour)
    add("flat", values[:, :, :1])
    add("tiny", values, centred(np.diag([1e-4] * 3)))
    add("huge", values, centred(np.diag([80.0] * 3)))
    add("mask", (values > 50).astype(np.uint8))
    add("empty", np.zeros_like(values))
    add("abdomen", np.tile(values, (3, 3, 3))[:, :, :170], centred(np.diag([4.5] * 3)))

    def without(image):
        image.set_sform(None, 0)
        image.set_qform(None, 0)

    add("no_affine", values, edit=without)
    files["truncated"] = str(tmp_path / "truncated.nii.gz")
    (tmp_path / "truncated.nii.gz").write_bytes(path.read_bytes()[:2000])
    files["absent"] = str(tmp_path / "absent.nii.gz")
    return files


MESSAGES = {
    "several": "holds 2 volumes.*extract one",
    "colour": "colour image",
    "flat": "not a 3D volume",
    "tiny": "header is damaged",
    "huge": "header is damaged",
    "mask": "a mask, a label map or empty",
    "empty": "a mask, a label map or empty",
    "abdomen": "not a head",
    "no_affine": "no affine.*set its sform",
    "truncated": "cannot be read as an image",
    "absent": "does not exist",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_is_no_scan_is_refused_by_name(name, tmp_path):
    path = broken(tmp_path)[name]
    with pytest.raises(InputError, match=f"(?s){name}.*{MESSAGES[name]}"):
        aligned(path)


@pytest.mark.parametrize("size", [0.7, 0.74, 1.2])
def test_a_scan_far_finer_than_wanted_is_averaged_and_stays_in_place(tmp_path, size):
    """Whole voxels are averaged first; their number need not divide the scan's, and no half voxel may be lost."""
    shape = tuple(int(n / size) + 1 for n in (150, 175, 135))
    result = aligned(stored(tmp_path / "scan.nii.gz", centred(np.diag([-size, size, size]), shape), shape))
    coarse = (63, 73, 57)
    as_before = aligned(stored(tmp_path / "coarse.nii.gz", centred(np.diag([-2.4, 2.4, 2.4]), coarse), coarse))
    assert error_at_grid(result) < error_at_grid(as_before) + 0.5 < 3.0
