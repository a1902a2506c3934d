"""Many independent pieces of work: in this process, in processes beside it, or on a cluster. The engine is dask.distributed."""

from __future__ import annotations

import os
import pickle
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from tqdm import tqdm

from .errors import InputError, input_error

__all__ = ["Crew", "reason"]

WAITING = 4  # pieces a worker that are under way, or done while an earlier one is not


def reason(error: Exception) -> str:
    """What to say of a failure: the text of an `InputError`, which explains itself, or the first line of another cause."""
    if own := input_error(error):
        return str(own)
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return f"{type(cause).__name__}: {cause}".splitlines()[0]


def _attempt(function: Callable, common: Any, job: Any) -> Any:
    try:
        return function(common, job)
    except Exception as error:  # of one piece of work, which stops no other
        return error if isinstance(error, InputError) else InputError(reason(error))


def _share(cores: int) -> dict[str, str]:
    """What the processes of a crew have in their environment: a part of the cores, and threads that do not spin while they wait."""
    pools = ("OMP", "MKL", "OPENBLAS", "NUMBA")
    threads = {f"{pool}_NUM_THREADS": str(cores) for pool in pools}
    return {**threads, "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": str(cores), "OMP_WAIT_POLICY": "PASSIVE"}


def _sent_by_value(tools: Any, path: Sequence[str], folder: str, common: bytes) -> tuple[Any, Callable]:
    """A plugin by which a worker finds modules and files as this process does, and what does a piece of work there.

    The scheduler reads what is submitted, and a worker reads the plugin before it can find modules. Both may be started without
    this project. Functions inside of a function are sent whole, others by their name.
    """
    name = f"una-{uuid.uuid4()}"

    class Errands(tools.WorkerPlugin):
        def setup(self, worker) -> None:
            sys.path[:0] = [entry for entry in path if entry not in sys.path]
            os.chdir(folder)
            if torch.cuda.is_available() and isinstance(worker.name, int):  # one GPU each
                torch.cuda.set_device(worker.name % torch.cuda.device_count())
            self.known: list[Any] = []

    def work(piece: bytes) -> Any:
        known = tools.get_worker().plugins[name].known
        known += [pickle.loads(common)] * (not known)
        function, job = pickle.loads(piece)
        return function(known[0], job)

    plugin = Errands()
    plugin.name = name
    return plugin, work


class Crew:
    """Who does the work.

    Args:
        workers: processes, each with its share of the cores. 1 is this process alone. With ``cluster``, the jobs to submit.
        scheduler: address (``tcp://host:8786``) or scheduler file of a dask cluster that runs already.
        cluster: YAML file whose ``cluster`` is one of dask-jobqueue, such as ``_target_: dask_jobqueue.SLURMCluster`` with its
            arguments. It is started and ended with the work.

    Raises:
        InputError: when there is no such cluster.
    """

    def __init__(self, workers: int = 1, scheduler: str | None = None, cluster: str | None = None) -> None:
        if scheduler and cluster:
            raise InputError("--scheduler is a cluster that runs, --cluster one to be started; leave one out")
        self.workers = workers
        self.scheduler = scheduler
        self.cluster = cluster

    @property
    def alone(self) -> bool:
        """Whether this process does everything."""
        return self.workers <= 1 and not self.scheduler and not self.cluster

    @contextmanager
    def _client(self, common: Any) -> Iterator[tuple[Any, Callable]]:
        import dask
        import distributed  # late: most scans are analysed alone

        settings = {
            # A piece that its worker dies of has a second try.
            "distributed.scheduler.allowed-failures": 1,
            "distributed.scheduler.worker-saturation": 1.0,
            "distributed.nanny.pre-spawn-environ": _share(max(1, (os.cpu_count() or 1) // self.workers)),
            # A worker above its share is ended, and never only stopped: what it holds is no cache.
            **dict.fromkeys(("distributed.worker.memory.pause", "distributed.worker.memory.spill"), False),
            "distributed.worker.memory.target": False,
        }
        with dask.config.set(settings):
            cluster = None
            if self.cluster:
                cluster = _started(self.cluster, self.workers)
            elif not self.scheduler:
                cluster = distributed.LocalCluster(
                    n_workers=self.workers, threads_per_worker=1, dashboard_address=":0", silence_logs="ERROR"
                )
            by_file = self.scheduler and "://" not in self.scheduler
            if by_file and not Path(self.scheduler).is_file():
                raise InputError(
                    f"--scheduler {self.scheduler}: there is no such file, and no address like tcp://host:8786"
                )
            known = {"scheduler_file": self.scheduler} if by_file else {}
            try:
                client = distributed.Client(cluster or (None if known else self.scheduler), **known)
            except (OSError, TimeoutError) as error:
                raise InputError(f"--scheduler {self.scheduler}: no scheduler answers there ({error})") from error
            try:
                plugin, work = _sent_by_value(distributed, sys.path, os.getcwd(), pickle.dumps(common))
                client.register_plugin(plugin)
                print(f"workers: {client.dashboard_link}", flush=True)
                yield client, work
            finally:
                client.close()
                if cluster is not None:
                    cluster.close()

    def results(self, function: Callable, common: Any, jobs: Sequence[Any]) -> Iterator[Any]:
        """``function(common, job)`` for every job, in the order of the jobs.

        Args:
            function: of a module, because other processes find it by its name.
            common: what all pieces of work need. It is sent to a worker once.
            jobs: what they differ in.

        Yields:
            what the function returns, or an `InputError` in its place, also of a piece whose worker died twice.
        """
        if self.alone:
            yield from (_attempt(function, common, job) for job in jobs)
            return
        from distributed import KilledWorker, as_completed

        with self._client(common) as (client, work):
            ahead, running, numbers, done = iter(enumerate(jobs)), as_completed(), {}, {}
            for next_one in range(len(jobs)):
                # Few pieces lie at the scheduler at once: a cohort may have 100,000.
                room = WAITING * max(self.workers, len(client.nthreads())) - len(numbers) - len(done)
                for number, job in islice(ahead, max(1, room)):
                    future = client.submit(work, pickle.dumps((partial(_attempt, function), job)), pure=False)
                    numbers[future.key] = number
                    running.add(future)
                while next_one not in done:
                    future = next(running)
                    error = future.exception()
                    if isinstance(error, KilledWorker):
                        error = InputError(
                            "the process that worked on it died twice: killed, or out of memory; give fewer workers or more memory"
                        )
                    done[numbers.pop(future.key)] = future.result() if error is None else error
                yield done.pop(next_one)

    def map(self, function: Callable, common: Any, jobs: Sequence[Any], desc: str, unit: str) -> list[Any]:
        """All `results`, with a progress bar."""
        return list(tqdm(self.results(function, common, jobs), total=len(jobs), desc=desc, unit=unit))


def _started(file: str, jobs: int) -> Any:
    if not Path(file).is_file():
        raise InputError(f"--cluster {file}: there is no such file")
    parser = ConfigParser(config=ConfigParser.load_config_file(file))
    if "cluster" not in parser:
        raise InputError(
            f"--cluster {file} has no key 'cluster', such as {{_target_: dask_jobqueue.SLURMCluster, cores: 4}}"
        )
    try:
        cluster = parser.get_parsed_content("cluster")
    except Exception as error:
        raise InputError(
            f"--cluster {file}: {reason(error)}; dask-jobqueue comes with pip install '.[cluster]'"
        ) from error
    cluster.scale(jobs=jobs)
    return cluster
