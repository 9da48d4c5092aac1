"""SLURM by submitit: arrays of tasks, each of which performs some jobs. What was cut goes on in another task."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dmu_hw.errors import InputError, Problem
from dmu_hw.pool.jobs import Job, Record, find, give_up, path_of, perform
from dmu_hw.pool.settings import Slurm

try:
    import submitit
except ImportError:
    raise InputError([Problem("engine", "submitit is not installed: pip install 'dmu-hw[slurm]'")]) from None

T = TypeVar("T")
_LOOK_S = 5.0
_LOOK_LOCAL_S = 0.1


class SlurmPool:
    """The engine `slurm`."""

    def __init__(self, engine: Slurm) -> None:
        if engine.cluster is None and shutil.which("sbatch") is None:
            raise InputError([Problem("engine", "there is no sbatch here: start it on a login node of the cluster")])
        self.engine = engine

    def work(self, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[Job, Record]]:
        queue = _Queue(folder, self.engine)
        try:
            queue.submit(jobs)
            yield from queue.results()
        finally:
            queue.cancel()


class _Queue:
    """Tasks that were submitted and the jobs that each still owes."""

    def __init__(self, folder: Path, engine: Slurm) -> None:
        self.folder = folder
        self.engine = engine
        self.executor = submitit.AutoExecutor(folder / "slurm", cluster=engine.cluster or "slurm")
        self.executor.update_parameters(**_parameters(engine))
        self.owed: dict[Any, list[Job]] = {}
        self.begun: Counter[str] = Counter()

    def submit(self, jobs: Sequence[Job]) -> None:
        chunks = _pieces(jobs, self.engine.jobs_a_task)
        for some in _pieces(chunks, self.engine.array_size):
            texts = [[json.dumps({"call": job.call, "config": job.config}) for job in chunk] for chunk in some]
            tasks = self.executor.map_array(Chunk(str(self.folder)), texts)
            self.owed.update(zip(tasks, some, strict=True))

    def results(self) -> Iterator[tuple[Job, Record]]:
        while self.owed:
            ended = [task for task in self.owed if task.done()]
            there = {entry.name for entry in self.folder.iterdir()}
            for task, jobs in list(self.owed.items()):
                for job in [job for job in jobs if path_of(job, self.folder).name in there]:
                    if (record := find(job, self.folder)) is not None:
                        jobs.remove(job)
                        yield job, record
                if task in ended:
                    del self.owed[task]
                    yield from self._lost(task, jobs)
            time.sleep(_LOOK_S if self.engine.cluster is None else _LOOK_LOCAL_S)

    def _lost(self, task: Any, jobs: Sequence[Job]) -> Iterator[tuple[Job, Record]]:
        """What an ended task still owes is submitted again. The job that it was at bears the blame alone."""
        if not jobs:
            return
        blamed = jobs[0]
        self.begun[blamed.key] += 1
        tries = self.begun[blamed.key]
        if tries < self.engine.tries:
            self.submit(jobs)
        else:
            yield blamed, give_up(blamed, self.folder, f"task {task.job_id} ended as {task.state}", tries)
            self.submit(jobs[1:])

    def cancel(self) -> None:
        for task in self.owed:
            task.cancel(check=False)
        while self.engine.cluster and not all(task.done() for task in self.owed):
            time.sleep(_LOOK_LOCAL_S)


class Chunk:
    """What one task does. On preemption submitit asks for the `checkpoint`: the same again, less what is done."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self, jobs: Sequence[str]) -> None:
        for text in jobs:
            perform(Job(**json.loads(text)), Path(self.folder))

    def checkpoint(self, jobs: Sequence[str]) -> Any:
        return submitit.helpers.DelayedSubmission(self, jobs)


def _pieces(values: Sequence[T], size: int) -> list[list[T]]:
    return [list(values[first : first + size]) for first in range(0, len(values), size)]


def _parameters(engine: Slurm) -> dict[str, Any]:
    """In submitit's words."""
    asked = {
        "timeout_min": engine.timeout_min,
        "cpus_per_task": engine.cpus,
        "gpus_per_node": engine.gpus,
        "mem_gb": engine.memory_gb,
        "slurm_partition": engine.partition,
        "slurm_array_parallelism": engine.at_once,
        "slurm_setup": list(engine.setup) or None,
        "slurm_additional_parameters": dict(engine.extra) or None,
    }
    return {key: value for key, value in asked.items() if value is not None}
