"""The third part of ``../shared/cases``: masks and their scans, templates, grids, second runs, and what is right for each."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from conftest import bundle_run, config, made_cases, options
from monai.data import MetaTensor
from scripts.data import find_scans, load_datalist
from scripts.errors import InputError
from scripts.evaluation import true_lesion
from scripts.preprocessing import find_subjects, lesion_mask
from scripts.residual import FillLesion
from scripts.standard_space import load_template
from scripts.standard_space.template import in_mni_space
from scripts.volumes import FinerGridd, read_volume, voxel_ml


def read_lesion_mask(path, label_value=None) -> MetaTensor:
    return lesion_mask(read_volume(path), label_value)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return made_cases(tmp_path_factory.mktemp("cases") / "made", "make_cases_3.py")


def test_no_person_gets_the_mask_of_another(cases):
    folder = cases / "C1_one_mask"
    with pytest.raises(InputError, match=r"masks/anat_T2w.nii.gz may belong to .*p1.* or to .*p2"):
        find_scans(folder / "in", label_dir=folder / "masks")


NAMES = ("desc", "label", "lesion", "mask", "person", "seg", "upper")


@pytest.mark.parametrize("name", NAMES)
def test_masks_under_usual_names_are_found(cases, name, capsys):
    folder = cases / "C3_mask_names"
    scans = {scan["subject"]: scan for scan in find_scans(folder / "in", label_dir=folder / f"masks_{name}")}
    assert Path(scans["a_T2w"]["lesion"]).parent.name == f"masks_{name}" and "lesion" not in scans["b_T2w"]
    assert "no mask in" in (said := capsys.readouterr().out) and "b_T2w.nii.gz" in said


def test_a_folder_without_a_mask_of_any_scan_is_refused(cases, tmp_path):
    with pytest.raises(InputError, match="no mask in .* belongs to a scan: it holds nothing"):
        find_scans(cases / "C3_mask_names/in", label_dir=tmp_path)


def test_masks_that_hold_no_lesion_are_refused_with_the_reason(cases):
    reasons = {"nan_inside": "not finite", "up_to_040": "largest value is 0.40", "empty": "every voxel is 0"}
    for name, why in reasons.items():
        with pytest.raises(InputError, match=why):
            read_lesion_mask(cases / f"C9_masks_without_lesion/{name}_lesion.nii.gz")


def test_one_lesion_in_other_values_is_one_lesion(cases):
    found = {}
    for file in sorted((cases / "C11_mask_values").glob("*_lesion.nii.gz")):
        mask = read_lesion_mask(file)
        found[file.name.removesuffix("_lesion.nii.gz")] = float(mask.sum()) * voxel_ml(mask)
    assert found.pop("probability") == pytest.approx(122.9, abs=0.1)
    assert len(found) == 8 and set(np.round(list(found.values()), 1)) == {131.3}


def test_labels_are_chosen_and_never_mixed(cases):
    file = cases / "C31_two_segments/two_segments.nii.gz"
    with pytest.raises(InputError, match="has the labels 1, 2; say which are lesion, such as --label_value 1"):
        read_lesion_mask(file)
    chosen = read_lesion_mask(file, 1)
    assert float(chosen.sum()) * voxel_ml(chosen) == pytest.approx(131.3, abs=0.1)


def test_a_patient_whose_mask_is_none_is_no_healthy_person(cases):
    for name in ("nan_inside", "up_to_040", "empty"):
        scans = find_scans(cases / f"C33_frontier_masks/{name}.json")
        patients = {scan["subject"]: scan for scan in scans if "lesion" in scan}
        refused = []
        for subject, scan in patients.items():
            try:
                assert true_lesion(scan, read_volume(scan["image"])).any()
            except InputError:
                refused.append(subject)
        assert len(patients) == 2 and len(refused) == 1


def test_a_lesion_beside_the_brain_is_left_unfilled(cases):
    entry = find_scans(cases / "C13_lesion_outside/list.json")[0]
    scan, lesion = read_volume(entry["image"]), read_lesion_mask(entry["lesion"])
    brain = MetaTensor(scan * (scan > scan.mean()), affine=scan.affine)
    assert not ((brain > 0) & (lesion > 0)).any()
    filled = FillLesion(2.0)(brain, scan, lesion, np.diag([-1.0, 1.0, 1.0, 1.0]))
    assert torch.isfinite(filled).all()


@pytest.mark.parametrize("name", ["one_nan", "nan_outside", "inf_outside"])
def test_a_voxel_without_a_value_stays_one_voxel(cases, name):
    scan = read_volume(cases / f"C28_not_finite/{name}_T2w.nii.gz")
    sound = MetaTensor(scan.as_tensor().nan_to_num(0.0, 0.0, 0.0), affine=scan.affine)
    fine = FinerGridd("scan", 1.0)
    found, expected = (fine({"scan": volume})["scan"] for volume in (scan, sound))
    assert torch.equal(found.as_tensor(), expected.as_tensor())
    assert sound.min() <= found.min() and found.max() <= sound.max()


def test_regions_only_where_the_template_is_in_mni_space(cases):
    own = str(cases / "C7_own_template/corner_origin.nii.gz")
    assert not in_mni_space(own, None) and in_mni_space(own, True)
    assert in_mni_space("icbm_2009c_asymmetric", None)


def test_a_head_is_no_template(shared_data):
    with pytest.raises(InputError, match="more than a brain has"):
        load_template(str(shared_data / "templates/healthy_t1_head_studyforrest.nii.gz"))


def test_lesions_of_bids_come_along(cases):
    found = find_subjects(cases / "C42_bids_lesions")
    assert {name: sorted(str(scan.modality) for scan in scans) for name, scans in found.items()} == {
        f"sub-0{number}": ["lesion", "t1"] for number in range(1, 8)
    }


def test_a_subject_without_a_name(cases):
    scans = find_scans(cases / "C48_no_subject/null.json")
    assert len({scan["person"] for scan in scans}) == 2 and "None" not in {scan["subject"] for scan in scans}
    with pytest.raises(InputError, match="empty 'subject'"):
        find_scans(cases / "C48_no_subject/empty.json")


def test_names_of_subjects_are_kept(cases):
    folder = cases / "C49_subject_names"
    for name in ("dots", "numbers", "endings", "line_ends"):
        content = json.loads((folder / f"{name}.json").read_text())
        section = next(iter(content))
        said = [str(entry["subject"]) for entry in content[section]]
        assert [str(entry["subject"]) for entry in load_datalist(folder / f"{name}.json", section)] == said


# ---------------------------------------------------------------- by construction


def made_mask(values, voxel: float = 2.0) -> MetaTensor:
    volume = torch.as_tensor(np.asarray(values, dtype=np.float32))[None]
    return MetaTensor(volume, affine=np.diag([voxel, voxel, voxel, 1.0]), meta={"filename_or_obj": "made.nii.gz"})


def test_an_image_a_brain_mask_and_an_inverted_mask_are_no_lesions():
    rng = np.random.RandomState(0)
    lesion = np.zeros((60, 60, 60))
    lesion[20:25, 20:25, 20:25] = 1.0
    with pytest.raises(InputError, match="it is an image"):
        lesion_mask(made_mask(rng.uniform(0, 400, lesion.shape)))
    with pytest.raises(InputError, match="a brain mask or an inverted one"):
        lesion_mask(made_mask(1.0 - lesion))
    percent = lesion * 100.0
    percent[30:34, 30:34, 30:34] = 37.5
    with pytest.raises(InputError, match="up to 100"):
        lesion_mask(made_mask(percent))
    for factor in (0.6, 1.0, 4.0, 255.0):  # whatever the one value is
        assert torch.equal(lesion_mask(made_mask(lesion * factor)).as_tensor()[0].double(), torch.from_numpy(lesion))


@pytest.mark.slow
def test_a_second_run_notices_what_changed(cases, tmp_path):
    """Another setting, another template under the same path, a deleted result: done again. Nothing changed: kept."""
    folder, own = cases / "C4_second_run", tmp_path / "t.nii.gz"
    own.write_bytes((folder / "template_one.nii.gz").read_bytes())

    def run(**more) -> float:
        given = options(input=folder / "in", output_dir=tmp_path / "out", template=own, bending=0.0, **more)
        bundle_run("run", "normalizing", *config("inference", "normalize"), *given)
        return (tmp_path / "out/p_T2w_mni.json").stat().st_mtime_ns

    first = run()
    assert run() == first
    picture = tmp_path / "out/p_T2w_mni.png"
    picture.unlink()
    second = run()
    assert second > first and picture.is_file()
    own.write_bytes((folder / "template_two.nii.gz").read_bytes())
    third = run()
    assert third > second
    assert run(result_spacing=2.0) > third


@pytest.mark.slow
def test_a_mask_on_the_grid_of_its_scan_serves_finer_results(cases, tmp_path):
    given = options(input=cases / "C6_mask_and_spacing/list.json", output_dir=tmp_path, result_spacing=2.0)
    bundle_run("run", "normalizing", *config("inference", "normalize"), *given)
    assert pd.read_csv(tmp_path / "scans.csv").loc[0, "lesion_ml"] == pytest.approx(131.3, rel=0.03)


@pytest.mark.parametrize("tilt", [0.0, 0.2, -0.35])
def test_a_field_is_written_on_a_rectangular_grid_whatever_the_scan_is(tmp_path, tilt):
    from scripts.standard_space.normalization import Normalization
    from scripts.standard_space.registration import TemplateMaps

    axes = np.array([[0.0, -2.0, 0.0], [2.0, 0.0, 4.0 * tilt], [0.0, 0.0, 4.0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, [40.0, -50.0, -30.0]
    scan = MetaTensor(torch.rand(1, 40, 44, 20), affine=affine, meta={"filename_or_obj": "p.nii.gz"})
    turn = sitk.AffineTransform(3)
    turn.Rotate(0, 1, 0.1)
    turn.Translate([3.0, -2.0, 5.0])
    given = {
        "output_dir": tmp_path,
        "data_root_dir": "",
        "template": "icbm_2009a_symmetric",
        "atlas": "desikan_killiany",
    }
    normalization = Normalization([], **given, image_keys=["scan"], settings={}, registration={})
    normalization._save_maps("p.nii.gz", TemplateMaps(turn, turn.GetInverse(), 1.0), scan)
    for way in ("to_mni", "from_mni"):
        field = sitk.DisplacementFieldTransform(
            sitk.ReadImage(str(tmp_path / f"p_{way}_field.nii.gz"), sitk.sitkVectorFloat64)
        )
        composite = sitk.ReadTransform(str(tmp_path / f"p_{way}.h5"))
        for index in ([12, 20, 6], [20, 22, 10], [28, 30, 14]):
            point = (np.diag([-1.0, -1.0, 1.0]) @ (axes @ index + affine[:3, 3])).tolist()
            np.testing.assert_allclose(field.TransformPoint(point), composite.TransformPoint(point), atol=0.1)
