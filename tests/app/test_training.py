"""The loop: a reader's correction, new weights, and the way back; on a small network, for speed."""

import json
import re
import signal
import time

import nibabel as nib
import numpy as np
import psutil
import pytest
import requests
import torch
from conftest import ROOT, SMALL, bundle_run, config, small
from monai.bundle import ConfigParser

from app.running import Server


@pytest.fixture(scope="module")
def weights(tmp_path_factory, sample_datalist):
    folder = tmp_path_factory.mktemp("weights")
    bundle_run("run", "training", *config("train"), *small(output_dir=folder, datalist=sample_datalist))
    return folder / "model.pt"


@pytest.fixture
def desk(tmp_path, scans, weights):
    """A server of its own whose family ``tiny`` is a further config in a folder."""
    content = ConfigParser.load_config_file(str(ROOT / "monailabel_app/variants/una.yaml"))
    content |= {
        "checkpoint": str(weights),
        "voxel_size": SMALL["voxel_size"],
        "method_settings": {"calibration": False, "features": SMALL["features"]},
    }
    content["training"] = {"patch_size": SMALL["patch_size"], "iterations": 4, "iterations_per_epoch": 2}
    content["training"] |= {"learning_rate": 1.0e-3, "validation_draws": 2}
    (tmp_path / "variants").mkdir()
    ConfigParser.export_config_file(content, str(tmp_path / "variants/tiny.yaml"), fmt="yaml")
    studies = tmp_path / "studies"
    studies.mkdir()
    for file in (scans / "studies").glob("*.nii.gz"):
        (studies / file.name).write_bytes(file.read_bytes())
    server = Server(studies, tmp_path, {"variants": str(tmp_path / "variants")}).start()
    server.client.save_label("patient0_t1", str(scans / "truth/patient0_t1.nii.gz"))
    yield server
    server.kill(signal.SIGKILL)


def train(server, **request):
    answer = requests.post(f"{server.url}/train/tiny", json=request, timeout=60)
    assert answer.status_code == 200, answer.text
    return server.task("train", 400)


def state(server):
    return server.client.info()["train_stats"]["tiny"]


def test_a_correction_becomes_new_weights(desk):
    assert train(desk, tolerance=100)["status"] == "DONE"
    record = state(desk)["newest"]
    assert state(desk)["version"] == 1 and record["parent"] == 0 and record["corrections"] == ["patient0_t1.nii.gz"]


@pytest.mark.slow
def test_weights_that_lose_are_refused_and_the_old_ones_come_back(desk):
    assert set(desk.client.info()["models"]) == {f"tiny_{kind}" for kind in ("anomaly", "healthy", "score", "refine")}
    before, _ = desk.client.infer("tiny_healthy", "patient0_t1", {})
    before = nib.load(before).get_fdata()
    # Nothing can gain 100 dB: refused, and the weights in use stay.
    assert train(desk, tolerance=-100)["status"] == "DONE"
    assert state(desk)["version"] == 0 and state(desk)["unfinished"] is None
    assert "worse" in json.loads((desk.folder / "model/tiny/refused.json").read_text())["refused"]

    task = train(desk, tolerance=100)
    assert task["status"] == "DONE" and any("PSNR" in line for line in task["details"])
    assert state(desk)["version"] == 1
    record = state(desk)["newest"]
    assert record["parent"] == 0 and record["corrections"] == ["patient0_t1.nii.gz"]
    assert set(record["before"]) == set(record["after"]) == {"PSNR_F_region", "PSNR_D_region", "healthy_ml"}
    # There is one healthy subject here, and whoever reads the record learns that it was no stranger.
    assert record["tested_on_training_subjects"] == ["icbm2009"]
    after, said = desk.client.infer("tiny_healthy", "patient0_t1", {})
    assert said["weights"] == 1 and np.abs(nib.load(after).get_fdata() - before).max() > 1e-3

    train(desk, restore=0)
    again, said = desk.client.infer("tiny_healthy", "patient0_t1", {})
    assert said["weights"] == 0
    np.testing.assert_allclose(nib.load(again).get_fdata(), before, atol=1e-4)
    assert state(desk)["versions"] == [0, 1]


@pytest.mark.slow
def test_a_server_that_dies_while_it_trains_loses_nothing(desk, scans):
    requests.post(f"{desk.url}/train/tiny", json={"iterations": 4000, "tolerance": 100}, timeout=60)
    run = desk.folder / "model/tiny/run"
    until = time.monotonic() + 300
    while not (run / "last.pt").is_file():
        assert time.monotonic() < until, desk.log.read_text()[-2000:]
        time.sleep(0.2)
    training = psutil.Process(desk.process.pid).children(recursive=True)
    assert state(desk)["total_epochs"] == 2000
    desk.process.kill()  # the server alone: its training must not go on, and publish, behind the back of the next one
    desk.process.wait(30)
    assert training and not psutil.wait_procs(training, timeout=60)[1]
    reached = torch.load(run / "last.pt", weights_only=True)["trainer"]["iteration"]
    plan = json.loads((run / "plan.json").read_text())
    plan["settings"]["iterations"] = reached + 4  # a whole run takes too long here
    (run / "plan.json").write_text(json.dumps(plan))

    before = len(desk.log.read_text())
    desk.start()
    assert state(desk)["unfinished"]["corrections"] == ["patient0_t1.nii.gz"]
    assert requests.get(f"{desk.url}/train/", timeout=60).status_code == 404  # nothing runs, nothing hangs
    label = nib.load(desk.client.download_label("patient0_t1", "final"))
    np.testing.assert_array_equal(label.get_fdata(), nib.load(scans / "truth/patient0_t1.nii.gz").get_fdata())
    assert train(desk, tolerance=100)["status"] == "DONE"
    # Only the two judgements of the held-out cases begin at epoch 0: the training's own validation goes on where it was.
    validations = r"SupervisedEvaluator:\d+\) - Engine run resuming from iteration 0, epoch 0 "
    assert len(re.findall(validations, desk.log.read_text()[before:])) == 2
    assert state(desk)["version"] == 1 and state(desk)["unfinished"] is None and not run.exists()


@pytest.mark.slow
def test_training_can_be_stopped_and_goes_on(desk):
    requests.post(f"{desk.url}/train/tiny", json={"iterations": 4000}, timeout=60)
    run = desk.folder / "model/tiny/run"
    until = time.monotonic() + 300
    while not (run / "last.pt").is_file():
        assert time.monotonic() < until, desk.log.read_text()[-2000:]
        time.sleep(0.2)
    assert requests.delete(f"{desk.url}/train/", timeout=60).status_code == 200
    assert desk.task("train", 60)["status"] == "STOPPED"
    assert state(desk)["version"] == 0 and state(desk)["unfinished"]["parent"] == 0
    train(desk, resume=False, iterations=2, tolerance=100)
    assert state(desk)["version"] == 1
