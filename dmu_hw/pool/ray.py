"""Ray: the same jobs on the cores of one computer or of a cluster."""

from __future__ import annotations

import json
import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dmu_hw.errors import InputError, Problem
from dmu_hw.pool.jobs import Job, Record, find, give_up, perform
from dmu_hw.pool.settings import Ray

try:
    import ray
    from ray.exceptions import RayError
except ImportError:
    raise InputError([Problem("engine", "ray is not installed: pip install 'dmu-hw[ray]'")]) from None

_AHEAD = 1000
"""Jobs that Ray is given at a time."""
_LOOK_S = 1.0


class RayPool:
    """The engine `ray`."""

    def __init__(self, engine: Ray) -> None:
        self.engine = engine

    def work(self, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[Job, Record]]:
        ours = not ray.is_initialized()
        flight = _Flight(jobs, folder, self.engine)
        try:
            if ours:
                self._connect()
            yield from flight.land()
        finally:
            if ours:
                ray.shutdown()
            else:
                flight.cancel()

    def _connect(self) -> None:
        here: dict[str, Any] = {} if self.engine.address else {"include_dashboard": False}
        try:
            ray.init(address=self.engine.address, logging_level=logging.ERROR, log_to_driver=False, **here)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InputError([Problem("engine.address", f"Ray cannot be reached: {error}")]) from error


class _Flight:
    """Jobs on their way. Retries are counted here: Ray itself would go on for ever where the memory is too small."""

    def __init__(self, jobs: Sequence[Job], folder: Path, engine: Ray) -> None:
        self.todo = deque(jobs)
        self.folder = folder
        self.engine = engine
        self.task: Any = ray.remote(num_cpus=engine.cpus, num_gpus=engine.gpus, max_retries=0)(_perform)
        self.up: dict[Any, Job] = {}
        self.begun: Counter[str] = Counter()

    def land(self) -> Iterator[tuple[Job, Record]]:
        while self.todo or self.up:
            while self.todo and len(self.up) < _AHEAD:
                job = self.todo.popleft()
                self.up[self.task.remote(job.call, json.dumps(job.config), str(self.folder))] = job
            some, _ = ray.wait(list(self.up), timeout=_LOOK_S)
            ready, _ = ray.wait(list(self.up), num_returns=len(self.up), timeout=0) if some else ([], [])
            for reference in ready:
                job = self.up.pop(reference)
                if (record := self._landed(job, reference)) is not None:
                    yield job, record

    def cancel(self) -> None:
        for reference in self.up:
            ray.cancel(reference, force=True)

    def _landed(self, job: Job, reference: Any) -> Record | None:
        try:
            return Record.model_validate_json(ray.get(reference))
        except RayError as error:
            self.begun[job.key] += 1
            if (found := find(job, self.folder)) is not None:
                return found
            if self.begun[job.key] < self.engine.tries:
                self.todo.append(job)
                return None
            why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
            return give_up(job, self.folder, why, self.begun[job.key])


def _perform(call: str, config: str, folder: str) -> str:
    """In a worker of Ray."""
    return perform(Job(call, json.loads(config)), Path(folder)).model_dump_json()
