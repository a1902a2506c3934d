"""The yardsticks of a run, and how a result is recorded."""

from __future__ import annotations

import ctypes
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def describe() -> str:
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name()
    names = [
        line.split(":")[1].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    return f"{(names or [platform.processor()])[0]}, {torch.get_num_threads()} threads"


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def now() -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Median time of some work after one run that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = now()
        work()
        times.append(now() - start)
    return statistics.median(times)


def timed(work: Callable, spent: dict[str, float], name: str) -> Callable:
    """The same function; its time is added to ``spent[name]``."""

    def call(*arguments):
        start = now()
        result = work(*arguments)
        spent[name] = spent.get(name, 0.0) + now() - start
        return result

    return call


class Yardsticks:
    """What this machine does in a second, measured now.

    Attributes:
        unit: time of 50 additions of two 160^3 float32 arrays, in seconds.
        bandwidth: bytes read and written per second by a copy between arrays far larger than any cache.
        operations: floating-point operations per second of a matrix product, in bfloat16 on a GPU, in float32 on a CPU.
    """

    def __init__(self) -> None:
        a, b = torch.rand(2, 160, 160, 160, device=DEVICE)

        def unit() -> None:
            for _ in range(50):
                a + b

        self.unit = seconds(unit)
        source = torch.rand(2**26, device=DEVICE)
        target = torch.empty_like(source)
        self.bandwidth = 2 * 4 * 2**26 / seconds(lambda: target.copy_(source))
        size, kind = (8192, torch.bfloat16) if DEVICE.type == "cuda" else (1024, torch.float32)
        square = torch.rand(size, size, device=DEVICE).to(kind)
        self.operations = 2 * size**3 / seconds(lambda: square @ square)

    def record(
        self,
        name: str,
        size: str,
        median_s: float,
        moved: float | None = None,
        operations: float | None = None,
        **more,
    ) -> dict:
        """One result, printed as a JSON line.

        Args:
            name: of the benchmark.
            size: of the problem.
            median_s: what was measured.
            moved: bytes that any implementation must read and write; gives the limit.
            operations: floating-point operations that it must do; gives the limit, too.
        """
        limits = [need / rate for need, rate in ((moved, self.bandwidth), (operations, self.operations)) if need]
        limit = max(limits, default=None)
        result = {
            "name": name,
            "device": describe(),
            "size": size,
            "median_s": round(median_s, 5),
            "units": round(median_s / self.unit, 2),
            "limit_s": None if limit is None else round(limit, 5),
            "times_limit": None if limit is None else round(median_s / limit, 1),
            "peak_mb": None,
            **more,
        }
        print(json.dumps(result), flush=True)
        return result


def peak_megabytes(work: Callable[[], object]) -> float:
    """Largest memory beyond what was held before, while some work runs.

    On a CPU it is the rise of the resident set, after what earlier runs left free was given back to the system.
    """
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    work()
    return (_status("VmHWM") - before) / 2**10


def _status(field: str) -> int:
    return next(int(line.split()[1]) for line in _read("/proc/self/status").splitlines() if line.startswith(field))
