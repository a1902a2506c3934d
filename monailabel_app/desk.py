"""The whole desk on this machine: Orthanc with the sample study, MONAI Label, OHIF.

``make app`` starts it, ``make app-stop`` stops it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import requests

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bundle"))
sys.path.insert(0, str(HERE))

PLUGINS = Path("/usr/share/orthanc/plugins")


def _fail(message: str) -> None:
    sys.exit(f"error: {message}")


def check_tools() -> str:
    """Path of Orthanc; says how to install what is missing."""
    orthanc = shutil.which("Orthanc") or shutil.which(
        "orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
    )
    if orthanc is None or not (PLUGINS / "libOrthancDicomWeb.so").is_file():
        _fail("Orthanc with DICOMweb is not installed; run: sudo apt-get install orthanc orthanc-dicomweb")
    if shutil.which("itkimage2segimage") is None:
        _fail("itkimage2segimage is not on the PATH; run: pip install dcmqi, in the environment of this project")
    return orthanc


def _wait(url: str, process: subprocess.Popen, seconds: float, log: Path) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            _fail(f"{process.args[0]} ended; see {log}")
        try:
            requests.get(url, timeout=5).raise_for_status()
            return
        except requests.RequestException:
            time.sleep(0.5)
    _fail(f"{url} does not answer; see {log}")


def start(folder: Path, orthanc_port: int, port: int, study: Path | None, conf: list[str]) -> None:
    """Start what is not running yet, load the study, and print where to go.

    Args:
        folder: for the archive, the logs and the numbers of the processes.
        orthanc_port, port: of Orthanc and of MONAI Label, on 127.0.0.1.
        study: folder of DICOM files to load; None for the sample study.
        conf: of the app, as for ``monailabel start_server``.
    """
    orthanc = check_tools()
    folder.mkdir(parents=True, exist_ok=True)
    stop(folder)
    config = {
        "Name": "UNA desk",
        "StorageDirectory": str(folder / "archive"),
        "IndexDirectory": str(folder / "archive"),
        "HttpPort": orthanc_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGINS)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config, indent=1))
    base = f"http://127.0.0.1:{orthanc_port}"
    processes = {}
    with (folder / "orthanc.log").open("w") as log:
        processes["orthanc"] = subprocess.Popen(
            [orthanc, str(folder / "orthanc.json")], stdout=log, stderr=log, start_new_session=True
        )
    _write_pids(folder, processes)
    _wait(f"{base}/system", processes["orthanc"], 60, folder / "orthanc.log")
    if not requests.get(f"{base}/studies", timeout=30).json():
        for file in sorted((study or sample_study(folder / "sample")).rglob("*.dcm")):
            requests.post(f"{base}/instances", data=file.read_bytes(), timeout=60).raise_for_status()
    command = [
        sys.executable,
        "-m",
        "monailabel.main",
        "start_server",
        "--app",
        str(HERE),
        "--studies",
        f"{base}/dicom-web",
    ]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for key, value in zip(conf[::2], conf[1::2], strict=True):
        command += ["--conf", key, value]
    environment = {**os.environ, "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(folder / "cache")}
    with (folder / "monailabel.log").open("w") as log:
        processes["monailabel"] = subprocess.Popen(
            command, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    _write_pids(folder, processes)
    _wait(f"http://127.0.0.1:{port}/info/", processes["monailabel"], 180, folder / "monailabel.log")
    print(f"open http://127.0.0.1:{port}/ohif/ (make app-stop ends it; logs in {folder})")


def sample_study(folder: Path) -> Path:
    """A T1w with a simulated lesion that the eye sees at once (the second draw), made by the bundle's generator, as DICOM."""
    from lib.dicom import write_series
    from scripts.volumes import read_volume

    if not (folder / "dicom").is_dir():
        generate = [sys.executable, "-m", "monai.bundle", "run", "generating"]
        generate += [
            "--config_file",
            str(HERE.parent / "bundle/configs/generate.yaml"),
            "--output_dir",
            str(folder / "cohort"),
        ]
        generate += ["--number", "2", "--seed", "12", "--shares", "{'real': 1.0}", "--corruption_weights", "[1, 0, 0]"]
        generate += ["--patch_size", "[160, 192, 176]"]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "bundle")}
        subprocess.run(generate, check=True, env=environment)
        scan = read_volume(folder / "cohort/case_0001/case_0001_image.nii.gz")
        write_series(scan, folder / "partial", "SAMPLE", "Simulated lesion in a T1w")
        (folder / "partial").rename(folder / "dicom")
    return folder / "dicom"


def _write_pids(folder: Path, processes: dict[str, subprocess.Popen]) -> None:
    (folder / "processes.json").write_text(json.dumps({name: process.pid for name, process in processes.items()}))


def stop(folder: Path) -> None:
    """End the processes of an earlier start, if they are still the same programs."""
    record = folder / "processes.json"
    for name, number in (json.loads(record.read_text()) if record.is_file() else {}).items():
        try:
            process = psutil.Process(number)
            if name in " ".join(process.cmdline()).lower():
                process.send_signal(signal.SIGTERM)
                process.wait(20)
        except psutil.NoSuchProcess:
            continue
        except psutil.TimeoutExpired:
            process.kill()
    record.unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("--folder", type=Path, default=Path("runs/desk"))
    parser.add_argument("--orthanc_port", type=int, default=8042)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--study", type=Path, help="folder of DICOM files to load instead of the sample study")
    parser.add_argument("--conf", nargs=2, action="extend", default=[], metavar=("KEY", "VALUE"))
    given = parser.parse_args()
    if given.action == "stop":
        stop(given.folder.resolve())
    else:
        start(given.folder.resolve(), given.orthanc_port, given.port, given.study, given.conf)
