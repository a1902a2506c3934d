"""Work that is shared out: the same results for any number of workers, also where workers die."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import slurm
from conftest import bundle_run, bundle_start, config, options
from scripts.errors import InputError
from scripts.jobs import Crew


def square(common: int, job: int) -> tuple[int, int]:
    if job == 3:
        raise InputError("three is refused")
    return common * job**2, os.getpid()


def deadly(folder: Path, job: int) -> tuple[int, int]:
    """A square. The first try of 1, and every try of 2, kills who tries."""
    first = not (folder / str(job)).exists()
    (folder / str(job)).touch()
    if (job == 1 and first) or job == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(7, job)


def test_two_workers_do_what_one_does_also_where_workers_die(tmp_path):
    alone, pair = list(Crew().results(square, 7, range(8))), list(Crew(2).results(deadly, tmp_path, range(8)))
    assert isinstance(alone[3], InputError) and str(alone[3]) == str(pair[3]) == "three is refused"
    assert isinstance(pair[2], InputError) and "died twice" in str(pair[2])
    for number in (0, 1, 4, 5, 6, 7):  # 1 had a second try
        assert alone[number][0] == pair[number][0] == 7 * number**2
        assert alone[number][1] == os.getpid() != pair[number][1]


@pytest.fixture
def scheduler(tmp_path):
    """A scheduler and a worker in processes of their own, which know nothing of this project; the scheduler file."""
    program = [sys.executable, "-m", "distributed.cli.dask_"]
    file, run = tmp_path / "scheduler.json", {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": ""}}
    commands = [
        ["scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file],
        ["worker", "--nthreads", "1", "--no-dashboard", "--scheduler-file", file],
    ]
    with open(tmp_path / "log", "w") as log:
        processes = [
            subprocess.Popen([*program[:2], program[2] + name, *rest], stdout=log, stderr=log, **run)
            for name, *rest in commands
        ]
    deadline = time.monotonic() + 60
    while not file.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield file
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(30)


def test_a_cluster_that_runs_is_used_by_file_and_by_address(scheduler):
    address = json.loads(scheduler.read_text())["address"]
    for told in (str(scheduler), address):
        assert [result[0] for result in Crew(scheduler=told).results(square, 2, [1, 2])] == [2, 8]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"scheduler": "nowhere.json"}, "nowhere.json"),
        ({"cluster": "nowhere.yaml"}, "nowhere.yaml: there is no such file"),
        ({"cluster": "nowhere.yaml", "scheduler": "tcp://127.0.0.1:1"}, "leave one out"),
    ],
)
def test_a_cluster_that_is_not_there_is_named(told, says):
    with pytest.raises(InputError, match=says):
        list(Crew(**told).results(square, 2, [1]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, sample_datalist):
    """Two scans and a file that is none, in a folder."""
    folder = tmp_path_factory.mktemp("scans")
    made = {"output_dir": folder / "made", "number": 2, "voxel_size": 6.0, "patch_size": [32, 48, 32]}
    bundle_run("run", "generating", *config("generate"), *options(**made, datalist=sample_datalist))
    (folder / "in").mkdir()
    for number in (0, 1):
        shutil.copy(
            folder / f"made/case_000{number}/case_000{number}_image.nii.gz", folder / f"in/p{number}_T1w.nii.gz"
        )
    (folder / "in/p2_T1w.nii.gz").write_bytes(b"no scan")
    return folder


def test_results_of_two_workers_are_those_of_one_byte_for_byte(folder):
    found = {}
    for workers in (1, 2):
        out = folder / f"out{workers}"
        given = options(input=folder / "in", output_dir=out, voxel_size=6.0, threshold=0.1, workers=workers)
        given += ["--method_settings", "{'calibration':False}"]
        done = bundle_run("run", "inferring", *config("inference"), *given, check=False)
        assert done.returncode == 1 and "1 of 3 scans could not be used" in done.stderr, done.stderr
        found[workers] = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir() if path.suffix == ".gz"
        }
    assert len(found[1]) == 8 and found[1] == found[2]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_command_leaves_no_worker_and_goes_on(folder, tmp_path, stop):
    given = ["run", "inferring", *config("inference"), *options(input=folder / "in", output_dir=tmp_path, workers=2)]
    given += [*options(voxel_size=6.0, threshold=0.1), "--method_settings", "{'calibration':False}"]
    process = bundle_start(*given)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob("*_report.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(stop)
    process.wait(60)
    assert len(family) >= 2 and not psutil.wait_procs(family, timeout=60)[1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*_report.json")}
    done = bundle_run(*given, check=False)
    kept = [path for path, written in before.items() if path.stat().st_mtime_ns == written]
    assert f"{len(kept)} of 3 scans were done before" in done.stdout or not kept
    assert len(list(tmp_path.glob("*_report.json"))) == 2


@pytest.mark.slow
@pytest.mark.skipif(not slurm.installed(), reason="SLURM is not installed (apt-get install slurmctld slurmd munge)")
def test_a_slurm_cluster_analyses_scans(folder, monkeypatch):
    told = {"_target_": "dask_jobqueue.SLURMCluster", "cores": 1, "memory": "6GB", "walltime": "00:10:00"}
    told |= {"interface": "lo", "log_directory": str(folder / "logs")}
    (folder / "slurm.yaml").write_text(json.dumps({"cluster": told}))
    with slurm.running(folder / "slurm") as environment:
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, environment[name])
        given = options(input=folder / "in", output_dir=folder / "out", voxel_size=6.0, threshold=0.1, workers=2)
        given += ["--method_settings", "{'calibration':False}", "--cluster", folder / "slurm.yaml"]
        done = bundle_run("run", "inferring", *config("inference"), *given, check=False)
        jobs = subprocess.run(["squeue", "--noheader"], env=environment, capture_output=True, text=True).stdout
    assert "1 of 3 scans could not be used" in done.stderr, done.stderr
    assert {path.name for path in (folder / "out").glob("*_report.json")} == {f"p{n}_T1w_report.json" for n in (0, 1)}
    assert len(list((folder / "logs").glob("*.err"))) == 2 and " R " not in jobs  # two jobs, which ended with the work
