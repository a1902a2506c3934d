"""A reader in front of OHIF, in a real browser. Screenshots: ``tests/app/test_ohif.py --basetemp FOLDER``."""

import shutil
from urllib.parse import quote

import pytest
import requests

from app.test_dicom import desk  # noqa: F401


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
        # OHIF asks for MONAI Label on port 8000 unless its settings say otherwise.
        context.add_cookies([{"name": "MONAILABEL_SERVER_URL", "value": quote(f"{address}/", safe=""), "url": address}])
        yield context.new_page()
        browser.close()


@pytest.mark.slow
def test_a_reader_opens_the_study_and_sees_the_lesion(page, desk, tmp_path):  # noqa: F811
    orthanc, address, _ = desk
    studies = [
        requests.get(f"{orthanc}/studies/{name}", timeout=30).json()
        for name in requests.get(f"{orthanc}/studies").json()
    ]
    uid = studies[0]["MainDicomTags"]["StudyInstanceUID"]
    page.goto(f"{address}/ohif/", timeout=120_000)
    page.get_by_text("TEST").first.wait_for(timeout=120_000)
    page.screenshot(path=tmp_path / "1_studies.png")
    page.goto(f"{address}/ohif/monai-label?StudyInstanceUIDs={uid}", timeout=120_000)
    page.locator(".settingsTable button").click(timeout=180_000)
    page.get_by_text("Auto-Segmentation").wait_for(timeout=120_000)
    listed = page.locator("select").all_inner_texts()
    assert any("una_anomaly" in text and "una_score" in text for text in listed), listed
    page.screenshot(path=tmp_path / "2_opened.png")
    with page.expect_response(lambda answer: "/infer/una_anomaly" in answer.url, timeout=180_000) as answer:
        page.get_by_role("button", name="Run").first.click()
    assert answer.value.status == 200
    page.wait_for_timeout(4000)
    page.screenshot(path=tmp_path / "3_lesion.png")
    page.wait_for_timeout(1000)
    print(page.locator("[data-cy]").evaluate_all("e => e.map(x => x.getAttribute('data-cy'))"))
    assert page.get_by_text("lesion", exact=True).count() > 0
