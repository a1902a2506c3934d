"""The desk through a real server and MONAI Label's own client, which 3D Slicer's module uses."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

import itk
import nibabel as nib
import numpy as np
import pytest
import requests
from conftest import bundle_run, config, dice
from lib.viewer import MENDED

from app.running import Server


def test_every_model_answers_on_the_grid_of_the_scan(server, scans):
    info = server.client.info()
    assert set(info["models"]) >= {"una_anomaly", "una_healthy", "una_score", "una_refine"}
    scan = nib.load(scans / "studies/patient0_t1.nii.gz")
    volumes = {}
    for model in ("una_anomaly", "una_healthy", "una_score", "una_refine"):
        file, said = server.client.infer(model, "patient0_t1", {})
        volumes[model] = nib.load(file)
        assert volumes[model].shape == scan.shape
        np.testing.assert_allclose(volumes[model].affine, scan.affine, atol=1e-4)
        assert said["modality"] == "t1" and said["weights"] == 0
    mask, levels = (np.asarray(volumes[f"una_{kind}"].dataobj) for kind in ("anomaly", "score"))
    assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 1} and 1 <= levels.max() <= 4
    file, _ = server.client.infer("una_score", "patient0_t1", {"values": "score"})
    score = nib.load(file).get_fdata()
    assert ((levels == 0) == (score < 0.5)).mean() > 0.999  # the levels are those of the score
    # PatchCore is a second family, which draws no healthy brain and does not learn.
    assert {"patchcore_anomaly", "patchcore_score"} <= set(info["models"]) and "patchcore_healthy" not in info["models"]
    assert set(info["trainers"]) == {"una"}
    second = nib.load(server.client.infer("patchcore_score", "patient0_t1", {"values": "score"})[0])
    found = nib.load(server.client.infer("patchcore_anomaly", "patient0_t1", {"min_volume_ml": 0.0})[0])
    assert ((second.get_fdata() > 1.0) == (np.asarray(found.dataobj) > 0)).mean() > 0.999
    healthy = volumes["una_healthy"].get_fdata()
    inside = (scan.get_fdata() > 0) & (healthy > 0)
    assert np.corrcoef(healthy[inside], scan.get_fdata()[inside])[0, 1] > 0.5
    assert 0.9 < np.median(healthy[inside] / scan.get_fdata()[inside]) < 1.1  # a T1w and its healthy T1w share a window


def test_settings_change_the_mask_and_bad_ones_are_named(server):
    def volume(**settings):
        return server.client.infer("una_anomaly", "patient0_t1", settings)[1]["lesion_ml"]

    assert volume(threshold=0.3) > volume(threshold=1.0) >= volume(threshold=5.0)
    assert volume(threshold=0.5, min_volume_ml=0.0) >= volume(threshold=0.5, min_volume_ml=5.0)
    for settings, said in (
        ({"threshold": "much"}, "must be a number"),
        ({"threshold": 7000}, "between 0 and 1000"),
        ({"threshold": True}, "must be a number"),
        ({"score": "wishful"}, "must be one of"),
        ({"modality": "pet"}, "must be one of"),
        ({"result_extension": ".exe"}, "result_extension"),
    ):
        answer = requests.post(
            f"{server.url}/infer/una_anomaly?image=patient0_t1", data={"params": json.dumps(settings)}, timeout=60
        )
        assert answer.status_code == 422 and said in answer.json()["detail"]


def test_nrrd_for_ohif_has_the_same_voxels(server):
    nifti, _ = server.client.infer("una_score", "patient0_t1", {})
    assert nifti.endswith(".nii.gz")
    nrrd, _ = server.client.infer("una_score", "patient0_t1", {"result_extension": ".nrrd"})
    image = itk.imread(nrrd)
    np.testing.assert_array_equal(itk.array_view_from_image(image).T, np.asarray(nib.load(nifti).dataobj))


def test_a_click_adds_and_removes_and_a_sent_mask_is_the_start(server, scans):
    truth = np.asarray(nib.load(scans / "truth/patient0_t1.nii.gz").dataobj) > 0
    file, said = server.client.infer("una_refine", "patient0_t1", {"threshold": 999.0})
    assert said["lesion_ml"] == 0.0
    inside = np.argwhere(truth)[truth.sum() // 2].tolist()
    file, said = server.client.infer("una_refine", "patient0_t1", {"threshold": 999.0, "foreground": [inside]})
    added = np.asarray(nib.load(file).dataobj) > 0
    assert added[tuple(inside)] and said["lesion_ml"] > 0.0
    file, said = server.client.infer(
        "una_refine",
        "patient0_t1",
        {"background": [inside]},
        label_in=str(scans / "truth/patient0_t1.nii.gz"),
    )
    left = np.asarray(nib.load(file).dataobj) > 0
    assert not left[tuple(inside)] and not (left & ~truth).any()


def test_the_mask_is_that_of_the_command_line(server, scans, tmp_path):
    file, _ = server.client.infer("una_anomaly", "patient0_t1", {})
    arguments = ["--input", scans / "studies/patient0_t1.nii.gz", "--output_dir", tmp_path]
    bundle_run("run", "inferring", *config("inference"), *arguments)
    mask = nib.load(tmp_path / "patient0_t1_lesion.nii.gz").get_fdata()
    assert mask.any() and dice(nib.load(file).get_fdata(), mask) > 0.999


def test_bad_clicks_are_named(server):
    for click in (["nan", 1, 1], [1, 1], ["here", 1, 1]):
        answer = requests.post(
            f"{server.url}/infer/una_refine?image=patient0_t1",
            data={"params": json.dumps({"foreground": [click]})},
            timeout=60,
        )
        assert answer.status_code == 422, answer.text


def test_labels_are_saved_and_strategies_pick_what_is_left(server, scans):
    client = server.client
    figures = requests.post(f"{server.url}/scoring/una", json={}, timeout=60)
    assert figures.status_code == 200 and server.task("scoring", 300)["status"] == "DONE"
    images = requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]
    seen = {name: entry["image"]["info"]["una"] for name, entry in images.items()}
    assert set(seen) == {"patient0_t1", "patient1_t1"}
    for strategy, figure in (("burden", "lesion_ml"), ("uncertainty", "uncertainty")):
        assert client.next_sample(strategy, {})["id"] == max(seen, key=lambda name, f=figure: seen[name][f])
    client.save_label("patient0_t1", str(scans / "truth/patient0_t1.nii.gz"))
    for strategy in ("burden", "uncertainty", "random"):
        assert client.next_sample(strategy, {})["id"] == "patient1_t1"
    saved = nib.load(client.download_label("patient0_t1", "final"))
    np.testing.assert_array_equal(saved.get_fdata(), nib.load(scans / "truth/patient0_t1.nii.gz").get_fdata())
    assert "Saving Label" in requests.get(f"{server.url}/logs/?text=true", timeout=60).text


@pytest.mark.slow
def test_a_batch_passes_over_what_is_done(server):
    def made() -> dict[str, int]:
        images = requests.get(f"{server.url}/datastore/?output=all", timeout=60).json()["objects"]
        return {
            name: entry["labels"]["batch"]["info"]["ts"] for name, entry in images.items() if "batch" in entry["labels"]
        }

    runs = []
    for request in ({"max_batch_size": 1}, {}, {}):
        answer = requests.post(
            f"{server.url}/batch/infer/una_anomaly", json={"label_tag": "batch", **request}, timeout=60
        )
        assert answer.status_code == 200, answer.text
        assert server.task("batch/infer", 300)["status"] == "DONE"
        runs.append(made())
    first, both, again = runs
    assert len(first) == 1 and len(both) == 2 and first.items() < both.items()  # the second run went on
    assert again == both


@pytest.mark.slow
def test_the_server_answers_while_it_computes(server, scans):
    with ThreadPoolExecutor(3) as pool:
        running = [
            pool.submit(server.client.infer, "una_anomaly", name, {"modality": "t1"})
            for name in ("patient0_t1", "patient1_t1", "patient0_t1")
        ]
        slowest = 0.0
        while not all(future.done() for future in running):
            started = time.monotonic()
            assert requests.get(f"{server.url}/info/", timeout=60).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.1)
        first, _, again = [future.result() for future in running]
    assert slowest < 5.0
    assert dice(nib.load(first[0]).get_fdata(), nib.load(again[0]).get_fdata()) == pytest.approx(1.0)
    # A reader who goes away half way harms nobody.
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(
            f"{server.url}/infer/una_healthy?image=patient1_t1", data={"params": '{"modality": "t2"}'}, timeout=0.3
        )
    assert server.client.infer("una_healthy", "patient0_t1", {})[1]["modality"] == "t1"


def test_a_thousand_scans_stay_responsive(scans, tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    for number in range(1000):
        shutil.copy(scans / "truth/patient0_t1.nii.gz", studies / f"scan{number:04d}.nii.gz")
    many = Server(studies, tmp_path).start()
    try:
        started = time.monotonic()
        assert many.client.info()["datastore"]["total"] == 1000
        assert many.client.next_sample("burden", {})["id"] == "scan0000"
        assert len(requests.get(f"{many.url}/datastore/?output=all", timeout=60).json()["objects"]) == 1000
        assert time.monotonic() - started < 10.0
    finally:
        many.kill()


def test_ohif_is_served_with_what_a_reader_needs(server):
    folder = files("monailabel.endpoints").joinpath("static", "ohif")
    scripts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir() if file.name.endswith(".js")}
    for shipped, mended in MENDED.items():
        (name,) = [name for name, text in scripts.items() if shipped in text]
        answer = requests.get(f"{server.url}/ohif/{name}", timeout=60)
        assert answer.headers["content-type"].startswith("text/javascript")
        assert mended in answer.text and shipped not in answer.text
    untouched = next(name for name in scripts if not any(shipped in scripts[name] for shipped in MENDED))
    assert requests.get(f"{server.url}/ohif/{untouched}", timeout=60).text == scripts[untouched]
