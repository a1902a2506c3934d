import json

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import asymmetric_brain
from monai.data import MetaTensor
from monai.transforms import Orientation
from scripts.data import (
    BrainMaskd,
    CropToBraind,
    RandChooseScand,
    ReadVolumesd,
    as_new_subject,
    find_scans,
    load_datalist,
    write_sample_subject,
)
from scripts.errors import InputError


@pytest.fixture
def scan(tmp_path):
    label, affine = asymmetric_brain()
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(label.astype(np.float32), affine), path)
    return path


def test_sample_subject_is_a_plausible_brain(sample_datalist):
    subject = load_datalist(sample_datalist, "training")[0]
    label, t1 = nib.load(subject["label"]), nib.load(subject["t1"])
    numbers, intensities = np.asarray(label.dataobj), t1.get_fdata()
    assert set(np.unique(numbers)) == {0, 2, 3, 24, 41, 42}
    litres = (numbers > 0).sum() / 1e6
    assert 1.4 < litres < 2.2  # ICBM 152 brain with CSF: about 1.9 l
    means = {
        name: intensities[np.isin(numbers, n)].mean() for name, n in {"w": (2, 41), "g": (3, 42), "c": (24,)}.items()
    }
    assert means["w"] > means["g"] > means["c"] > 0 and not intensities[numbers == 0].any()
    # Left is left: label 2 lies at negative x.
    x = (label.affine @ np.append(np.argwhere(numbers == 2).mean(axis=0), 1.0))[0]
    assert x < -10
    assert abs((numbers == 2).sum() / (numbers == 41).sum() - 1) < 0.05


def test_sample_subject_is_written_once(tmp_path):
    first = write_sample_subject(tmp_path)
    before = first.stat().st_mtime_ns
    assert write_sample_subject(tmp_path) == first and first.stat().st_mtime_ns == before


def test_datalist_errors_name_file_problem_and_way_out(tmp_path, scan):
    path = tmp_path / "list.json"
    with pytest.raises(InputError, match="no datalist at .*list.json"):
        load_datalist(path, "training")
    for content, message in {
        "{broken": "is not JSON",
        '{"training": [{"t1": "a.nii"},]}': "comma after the last entry",
        "[]": "is a list at the top",
        json.dumps({"training": {"t1": "a.nii"}}): "'training' is a dict, not a list",
        json.dumps({"training": ["a.nii"]}): "entry 0 is a str",
        json.dumps({"training": [{"t1": None}]}): "'t1' must be a file name, not null",
        json.dumps({"training": [{"T1": scan.name}]}): r"the key 'T1', which nothing reads; t1\?",
        json.dumps({"training": []}): "no entry under 'training'",
        json.dumps({"training": [{"t1": "absent.nii.gz"}]}): "absent.nii.gz does not exist",
    }.items():
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            load_datalist(path, "training")
    # A mark at the beginning, as editors on Windows leave it, is no error; a missing validation is one, never silently training.
    path.write_text("\ufeff" + json.dumps({"training": [{"t1": scan.name}]}), encoding="utf-8")
    assert load_datalist(path, "training")[0]["t1"] == str(scan)
    with pytest.raises(InputError, match="no entry under 'validation'"):
        load_datalist(path, "validation")


def test_find_scans_takes_a_file_a_folder_and_a_datalist(tmp_path, scan):
    (tmp_path / "sub").mkdir()
    second = tmp_path / "sub" / "other.nii"
    nib.save(nib.load(scan), second)
    (tmp_path / "notes.txt").write_text("no scan")
    assert [s["image"] for s in find_scans(scan)] == [str(scan)]
    assert [s["image"] for s in find_scans(tmp_path)] == [str(scan), str(second)]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"test": [{"image": "sub/other.nii", "mirror_transform": np.eye(4).tolist()}]}))
    assert find_scans(listed)[0]["image"] == str(second) and "mirror_transform" in find_scans(listed)[0]


def test_find_scans_errors(tmp_path, scan):
    for source, message in (
        (None, "no scan given"),
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "list.json", "no entry with an 'image'"),
        (tmp_path / "empty", "holds no scan"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "list.json").write_text(json.dumps({"test": [{"t1": scan.name}]}))
        with pytest.raises(InputError, match=message):
            find_scans(source)


def test_two_scans_that_would_write_the_same_files_are_refused(tmp_path, scan):
    nib.save(nib.load(scan), tmp_path / "scan.nii")
    with pytest.raises(InputError, match="would both be written"):
        find_scans(tmp_path)


def test_bad_volumes_are_refused(tmp_path, scan):
    affine = np.eye(4)
    files = {
        "damaged.nii.gz": None,
        "series.nii.gz": np.ones((5, 5, 5, 3), np.float32),
        "slice.nii.gz": np.ones((5, 5), np.float32),
        "nan.nii.gz": np.full((5, 5, 5), np.nan, np.float32),
    }
    messages = {"damaged": "cannot be read", "series": "not a 3D volume", "slice": "not a 3D volume", "nan": "NaN"}
    for name, values in files.items():
        if values is None:
            (tmp_path / name).write_bytes(scan.read_bytes()[:200])
        else:
            nib.save(nib.Nifti1Image(values, affine), tmp_path / name)
        with pytest.raises(InputError, match=f"{name}.*{messages[name.split('.')[0]]}"):
            ReadVolumesd("t1")({"t1": str(tmp_path / name)})
    with pytest.raises(InputError, match="does not exist"):
        ReadVolumesd("t1")({"t1": str(tmp_path / "absent.nii")})
    with pytest.raises(InputError, match=r"different grids.*resample"):
        nib.save(nib.Nifti1Image(np.ones((5, 5, 5), np.float32), affine), tmp_path / "other.nii.gz")
        ReadVolumesd(["t1", "lesion"])({"t1": str(scan), "lesion": str(tmp_path / "other.nii.gz")})
    shifted = nib.load(scan)
    nib.save(nib.Nifti1Image(shifted.get_fdata(), shifted.affine + np.eye(4, k=3)), tmp_path / "moved.nii.gz")
    with pytest.raises(InputError, match="different grids"):
        ReadVolumesd(["t1", "lesion"])({"t1": str(scan), "lesion": str(tmp_path / "moved.nii.gz")})


def test_crop_to_brain_centres_the_brain_and_keeps_the_world(scan):
    volumes = ReadVolumesd(["label", "t1"])({"label": str(scan), "t1": str(scan)})
    cropped = CropToBraind(["lesion", "label", "t1"], allow_missing_keys=True)(volumes)
    assert cropped["t1"].shape == cropped["label"].shape == (1, 14, 12, 10)
    torch.testing.assert_close(cropped["t1"].sum(), volumes["t1"].sum())
    expected = volumes["t1"].affine @ torch.tensor([4.0, 4.0, 4.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(cropped["t1"].affine[:, 3], expected)


def test_brain_mask_and_choice_of_scan():
    scan = torch.tensor([[[[0.0, 0.5, -0.1]]]])
    assert BrainMaskd("t1")({"t1": scan})["brain"].flatten().tolist() == [0.0, 1.0, 0.0]
    choose = RandChooseScand(["t1", "t2", "flair"]).set_random_state(0)
    picked = {float(choose({"t1": torch.tensor(1.0), "flair": torch.tensor(3.0)})["image"]) for _ in range(30)}
    assert picked == {1.0, 3.0}


def test_a_new_subject_keeps_its_mirror_partners():
    # A point and its partner in the source subject are the same two voxels in the new world.
    rng = np.random.RandomState(0)
    affine = np.eye(4)
    affine[:3] = rng.normal(size=(3, 4))
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirror[0, 3] = 3.0
    new_affine, new_mirror = as_new_subject(affine, (10, 12, 14), 2.0, mirror)
    voxel = np.array([2.0, 7.0, 5.0, 1.0])
    partner = np.linalg.inv(affine) @ mirror @ affine @ voxel
    np.testing.assert_allclose(np.linalg.inv(new_affine) @ new_mirror @ new_affine @ voxel, partner)
    assert np.linalg.det(new_mirror) < 0 and (np.diag(new_affine) == [2, 2, 2, 1]).all()
    centre = new_affine @ [4.5, 5.5, 6.5, 1.0]
    np.testing.assert_allclose(centre[:3], 0.0, atol=1e-12)
    stored = MetaTensor(torch.zeros(1, 10, 12, 14), affine=torch.tensor(new_affine))
    assert Orientation("RAS", labels=None)(stored).shape == stored.shape
