"""What a user sees who gives something wrong: one line that names file, problem and way out, and a non-zero exit."""

import json
import re
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import ROOT, bundle_run, config, small
from fire.parser import DefaultParseValue
from scripts.config import check_command_line, from_config, method_files, method_names
from scripts.errors import InputError
from scripts.learning import load_weights


@pytest.fixture
def files(tmp_path):
    (tmp_path / "empty.json").write_text(json.dumps({"training": []}))
    (tmp_path / "weights.pt").write_bytes(b"no weights")
    nib.save(nib.Nifti1Image(np.full((20, 20, 20), 3.0, np.float32), np.eye(4)), tmp_path / "constant.nii.gz")
    return tmp_path


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_commands_fail_in_one_line(every, files):
    network = ["--method_settings", "{'features':[8,8,8,8],'calibration':False}"]
    unet = from_config("train.yaml", "network_def", {"features": [8, 8, 8, 8]})
    torch.save(unet.state_dict(), files / "good.pt")
    infer = ["run", "inferring", *config("inference"), "--output_dir", files / "out"]
    cases = [
        (
            ["run", "training", *config("train"), "--iteration", "5"],
            "nothing in .* uses the key 'iteration'; did you mean 'iterations'",
        ),
        (
            ["run", "training", *config("train"), *small(datalist=files / "empty.json", output_dir=files)],
            "empty.json has no entry",
        ),
        (
            [
                "run",
                "training",
                *config("train"),
                *small(output_dir=files / "out", num_workers=1, traced_masks=[str(files / "weights.pt")]),
                "--generator::traced_probability",
                "1.0",
            ],
            "cannot read the traced lesion mask .*weights.pt",
        ),
        (["run", "training", *config("train"), "--resume", "false"], "write --resume False"),
        (
            [*infer, "--input", files / "absent.nii", "--checkpoint", files / "good.pt", *network],
            "absent.nii does not exist",
        ),
        (
            [*infer, "--input", files, "--checkpoint", files / "absent.pt"],
            "no weights at .*absent.pt; train the method",
        ),
        (
            [*infer, "--input", files, "--checkpoint", files / "good.pt", *network],
            "constant.nii.gz has almost no different values",
        ),
    ]
    for arguments, message in cases[::every]:
        done = bundle_run(*arguments, check=False)
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode != 0
        assert last.startswith("error: "), done.stderr[-1500:]
        assert re.search(message, last), last
        assert "Traceback" not in done.stderr


def test_unused_keys_of_a_later_config_are_refused(files, monkeypatch):
    override = files / "mine.yaml"
    train = str(config("train")[1][2:-2])

    def check(text: str) -> None:
        override.write_text(text)
        check_command_line(["monai.bundle", "run", "training", "--config_file", f"['{train}','{override}']"])

    monkeypatch.chdir(ROOT)
    check("learning_rate: 0.1\ntrain::handlers::0::print_lr: true\n")
    check("milestone: 3\nlearning_rate_drop: '@milestone'\n")
    with pytest.raises(InputError, match="uses the key 'learning_rat'; did you mean 'learning_rate'"):
        check("learning_rat: 0.1\n")


def test_weights_load_safely(files):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    network = torch.nn.Linear(2, 2)
    torch.save({"weight": Evil()}, files / "evil.pt")
    torch.save(torch.nn.Linear(3, 3).state_dict(), files / "other.pt")
    torch.save(network.state_dict(), files / "same.pt")
    for name, message in (("evil.pt", "cannot|safely"), ("weights.pt", "safely"), ("other.pt", "another network")):
        with pytest.raises(InputError, match=message):
            load_weights(network, files / name)
    assert load_weights(network, files / "same.pt") is network


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--smoothing", "high"], "--smoothing 'high' is a text; the config has a number there, 2.0"),
        (["--smoothing=0,5"], r"--smoothing \(0, 5\) is a list; the config has a number"),
        (["--method_settings", "32"], "--method_settings 32 is a number; the config has a dictionary"),
        (["--bias_correction", "1"], "--bias_correction 1 is a number; the config has True or False there, False"),
        (["--method", "7"], "--method 7 is a number; the config has a text"),
        (["--output_dir", "7"], "--output_dir 7 is a number; the config has a text.*write ./7"),
        (["--treshold", "2"], "the key 'treshold'; did you mean 'threshold'"),
        (["--amp", "false"], "write --amp False"),
        (["--device", "cuda:77"], "--device cuda:77: there is no such device; this machine has cpu"),
        (["--device", "gpu"], "--device gpu: there is no such device"),
    ],
)
def test_values_of_another_type_are_refused_before_anything_runs(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = ["monai.bundle", "run", "inferring"]
    with pytest.raises(InputError, match=message):
        check_command_line([*command, *map(str, config("inference")), *words])
    # The same from a file of arguments.
    key, value = words[0].lstrip("-").split("=") if "=" in words[0] else (words[0][2:], words[1])
    value = DefaultParseValue(value)
    content = {"config_file": "bundle/configs/inference.yaml", key: list(value) if isinstance(value, tuple) else value}
    (tmp_path / "arguments.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=message.replace(r"\(0, 5\)", r"\[0, 5\]")):
        check_command_line([*command, "--args_file", str(tmp_path / "arguments.json")])


def test_values_of_the_right_type_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = [
        "--threshold",
        "2",
        "--input",
        "a.nii",
        "--method_settings",
        "{'calibration':False}",
        "--modality",
        "t2",
        "--amp",
        "False",
    ]
    words += [
        "--min_volume_ml",
        "$0.1 * 2",
        "--smoothing",
        "0.0",
    ]
    check_command_line(["monai.bundle", "run", "inferring", *map(str, config("inference")), *words])


def test_training_goes_on_without_a_damaged_subject_and_says_so(sample_datalist, tmp_path):
    content = json.loads(sample_datalist.read_text())
    good = {
        key: str(sample_datalist.parent / v) if key in ("label", "t1") else v
        for key, v in content["training"][0].items()
    }
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes((sample_datalist.parent / "t1.nii.gz").read_bytes()[:5000])
    entries = [{**good, "subject": "second", "t1": str(damaged)}, good]
    (tmp_path / "two.json").write_text(json.dumps({"training": entries, "validation": [good]}))
    arguments = small(output_dir=tmp_path / "out", datalist=tmp_path / "two.json")
    done = bundle_run("run", "training", *config("train"), *arguments, check=False)
    assert done.returncode == 1 and (tmp_path / "out/model.pt").is_file()
    assert re.search("error: 1 subjects could not be used: second: .*damaged.nii.gz", done.stderr), done.stderr[-1000:]


def test_a_foreign_scripts_folder_does_no_harm_where_the_readme_says_so(tmp_path):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/__init__.py").write_text("raise RuntimeError('of another project')")
    words = ["run", "inferring", "--config_file", ROOT / "bundle/configs/inference.yaml", "--input", "absent.nii"]
    command = [sys.executable, "-P", "-m", "monai.bundle", *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "of another project" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: absent.nii does not exist")


TRAIN, INFER = "train", "inference"


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        # Types, also of what is null or worked out by default.
        (INFER, ["--threshold", "abc"], "--threshold 'abc' is a text; it must be a number"),
        (INFER, ["--result_spacing", "fine"], "--result_spacing 'fine' is a text; it must be a number"),
        (INFER, ["--input", "[1,2]"], r"--input \[1, 2\] is a list; it must be a text"),
        (INFER, ["--checkpoint", "3"], "--checkpoint 3 is a number; it must be a text.*write ./3"),
        (TRAIN, ["--num_workers", "many"], "--num_workers 'many' is a text; it must be a number"),
        (TRAIN, ["--datalist", "True"], "--datalist True is True or False; it must be a text"),
        # Sizes that no network and no loop can have.
        (TRAIN, ["--patch_size", "[33,33,33]"], "each must be a multiple of 16"),
        (TRAIN, ["--patch_size", "[32,32]"], "must be three whole numbers"),
        (TRAIN, ["--features", "[8,16]"], "has 2 levels; the network needs 3 or more"),
        (TRAIN, ["--iterations", "0"], "--iterations 0 is not possible: it must be more than 0"),
        (TRAIN, ["--batch_size", "-1"], "--batch_size -1 is not possible"),
        (TRAIN, ["--voxel_size", "0.0"], "--voxel_size 0.0 is not possible"),
        (INFER, ["--result_spacing", "-1.0"], "--result_spacing -1.0 is not possible"),
        (TRAIN, ["--accumulation_steps", "0"], "--accumulation_steps 0 is not possible"),
        (TRAIN, ["--features", "[12,24,24,24]"], r"--features \[12, 24, 24, 24\] do not fit .* a multiple of 8"),
        # Keys of which one replaces the other.
        (TRAIN, ["--packed", "a.npz", "--datalist", "b.json"], "--packed brings its own datalist"),
        (TRAIN, ["--packed", "a.npz", "--traced_masks", "['m.nii']"], "--packed brings its own traced_masks"),
        # Keys that have few values.
        ("inference+normalize", ["--registered", "fill"], "--registered fill .* one of filled, pred_healthy, scan"),
        ("inference+normalize", ["--engine", "ANTS"], "--engine ANTS .* one of elastix, ants"),
    ],
)
def test_types_and_sizes_are_refused_before_anything_runs(name, given, says):
    files = [str(ROOT / f"bundle/configs/{part}.yaml") for part in name.split("+")]
    with pytest.raises(InputError, match=says):
        check_command_line(["bundle", "run", "x", "--config_file", str(files), *given])


@pytest.mark.parametrize(
    "given", [["--threshold", "0.5"], ["--threshold", "None"], ["--result_spacing", "1"], ["--input", "@there"]]
)
def test_right_types_pass(given):
    check_command_line(["bundle", "run", "x", "--config_file", str(ROOT / "bundle/configs/inference.yaml"), *given])


@pytest.mark.parametrize("name", method_names())
def test_the_files_of_a_method_train_as_the_documentation_says(name, tmp_path):
    """As ``docs/commands.md`` has it for the ablations: what a method extends stands before it."""
    files = [str(ROOT / "bundle/configs/guest.yaml"), *method_files(name)]
    check_command_line(["bundle", "run", "training", "--config_file", str(files)])
    (tmp_path / "own.yaml").write_text("+settings_of: {a: 1}\nmethod_setings: {}\n")
    with pytest.raises(InputError, match="the key 'settings_of'|the key 'method_setings'"):
        check_command_line(["bundle", "run", "training", "--config_file", str([*files, str(tmp_path / "own.yaml")])])


def test_a_file_may_add_to_what_another_says(tmp_path):
    (tmp_path / "own.yaml").write_text("+generator: {anomaly_prob: 0.5}\n")
    files = [str(ROOT / "bundle/configs/train.yaml"), str(tmp_path / "own.yaml")]
    check_command_line(["bundle", "run", "training", "--config_file", str(files)])


@pytest.mark.parametrize("name", ["train", "inference", "preprocess", "compare", "generate", "register_lesions"])
def test_every_command_refuses_a_place_that_is_no_folder(name, tmp_path):
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file/below")
    with pytest.raises(InputError, match="file is no folder"):
        check_command_line(
            ["bundle", "run", "x", "--config_file", str(ROOT / f"bundle/configs/{name}.yaml"), "--output_dir", path]
        )


def read_only(folders, command: str) -> subprocess.CompletedProcess:
    """Run a command where folders are mounted read-only, in a namespace of its own."""
    mounts = "".join(f"mount --bind {f} {f} && mount -o remount,ro,bind {f} && " for f in folders)
    return subprocess.run(["unshare", "-m", "sh", "-c", mounts + command], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def can_mount(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mount")
    if shutil.which("unshare") is None or read_only([folder], "true").returncode:
        pytest.skip("this machine does not let the tests mount")


def test_a_read_only_output_folder_is_refused_in_one_line(can_mount, tmp_path):
    run = f"cd {ROOT} && PYTHONPATH=bundle {sys.executable} -m monai.bundle run inferring"
    done = read_only(
        [tmp_path],
        f"{run} --config_file bundle/configs/inference.yaml --input {ROOT}/README.md --output_dir {tmp_path}/deep/out",
    )
    assert done.returncode != 0
    assert re.search(r"^error: --output_dir .*out: .* cannot be written to", done.stderr, re.MULTILINE), done.stderr[
        -800:
    ]


def test_compiled_code_needs_no_place_to_be_kept(can_mount, tmp_path):
    """Containers are installed read-only, with a read-only home."""
    code = "from scripts.fluid import rows; import numpy as np; print('cached', rows._CACHE, "
    code += "rows._extents(np.ones((3, 3, 3), bool))[1].max())"
    command = f'cd {tmp_path} && HOME={tmp_path} PYTHONPATH={ROOT}/bundle {sys.executable} -c "{code}"'
    done = read_only([ROOT, tmp_path], command)
    assert done.returncode == 0, done.stderr[-800:]
    assert "cached False 3" in done.stdout and "cannot be kept on this machine" in done.stdout
