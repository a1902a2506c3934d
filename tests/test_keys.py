"""Every key of every command whose value a user can write down, run with a value that is not its default."""

import json
import re

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import ROOT, bundle_run, config, options, small
from scipy.ndimage import distance_transform_edt, zoom
from scripts.appearance import ContrastBank
from scripts.config import NO_MATTER, run_settings

CONFIGS = ROOT / "bundle/configs"
SAME = {"inference": {"method"}, "train": {"fold", "input_keys"}}  # another value is asked in the tests of methods
# Where a scan comes from and where results go is what every test of a command sets.
PLACES = {
    "input",
    "output_dir",
    "datalist",
    "packed",
    "generator_datalist",
    "scheduler",
    "cluster",
}  # the last: test_jobs.py
# What another config file sets, and a user does not.
INNER = {
    "inference": {"task_settings", "restored_keys", "returned_keys"},
    "judge": {"fillings", "scores", "returned_keys"},
    "gate": {"restored_keys", "returned_keys"},
    "frontier": {"returned_keys"},
    "calibrate": {"task_settings", "returned_keys"},
    "normalize": {"restored_keys"},
    "generator": {
        "scan_keys", "volume_keys", "interpolation", "sample_keys", "pair_cases", "pair_keys", "dataset_dir", "draws",
        "validation_draws", "cache_rate", "voxel_size", "patch_size", "seed", "traced_masks", "bank",
        "crew",
    },
    "train": {"generator"},
}  # fmt: skip
OTHER = {
    "inference": {
        "workers": 2,
        "modality": "t2",
        "label_dir": "{folder}/labels",
        "label_value": 1,
        "amp": False,
        "method": "una",
        "checkpoint": "{folder}/first/model.pt",
        "method_settings": {"features": [8, 8, 8, 8], "calibration": False, "bright_modalities": []},
        "voxel_size": 4.0,
        "brain_method": "template",
        "bias_correction": True,
        "cache_dir": "{folder}/cache",
        "erosion": 12.0,
        "smoothing": 0.0,
        "min_volume_ml": 2.0,
        "atlas": None,
        "shown_lesions": 0,
        "result_spacing": 2.0,
        "sessions": False,
    },
    "preprocess": {
        "modality": "t2",
        "workers": 2,
        "make_labels": False,
        "label_value": 1,
        "voxel_size": 3.0,
        "brain_method": "template",
        "bias_correction": False,
        "ct_window": [0, 100],
        "margin": 1,
        "validation_every": 2,
    },
    "generate": {
        "number": 1,
        "seed": 5,
        "traced_masks": ["{folder}/mask.nii.gz"],
        "voxel_size": 4.0,
        "patch_size": [48, 64, 48],
        "shares": {"synthetic": 1.0, "real": 0.0},
        "corruption_weights": [0.0, 0.0, 1.0],
    },
    "generator": {
        "csf_closing": 6.0,
        "lesion_threshold": 0.3,
        "typical_texture": 0.02,
        "rotation": 10.0,
        "shear": 0.1,
        "scaling": 0.1,
        "translation": 2.0,
        "bending": [0.0, 2.0],
        "undeformed_prob": 0.5,
        "one_sided_prob": 0.5,
        "traced_probability": 0.0,
        "velocity_scale": 100.0,
        "diffusivity_scale": 2.0,
        "percentile": [95.0, 99.0],
        "num_times": [1, 3],
        "seed_cell_size": [30.0, 100.0],
        "seed_saturation": [0.2, 0.5],
        "white_matter_share": 0.5,
        "anomaly_prob": 0.8,
        "attention_power": 0.5,
        "background_prob": 0.0,
        "appearances": [{"weight": 1.0, "mean": [50, 200], "std": [5, 10]}],
        "contrasts": [{"values": [[0.8, 1.0], [0.4, 0.6], [0.2, 0.4], [0.2, 0.5]]}],
        "recontrast_prob": 0.5,
        "bank_prob": 0.9,
        "ventricle_prob": 0.5,
        "ventricle_change": [-1.0, 4.0],
        "ventricle_asymmetry": 0.3,
        "sulci_prob": 0.5,
        "sulci_change": [1.0, 2.0],
        "cistern_prob": 0.5,
        "cistern_change": [1.0, 2.0],
        "mass_effect_prob": 0.5,
        "enhancement_prob": 0.5,
        "compartments": [1, 3],
        "lesion_texture": [0.2, 0.9],
        "lesion_strength": [0.5, 1.0],
        "lesion_scale": 4.0,
        "cavity_prob": 0.5,
        "corrupted": ["scan"],
        "corruption_weights": [0.0, 1.0, 0.0],
        "uncorrupted_prob": 0.5,
        "shares": {"synthetic": 0.3, "real": 0.7},
        "hidden_prob": 0.1,
        "target_contrast": {"csf": 0.2, "gray_matter": 0.5, "white_matter": 0.8},
    },
    "train": {
        "workers": 2,
        "traced_masks": ["{folder}/mask.nii.gz"],
        "bank": "{folder}/bank.pt",
        "powers": 2,
        "amp": False,
        "initial_weights": "{folder}/squares/model.pt",
        "seed": 3,
        "resume": False,
        "cache_rate": 0.0,
        "voxel_size": 6.0,
        "patch_size": [32, 48, 32],
        "features": [8, 8, 8, 8],
        "fold": 2,
        "input_keys": ["scan", "mirrored"],
        "batch_size": 2,
        "iterations": 2,
        "iterations_per_epoch": 1,
        "validation_draws": 1,
        "lambda_grad": 0.5,
        "lambda_p": 3.0,
        "lambda_contrast": 0.0,
        "lambda_intact": 0.5,
        "learning_rate": 2.0e-3,
        "val_interval": 2,
        "max_minutes": 5.0,
        "checkpoint_seconds": 1.0,
        "compile": True,
        "accumulation_steps": 2,
        "networks": {"fine": {"features": [8, 8, 8, 8], "fold": 1}},
    },
    "bank": {
        "voxel_size": 6.0,
        "target_contrast": {"csf": 0.2, "gray_matter": 0.5, "white_matter": 0.8},
        "modalities": ["t2"],
        "iterations": 30,
    },
    "evaluate": {"validation_draws": 2},
    "judge": {},
    "follow": {"change_limit": 3.0, "change_near": 0.3, "change_voxel_size": 2.0},
    "gate": {"median_ml": 1.0e4, "high_ml": 1.0e4},
    "frontier": {
        "rows": {"plain": {"method": "intensity"}, "other side": {"method": "contralateral"}},
        "largest_ml": 20.0,
        "share": 0.5,
        "halves": 3,
    },
    "calibrate": {"largest_ml": 50.0, "share": 0.5, "usual_ml": 30.0},
    "normalize": {
        "template": "icbm_2009a_symmetric",
        "registered": "scan",
        "engine": "ants",
        "grid_spacing": 40.0,
        "bending": 0.0,
        "template_is_mni": True,
    },
    "register_lesions": {"workers": 2, "grid_spacing": 40.0, "bending": 50.0},
    "compare": {
        "workers": 2,
        "seed": 1,
        "methods": ["intensity", "autoencoder"],
        "iterations": 2,
        "iterations_per_epoch": 1,
        "scans_per_step": 1,
        "slices_per_scan": 4,
        "settings_of": {"autoencoder": {"latent": 16}},
        "voxel_size": 4.0,
        "slice_size": [48, 64],
        "number": 2,
        "viewed": 1,
    },
}


def written_down(name: str) -> dict:
    """Keys of a config file with a plain value: no reference, no expression, no object."""
    content = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    plain = lambda value: not re.search(r"[@%$]|_target_|_disabled_", json.dumps(value))  # noqa: E731
    return {key: value for key, value in content.items() if plain(value) and key not in ("imports", "finalize")}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_no_key_is_left_out(name):
    known = written_down(name)
    assert set(known) - PLACES - INNER.get(name, set()) == set(OTHER[name])
    assert {key for key, value in OTHER[name].items() if known[key] == value} == SAME.get(name, set())


@pytest.mark.parametrize("name", ["inference", "normalize", "preprocess"])
def test_what_resumes_depends_on_every_key_but_those_that_cannot_matter(name, monkeypatch):
    files = {"normalize": ["inference", "normalize"]}.get(name, [name])

    def said(*more: str) -> dict:
        monkeypatch.setattr("sys.argv", ["monai.bundle", "run", "x", *config(*files), *more])
        return run_settings({"weights": "1"})

    plain = said()
    for key, value in OTHER[name].items():
        if key in SAME.get(name, set()):
            continue
        other = said(f"--{key}", str(value))
        assert (other != plain) == (key not in NO_MATTER), key
    assert said("--output_dir", "elsewhere") == plain


def test_a_follow_up_keeps_what_inferring_did(monkeypatch):
    said = []
    for files in (["inference"], ["inference", "follow"]):
        monkeypatch.setattr("sys.argv", ["monai.bundle", "run", "x", *config(*files)])
        said.append(run_settings({}))
    assert said[0] == said[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_datalist):
    """The sample subject at 3 mm as one scan, weights of a small network, and a mask in MNI space."""
    folder = tmp_path_factory.mktemp("keys")
    scan = nib.load(sample_datalist.parent / "t1.nii.gz")
    thin = scan.affine @ np.diag([3.0, 3.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(scan.get_fdata()[::3, ::3, ::3].astype(np.float32), thin), folder / "scan_T1w.nii.gz")
    (folder / "labels").mkdir()
    lesion = np.zeros(scan.shape[:3], dtype=np.uint8)[::3, ::3, ::3]
    lesion[20:24, 20:24, 20:24] = 1
    nib.save(nib.Nifti1Image(lesion, thin), folder / "labels/scan_T1w_lesion.nii.gz")
    mask = np.zeros((40, 40, 40), dtype=np.uint8)
    mask[10:20, 10:20, 10:20] = 1
    nib.save(nib.Nifti1Image(mask, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "mask.nii.gz")
    ContrastBank([{"name": "p_t2", "modality": "t2", "spread": 0.02}]).save(folder / "bank.pt")
    return folder


def run(task, names, folder, datalist=(), **more):
    """Run a command with every key of its own file changed; what it wrote lies in the folder that is returned."""
    out = folder / task
    values = {**OTHER[names[-1]], **more}
    filled = {key: str(value).replace("{folder}", str(folder)) for key, value in values.items()}
    bundle_run("run", task, *config(*names), *datalist, *options(output_dir=out, **filled))
    return out


def first_weights(folder, sample_datalist, **more):
    own = {"datalist": sample_datalist, "output_dir": folder, "generator": OTHER["generator"], **more}
    bundle_run("run", "training", *config("train"), *small(**own))
    return folder / "model.pt"


@pytest.fixture(scope="module")
def trained(folder, sample_datalist):
    return first_weights(folder / "first", sample_datalist)


@pytest.mark.slow
def test_training_and_generator(folder, sample_datalist):
    listed = ["--datalist", sample_datalist]
    trained = first_weights(folder / "squares", sample_datalist, powers=OTHER["train"]["powers"])
    out = run("training", ["train"], folder, listed)
    first, second = (torch.load(path, weights_only=True) for path in (trained, out / "model.pt"))
    moved = max(float((value - second[key]).abs().max()) for key, value in first.items() if value.is_floating_point())
    assert 0.0 < moved < 0.05  # it began with the weights that it was given
    kept = {key: OTHER["train"][key] for key in ("voxel_size", "patch_size", "features", "amp", "powers")}
    table = pd.read_csv(
        run("evaluating", ["train", "evaluate"], folder, listed, **kept, checkpoint=trained) / "errors.csv"
    )
    assert len(table) == OTHER["evaluate"]["validation_draws"]


def test_banking(folder, sample_datalist):
    """A pair whose T2w is a curve of the T1w; the FLAIR is not asked for."""
    entry = json.loads(sample_datalist.read_text())["training"][0]
    t1 = nib.load(sample_datalist.parent / entry["t1"])
    t2 = np.where(t1.get_fdata() > 0, 1.1 - t1.get_fdata() / t1.get_fdata().max(), 0.0)
    for name in ("t2", "flair"):
        nib.save(nib.Nifti1Image(t2.astype(np.float32), t1.affine), folder / f"pair_{name}.nii.gz")
    files = {key: str(sample_datalist.parent / entry[key]) for key in ("t1", "label")}
    pair = {"subject": "pair", **files, "t2": "pair_t2.nii.gz", "flair": "pair_flair.nii.gz"}
    (folder / "pairs.json").write_text(json.dumps({"training": [pair]}))
    out = run("banking", ["bank"], folder, ["--datalist", folder / "pairs.json"])
    (known,) = ContrastBank.load(out / "contrast_bank.pt").sequences
    assert known["name"] == "pair_t2" and known["modality"] == "t2" and 0.0 < known["spread"] < 0.15


@pytest.mark.slow
def test_inference(folder, trained):
    scan = folder / "scan_T1w.nii.gz"
    out = run("inferring", ["inference"], folder, ["--input", scan], threshold=0.01)
    report = json.loads((out / "scan_T1w_report.json").read_text())
    assert all(report["settings"][key] == OTHER["inference"][key] for key in ("voxel_size", "erosion", "smoothing"))
    assert report["modality"] == "t2" and list((folder / "cache").glob("*.pt"))
    volumes = report["lesion_volumes_ml"]
    assert min(volumes, default=2.0) >= 2.0
    known = zoom(nib.load(scan).get_fdata() > 0, 1.5, order=0)  # results on voxels of 2 mm
    found = np.asarray(nib.load(out / "scan_T1w_lesion.nii.gz").dataobj) > 0
    assert np.abs(np.subtract(found.shape, known.shape)).max() <= 1
    depth = distance_transform_edt(known[tuple(map(slice, found.shape))], sampling=2.0)[
        found[tuple(map(slice, known.shape))]
    ]
    # The score ends 12 mm below the surface of the brain that was found, whose error and two voxels are left for the mask.
    assert np.quantile(depth, 0.1) > 6.0


@pytest.mark.slow
def test_preprocessing(folder):
    out = run("preprocessing", ["preprocess"], folder, ["--input", folder / "scan_T1w.nii.gz"])
    entry = json.loads((out / "datalist.json").read_text())["training"][0]
    assert set(entry) == {"subject", "mirror_transform", "t2"}  # named T1w, and no tissues
    prepared = nib.load(out / entry["t2"])
    np.testing.assert_allclose(prepared.header.get_zooms(), 3.0)
    first = np.argwhere(prepared.get_fdata() > 0).min(axis=0)
    assert first.max() <= 2  # one voxel of margin


def test_generating(folder, sample_datalist):
    out = run("generating", ["generate"], folder, ["--datalist", sample_datalist])
    entries = json.loads((out / "datalist.json").read_text())["test"]
    assert len(entries) == 1
    image = nib.load(out / entries[0]["image"])
    assert image.shape == (48, 64, 48)
    np.testing.assert_allclose(image.header.get_zooms(), 4.0)


@pytest.fixture(scope="module")
def people(folder):
    """Three people, the scan with other noise, and a datalist that knows them to be healthy."""
    scan, random = nib.load(folder / "scan_T1w.nii.gz"), np.random.RandomState(0)
    entries = []
    for number in range(3):
        noisy = scan.get_fdata() * (1 + 0.03 * random.normal(size=scan.shape))
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), scan.affine), folder / f"p{number}.nii.gz")
        entries.append({"subject": f"p{number}", "image": f"p{number}.nii.gz", "modality": "t1", "diseased": False})
    (folder / "people.json").write_text(json.dumps({"test": entries}))
    return folder / "people.json"


@pytest.mark.slow
def test_calibrating_gating_and_judging(folder, trained, people):
    own = {key: OTHER["inference"][key] for key in ("checkpoint", "voxel_size", "amp", "method_settings")}
    listed = ["--input", people]
    out = run("calibrating", ["inference", "calibrate"], folder, listed, **own)
    known = json.loads((out / "calibration.json").read_text())
    assert known["about"]["promise"] == OTHER["calibrate"]
    calibrated = own | {"method_settings": own["method_settings"] | {"calibration": str(out / "calibration.json")}}
    out = run("gating", ["inference", "gate"], folder, listed, **calibrated)
    assert json.loads((out / "gate.json").read_text())["t1"]["passed"]
    out = run("judging", ["inference", "judge"], folder, listed, **calibrated)
    assert len(pd.read_csv(out / "cases.csv")) == 3
    out = run("frontier", ["inference", "frontier"], folder, listed, **calibrated)
    assert pd.read_csv(out / "frontier.csv")["row"].tolist() == list(OTHER["frontier"]["rows"])
    assert json.loads((out / "frontier.json").read_text())["promise"] == {
        key: OTHER["frontier"][key] for key in ("largest_ml", "share", "halves")
    }


@pytest.mark.slow
def test_normalizing(folder, trained):
    pytest.importorskip("ants")
    own = {key: OTHER["inference"][key] for key in ("checkpoint", "voxel_size", "amp", "method_settings")}
    out = run(
        "normalizing",
        ["inference", "normalize"],
        folder,
        ["--input", folder / "scan_T1w.nii.gz"],
        **own,
        threshold=0.01,
    )
    record = json.loads((out / "scan_T1w_mni.json").read_text())
    assert record["registered"] == "scan" and record["lesion"] == str(folder / "scan_T1w.nii.gz")
    assert nib.load(out / "scan_T1w_mni.nii.gz").shape == (197, 233, 189)


@pytest.mark.slow
def test_registering(folder, sample_datalist):
    out = run("registering", ["register_lesions"], folder, ["--datalist", sample_datalist])
    entry = json.loads((out / "datalist.json").read_text())["training"][0]
    field = nib.load(out / entry["template_displacement"]).get_fdata()
    assert np.isfinite(field).all() and np.linalg.norm(field, axis=-1).mean() < 5.0  # the subject is the template


@pytest.mark.slow
def test_comparing(folder):
    out = run("comparing", ["compare"], folder)
    table = pd.read_csv(out / "summary.csv")
    assert set(table["method"]) == set(OTHER["compare"]["methods"])
