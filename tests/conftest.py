"""Shared anatomy: the sample subject, a ball-shaped brain, and the real data beside the project where it is present."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before MONAI imports Triton: a CPU runs the kernels of a GPU
import forked
import numpy as np
import pytest
from monai.data import MetaTensor
from scripts.config import parse

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
SMALL = {  # overrides that make a run of train.yaml take seconds
    "voxel_size": 6.0,
    "patch_size": [32, 48, 32],
    "features": [8, 8, 8, 8],
    "iterations": 4,
    "iterations_per_epoch": 2,
    "validation_draws": 2,
    "num_workers": 0,
}
TINY_ANATOMY = {  # the networks of disentangled anatomy, where their size does not matter
    "extractor_channels": [4, 8],
    "combiner_channels": [4, 8],
    "restorer_channels": [4, 8],
    "code": [4, 4],
}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"real data not present at {SHARED}")
    return SHARED


def made_cases(folder: Path, name: str, *more) -> Path:
    """Run a script of ``../shared/cases``, where it is present."""
    script = SHARED.parent / "cases" / name
    if not script.is_file():
        pytest.skip(f"the cases are not present at {script}")
    subprocess.run([sys.executable, script, folder, *more], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def sample_datalist(tmp_path_factory) -> Path:
    from scripts.data import write_sample_subject

    return write_sample_subject(tmp_path_factory.mktemp("sample_subject"))


@pytest.fixture
def train_config():
    """Parser of train.yaml with overrides: ``train_config(iterations=3)``."""

    return lambda **overrides: parse(["train.yaml"], {**SMALL, **overrides})


@pytest.fixture
def generator():
    """Parser of generator.yaml with overrides: ``generator(voxel_size=4.0)``."""
    return lambda **overrides: parse(["generator.yaml"], {"voxel_size": 6.0, "patch_size": [32, 48, 32], **overrides})


@pytest.fixture
def labels(generator):
    return generator().get_parsed_content("labels")


def dice(a, b) -> float:
    """Overlap of two masks, or of what exceeds 0.5 in two probability maps."""
    a, b = np.asarray(a) > 0.5, np.asarray(b) > 0.5
    return 2.0 * float((a & b).sum()) / float(a.sum() + b.sum())


def ball(size: int, radius: float) -> torch.Tensor:
    """Boolean ball in the middle of a cube."""
    axis = torch.arange(size) - (size - 1) / 2
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    return x**2 + y**2 + z**2 <= radius**2


@pytest.fixture
def omega() -> MetaTensor:
    """A ball-shaped brain of 1 mm voxels, ``(1, 40, 40, 40)``, its centre at the origin of RAS."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, 3] = -19.5
    return MetaTensor(ball(40, 17.0)[None].float(), affine=affine)


# All processes that tests start have the same number of threads: sums of other parts round differently.
os.environ.setdefault("OMP_NUM_THREADS", "2")


def bundle_environment() -> dict[str, str]:
    """Of the processes that tests start."""
    return {**os.environ, "PYTHONPATH": "bundle", "CUDA_VISIBLE_DEVICES": ""}


def bundle_run(*arguments: str, check: bool = True, launcher: tuple[str, ...] = (), timeout: int = 600):
    """Run ``python -m monai.bundle`` as a user does, from the root of the project; without a launcher see `forked`."""
    command = [*launcher, "-m", "monai.bundle", *map(str, arguments)]
    own = {"cwd": ROOT, "env": bundle_environment(), "timeout": timeout}
    if launcher:
        done = subprocess.run(command, capture_output=True, text=True, **own)
    else:
        done = forked.run(command[2:], folder=ROOT, environment=own["env"], timeout=timeout)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


def bundle_start(*arguments: str) -> subprocess.Popen:
    """Start what `bundle_run` runs, without its output, in a session of its own: a kill of the group meets its workers, too."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    command = [sys.executable, "-m", "monai.bundle", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=bundle_environment(), **quiet)


def options(**overrides) -> list[str]:
    """Overrides as command-line arguments."""
    return [word for key, value in overrides.items() for word in (f"--{key}", str(value))]


def small(**overrides) -> list[str]:
    """`SMALL` and more overrides as command-line arguments."""
    return options(**{**SMALL, **overrides})


def config(*names: str) -> list[str]:
    """``--config_file`` of config files of the bundle."""
    return ["--config_file", str([f"bundle/configs/{name}.yaml" for name in names])]


def asymmetric_brain() -> tuple[np.ndarray, np.ndarray]:
    """An RAS label map of two unequal halves on a grid that is not centred, and its affine."""
    label = np.zeros((24, 20, 18), dtype=np.int16)
    label[4:11, 4:16, 4:14], label[11:18, 4:16, 4:14] = 2, 41
    label[6:9, 6:14, 6:12], label[13:16, 6:14, 6:12] = 3, 42
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = [-10.5, -10.0, -9.0]
    return label, affine
