"""Worker processes on this computer. One that is killed takes nothing with it but the time it had spent."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from dmu_hw.errors import RunError
from dmu_hw.pool.jobs import Job, Record, find, give_up, path_of
from dmu_hw.pool.settings import Local
from dmu_hw.pool.worker import READY

_LOOK_S = 0.2
"""How often the pool looks up from waiting: Windows tells of Ctrl-C only then."""
_DYING_S = 10.0
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class LocalPool:
    """The engine `local`."""

    def __init__(self, engine: Local) -> None:
        self.engine = engine

    def work(self, jobs: Sequence[Job], folder: Path) -> Iterator[tuple[Job, Record]]:
        crew = _Crew(jobs, folder, self.engine)
        try:
            crew.start()
            for _ in jobs:
                yield crew.next()
        finally:
            crew.stop()


class _Crew:
    """One thread for each worker: it hands out a job, waits for the answer, and hires another when the worker dies."""

    def __init__(self, jobs: Sequence[Job], folder: Path, engine: Local) -> None:
        self.folder = folder
        self.engine = engine
        self.todo = deque(jobs)
        self.begun: Counter[str] = Counter()
        self.done: queue.SimpleQueue[tuple[Job, Record] | Exception] = queue.SimpleQueue()
        self.stopped = False
        self.lock = threading.Lock()
        self.workers: set[_Worker] = set()
        self.threads: list[threading.Thread] = []

    def start(self) -> None:
        for _ in range(min(self.engine.crew, len(self.todo))):
            thread = threading.Thread(target=self._lead, daemon=True)
            thread.start()
            self.threads.append(thread)

    def next(self) -> tuple[Job, Record]:
        while True:
            with contextlib.suppress(queue.Empty):
                done = self.done.get(timeout=_LOOK_S)
                if isinstance(done, Exception):
                    raise done
                return done

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for worker in self.workers:
                worker.kill()
        for thread in self.threads:
            thread.join()

    def _lead(self) -> None:
        worker: _Worker | None = None
        try:
            while not self.stopped and (job := self._take()) is not None:
                worker = worker or self._hire()
                try:
                    record = worker.perform(job)
                except _DiedError as death:
                    self._dismiss(worker)
                    worker = None
                    self._lost(job, str(death))
                else:
                    self.done.put((job, record))
        except _StoppedError:
            """Nobody listens any more."""
        except (OSError, RunError) as error:  # the disk is full, or no worker can be started
            self.done.put(error)
        finally:
            if worker is not None:
                self._dismiss(worker)

    def _take(self) -> Job | None:
        try:
            return self.todo.popleft()
        except IndexError:
            return None

    def _hire(self) -> _Worker:
        why = ""
        for _ in range(self.engine.tries):
            worker = self._start()
            try:
                worker.greet()
            except _DiedError as death:
                self._dismiss(worker)
                why = str(death)
            else:
                return worker
        raise RunError(f"a worker process cannot be started: {why}")

    def _start(self) -> _Worker:
        with self.lock:  # either it is there before the others are killed, or it never comes to be
            if self.stopped:
                raise _StoppedError
            worker = _Worker(self.folder, self.engine.threads)
            self.workers.add(worker)
        return worker

    def _dismiss(self, worker: _Worker) -> None:
        worker.close()
        with self.lock:
            self.workers.discard(worker)

    def _lost(self, job: Job, why: str) -> None:
        """Try it again, after the others; it may have been too large for the company it had."""
        if self.stopped:
            return
        for half in self.folder.glob(f".{path_of(job, self.folder).name}.*"):
            half.unlink(missing_ok=True)  # the record that it was writing
        self.begun[job.key] += 1
        if (found := find(job, self.folder)) is not None:  # it died between writing and answering
            self.done.put((job, found))
        elif self.begun[job.key] < self.engine.tries:
            self.todo.append(job)
        else:
            self.done.put((job, give_up(job, self.folder, why, self.begun[job.key])))


class _DiedError(Exception):
    """A worker ended in the middle of a job."""


class _StoppedError(Exception):
    """The pool is being stopped."""


class _Worker:
    """One worker process, in a session of its own: Ctrl-C reaches the pool alone, and its children die with it."""

    def __init__(self, folder: Path, threads: int) -> None:
        limits = dict.fromkeys(_THREADS, str(threads))
        self.process = subprocess.Popen(  # noqa: S603 - this very Python
            [sys.executable, "-P", "-m", "dmu_hw.pool.worker", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | limits,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self.jobs_out, self.records_in = cast("IO[bytes]", self.process.stdin), cast("IO[bytes]", self.process.stdout)
        # children of a job may hold the pipes open after the worker's death: nobody would hear of it
        self.burial = threading.Thread(target=self._bury, daemon=True)
        self.burial.start()

    def greet(self) -> None:
        if self._line() != READY:
            raise _DiedError("it did not say that it is ready")

    def perform(self, job: Job) -> Record:
        try:
            self.jobs_out.write(json.dumps({"call": job.call, "config": job.config}).encode() + b"\n")
            self.jobs_out.flush()
        except OSError:  # Windows has other words for a pipe that broke
            raise _DiedError(self._death()) from None
        return Record.model_validate_json(self._line())

    def kill(self) -> None:
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()

    def close(self) -> None:
        self.kill()
        self.burial.join()
        self.records_in.close()
        with contextlib.suppress(OSError):  # of what it was not able to take any more
            self.jobs_out.close()

    def _line(self) -> bytes:
        line = self.records_in.readline()
        if not line.endswith(b"\n"):
            raise _DiedError(self._death())
        return line

    def _bury(self) -> None:
        self.process.wait()
        self.kill()

    def _death(self) -> str:
        try:
            status = self.process.wait(_DYING_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return "its process closed the pipe to the pool"
        if status >= 0:
            return f"its process ended with status {status}"
        name = signal.Signals(-status).name
        return f"its process was killed by {name}" + (" (was the memory full?)" if name == "SIGKILL" else "")
