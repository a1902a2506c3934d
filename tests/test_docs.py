"""The documentation builds without a dead link, its snippets name what exists, and its pages are those of the project."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from monai.bundle import ConfigParser
from scripts.config import check_command_line

CONFIGS = ROOT / "bundle/configs"
PAGES = [ROOT / "README.md", ROOT / "bundle/docs/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES.remove(ROOT / "docs/laboratory.md")  # it keeps commands of former versions
OWN = ("config_file", "args_file", "meta_file", "logging_file")  # of `monai.bundle run`


def build(project):
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(project / "mkdocs.yml"),
    ]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=300)


@pytest.fixture
def project(tmp_path):
    """What the site is made of, to change it."""
    for name in ("docs", "bundle/docs", "bundle/configs", "bundle/scripts", "benchmarks", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("mkdocs.yml", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("LICENSE", "Makefile"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_the_site_builds_and_a_dead_link_stops_it(project):
    done = build(project)
    assert done.returncode == 0, done.stderr[-2000:]
    site = project / "dist/site"
    # A key of a config with its comment, the docstring of a transform, and a picture of the model's page.
    configs = (site / "reference/configs.html").read_text()
    assert (
        "learning_rate_drop" in configs
        and "sizes/paper.yaml" in configs
        and "between validations and checkpoints" in configs
    )
    assert "divergence-free" in (site / "reference/api.html").read_text()
    assert (site / "project/stroke_t1w.png").is_file() and "bundle/docs" not in (
        site / "project/model.html"
    ).read_text()
    page = project / "docs/score.md"
    page.write_text(page.read_text() + "\n[gone](nowhere.md)\n")
    done = build(project)
    assert done.returncode != 0 and "nowhere.md" in done.stderr + done.stdout


def commands(page) -> list[list[str]]:
    """The words of every `monai.bundle run` in the bash blocks of a page."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.replace("$C", "bundle/configs")
            if "monai.bundle run" in line.split("#")[0]:
                found.append(shlex.split(line, comments=True))
    return found


def test_every_command_of_the_docs_names_a_task_and_keys_that_exist():
    checked = 0
    for page in PAGES:
        for words in commands(page):
            words = words[words.index("run") + 1 :]
            given = dict(zip(words[1::2], words[2::2]))
            files = given["--config_file"]
            files = yaml.safe_load(files) if files.startswith("[") else [files]
            files = [file if file.startswith("bundle/") else f"bundle/{file}" for file in files]
            where = f"{page.relative_to(ROOT)}: {' '.join(words)}"
            assert all((ROOT / file).is_file() for file in files), where
            parser = ConfigParser(config=ConfigParser.load_config_files([str(ROOT / file) for file in files]))
            assert words[0] in parser, where
            for key in given:
                name = key.removeprefix("--")
                known = name in OWN or name in parser or name.split("::")[0] in parser or name in ("tracking", "input")
                assert known, f"{where}: {key}"
            # The command's own check, which a user meets first.
            own = [word for key, value in given.items() if key != "--config_file" for word in (key, value)]
            check_command_line(
                ["bundle", "run", words[0], "--config_file", str([str(ROOT / file) for file in files]), *own]
            )
            checked += 1
    assert checked > 30


def test_pages_are_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
    assert len((ROOT / "bundle/docs/README.md").read_text().splitlines()) <= 150
