"""A person with several scans and two visits, from files to files, with the shipped weights."""

import json

import nibabel as nib
import numpy as np
import pytest
from conftest import bundle_run, config
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation
from scripts.data import find_scans
from scripts.report.following import healthy_volumes, visits_of
from scripts.volumes import read_volume

FOLLOW = config("inference", "follow")


def moved(affine):
    motion = np.eye(4)
    motion[:3, :3] = Rotation.from_euler("xyz", (4.0, -3.0, 5.0), degrees=True).as_matrix()
    motion[:3, 3] = (3.0, -4.0, 2.0)
    return motion @ affine


@pytest.fixture(scope="module")
def person(shared_data, tmp_path_factory):
    """A BIDS data set: a healthy T1w and a FLAIR-like curve of it; the second FLAIR lies elsewhere and has a lesion."""
    root = tmp_path_factory.mktemp("person") / "bids"
    source = nib.load(sorted((shared_data / "healthy_t1w_2mm").glob("*_T1w.nii.gz"))[0])
    t1 = source.get_fdata() / np.percentile(source.get_fdata()[source.get_fdata() > 0], 90)
    inside = t1 > 0
    flair = np.interp(t1, [0.0, 0.25, 0.5, 0.75, 1.0, 1.3], [0.0, 0.1, 0.4, 0.62, 0.48, 0.45]) * inside
    middle = np.argwhere(inside).mean(axis=0) + np.array([-13, -8, 12])
    away = np.sqrt(((np.indices(t1.shape).transpose(1, 2, 3, 0) - middle) ** 2).sum(-1)) * 2.0
    lesion = away < 12.0  # 7 ml
    share = gaussian_filter(lesion.astype(float), 0.5) * inside
    ill = flair * (1 - share) + 1.0 * share
    for session, name, values, affine in (
        ("ses-1", "T1w", t1, source.affine),
        ("ses-1", "FLAIR", flair, source.affine),
        ("ses-2", "FLAIR", ill, moved(source.affine)),
    ):
        folder = root / "sub-01" / session / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        noise = 1 + 0.03 * np.random.RandomState(len(name)).normal(size=t1.shape)
        image = nib.Nifti1Image((values * noise * 1000).astype(np.float32), affine)
        image.set_qform(affine, 1)
        nib.save(image, folder / f"sub-01_{session}_{name}.nii.gz")
    (root / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.10.0"}))
    return root, lesion


def test_two_visits_with_three_scans(person, tmp_path):
    root, lesion = person
    out = tmp_path / "out"
    done = bundle_run("run", "following", *FOLLOW, "--input", root, "--output_dir", out)
    # The session with two scans.
    first, second = out / "sub-01/ses-1/anat", out / "sub-01/ses-2/anat"
    report = json.loads((first / "sub-01_ses-1_T1w_session_report.json").read_text())
    assert [scan["modality"] for scan in report["scans"]] == ["t1", "flair"] and not report["left_out"]
    assert "flair" in report["settings"]["weights"]
    for name in ("T1w", "FLAIR"):
        scan = nib.load(root / f"sub-01/ses-1/anat/sub-01_ses-1_{name}.nii.gz")
        mask = nib.load(first / f"sub-01_ses-1_{name}_session_lesion.nii.gz")
        np.testing.assert_allclose(mask.affine, scan.affine, atol=1e-4)
        np.testing.assert_allclose(mask.get_qform(), scan.get_qform(), atol=1e-4)
    assert not list(second.glob("*_session_*"))  # one scan is no session
    # What came from the one visit to the other.
    change = json.loads((second / "sub-01_ses-2_FLAIR_change_report.json").read_text())
    true = lesion.sum() * 0.008
    assert change["new_ml"] == pytest.approx(true, rel=0.4) and change["gone_ml"] < 0.2 and change["shrunk_ml"] < 0.2
    mask = np.asarray(nib.load(second / "sub-01_ses-2_FLAIR_change.nii.gz").dataobj)
    assert 2 * ((mask == 1) & lesion).sum() / ((mask == 1).sum() + lesion.sum()) > 0.8
    assert change["volumes"][1]["lesion_ml"] > change["volumes"][0]["lesion_ml"]
    motion = moved(np.eye(4))
    points = np.array([[50, -50, 0], [0, 40, -40], [30, 0, 20], [1, 1, 1]])
    assert np.abs((np.array(change["motion"]) - motion) @ points).max() < 1.0
    assert "new" in done.stdout and "together" in done.stdout
    # Once more: all is there, and nothing is made anew.
    files = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}
    again = bundle_run("run", "following", *FOLLOW, "--input", root, "--output_dir", out)
    assert "3 of 3 scans were done before" in again.stdout and "together" not in again.stdout
    assert files == {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.is_file()}


def test_visits_are_in_the_order_of_their_sessions(tmp_path):
    entries = []
    for number in (10, 2, 1):
        file = tmp_path / f"scan{number}.nii.gz"
        nib.save(nib.Nifti1Image(np.full((4, 4, 4), number, dtype=np.float32), np.eye(4)), file)
        entries.append({"subject": "anna", "session": f"ses-{number}", "modality": "flair", "image": file.name})
    (tmp_path / "list.json").write_text(json.dumps({"test": entries}))
    scans = find_scans(tmp_path / "list.json")
    assert len({scan["subject"] for scan in scans}) == 3 and {scan["person"] for scan in scans} == {"anna"}
    (visits,) = visits_of(scans).values()
    assert [visit["session"] for visit in visits] == ["anna_ses-1", "anna_ses-2", "anna_ses-10"]


def test_the_volumes_follow_those_of_a_segmentation(shared_data):
    """Regions of MUSE of people of all ages: the brain without CSF, and all ventricles."""
    found, true = [], []
    for file in sorted((shared_data / "healthy_t1w_2mm").glob("*_T1w.nii.gz"))[::16]:
        label = np.asarray(nib.load(str(file).replace("_T1w", "_muse")).dataobj)
        ventricles, fluid = np.isin(label, (4, 11, 49, 50, 51, 52)), np.isin(label, (0, 1, 46))
        true.append((ventricles.sum() * 0.008, (~fluid & ~ventricles).sum() * 0.008))
        volumes = healthy_volumes(read_volume(file))
        found.append((volumes["deep_csf_ml"], volumes["brain_ml"]))
    found, true = np.array(found), np.array(true)
    assert np.corrcoef(found[:, 0], true[:, 0])[0, 1] > 0.8
    assert 0.7 < found[:, 0].sum() / true[:, 0].sum() < 1.3
    np.testing.assert_allclose(found[:, 1], true[:, 1], rtol=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("patient", ["patient01", "patient12"])
def test_what_experts_saw_change(patient, shared_data, tmp_path):
    """Consensus masks of what changed in the second FLAIR (Lesjak et al. 2016), on a grid of their own."""
    entries = [
        {
            "subject": patient,
            "session": f"{number}",
            "modality": "flair",
            "image": str(shared_data / f"ms_raw/{patient}/study{number}_FLAIR.nii.gz"),
        }
        for number in (1, 2)
    ]
    (tmp_path / "list.json").write_text(json.dumps({"test": entries}))
    out = tmp_path / "out"
    bundle_run("run", "following", *FOLLOW, "--input", tmp_path / "list.json", "--output_dir", out)
    (report,) = (json.loads(file.read_text()) for file in out.glob("*_change_report.json"))
    true = np.asarray(nib.load(shared_data / f"ms_raw/{patient}/gt.nii.gz").dataobj)
    ml = true.sum() * 0.719 * 0.719 * 3.0 / 1000
    changed = sum(report[f"{kind}_ml"] for kind in ("new", "grown", "shrunk", "gone"))
    assert 0.3 * ml < changed < 1.5 * ml
    direction = {"patient01": ("new_ml", "grown_ml"), "patient12": ("shrunk_ml", "gone_ml")}[patient]
    assert sum(report[kind] for kind in direction) > 0.8 * changed
