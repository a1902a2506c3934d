"""What archives and scanners really send: the inputs of ``../shared/cases``, and what is right for each."""

import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import SHARED, bundle_run, config, made_cases
from scripts.data import find_scans
from scripts.errors import InputError
from scripts.preprocessing import AlignToRASd, BrainExtraction, ReadScand, WindowCTd, find_subjects
from scripts.volumes import read_volume


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return made_cases(tmp_path_factory.mktemp("cases") / "made", "make_cases.py")


PEOPLE = {
    "numbers_at_the_end": {"patient1": ["t2"], "patient2": ["t2"]},
    "subject2": {"subject1": [None], "subject2": [None], "subject3": [None]},
    "separators": {"s1_11": ["t1"], "s11_1": ["t1"]},
    "ct1_ct2": {"ct1": [None], "ct2": [None]},
    "words_inside_words": {
        "lesion_study_01": ["t1"],
        "nonlesional_02": ["t1"],
        "unlabeled_03": ["t1"],
        "fast2_scan": [None],
        "contrast1_scan": [None],
    },
    "mac_twins": {"A": ["t1"]},
    "earlier_outputs": {"scan": ["t1"]},
    "dots_and_spaces": {"scan-one": ["t2"], "scan.v1.2": ["t2"], "sub.01.v2": ["t1"]},
    "bids_lesion": {"sub-r1s1_ses-1": ["t1", "lesion"]},
    "challenge": {"B-00000-000": ["lesion", "t1c", "t1", "flair", "t2"]},
}


@pytest.mark.parametrize("name", PEOPLE)
def test_people_and_modalities_by_name(cases, name):
    found = find_subjects(cases / "names" / name)
    assert {person: [scan.modality for scan in scans] for person, scans in found.items()} == PEOPLE[name]


def at_same_places(volume, reference, count: int = 4000) -> float:
    """Share of the bright voxels of the reference that have their value at the same place of the other volume."""
    values = reference[0].numpy()
    voxels = np.argwhere(values > 100)
    voxels = voxels[np.random.RandomState(0).permutation(len(voxels))[:count]]
    world = voxels @ np.asarray(reference.affine)[:3, :3].T + np.asarray(reference.affine)[:3, 3]
    inverse = np.linalg.inv(np.asarray(volume.affine, dtype=np.float64))
    index = np.round(world @ inverse[:3, :3].T + inverse[:3, 3]).astype(int)
    inside = ((index >= 0) & (index < volume.shape[1:])).all(axis=1)
    seen = volume[0].numpy()[tuple(np.where(inside[:, None], index, 0).T)]
    return float((inside & (seen == values[tuple(voxels.T)])).mean())


@pytest.mark.parametrize(
    "name", ["plain", "rle", "every_file_twice", "names_without_suffix", "localizer_inside", "enhanced"]
)
def test_dicom_series_come_whole_and_in_place(cases, name):
    stroke = read_volume(SHARED / "stroke_t2/t2.nii.gz")
    (scan,) = find_scans(cases / "dicom" / name)
    volume = ReadScand("image")(scan)["image"]
    assert sorted(volume.shape[1:]) == sorted([*stroke.shape[1:3], 74])
    reference = stroke[:, :, :, ::2]
    reference.affine = stroke.affine @ torch.diag(torch.tensor([1.0, 1.0, 2.0, 1.0], dtype=stroke.affine.dtype))
    assert at_same_places(volume, reference) > 0.999
    assert bool(scan["notes"]) == (name == "localizer_inside")


def test_a_gantry_tilt_is_kept_as_shear(cases):
    (scan,) = find_scans(cases / "dicom" / "gantry_tilt")
    affine = np.asarray(ReadScand("image")(scan)["image"].affine)
    along, normal = affine[:3, 2], np.cross(affine[:3, 0], affine[:3, 1])
    angle = np.degrees(np.arccos(abs(along @ normal) / np.linalg.norm(along) / np.linalg.norm(normal)))
    assert angle == pytest.approx(15.0, abs=0.2)


def test_echoes_are_scans_of_their_own_and_a_gap_is_refused_with_its_place(cases):
    echoes = find_scans(cases / "dicom" / "two_echoes")
    assert [scan["subject"] for scan in echoes] == ["T2-TSE_echo20", "T2-TSE_echo90"]
    first, second = (ReadScand("image")(scan)["image"] for scan in echoes)
    assert first.shape == second.shape and first[0, 70, 80, 40] != second[0, 70, 80, 40]
    (gap,) = find_scans(cases / "dicom" / "six_slices_missing")
    with pytest.raises(InputError, match=r"slices every 2.00 mm, but not between -?[\d.]+ and -?[\d.]+ mm.*export"):
        ReadScand("image")(gap)


def test_equal_patient_ids_in_two_folders_are_two_people(cases):
    assert set(find_subjects(cases / "dicom" / "two_people_one_id")) == {"ANON_a", "ANON_b"}


def test_links_name_results_and_are_not_followed(cases):
    (scan,) = find_scans(cases / "link_out_of_the_folder" / "in")
    assert scan["output_name"] == str(cases / "link_out_of_the_folder/in/scan_T2w.nii.gz")


@pytest.mark.parametrize(
    "name",
    [
        "zscore",
        "one_voxel_below",
        "offset_100",
        "nan_background",
        "bright_vessel",
        "times_100000",
        "slope_and_intercept",
    ],
)
def test_shifted_and_spoiled_intensities_give_the_network_the_same_scan(cases, name):
    from scripts.appearance import ScaleToUnit

    def prepared(path):
        data = AlignToRASd("image", 2.0)(WindowCTd("image")(ReadScand("image")({"image": str(path)})))
        assert data.get("modality") != "ct"
        brain = BrainExtraction()(data["image"])
        return ScaleToUnit()(data["image"] * brain), brain

    base, brain = prepared(SHARED / "stroke_t2/t2.nii.gz")
    scan, other = prepared(next((cases / name).glob("*.nii.gz")))
    overlap = 2 * float(((brain > 0) & (other > 0)).sum()) / float((brain > 0).sum() + (other > 0).sum())
    assert overlap > 0.98
    both = (brain > 0) & (other > 0)
    off = (scan - base).abs()[both].as_tensor()
    assert float(off.median()) < 0.01, float(off.median())


def test_half_a_head_is_flagged(cases):
    data = AlignToRASd("image", 2.0)(ReadScand("image")({"image": str(cases / "half_a_head/scan_T2w.nii.gz")}))
    warnings = BrainExtraction()(data["image"]).meta["brain_warnings"]
    assert any("not in view" in text or "adult brains" in text for text in warnings)


def test_a_mask_just_below_one_is_a_mask(cases, tmp_path):
    bundle_run(
        "run",
        "preprocessing",
        *config("preprocess"),
        "--input",
        cases / "mask_just_below_one",
        "--output_dir",
        tmp_path,
        "--voxel_size",
        "2.0",
        "--bias_correction",
        "False",
    )
    mask = nib.load(next(tmp_path.rglob("*lesion_mask.nii.gz"))).get_fdata()
    assert 850 < mask.sum() < 1050  # 949 voxels of 2 mm


def test_an_unreadable_companion_is_named_and_the_rest_is_done(cases, tmp_path):
    done = bundle_run(
        "run",
        "preprocessing",
        *config("preprocess"),
        "--input",
        cases / "unreadable_label_map",
        "--output_dir",
        tmp_path,
        "--voxel_size",
        "3.0",
        "--bias_correction",
        "False",
        check=False,
    )
    assert done.returncode == 1 and "x_aseg.nii.gz" in done.stderr
    assert (tmp_path / "datalist.json").is_file() and len(list(tmp_path.rglob("*_desc-preproc_T2w.nii.gz"))) == 2
    assert not list(tmp_path.rglob(".*"))


# Dice of the mask with that of the scan as it came. The lesion has 6.6 ml, and what one tenth of a voxel moves is much of it.
SAME_LESION = {
    "zscore": 0.9,  # its zero is lost, and can be guessed only
    "one_voxel_below": 0.95,
    "offset_100": 0.99,
    "nan_background": 0.9,  # only its brain is shown, where the other scans have what lies around it, too
    "bright_vessel": 0.85,
    "times_100000": 0.95,
    "slope_and_intercept": 0.95,
    "one_volume_4d": 0.99,
    "header_in_mni": 0.99,
}


@pytest.mark.slow
def test_inferring_finds_the_same_lesion_however_the_scan_was_stored(cases, tmp_path):
    flat, out = tmp_path / "scans", tmp_path / "found"
    flat.mkdir()
    shutil.copy(SHARED / "stroke_t2/t2.nii.gz", flat / "base_T2w.nii.gz")
    for name in (*SAME_LESION, "qform_against_sform", "half_a_gzip"):
        shutil.copy(next((cases / name).glob("*.nii.gz")), flat / f"{name}_T2w.nii.gz")
    done = bundle_run(
        "run", "inferring", *config("inference"), "--input", flat, "--output_dir", out, check=False, timeout=1200
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and "1 of 12 scans could not be used" in last and "half_a_gzip_T2w.nii.gz" in last
    masks = {
        name: nib.load(out / f"{name}_T2w_lesion.nii.gz") for name in ("base", *SAME_LESION, "qform_against_sform")
    }
    truth = np.asarray(masks["base"].dataobj) > 0
    for name, least in SAME_LESION.items():
        mask = np.asarray(masks[name].dataobj).squeeze() > 0
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > least, name
    source, mni = nib.load(flat / "header_in_mni_T2w.nii.gz").header, masks["header_in_mni"].header
    assert mni["sform_code"] == source["sform_code"] == 4 and mni.get_xyzt_units() == source.get_xyzt_units()
    line = next(line for line in done.stdout.splitlines() if "qform_against_sform" in line)
    assert "qform and sform place its corners" in line and "the sform is used" in line
    both, kept = (
        nib.load(folder / f"qform_against_sform_T2w{end}.nii.gz") for folder, end in ((flat, ""), (out, "_lesion"))
    )
    np.testing.assert_allclose(kept.get_sform(), both.get_sform(), atol=1e-4)
    np.testing.assert_allclose(kept.get_qform(), both.get_qform(), atol=1e-4)


@pytest.mark.slow
def test_one_bad_scan_stops_no_other_and_nothing_is_written_elsewhere(cases, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in cases.rglob("*") if path.exists()}
    for name, good in (("content_not_fetched", "sub-01_T2w"), ("pointer_beside_scan", "b_T2w")):
        arguments = ["--input", cases / name, "--output_dir", tmp_path / name]
        done = bundle_run("run", "inferring", *config("inference"), *arguments, check=False)
        assert done.returncode == 1 and "1 of 2 scans could not be used (the others are done)" in done.stderr
        volumes = {f"{good}_{ending}.nii.gz" for ending in ("healthy", "filled", "anomaly", "lesion")}
        pages = {f"{good}_report.json", f"{good}_report.html"}
        assert {path.name for path in (tmp_path / name).rglob("*.*")} == volumes | pages
    link = cases / "link_out_of_the_folder" / "in"
    bundle_run("run", "inferring", *config("inference"), "--input", link, "--output_dir", tmp_path / "link")
    assert (tmp_path / "link/scan_T2w_lesion.nii.gz").is_file()
    assert {path: path.stat().st_mtime_ns for path in cases.rglob("*") if path.exists()} == before
