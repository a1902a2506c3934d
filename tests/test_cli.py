"""``una COMMAND``: what it lists comes from the configs, and the installed package brings everything along."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import nibabel as nib
import numpy as np
import pytest
import yaml
from conftest import ROOT
from scripts.cli import COMMANDS, about, keys_of
from scripts.locations import CONFIGS


@pytest.mark.parametrize("command", COMMANDS)
def test_the_files_of_a_command_are_those_that_its_config_names(command):
    last = (CONFIGS / f"{COMMANDS[command][-1]}.yaml").read_text()
    content = yaml.safe_load(last)
    assert command in content or command == "frontier"
    told = re.search(rf"# python -m monai.bundle run {command} --config_file (\S+)", last)
    if told:
        assert re.findall(r"configs/(\w+)\.yaml", told[1]) == list(COMMANDS[command])
    assert len(about(command)) > 5 and "\n" not in about(command)


def test_keys_and_defaults_are_those_of_the_configs():
    keys = keys_of("inferring")
    content = yaml.safe_load((CONFIGS / "inference.yaml").read_text())
    for key, (default, comment) in keys.items():
        assert key in content
        assert default == "worked out" or yaml.safe_load(default) == content[key]
        assert "#" not in default and not comment.startswith("#")
    assert {"input", "output_dir", "threshold", "result_spacing", "label_dir"} <= set(keys)
    assert keys["min_volume_ml"][0] == "0.1"


def una(*words, check=True, **more):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.cli", *map(str, words)], capture_output=True, text=True, **more
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_lists_help_completion_and_slips_of_the_pen():
    own = {"cwd": ROOT, "env": {**os.environ, "PYTHONPATH": "bundle"}}
    listed = una(**own).stdout
    assert all(f"una {command}" in listed for command in COMMANDS)
    assert "--min_volume_ml 0.1" in una("inferring", "--help", **own).stdout
    wrong = una("infering", **own, check=False)
    assert wrong.returncode != 0 and "did you mean 'inferring'?" in wrong.stderr
    script = una("--completion", **own).stdout
    asked = f'{script}\nCOMP_WORDS=(una inferring --resu); COMP_CWORD=2; _una; echo "${{COMPREPLY[@]}}"'
    assert subprocess.run(["bash", "-c", asked], capture_output=True, text=True).stdout.strip() == "--result_spacing"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The wheel, unpacked in a folder whose name has a space and an umlaut."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("bundle", "installed"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    place = folder / "mit Umlaut ü"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


@pytest.mark.slow
def test_the_wheel_finds_a_lesion_from_an_empty_folder(installed, sample_datalist, tmp_path):
    """Without the project around, with a home of its own."""
    names = {str(file.relative_to(installed / "una/bundle")) for file in (installed / "una/bundle").rglob("*")}
    assert {"configs/inference.yaml", "configs/methods/una.yaml", "models/model.pt", "models/calibration.json"} <= names
    work, home = tmp_path / "work", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    scan = nib.load(sample_datalist.parent / "t1.nii.gz")
    thin = scan.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    nib.save(nib.Nifti1Image(scan.get_fdata()[::2, ::2, ::2].astype(np.float32), thin), work / "scän_T1w.nii.gz")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "HOME": str(home), "LANG": "C.UTF-8"}
    launcher = [sys.executable, "-m", "una.cli"]
    where = subprocess.run(
        [sys.executable, "-c", "import una; print(una.__file__)"], cwd=work, env=env, capture_output=True, text=True
    )
    assert str(installed) in where.stdout
    done = subprocess.run(
        [*launcher, "inferring", "--input", "scän_T1w.nii.gz", "--output_dir", "found", "--device", "cpu"],
        cwd=work, env=env, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert {file.name for file in (work / "found").iterdir()} >= {"scän_T1w_healthy.nii.gz", "scän_T1w_lesion.nii.gz"}
    # The command that it stands for works, too.
    plain = [
        sys.executable,
        "-m",
        "monai.bundle",
        "run",
        "inferring",
        "--config_file",
        installed / "una/bundle/configs/inference.yaml",
    ]
    done = subprocess.run(
        [*plain, "--input", "scän_T1w.nii.gz", "--output_dir", "plain"],
        cwd=work,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (nib.load(work / folder / "scän_T1w_healthy.nii.gz").get_fdata() for folder in ("found", "plain"))
    np.testing.assert_array_equal(one, other)
    script = (
        "from una.methods import Guest; from una.config import parse; Guest('una').method; parse(['train.yaml'], {})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=work, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
