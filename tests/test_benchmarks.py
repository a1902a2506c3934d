"""The benchmark of a GPU runs, and is right, on a machine without one."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT, bundle_environment


@pytest.mark.slow
def test_gpu_benchmark_is_correct():
    environment = {key: value for key, value in bundle_environment().items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {row["name"] for row in rows} >= {"potentials", "transport", "step, shipped network", "forward of a scan"}
    fields = next(row for row in rows if row["name"] == "potentials")
    assert fields["fields"] < 1e-3 and fields["P"] < 1e-4 and fields["mass"] == pytest.approx(1.0, abs=1e-5)
    assert all(row["times_limit"] > 0.5 for row in rows)  # nothing is faster than its limit
