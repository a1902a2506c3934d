"""A running MONAI Label server, as readers start it, on a folder of scans or a DICOMweb address."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests
from conftest import ROOT, bundle_run, config
from monailabel.client import MONAILabelClient

VOXEL = 3.0  # mm, of the scans: what takes 30 s at 1 mm takes a few here


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """``monailabel start_server`` as a process of its own."""

    def __init__(self, studies: str | Path, folder: Path, conf: dict[str, str] | None = None, host: str = "127.0.0.1"):
        self.studies, self.folder, self.host = studies, folder, host
        self.conf = {"model_dir": str(folder / "model"), **(conf or {})}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"

    def start(self) -> Server:
        command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", ROOT / "monailabel_app"]
        command += ["--studies", self.studies, "--host", self.host, "--port", str(self.port)]
        for key, value in self.conf.items():
            command += ["--conf", key, value]
        environment = {
            "OMP_NUM_THREADS": "2",
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "CUDA_VISIBLE_DEVICES": "",
            "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(self.folder / "cache"),
        }
        stream = self.log.open("a")
        self.process = subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder,
            env=environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        until = time.monotonic() + 180
        while time.monotonic() < until:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            try:
                requests.get(f"{self.url}/info/", timeout=30)
                return self
            except requests.ConnectionError:
                time.sleep(0.5)
        raise AssertionError(f"the server does not answer: {self.log.read_text()[-3000:]}")

    def kill(self, with_signal: int = signal.SIGKILL) -> None:
        os.killpg(self.process.pid, with_signal)
        self.process.wait(30)

    @property
    def client(self) -> MONAILabelClient:
        return MONAILabelClient(self.url)

    def task(self, method: str, seconds: float) -> dict:
        """Wait for the end of the background task of a method."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            task = requests.get(f"{self.url}/{method}/", timeout=60).json()
            if task["status"] not in ("RUNNING", "SUBMITTED"):
                return task
            time.sleep(1)
        raise AssertionError(f"{method} did not end: {task}")


@pytest.fixture(scope="session")
def scans(tmp_path_factory, sample_datalist) -> Path:
    """Two generated T1w with a simulated lesion, and their true lesions as ``<name>_truth.nii.gz`` in a folder beside."""
    folder = tmp_path_factory.mktemp("scans")
    arguments = ["--output_dir", folder / "cohort", "--datalist", sample_datalist, "--number", "2"]
    arguments += ["--shares", "{'real': 1.0}", "--corruption_weights", "[1, 0, 0]", "--seed", "3"]
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
