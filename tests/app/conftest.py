"""Scans with known lesions, and a running server on them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import bundle_run, config

from .running import Server

VOXEL = 3.0  # mm, of the scans: what takes 30 s at 1 mm takes a few here


@pytest.fixture(scope="session")
def scans(tmp_path_factory, sample_datalist) -> Path:
    """Two generated T1w with a simulated lesion that the eye sees; the true ones are ``<name>_truth.nii.gz`` in a folder beside."""
    folder = tmp_path_factory.mktemp("scans")
    arguments = ["--output_dir", folder / "cohort", "--datalist", sample_datalist, "--number", "2"]
    arguments += ["--shares", "{'real': 1.0}", "--corruption_weights", "[1, 0, 0]", "--seed", "6"]
    bundle_run(
        "run", "generating", *config("generate"), *arguments, "--voxel_size", VOXEL, "--patch_size", "[64,80,64]"
    )
    (folder / "truth").mkdir()
    (folder / "studies").mkdir()
    for number, entry in enumerate(json.loads((folder / "cohort/datalist.json").read_text())["test"]):
        scan, anomaly = (nib.load(folder / "cohort" / entry[key]) for key in ("image", "anomaly"))
        nib.save(scan, folder / "studies" / f"patient{number}_t1.nii.gz")
        lesion = (anomaly.get_fdata() > 0.2).astype(np.uint8)
        nib.save(nib.Nifti1Image(lesion, anomaly.affine), folder / "truth" / f"patient{number}_t1.nii.gz")
    return folder


@pytest.fixture(scope="session")
def server(scans, tmp_path_factory) -> Server:
    running = Server(scans / "studies", tmp_path_factory.mktemp("server")).start()
    yield running
    running.kill(signal.SIGTERM)
