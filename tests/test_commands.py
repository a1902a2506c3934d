"""Every command of the README, run for real at small size, as a user runs it: from the root of the project."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch
from conftest import ROOT, bundle_environment, bundle_run, bundle_start, config, small
from scipy.ndimage import distance_transform_edt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def losses(folder: Path) -> dict[int, float]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return {event.step: event.value for event in events.Scalars("train_loss")}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, sample_datalist) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    bundle_run("run", "training", *config("train"), *small(output_dir=folder, datalist=sample_datalist))
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory, sample_datalist) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    arguments = ["--output_dir", folder, "--datalist", sample_datalist, "--number", "2", "--shares", "{'real': 1.0}"]
    bundle_run(
        "run", "generating", *config("generate"), *arguments, "--voxel_size", "3.0", "--patch_size", "[64,80,64]"
    )
    return folder


@pytest.fixture(scope="module")
def cached(tmp_path_factory) -> list:
    """Scans that several tests analyse are prepared once."""
    return ["--cache_dir", tmp_path_factory.mktemp("prepared")]


def own_weights(trained: Path, voxel_size: float, threshold: str = "0.1") -> list:
    """Arguments of `inferring` and its kin for the weights of `trained`, which have no calibration."""
    network = ["--checkpoint", trained / "model.pt", "--voxel_size", str(voxel_size)]
    settings = {"features": [8, 8, 8, 8], "calibration": False}
    return [*network, "--threshold", threshold, "--method_settings", str(settings)]


def test_training_writes_weights_state_and_events(trained):
    weights = torch.load(trained / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    state = torch.load(trained / "last.pt", weights_only=True)
    assert state["trainer"] == {"epoch": 2, "iteration": 4} and state["best"]["epoch"] in (1, 2)
    assert sorted(losses(trained)) == [1, 2, 3, 4]
    assert not list(trained.glob(".*"))


def test_plain_run_is_training_and_an_earlier_stop_continues(tmp_path, sample_datalist, trained):
    arguments = small(output_dir=tmp_path, datalist=sample_datalist)
    shorter = [*arguments, "--iterations", "2", "--learning_rate_drop", "3"]
    bundle_run("run", *config("train"), *shorter)
    assert sorted(losses(tmp_path)) == [1, 2]
    bundle_run("run", *config("train"), *arguments)
    assert losses(tmp_path) == pytest.approx(losses(trained), rel=1e-4)
    assert "this training is finished" in bundle_run("run", *config("train"), *arguments).stdout
    assert losses(tmp_path) == pytest.approx(losses(trained), rel=1e-4)


def test_resume_after_kill_repeats_the_uninterrupted_run(tmp_path, sample_datalist):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    common = {"datalist": sample_datalist, "iterations": 12, "iterations_per_epoch": 2, "amp": False}
    bundle_run("run", "training", *config("train"), *small(**common, output_dir=whole))
    process = bundle_start("run", "training", *config("train"), *small(**common, output_dir=killed))
    deadline = time.time() + 120
    while time.time() < deadline and not (killed / "last.pt").is_file():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    reached = torch.load(killed / "last.pt", weights_only=True)["trainer"]["iteration"]
    assert 2 <= reached < 12
    bundle_run("run", "training", *config("train"), *small(**common, output_dir=killed))
    one, two = losses(whole), losses(killed)
    assert sorted(one) == list(range(1, 13))
    for step in range(reached + 1, 13):
        assert two[step] == pytest.approx(one[step], rel=1e-5), step
    ends = [torch.load(folder / "last.pt", weights_only=True) for folder in (whole, killed)]
    for name, value in ends[0]["network"].items():
        torch.testing.assert_close(ends[1]["network"][name], value, rtol=1e-4, atol=1e-6)
    assert ends[0]["best"]["epoch"] == ends[1]["best"]["epoch"]


def test_two_processes_keep_the_same_weights_and_see_the_samples_of_one(trained, tmp_path, sample_datalist):
    pair, alone = tmp_path / "pair", tmp_path / "alone"
    # Fewer validation draws than processes; weights to start from, which only one of the two might take.
    common = {"amp": False, "initial_weights": trained / "model.pt", "validation_draws": 1}
    probe = tmp_path / "probe.yaml"  # every process writes its weights
    probe.write_text(
        "finalize:\n"
        f"  - \"$torch.save(@network.module.state_dict(), '{tmp_path}/rank' + str(@rank) + '.pt')\"\n"
        "  - $torch.distributed.destroy_process_group()\n"
    )
    files = ["--config_file", str(["bundle/configs/train.yaml", "bundle/configs/multi_gpu_train.yaml", str(probe)])]
    bundle_run("run", "training", *files, *small(**common, output_dir=pair), launcher=TORCHRUN)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in ranks[0].items():
        assert torch.equal(value, ranks[1][name]), name
    # The first step of two processes with one sample each is that of one process with a batch of two.
    bundle_run(
        "run", "training", *config("train"), *small(**common, output_dir=alone, datalist=sample_datalist, batch_size=2)
    )
    one, two = (torch.load(folder / "last.pt", weights_only=True)["network"] for folder in (alone, pair))
    # AdamW takes a step of the learning rate, 1e-3, also where a gradient is rounding and nothing else (a bias before a
    # normalization): few weights may differ, and those by no more than four steps in opposite directions.
    difference = torch.cat([(one[name] - two[name]).abs().flatten() for name in one])
    assert float(difference.max()) < 8e-3, difference.max()
    assert float(difference.quantile(0.9)) < 3e-4, difference.quantile(torch.tensor([0.5, 0.9, 0.99, 1.0]))
    assert (pair / "model.pt").is_file()


def test_evaluating_writes_both_averages(trained, sample_datalist, tmp_path):
    arguments = small(
        output_dir=tmp_path, datalist=sample_datalist, validation_draws=3, checkpoint=trained / "model.pt"
    )
    bundle_run("run", "evaluating", *config("train", "evaluate"), *arguments)
    table = pd.read_csv(tmp_path / "errors.csv")
    summary = json.loads((tmp_path / "errors.json").read_text())
    assert len(table) == 3 and set(table["subject"]) == {"icbm2009"}
    names = {f"{m}_{r}_{a}" for m in ("L1", "PSNR", "SSIM") for r in "FHD" for a in ("region", "volume")}
    assert names == set(summary) == set(table.columns) - {"case", "subject"}
    for name in names:
        assert summary[name]["mean"] == pytest.approx(table[name].mean(), rel=1e-5)
    assert summary["L1_D_volume"]["mean"] < summary["L1_D_region"]["mean"]


def test_evaluating_names_whom_it_left_out(trained, sample_datalist, tmp_path):
    content = json.loads(sample_datalist.read_text())
    known = {key: str(sample_datalist.parent / content["validation"][0][key]) for key in ("label", "t1")}
    (tmp_path / "torn.nii.gz").write_bytes(Path(known["label"]).read_bytes()[:5000])
    torn = {"subject": "torn", "t1": known["t1"], "label": str(tmp_path / "torn.nii.gz")}
    content["validation"] = [{**content["validation"][0], **known}, torn]
    datalist = tmp_path / "datalist.json"
    datalist.write_text(json.dumps(content))
    arguments = small(output_dir=tmp_path, datalist=datalist, validation_draws=3, checkpoint=trained / "model.pt")
    done = bundle_run("run", "evaluating", *config("train", "evaluate"), *arguments, check=False)
    assert done.returncode == 1 and "1 subjects could not be used: torn: " in done.stderr.splitlines()[-1]
    table = pd.read_csv(tmp_path / "errors.csv")
    assert len(table) == 3 and set(table["subject"]) == {"icbm2009"}


def test_generating_writes_a_cohort(cohort):
    entries = json.loads((cohort / "datalist.json").read_text())["test"]
    assert len(entries) == 2
    images = {key: nib.load(cohort / entries[0][key]) for key in ("image", "mirrored", "healthy", "anomaly", "label")}
    for image in images.values():
        assert image.shape == (64, 80, 64) and nib.aff2axcodes(image.affine) == ("R", "A", "S")
        np.testing.assert_allclose(image.header.get_zooms(), 3.0)
    scan, healthy, anomaly = (images[key].get_fdata() for key in ("image", "healthy", "anomaly"))
    label = np.asarray(images["label"].dataobj)
    assert 0 <= anomaly.min() and 0.2 < anomaly.max() <= 1 and not anomaly[label == 0].any()
    assert 0 <= scan.min() and 0.8 <= scan.max() <= 1 and healthy[label == 0].max() == 0
    left, right = (np.argwhere(np.isin(label, n))[:, 0].mean() for n in ([2, 3], [41, 42]))
    assert left < right  # RAS: left labels on the left
    other = nib.load(cohort / entries[1]["image"]).get_fdata()
    assert np.abs(other - scan).max() > 0.5


def test_inferring_writes_results_on_the_grid_of_each_scan(trained, cohort, cached, tmp_path):
    entries = json.loads((cohort / "datalist.json").read_text())["test"]
    source = nib.load(cohort / entries[0]["image"])
    scans = tmp_path / "scans"
    (scans / "deep").mkdir(parents=True)
    oblique = source.affine @ np.array([[0, -0.98, 0.2, 4], [0.9, 0, 0.1, -3], [0, 0.1, 0.8, 7], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image((source.get_fdata() * 1000).astype(np.int16), source.affine), scans / "plain.nii.gz")
    nib.save(nib.Nifti1Image(source.get_fdata().astype(np.float32), oblique), scans / "deep" / "oblique.nii")
    weights = [*own_weights(trained, 6.0), *cached]
    out = tmp_path / "out"
    real = (sys.executable,)  # whose import, too, is to be quiet
    done = bundle_run(
        "run", "inferring", *config("inference"), "--input", scans, "--output_dir", out, *weights, launcher=real
    )
    own = [line for line in done.stdout.splitlines() if line.strip() and " - INFO - " not in line]  # which are MONAI's
    assert len(own) == 2 and all(line.startswith(str(scans)) for line in own)
    assert "deprecated" not in done.stderr
    for name in ("plain.nii.gz", "deep/oblique.nii"):
        scan, base = nib.load(scans / name), out / name.split(".")[0]
        results = {key: nib.load(f"{base}_{key}.nii.gz") for key in ("healthy", "anomaly", "lesion", "filled")}
        for result in results.values():
            assert result.shape == scan.shape
            np.testing.assert_allclose(result.affine, scan.affine, atol=1e-4)
            np.testing.assert_allclose(result.get_qform(), scan.get_qform(), atol=1e-4)  # ITK and FSL may read this one
        score, lesion = results["anomaly"].get_fdata(), np.asarray(results["lesion"].dataobj)
        assert 0 <= score.min() and set(np.unique(lesion)) <= {0, 1} and lesion.dtype == np.uint8
        away = distance_transform_edt(lesion == 0, sampling=scan.header.get_zooms()) >= 2.0
        np.testing.assert_allclose(results["filled"].get_fdata()[away], scan.get_fdata()[away], rtol=1e-4, atol=1e-4)
        report = json.loads(Path(f"{base}_report.json").read_text())
        voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
        assert report["lesion_volume_ml"] == pytest.approx(lesion.sum() * voxel_ml)
        assert sum(report["lesion_volumes_ml"]) == pytest.approx(report["lesion_volume_ml"], abs=0.01)
        assert all({"centre_mm", "side", "region"} <= set(row) for row in report["lesions"])
        assert f"{report['lesion_volume_ml']:.2f} ml" in Path(f"{base}_report.html").read_text()
        assert report["settings"]["voxel_size"] == 6.0 and report["versions"]["torch"] == torch.__version__
    # A datalist, whose mirror transforms are used, and a single file.
    bundle_run(
        "run", "inferring", *config("inference"), "--input", cohort / "datalist.json", "--output_dir", out, *weights
    )
    assert (out / "case_0001_image_lesion.nii.gz").is_file()


def test_the_mask_is_the_score_above_the_threshold(trained, cohort, cached, tmp_path):
    entry = json.loads((cohort / "datalist.json").read_text())["test"][0]
    arguments = ["--input", cohort / entry["image"], "--output_dir", tmp_path, "--min_volume_ml", "0.0"]
    masks = {}
    for threshold in ("0.02", "0.1"):
        bundle_run("run", "inferring", *config("inference"), *arguments, *own_weights(trained, 6.0, threshold), *cached)
        score, mask = (
            nib.load(tmp_path / f"case_0000_image_{key}.nii.gz").get_fdata() for key in ("anomaly", "lesion")
        )
        np.testing.assert_array_equal(mask > 0, score.astype(np.float32) > float(threshold))
        masks[threshold] = mask.sum()
    assert masks["0.02"] > masks["0.1"]
    # A scan in which nothing is found keeps its header, too.
    bundle_run("run", "inferring", *config("inference"), *arguments, *own_weights(trained, 6.0, "90"), *cached)
    scan = nib.load(cohort / entry["image"])
    for key in ("healthy", "anomaly", "lesion"):
        result = nib.load(tmp_path / f"case_0000_image_{key}.nii.gz")
        np.testing.assert_allclose(result.header["pixdim"], scan.header["pixdim"], atol=1e-4)
        np.testing.assert_allclose(result.get_qform(), scan.get_qform(), atol=1e-4)
    assert not np.asarray(result.dataobj).any()
    # A calibration of other weights is refused, and the error says what to do.
    refused = [*own_weights(trained, 6.0)[:-1], "{'features':[8,8,8,8]}"]
    done = bundle_run("run", "inferring", *config("inference"), *arguments, *refused, check=False)
    assert done.returncode == 1 and "other weights" in done.stderr and "run calibrating" in done.stderr


@pytest.mark.slow  # four commands
def test_healthy_people_calibrate_the_score_and_pass_the_gate(trained, cohort, tmp_path):
    entry = json.loads((cohort / "datalist.json").read_text())["test"][0]
    healthy = nib.load(cohort / entry["healthy"])
    random = np.random.RandomState(0)
    scans = []
    for number in range(5):
        noisy = healthy.get_fdata() * (1 + 0.05 * random.normal(size=healthy.shape))
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), healthy.affine), tmp_path / f"p{number}.nii.gz")
        scans.append({"subject": f"p{number}", "image": f"p{number}.nii.gz", "modality": "t1", "diseased": False})
    (tmp_path / "people.json").write_text(json.dumps({"test": scans[:4]}))
    (tmp_path / "next.json").write_text(json.dumps({"test": scans[4:]}))
    weights = own_weights(trained, 3.0)[:4]
    tiny = {"features": [8, 8, 8, 8]}
    uncalibrated = ["--method_settings", str({**tiny, "calibration": False})]
    arguments = ["--input", tmp_path / "people.json", "--output_dir", tmp_path / "calibration", "--share", "0.8"]
    bundle_run("run", "calibrating", *config("inference", "calibrate"), *arguments, *weights, *uncalibrated)
    known = json.loads((tmp_path / "calibration/calibration.json").read_text())
    assert known["modalities"]["t1"]["people"] == 4 and known["about"]["promise"] == {
        "largest_ml": 5.0,
        "share": 0.8,
        "usual_ml": 1.0,
    }
    calibrated = [
        *weights,
        "--method_settings",
        str({**tiny, "calibration": str(tmp_path / "calibration/calibration.json")}),
    ]
    arguments = ["--input", tmp_path / "next.json", "--output_dir", tmp_path / "gate"]
    gate = [*config("inference", "gate"), *arguments, *calibrated, "--median_ml", "6.0", "--high_ml", "6.0"]
    bundle_run("run", "gating", *gate)
    assert json.loads((tmp_path / "gate/gate.json").read_text())["t1"]["passed"]
    done = bundle_run("run", "gating", *gate, "--threshold", "0.05", check=False)
    assert done.returncode == 1 and "not left alone" in done.stderr
    findings = pd.read_csv(tmp_path / "gate/findings.csv")
    assert findings["ml"].sum() == pytest.approx(pd.read_csv(tmp_path / "gate/gate.csv")["found_ml"].sum())
    # Too few people promise nothing.
    done = bundle_run(
        "run",
        "calibrating",
        *config("inference", "calibrate"),
        "--input",
        tmp_path / "people.json",
        "--output_dir",
        tmp_path,
        *weights,
        *uncalibrated,
        check=False,
    )
    assert done.returncode == 1 and "4 healthy people" in done.stderr and "19 are needed" in done.stderr


@pytest.fixture
def known_scans(cohort, tmp_path):
    """Two lesions, one of them large, and a healthy person, in ``tmp_path``."""
    entry = json.loads((cohort / "datalist.json").read_text())["test"][0]
    shutil.copytree(cohort / "case_0000", tmp_path / "case_0000")
    healthy = nib.load(tmp_path / entry["healthy"])
    # The large one is more than a hundredth of the brain: the scale does not cut it off.
    for name, box in (("bright", np.s_[20:24, 36:40, 30:34]), ("large", np.s_[18:27, 34:43, 28:37])):
        lesion = np.zeros(healthy.shape, dtype=np.uint8)
        lesion[box] = 1
        assert (healthy.get_fdata()[lesion > 0] > 0).all()
        scan = np.where(lesion, 1.5, healthy.get_fdata())
        nib.save(nib.Nifti1Image(scan.astype(np.float32), healthy.affine), tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(lesion, healthy.affine), tmp_path / f"{name}_lesion.nii.gz")
    same = {"anatomy": "one", "modality": "t1", "mirror_transform": entry["mirror_transform"]}
    scans = [
        {
            "subject": "bright",
            "image": "bright.nii.gz",
            "lesion": "bright_lesion.nii.gz",
            "healthy": entry["healthy"],
            **same,
        },
        {"subject": "healthy", "image": entry["healthy"], "diseased": False, **same},
        {"subject": "large", "image": "large.nii.gz", "lesion": "large_lesion.nii.gz", **same, "anatomy": "another"},
    ]
    (tmp_path / "scans.json").write_text(json.dumps({"test": scans}))
    return scans


def test_judging_compares_scores_and_fillings(trained, known_scans, tmp_path):
    arguments = ["--input", tmp_path / "scans.json", "--output_dir", tmp_path / "judged"]
    # A median filter takes the corners of so small a cube: what is judged here are the scores.
    arguments += [*own_weights(trained, 3.0), "--smoothing", "0.0"]
    bundle_run("run", "judging", *config("inference", "judge"), *arguments)
    rows = {row["subject"]: row for row in json.loads((tmp_path / "judged/cases.json").read_text())}
    bright, clean = rows["bright"], rows["healthy"]
    assert bright["true_ml"] == pytest.approx(64 * 27e-3) and clean["true_ml"] == 0.0
    assert "auprc_bright" not in clean and bright["false_ml"] <= bright["found_ml"]
    assert set(bright) >= {f"auprc_{score}" for score in ("score", "bright", "dark", "contralateral")}
    assert bright["auprc_bright"] > 0.9 and rows["large"]["auprc_contralateral"] > 0.3 and bright["auprc_dark"] < 0.1
    assert bright["psnr_mirror"] > bright["psnr_scan"] + 5.0  # the anatomy is symmetric
    similarity = pd.read_csv(tmp_path / "judged/similarity.csv")
    assert list(similarity[["one", "other"]].iloc[0]) == ["bright", "healthy"] and similarity["ssim"][0] > 0.8
    assert (tmp_path / "judged/bright.png").stat().st_size > 50_000
    del known_scans[1]["diseased"]
    (tmp_path / "scans.json").write_text(json.dumps({"test": known_scans}))
    done = bundle_run("run", "judging", *config("inference", "judge"), *arguments, check=False)
    assert done.returncode == 1 and "nothing is known of healthy" in done.stderr


@pytest.mark.slow
def test_the_frontier_of_two_scores(trained, known_scans, tmp_path):
    rows = {
        "bright": {"method": "intensity", "settings": {"method::bright": ["t1"]}},
        "other side": {"method": "contralateral"},
    }
    arguments = ["--input", tmp_path / "scans.json", "--output_dir", tmp_path / "frontier", "--rows", str(rows)]
    arguments += [*own_weights(trained, 3.0), "--smoothing", "0.0"]
    bundle_run("run", "frontier", *config("inference", "frontier"), *arguments)
    lesions = pd.read_csv(tmp_path / "frontier/lesions.csv").set_index(["row", "subject"])
    assert lesions.loc[("bright", "bright"), "auprc"] > 0.9
    table = pd.read_csv(tmp_path / "frontier/frontier.csv")
    assert table["row"].tolist() == list(rows) and (table["people"] == 1).all() and (table["lesions"] == 2).all()


def test_verify_and_export(trained, tmp_path):
    files = ["--meta_file", "bundle/configs/metadata.json", "--config_file", "bundle/configs/inference.yaml"]
    done = bundle_run("verify_net_in_out", "network_def", *files)
    assert "data shape of network is verified with no error" in done.stdout + done.stderr
    exported = tmp_path / "model.ts"
    bundle_run(
        "ckpt_export",
        "network_def",
        "--filepath",
        exported,
        "--ckpt_file",
        trained / "model.pt",
        *files,
        "--input_shape",
        "[1,2,32,32,32]",
        "--method_settings",
        "{'features':[8,8,8,8]}",
    )
    scripted = torch.jit.load(exported)
    assert scripted(torch.rand(1, 2, 32, 48, 32)).shape == (1, 2, 32, 48, 32)
    onnx = tmp_path / "model.onnx"
    shape = ["--input_shape", "[1,2,32,48,32]", "--method_settings", "{'features':[8,8,8,8]}"]
    bundle_run("onnx_export", "network_def", "--filepath", onnx, "--ckpt_file", trained / "model.pt", *files, *shape)
    image = torch.rand(1, 2, 32, 48, 32, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (outside,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(outside), scripted(image), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_a_package_is_downloaded_and_infers_elsewhere(cohort, tmp_path):
    subprocess.run(["make", "package"], cwd=ROOT, check=True, capture_output=True)
    version = json.loads((ROOT / "bundle/configs/metadata.json").read_text())["version"]
    package = ROOT / "dist" / f"una_healthy_anatomy_v{version}.zip"
    environment = {**bundle_environment(), "PYTHONPATH": ""}
    run = partial(subprocess.run, env=environment, check=True, capture_output=True, text=True)
    bundle = [sys.executable, "-m", "monai.bundle"]
    run([*bundle, "download", "una_healthy_anatomy", "--bundle_dir", tmp_path, "--url", package.as_uri()], cwd=tmp_path)
    home = tmp_path / "una_healthy_anatomy"
    assert not list(home.rglob("__pycache__")) and (home / "LICENSE").is_file()
    scan = cohort / "case_0000/case_0000_image.nii.gz"
    arguments = ["--config_file", "configs/inference.yaml", "--input", scan, "--output_dir", "found"]
    run([*bundle, "run", "inferring", *arguments], cwd=home)
    report = json.loads((home / "found/case_0000_image_report.json").read_text())
    assert report["settings"]["checkpoint"] == str(home / "models/model.pt")


def test_verify_metadata(shared_data, tmp_path):
    schema = tmp_path / "schema.json"  # where the command would download it to
    schema.write_bytes((shared_data / "monai_meta_schema_20240725.json").read_bytes())
    done = bundle_run("verify_metadata", "--meta_file", "bundle/configs/metadata.json", "--filepath", schema)
    assert "metadata is verified with no error" in done.stdout + done.stderr


def test_tracking_with_mlflow(tmp_path, sample_datalist):
    arguments = small(output_dir=tmp_path, datalist=sample_datalist, iterations=2)
    bundle_run("run", "training", *config("train"), *arguments, "--tracking", "mlflow")
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlruns.db")
    runs = mlflow.search_runs(search_all_experiments=True)
    assert len(runs) == 1 and "metrics.train_loss" in runs.columns


def whole(folder: Path) -> set[str]:
    """The files of a folder that a user sees, but for those of events; each can be read to its end."""
    shown = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith((".", "events."))]
    for path in shown:
        if path.name.endswith(".nii.gz"):
            np.asarray(nib.load(path).dataobj)
        elif path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>")
    return {str(path.relative_to(folder)) for path in shown}


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    ("command", "kills"),
    [
        pytest.param("generating", 1, marks=pytest.mark.slow, id="generating, once"),
        *(
            pytest.param(command, 25, marks=pytest.mark.slow, id=f"{command}, 25 times")
            for command in ("inferring", "generating", "preprocessing", "training")
        ),
    ],
)
def test_a_kill_leaves_no_half_of_a_file(command, kills, cohort, trained, sample_datalist, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for entry in json.loads((cohort / "datalist.json").read_text())["test"]:
        shutil.copy(cohort / entry["image"], scans / f"{entry['subject']}_T1w.nii.gz")
    arguments = {
        "inferring": [*config("inference"), "--input", scans, *own_weights(trained, 3.0)],
        "generating": [*config("generate"), "--datalist", sample_datalist, "--number", "2", "--voxel_size", "4.0"],
        "preprocessing": [*config("preprocess"), "--input", scans, "--voxel_size", "3.0"],
        "training": [*config("train"), *small(datalist=sample_datalist, iterations=8, amp=False)],
    }
    start = partial(bundle_start, "run", command, *arguments[command], "--output_dir")
    undisturbed, disturbed, random = tmp_path / "undisturbed", tmp_path / "disturbed", np.random.RandomState(0)
    began, first = time.monotonic(), None
    process = start(undisturbed)
    while process.poll() is None:
        # Before a file has its name it is written under another, and that is the moment to be killed at.
        first = first or (time.monotonic() - began if any(path.is_file() for path in undisturbed.rglob("*")) else None)
        time.sleep(0.01)
    last = time.monotonic() - began
    assert process.returncode == 0
    met = 0
    for _ in range(kills):
        process = start(disturbed)
        time.sleep(random.uniform(max(first - 0.5, 0.0), last))
        os.killpg(process.pid, signal.SIGKILL)
        killed = process.wait() == -signal.SIGKILL
        whole(disturbed)
        met += killed
        if not killed:
            # It went on where the last one was killed, and ended before its time: the next one begins anew.
            assert process.returncode == 0 and whole(disturbed) == whole(undisturbed)
            shutil.rmtree(disturbed)
    assert met > kills / 2 or kills == 1
    assert start(disturbed).wait() == 0
    assert whole(disturbed) == whole(undisturbed)
