"""The second part of ``../shared/cases``: what archives, scanners and viewers send, and what is right for each."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, SHARED, bundle_run, config, made_cases, options
from scripts.data import ReadVolumesd, find_scans, load_datalist
from scripts.errors import InputError
from scripts.evaluation import true_lesion
from scripts.preprocessing import ReadScand, WindowCTd, find_subjects
from scripts.volumes import read_volume


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return made_cases(tmp_path_factory.mktemp("cases") / "made", "make_cases_2.py", "--data", SHARED)


WHOLE = [
    "echo_time_in_two_spellings",
    "echo_time_drifts",
    "capture_without_orientation",
    "slope_by_frame",
    "no_preamble",
]


@pytest.mark.parametrize("name", [*WHOLE, "no_modality", "dots_in_descriptions"])
def test_series_come_as_the_plain_one(cases, name):
    (plain,) = find_scans(cases / "dicom/plain")
    expected = read_volume(plain["image"])
    scans = find_scans(cases / "dicom" / name)
    assert len(scans) == (2 if name == "dots_in_descriptions" else 1)
    for scan in scans:
        volume = read_volume(scan["image"])
        np.testing.assert_allclose(volume.affine, expected.affine, atol=1e-3)
        # A scale for each frame was stored in whole numbers.
        tolerance = 1.0 if name == "slope_by_frame" else 0.0
        assert volume.shape == (1, 48, 56, 50) and float((volume - expected).abs().max()) <= tolerance
        assert scan["modality"] == "t2" and not scan["notes"]
    if name == "dots_in_descriptions":
        assert [scan["output_name"].rsplit("/", 1)[1] for scan in scans] == ["T2-TSE-0.9mm_0.dcm", "T2-TSE-0.8mm_1.dcm"]


def test_cosines_that_jitter_are_one_orientation(cases):
    steady, jittered = (find_scans(cases / "dicom" / name) for name in ("cosines_steady", "cosines_jitter"))
    assert len(jittered) == 1 and not jittered[0]["notes"] and "problem" not in jittered[0]
    volumes = [read_volume(scans[0]["image"]) for scans in (steady, jittered)]
    assert np.array_equal(*volumes)
    np.testing.assert_allclose(volumes[0].affine, volumes[1].affine, atol=1e-4)


def test_colour_is_refused_as_colour(cases):
    (scan,) = find_scans(cases / "dicom/colour")
    with pytest.raises(InputError, match="is a colour image, not a scan"):
        ReadScand("image")(scan)


def test_a_contrast_agent_is_told_by_tag_and_word(cases):
    folders = sorted((cases / "dicom/contrast_agent").iterdir())
    assert len(folders) == 8
    assert [find_scans(folder)[0]["modality"] for folder in folders] == ["t1c"] * 8
    (scans,) = find_subjects(cases / "names/contrast_in_bids").values()
    assert sorted(scan.modality for scan in scans) == ["t1", "t1c", "t1c"]


def test_a_linked_person_is_a_person(cases):
    assert set(find_subjects(cases / "linked_person/in")) == {"own", "other"}


@pytest.mark.parametrize("name", ["with_CT", "without_CT"])
def test_a_calcification_leaves_a_ct_a_ct(cases, name):
    scan = read_volume(cases / f"ct_with_calcification/{name}.nii.gz")
    window = WindowCTd("image")({"image": scan, "modality": "ct"})["image"]
    assert float(window.max()) == 80.0 and float(window.min()) == 0.0


def test_datalists(cases):
    folder = cases / "datalists"
    spelt = [find_scans(folder / f"upper_case_modality/{name}.json", ["test"]) for name in ("lower", "upper")]
    assert [scan["modality"] for scan in spelt[0]] == [scan["modality"] for scan in spelt[1]] == ["t2", "t1"]
    one = find_scans(folder / "two_contrasts_of_one_subject/one_subject.json", ["test"])
    assert [scan["subject"] for scan in one] == ["ms_t1", "ms_flair"] and {scan["person"] for scan in one} == {"ms"}
    many = find_scans(folder / "one_person_19_times/list.json")
    assert len(many) == 19 and {scan["person"] for scan in many} == {"h1"}
    names = find_scans(folder / "one_name_in_two_folders/list.json")
    assert [scan["subject"] for scan in names] == ["s1", "s2"]
    assert len({scan["output_name"] for scan in names}) == 2


def test_a_mask_that_was_rounded_is_on_its_grid(cases):
    for entry in find_scans(cases / "datalists/mask_beside_its_scan/list.json"):
        assert true_lesion(entry, read_volume(entry["image"])).any()
    content = json.loads((cases / "datalists/training_pair_rounded/list.json").read_text())
    section = next(iter(content))
    for entry in load_datalist(cases / "datalists/training_pair_rounded/list.json", section):
        keys = [key for key in ("label", "t1", "t2", "flair", "lesion") if key in entry]
        assert set(keys) <= set(ReadVolumesd(keys)(entry))


KINDS = [
    ("upper_case_modality", "upper"),
    ("two_contrasts_of_one_subject", "one_subject"),
    ("only_healthy_scans", "list"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "name"), KINDS)
def test_comparisons(cases, tmp_path, folder, name):
    given = options(
        datalist=cases / f"datalists/{folder}/{name}.json", output_dir=tmp_path, methods="['intensity','contralateral']"
    )
    bundle_run("run", "comparing", *config("compare"), *given)
    rows = {
        (row["method"], row["subject"]): row for row in json.loads((tmp_path / "comparison.json").read_text())["cases"]
    }
    if folder == "upper_case_modality":
        assert rows["intensity", "stroke"]["auroc"] == pytest.approx(0.838, abs=0.005)
    elif folder == "two_contrasts_of_one_subject":
        assert rows["intensity", "ms_flair"]["auroc"] == pytest.approx(0.699, abs=0.005)
        assert rows["intensity", "ms_t1"]["auroc"] == pytest.approx(0.284, abs=0.005)
    else:
        assert all(row["auprc"] is None for row in rows.values())


@pytest.mark.slow
def test_what_preprocessing_wrote_is_judged(cases, tmp_path):
    given = options(input=cases / "preprocessed_then_judged", output_dir=tmp_path / "prepared")
    bundle_run("run", "preprocessing", *config("preprocess"), *given)
    given = options(input=tmp_path / "prepared/datalist.json", output_dir=tmp_path / "judged")
    bundle_run("run", "judging", *config("inference", "judge"), *given)
    rows = json.loads((tmp_path / "judged/cases.json").read_text())
    assert sorted(row["modality"] for row in rows) == ["flair", "t1"]
    assert all(row["true_ml"] > 1.0 for row in rows)


@pytest.mark.slow
def test_names_of_another_alphabet_without_utf_8(cases, tmp_path):
    environment = "PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 LC_ALL=C"
    command = (
        f"{environment} {sys.executable} -m monai.bundle run inferring --config_file bundle/configs/inference.yaml"
    )
    run = f"{command} --input {cases / 'name_not_ascii'} --output_dir {tmp_path}"
    done = subprocess.run(run, shell=True, cwd=ROOT, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr[-800:]
    assert len(list(tmp_path.iterdir())) == 6
