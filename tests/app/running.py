"""A running MONAI Label server, as readers start it, on a folder of scans or a DICOMweb address, for tests and benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests
from monailabel.client import MONAILabelClient

ROOT = Path(__file__).parents[2]


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
