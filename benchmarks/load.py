"""Four readers at one desk: requests, errors, and the memory of the server before and after.

``PYTHONPATH=bundle python -m benchmarks load`` takes an hour; ``LOAD_MINUTES=2`` in the environment makes it two minutes.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import requests
from scripts.data import write_sample_subject

from tests.app.running import Server

from .machine import Yardsticks

READERS = 4
SCANS = 6
VOXEL = 3.0  # mm: small scans make many requests
MINUTES = float(os.environ.get("LOAD_MINUTES", "60"))
SETTLED = 0.1  # share of the time after which caches are full


def _studies(folder: Path, directory: Path) -> Path:
    scan = nib.load(write_sample_subject(directory).parent / "t1.nii.gz")
    folder.mkdir()
    values = scan.get_fdata()[:: int(VOXEL), :: int(VOXEL), :: int(VOXEL)]
    affine = scan.affine @ np.diag([VOXEL, VOXEL, VOXEL, 1.0])
    for number in range(SCANS):
        noisy = values * (1.0 + 0.03 * np.random.RandomState(number).normal(size=values.shape))
        nib.save(nib.Nifti1Image(noisy.astype(np.float32), affine), folder / f"patient{number}_t1.nii.gz")
    return folder


def _megabytes(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    return sum(member.memory_info().rss for member in family if member.is_running()) / 1e6


def _reader(server: Server, number: int, until: float, counts: Counter, lock: threading.Lock) -> None:
    """What a reader does: open a scan, look at the models' answers, click, now and then save, take the next."""
    client, chance = server.client, random.Random(number)
    kinds = ("info", "infer", "click", "next", "download")
    while time.monotonic() < until:
        scan, kind = f"patient{chance.randrange(SCANS)}_t1", chance.choices(kinds, [2, 4, 2, 1, 2])[0]
        try:
            if kind == "info":
                client.info()
            elif kind in ("infer", "click"):
                where = {"foreground": [[25, 30, 25]], "background": []} if kind == "click" else {}
                model = "una_refine" if kind == "click" else "una_anomaly"
                file, _ = client.infer(model, scan, where)
                if kind == "click" and chance.random() < 0.3:
                    client.save_label(scan, file, "final", {})
                Path(file).unlink()
            elif kind == "next":
                client.next_sample("burden", {})
            elif kind == "download":
                requests.get(f"{server.url}/datastore/image", params={"image": scan}, timeout=120).raise_for_status()
            outcome = "done"
        except Exception as error:
            outcome = f"failed: {kind}: {str(error)[:120]}"
        with lock:
            counts[outcome] += 1


def load(yardsticks: Yardsticks, directory: Path) -> list[dict]:
    """Readers who never rest, on small scans."""
    studies, home = _studies(directory / "studies", directory), directory / "server"
    home.mkdir()
    server = Server(studies, home).start()
    process = psutil.Process(server.process.pid)
    try:
        begin = time.monotonic()
        until, counts, lock = begin + 60 * MINUTES, Counter(), threading.Lock()
        readers = [threading.Thread(target=_reader, args=(server, n, until, counts, lock)) for n in range(READERS)]
        for reader in readers:
            reader.start()
        memory = []
        while any(reader.is_alive() for reader in readers):
            memory.append((time.monotonic() - begin, _megabytes(process)))
            time.sleep(min(10.0, 6 * MINUTES))
        settled = next(value for at, value in memory if at >= SETTLED * memory[-1][0])
        failed = {text: number for text, number in counts.items() if text != "done"}
        for text, number in failed.items():
            print(f"{number} x {text}")
        size = f"{sum(counts.values())} requests, {sum(failed.values())} failed, {MINUTES:.0f} min"
        each = 60 * MINUTES / max(1, counts["done"])
        of = {"at first": memory[0][1], "when settled": settled, "at the end": memory[-1][1]}
        of["at most"] = max(value for _, value in memory)
        name = "a request of four readers, memory "
        return [yardsticks.record(name + when, size, each, peak_mb=round(value)) for when, value in of.items()]
    finally:
        server.kill(signal.SIGTERM)
