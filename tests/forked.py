"""Commands of the bundle, each in a process of its own, which begins as a fork of one that has imported MONAI already.

The import takes as long as a small command does. All else is as in ``python -m monai.bundle``: arguments, folder, output, exit
code.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path


def _as_a_command(arguments: list[str], folder: str, environment: dict[str, str], output: str, errors: str) -> None:
    for path, descriptor in ((output, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = ["", *environment.get("PYTHONPATH", "").split(os.pathsep)]
    sys.argv = ["monai.bundle", *arguments]
    code = 0
    try:
        runpy.run_module("monai.bundle", run_name="__main__", alter_sys=True)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run(
    arguments: list[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """Run ``python -m monai.bundle`` with arguments.

    Args:
        arguments: of the command line.
        folder: in which it runs.
        environment: of the process. What is read while Python or torch begins must be in that of the caller, too.
        timeout: seconds.

    Raises:
        subprocess.TimeoutExpired: when it takes longer; it is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["monai.bundle", "monai.bundle.scripts", "forked"])
    with tempfile.TemporaryDirectory() as written:
        output, errors = Path(written) / "output", Path(written) / "errors"
        told = (list(arguments), str(folder), dict(environment), str(output), str(errors))
        process = context.Process(target=_as_a_command, args=told)
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in (output, errors)]
        return subprocess.CompletedProcess(arguments, process.exitcode, *texts)
