"""Do many independent pieces of work: in processes, with a progress bar, shared out over torchrun's ranks."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import torch
from tqdm import tqdm

from .errors import input_error

__all__ = ["my_share", "reason", "run_jobs"]


def my_share(items: Iterable[Any]) -> list[Any]:
    """The items that this process works on: a part of them when ``torchrun`` started several processes, else all."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    return list(items)[rank::world]


def reason(error: Exception) -> str:
    """What to say of a failure: the text of an `InputError`, which explains itself, or the first line of another cause."""
    if own := input_error(error):
        return str(own)
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {cause}".splitlines()[0]


def _share_cores(workers: int) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


def run_jobs(function: Callable, jobs: Sequence[tuple], workers: int, desc: str, unit: str) -> list[Any]:
    """Call ``function(*job)`` for every job, and return the results in the order in which they are done.

    Args:
        function: a function of a module, because other processes find it by its name.
        jobs: its arguments.
        workers: processes; 1 works in this one.
        desc: of the progress bar.
        unit: of the progress bar.
    """
    results = []
    with tqdm(total=len(jobs), desc=desc, unit=unit) as progress:
        if workers <= 1:
            for job in jobs:
                results.append(function(*job))
                progress.update()
        else:
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(workers, context, initializer=_share_cores, initargs=(workers,)) as pool:
                for done in as_completed([pool.submit(function, *job) for job in jobs]):
                    results.append(done.result())
                    progress.update()
    return results
