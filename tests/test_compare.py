"""The whole road of a comparison, as a user runs it, and its page in a browser."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import bundle_run, config
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
TOY = [
    "--number",
    "1",
    "--voxel_size",
    "4.0",
    "--slice_size",
    "[48, 64]",
    "--iterations",
    "4",
    "--iterations_per_epoch",
    "2",
]
TOY += ["--scans_per_step", "1", "--viewed", "1"]


def run(output_dir, methods, *more, check=True):
    arguments = [*config("compare"), "--output_dir", output_dir, "--methods", str(methods), *TOY, *more]
    return bundle_run("run", "comparing", *arguments, check=check)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The output of a comparison in which one method of four cannot work."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "broken.yaml").write_text("title: broken\nmethod: {_target_: scripts.methods.GaussianAtlas}\n")
    methods = ["intensity", str(folder / "broken.yaml"), "contralateral", "autoencoder"]
    return folder, methods, run(folder / "out", methods, check=False)


def test_a_method_that_fails_is_named_and_the_others_are_judged(compared):
    folder, _, done = compared
    assert done.returncode == 1 and "1 of 4 methods failed (the others are done): broken" in done.stderr
    summary = pd.read_csv(folder / "out/summary.csv").set_index("method")
    assert set(summary.index) == {"intensity", "contralateral", "autoencoder"}
    cases = pd.read_csv(folder / "out/cases.csv")
    # The tidy table says the same.
    tidy = pd.read_csv(folder / "out/results.csv").pivot(index=["method", "subject"], columns="metric", values="value")
    wide = cases.set_index(["method", "subject"]).sort_index()
    for metric in ("auprc", "found_ml_healthy_percentile", "seconds"):
        np.testing.assert_allclose(tidy.sort_index()[metric], wide[metric], rtol=1e-9)
    assert len(cases) == 3 * 2 and cases["diseased"].sum() == 3 * 1
    sick = cases[(cases["method"] == "intensity") & cases["diseased"]]
    assert summary.loc["intensity", "auprc"] == pytest.approx(sick["auprc"].mean())
    assert summary.loc["autoencoder", "sees"] == "healthy scans"
    content = json.loads((folder / "out/comparison.json").read_text())
    assert "19 are needed" in content["methods"]["intensity"]["unavailable"]["conformal"]


def test_a_comparison_goes_on_where_it_was_stopped(compared):
    folder, methods, _ = compared
    score = folder / "out/scores/autoencoder"
    removed, kept = sorted(score.glob("test*_score.nii.gz"))[:2]
    before = kept.stat().st_mtime_ns
    (score / f"{removed.name.removesuffix('_score.nii.gz')}.json").unlink()
    removed.unlink()
    (score / "judged.json").unlink()
    of_finished = folder / "out/scores/contralateral" / f"{removed.name.removesuffix('_score.nii.gz')}.json"
    of_finished.unlink()
    table = pd.read_csv(folder / "out/cases.csv").drop(columns="seconds")
    weights = (folder / "out/methods/autoencoder/method.pt").stat().st_mtime_ns
    run(folder / "out", [methods[0], *methods[2:]])
    assert removed.is_file() and kept.stat().st_mtime_ns == before
    assert (folder / "out/methods/autoencoder/method.pt").stat().st_mtime_ns == weights
    assert not of_finished.exists()  # a method that was judged already is not asked again
    pd.testing.assert_frame_equal(pd.read_csv(folder / "out/cases.csv").drop(columns="seconds"), table)


@pytest.mark.slow
def test_two_workers_judge_as_one(compared):
    folder, methods, _ = compared
    given = ["--datalist", folder / "out/people/datalist.json", "--workers", "2"]
    run(folder / "pair", [methods[0], *methods[2:]], *given)
    one, pair = (pd.read_csv(folder / out / "cases.csv").drop(columns="seconds") for out in ("out", "pair"))
    pd.testing.assert_frame_equal(pair, one)


def test_a_datalist_without_validation_is_refused(compared):
    folder, methods, _ = compared
    datalist = folder / "out/people/datalist.json"
    content = json.loads(datalist.read_text())
    del content["validation"]
    (datalist.parent / "short.json").write_text(json.dumps(content))
    done = run(folder / "short", methods[:1], "--datalist", datalist.parent / "short.json", check=False)
    assert done.returncode == 1 and "has no entry under 'validation'" in done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_shows_a_scan_in_a_browser_without_a_network(compared):
    folder, _, _ = compared
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1250, "height": 900})
        errors, asked = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((folder / "out/report.html").as_uri())
        page.wait_for_function("document.body.dataset.shown", timeout=120_000)
        assert page.locator("#ranking tr").count() == 4
        dark = page.locator("#canvas").screenshot()
        page.select_option("#over", "truth")
        page.wait_for_function("document.body.dataset.shown == 'scan + truth'", timeout=120_000)
        page.wait_for_timeout(1000)
        assert page.locator("#canvas").screenshot() != dark
        browser.close()
    assert not errors and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
