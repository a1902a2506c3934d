"""Run all benchmarks, or those named: ``PYTHONPATH=bundle python -m benchmarks [anomaly growth sample step prepare desk score
density backbones load]``; ``load`` takes an hour, and runs when it is named."""

import sys
import tempfile
from pathlib import Path

import pandas as pd

from . import desk, fluid, load, methods, preparation, training
from .machine import DEVICE, Yardsticks, describe

BENCHMARKS = {
    "anomaly": fluid.anomaly,
    "growth": fluid.growth,
    "sample": training.sample,
    "step": training.step,
    "prepare": preparation.prepare,
    "desk": desk.analysis,
    "score": methods.score,
    "density": methods.density,
    "backbones": methods.backbones,
}
LONG = {"load": load.load}  # An hour: it runs when it is named.
COLUMNS = ["name", "size", "median_s", "units", "limit_s", "times_limit", "peak_mb"]


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    known = BENCHMARKS | LONG
    if unknown := set(names) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    yardsticks = Yardsticks()
    print(f"{describe()} ({DEVICE}): unit {yardsticks.unit:.4f} s, copy {yardsticks.bandwidth / 1e9:.1f} GB/s")
    with tempfile.TemporaryDirectory() as directory:
        results = [result for name in names for result in known[name](yardsticks, Path(directory))]
    print(pd.DataFrame(results)[COLUMNS].to_string(index=False, na_rep="-"))


if __name__ == "__main__":
    main()
