"""Many scans by one worker and by two, and what the scheduler itself costs.

``PYTHONPATH=bundle python -m benchmarks cohort`` takes about 20 minutes; ``COHORT_SCANS=6`` in the environment makes it shorter.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
from scripts.data import write_sample_subject
from scripts.jobs import Crew

from .machine import Yardsticks

SCANS = int(os.environ.get("COHORT_SCANS", "20"))
EMPTY = 10_000  # pieces of work of no content
ROOT = Path(__file__).parents[1]


def _nothing(common: None, job: int) -> int:
    return job


def _analysed(folder: Path, out: Path, workers: int, threads: int) -> tuple[float, float]:
    """Seconds of a run, and the largest memory of one of its processes in MB."""
    command = [sys.executable, *["-m", "monai.bundle", "run", "inferring", "--config_file", "bundle/configs/inference.yaml"]]
    command += ["--input", str(folder), "--output_dir", str(out), "--workers", str(workers)]
    started, peak = time.perf_counter(), 0.0
    environment = {**os.environ, "PYTHONPATH": "bundle", "OMP_NUM_THREADS": str(threads)}
    running = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while running.poll() is None:
        with suppress(psutil.Error):
            family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
            peak = max(peak, *(member.memory_info().rss / 1e6 for member in family))
        time.sleep(0.2)
    assert running.returncode == 0
    return time.perf_counter() - started, peak


def cohort(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Rows of the table."""
    scan = nib.load(write_sample_subject(directory / "sample").parent / "t1.nii.gz")
    folder = directory / "scans"
    folder.mkdir()
    values, affine = scan.get_fdata()[::2, ::2, ::2], scan.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    for number in range(SCANS):
        noisy = values * (1.0 + 0.02 * np.random.RandomState(number).normal(size=values.shape))
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), affine), folder / f"p{number:03d}_T1w.nii.gz")
    rows, cores = [], os.cpu_count() or 1
    for name, workers, threads in (("alone, all cores", 1, cores), ("alone, one core", 1, 1), ("two workers", 2, 1)):
        seconds, peak = _analysed(folder, directory / f"found_{workers}_{threads}", workers, threads)
        hourly = round(SCANS * 3600 / seconds)
        size = f"{SCANS} scans"
        rows.append(yardsticks.record(f"inferring, {name}", size, seconds, peak_mb=round(peak), scans_an_hour=hourly))
    started = time.perf_counter()
    assert sum(1 for _ in Crew(2).results(_nothing, None, range(EMPTY))) == EMPTY
    seconds = time.perf_counter() - started
    hourly = round(EMPTY * 3600 / seconds)
    name = "pieces of no content, two workers"
    return [*rows, yardsticks.record(name, str(EMPTY), seconds, scans_an_hour=hourly)]
