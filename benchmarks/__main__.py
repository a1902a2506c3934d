"""Run all benchmarks, or those named: ``PYTHONPATH=bundle python -m benchmarks [anomaly growth sample step prepare desk score
density backbones gpu load cohort]``. ``gpu``, ``load``, which takes an hour, and ``cohort`` run when they are named."""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import pandas as pd

from .machine import DEVICE, Yardsticks, describe

BENCHMARKS = {  # where each is; it is imported when it runs, for not every machine has what all of them need
    "anomaly": "fluid",
    "growth": "fluid",
    "sample": "training",
    "step": "training",
    "prepare": "preparation",
    "desk": "desk",
    "score": "methods",
    "density": "methods",
    "backbones": "methods",
}
NAMED = {"gpu": "gpu", "load": "load", "cohort": "cohort"}
COLUMNS = ["name", "size", "median_s", "units", "limit_s", "times_limit", "peak_mb"]


def main() -> None:
    names = sys.argv[1:] or list(BENCHMARKS)
    known = BENCHMARKS | NAMED
    if unknown := set(names) - set(known):
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    yardsticks = Yardsticks()
    print(f"{describe()} ({DEVICE}): unit {yardsticks.unit:.4f} s, copy {yardsticks.bandwidth / 1e9:.1f} GB/s")
    results = []
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            run = getattr(import_module(f".{known[name]}", __package__), name)
            results += run(yardsticks, Path(directory))
    print(pd.DataFrame(results)[COLUMNS].to_string(index=False, na_rep="-"))


if __name__ == "__main__":
    main()
