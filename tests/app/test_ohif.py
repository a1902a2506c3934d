"""A reader in front of OHIF, in a real browser. Screenshots: ``pytest tests/app/test_ohif.py --basetemp FOLDER``."""

import shutil
from urllib.parse import quote

import numpy as np
import pytest
import requests
from monai.transforms import ResampleToMatch
from monailabel.client import MONAILabelClient
from scripts.volumes import read_volume

from app.test_dicom import desk, series_of  # noqa: F401


@pytest.fixture
def page(desk):  # noqa: F811
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("chromium is not installed (apt-get install chromium)")
    _, address, _ = desk
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
        browser = started.chromium.launch(executable_path=chromium, args=arguments)
        context = browser.new_context(viewport={"width": 1600, "height": 900})
        context.set_default_timeout(180_000)
        # OHIF asks for MONAI Label on port 8000 unless its settings say otherwise.
        context.add_cookies([{"name": "MONAILABEL_SERVER_URL", "value": quote(f"{address}/", safe=""), "url": address}])
        yield context.new_page()
        browser.close()


@pytest.mark.slow
def test_a_reader_sees_the_lesion_corrects_it_and_stores_it(page, desk, tmp_path):  # noqa: F811
    orthanc, address, _ = desk
    studies = [
        requests.get(f"{orthanc}/studies/{name}", timeout=30).json()
        for name in requests.get(f"{orthanc}/studies").json()
    ]
    uid = studies[0]["MainDicomTags"]["StudyInstanceUID"]
    (scan,) = [name for name, series in series_of(orthanc).items() if series["MainDicomTags"]["SeriesNumber"] == "1"]
    page.goto(f"{address}/ohif/")
    page.get_by_text("TEST").first.wait_for()
    page.screenshot(path=tmp_path / "1_studies.png")

    page.goto(f"{address}/ohif/monai-label?StudyInstanceUIDs={uid}")
    page.locator(".settingsTable button").click()  # connects
    page.get_by_text("Auto-Segmentation").wait_for()
    page.locator("[data-cy=confirm-and-hide-button]").click()
    listed = page.locator("select").all_inner_texts()
    assert any("una_anomaly" in text and "una_score" in text for text in listed), listed
    page.get_by_text("W:").first.wait_for()
    with page.expect_response(lambda answer: "/infer/una_anomaly" in answer.url) as answer:
        page.get_by_role("button", name="Run").first.click()
    assert answer.value.status == 200
    page.wait_for_timeout(4000)  # OHIF paints it
    page.screenshot(path=tmp_path / "2_lesion.png")

    before = {name for name, series in series_of(orthanc).items() if series["MainDicomTags"]["Modality"] == "SEG"}
    page.locator("[data-cy=panelSegmentationWithTools-btn]").click()
    page.locator("[data-cy=Brush]").click()
    pane = page.locator("[data-cy=viewport-pane]").first.bounding_box()
    x, y = pane["x"] + 0.5 * pane["width"], pane["y"] + 0.5 * pane["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y + 12, steps=8)
    page.mouse.up()
    page.wait_for_timeout(2000)
    page.screenshot(path=tmp_path / "3_corrected.png")
    page.locator("button[aria-haspopup=menu]").nth(2).click()
    page.get_by_role("menuitem", name="Export & Download").hover()
    page.get_by_role("menuitem", name="Export DICOM SEG").click()
    page.locator("input[type=text]").first.fill("lesion")
    with page.expect_response(lambda answer: answer.request.method == "POST" and "/studies" in answer.url) as stored:
        page.get_by_text("Save", exact=True).click()
    assert stored.value.status == 200
    page.wait_for_timeout(4000)
    page.screenshot(path=tmp_path / "4_stored.png")

    after = {name for name, series in series_of(orthanc).items() if series["MainDicomTags"]["Modality"] == "SEG"}
    (segmentation,) = after - before
    # What was painted is what training will read: the label of this scan, finished.
    client = MONAILabelClient(address, tmpdir=str(tmp_path))
    assert client.next_sample("random", {}) == {}
    label = read_volume(client.download_label(segmentation, "final"))
    found = read_volume(client.infer("una_anomaly", scan, {})[0])
    label = ResampleToMatch(mode="nearest", padding_mode="zeros")((label == 1).float(), found)
    kept, added = ((label > 0) & where for where in (found > 0, found == 0))
    assert kept.sum() == found.sum() > 10 and 5 < np.count_nonzero(added) < 2000
