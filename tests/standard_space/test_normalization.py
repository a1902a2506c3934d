"""``run normalizing`` on a cohort: a lesion at the border, an empty one, a file that is no scan, and a second start."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from conftest import bundle_run, config, options
from monai.data import MetaTensor
from monai.transforms import Spacing
from scripts.preprocessing import region_names
from scripts.saving import save_volume
from scripts.standard_space import load_template, region_loads
from scripts.volumes import read_volume

NAMES = ("border", "healthy")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A template of 4 mm, two people whose brains are that template moved and larger, and a file that is no scan."""
    folder = tmp_path_factory.mktemp("cohort")
    fine = load_template("icbm_2009a_symmetric")
    template = Spacing([4.0] * 3)(MetaTensor(fine.as_tensor(), affine=fine.affine))
    save_volume(template, folder / "template.nii.gz", np.float32)
    entries = []
    for number, name in enumerate(NAMES):
        affine = np.asarray(template.affine) * np.array([[1.1], [1.05], [1.0], [1.0]])
        affine[:3, 3] += [8.0 * number, -6.0, 12.0]
        scan = MetaTensor(template.as_tensor() * 5.0, affine=affine)
        lesion = MetaTensor(template.as_tensor() * 0.0, affine=affine)
        if name == "border":  # the surface of the brain on the patient's right
            inside = np.argwhere(np.asarray(scan[0]) > 0)
            x, y, z = inside[np.argmax(inside[:, 0] * np.sign(affine[0, 0]))]
            lesion[0, max(0, x - 3) : x + 3, y - 3 : y + 3, z - 3 : z + 3] = 1.0
            lesion *= scan > 0
        save_volume(scan, folder / f"{name}_T1w.nii.gz", np.float32)
        save_volume(lesion, folder / f"{name}_mask.nii.gz", np.uint8)
        known = {"lesion": f"{name}_mask.nii.gz"} if name == "border" else {"diseased": False}
        entries.append({"subject": name, "image": f"{name}_T1w.nii.gz", "modality": "t1", **known})
    (folder / "broken_T1w.nii.gz").write_bytes(b"no scan")
    entries.append({"subject": "broken", "image": "broken_T1w.nii.gz", "modality": "t1"})
    (folder / "list.json").write_text(json.dumps({"test": entries}))
    return folder


def normalizing(cohort, *more: str):
    own = {"template": cohort / "template.nii.gz", "template_is_mni": True}
    given = options(input=cohort / "list.json", output_dir=cohort / "out", bending=0.0, **own)
    return bundle_run("run", "normalizing", *config("inference", "normalize"), *given, *more, check=False)


@pytest.fixture(scope="module")
def done(cohort):
    return normalizing(cohort)


def test_a_bad_scan_is_named_and_stops_no_other(cohort, done):
    assert done.returncode != 0
    assert "broken_T1w.nii.gz" in done.stderr
    assert "1 of 3" in done.stderr
    assert pd.read_csv(cohort / "out/scans.csv")["subject"].tolist() == list(NAMES)
    assert (cohort / "out/normalized.html").read_text().count("<img") == 3


def test_own_lesions_replace_what_is_found(cohort, done):
    rows = pd.read_csv(cohort / "out/scans.csv").set_index("subject")
    mask = nib.load(cohort / "border_mask.nii.gz")
    own_ml = float(mask.get_fdata().sum() * np.prod(mask.header.get_zooms()) / 1000.0)
    assert own_ml > 5.0
    assert rows.loc["border", "lesion_ml"] == pytest.approx(own_ml, rel=1e-3)
    assert rows.loc["healthy", "lesion_ml"] == 0.0
    # The template is smaller by 1.1 * 1.05.
    assert rows.loc["border", "lesion_ml_in_mni"] == pytest.approx(own_ml / 1.155, rel=0.2)


def test_lesion_lies_on_the_right_side_of_the_template(cohort, done):
    template, placed = (read_volume(cohort / name) for name in ("template.nii.gz", "out/border_T1w_mni_lesion.nii.gz"))
    np.testing.assert_allclose(placed.affine, template.affine)
    assert placed.shape == template.shape
    index = np.argwhere(np.asarray(placed[0]) > 0).mean(axis=0)
    assert (np.asarray(template.affine)[:3, :3] @ index + np.asarray(template.affine)[:3, 3])[0] > 45.0
    overlap = nib.load(cohort / "out/overlap.nii.gz").get_fdata()
    np.testing.assert_array_equal(overlap, np.asarray(placed[0]))


def test_loads_of_regions_add_up(cohort, done):
    table = pd.read_csv(cohort / "out/regions.csv")
    hit = table[(table["subject"] == "border") & (table["lesion_ml"] > 0)]
    assert set(hit["side"]) == {"right"}
    own = pd.read_csv(cohort / "out/scans.csv").set_index("subject").loc["border", "lesion_ml"]
    assert 0.3 * own < hit["lesion_ml"].sum() <= own * 1.001
    np.testing.assert_allclose(hit["percent"], 100 * hit["lesion_ml"] / hit["region_ml"], rtol=0.02, atol=0.01)
    assert table[table["subject"] == "healthy"]["lesion_ml"].sum() == 0
    # The page of the scan names the region by this registration.
    report = json.loads((cohort / "out/border_T1w_report.json").read_text())
    assert any(row["region"] or row["near"] for row in report["lesions"])


@pytest.mark.parametrize("way", ["to_mni", "from_mni"])
def test_fields_and_transforms_agree(cohort, done, way):
    file = cohort / f"out/border_T1w_{way}_field.nii.gz"
    assert nib.load(file).header["intent_code"] == 1007  # vector
    field = sitk.DisplacementFieldTransform(sitk.ReadImage(str(file), sitk.sitkVectorFloat64))
    composite = sitk.ReadTransform(str(cohort / f"out/border_T1w_{way}.h5"))
    for point in ([10.0, 20.0, 5.0], [-30.0, 40.0, 30.0], [25.0, -10.0, 40.0]):
        np.testing.assert_allclose(field.TransformPoint(point), composite.TransformPoint(point), atol=0.2)


def test_a_second_start_keeps_what_is_done(cohort, done):
    kept, lost = (cohort / f"out/{name}_T1w_mni.json" for name in NAMES)
    before = kept.stat().st_mtime_ns
    lost.unlink()  # as a kill would have left it
    again = normalizing(cohort)
    assert kept.stat().st_mtime_ns == before
    assert lost.is_file()
    assert "border_T1w.nii.gz: t1" not in again.stdout
    assert pd.read_csv(cohort / "out/scans.csv")["subject"].tolist() == list(NAMES)


@pytest.mark.slow
def test_masks_of_a_reader_are_taken_by_name(cohort, tmp_path):
    (tmp_path / "labels").mkdir()
    known = json.loads((cohort / "list.json").read_text())["test"][:1]
    del known[0]["lesion"]
    known[0]["image"] = str(cohort / known[0]["image"])
    (tmp_path / "list.json").write_text(json.dumps({"test": known}))
    (tmp_path / "labels/border_T1w.nii.gz").write_bytes((cohort / "border_mask.nii.gz").read_bytes())
    given = options(
        input=tmp_path / "list.json", output_dir=tmp_path / "out", template=cohort / "template.nii.gz", bending=0.0
    )
    bundle_run("run", "normalizing", *config("inference", "normalize"), *given, "--label_dir", str(tmp_path / "labels"))
    rows = pd.read_csv(tmp_path / "out/scans.csv")
    assert rows.loc[0, "lesion"] == str(tmp_path / "labels/border_T1w.nii.gz")
    assert rows.loc[0, "lesion_ml"] > 5.0


def test_load_of_a_region_is_counted_by_hand():
    number = next(n for n, name in region_names("desikan_killiany").items() if name == "Hippocampus")
    regions = MetaTensor(np.zeros((1, 10, 10, 10), np.float32), affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    lesion = MetaTensor(np.zeros((1, 10, 10, 10), np.float32), affine=regions.affine)
    regions[0, :5, :4] = number  # 200 voxels of 8 mm^3
    lesion[0, 4:, :4, :3] = 1  # 12 of them
    [row] = region_loads(lesion, regions, "desikan_killiany")
    assert row == {"region": "Hippocampus", "side": "left", "lesion_ml": 0.096, "region_ml": 1.6, "percent": 6.0}
