"""The thread that writes. Its queue is bounded: a slow disk pauses the run in the dark and never costs a frame."""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from dmu_hw.data import Burst
from dmu_hw.errors import RunError
from dmu_hw.spool import Spool

QUEUED_BURSTS = 16
QUEUED_BYTES = 256_000_000
_IDLE_S = 0.05


class Saver:
    """Saves bursts in their order. Within its context the thread works; leaving it waits for all that was put."""

    def __init__(self, spool: Spool, burst_bytes: int) -> None:
        """`burst_bytes` is the size of the largest burst."""
        self.spool = spool
        self.saved = 0
        """Frames."""
        self._queue: queue.Queue[Burst] = queue.Queue(min(QUEUED_BURSTS, max(1, QUEUED_BYTES // burst_bytes)))
        self._ended = threading.Event()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._writer: Future[None] = Future()

    def __enter__(self) -> Saver:
        self._writer = self._pool.submit(self._write)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._pool.__exit__(kind, error, trace)

    def put(self, burst: Burst) -> None:
        """Wait for room in the queue, but not behind a writer that has failed."""
        while not self._writer.done():
            try:
                self._queue.put(burst, timeout=0.1)
            except queue.Full:
                continue
            return

    def raise_failure(self) -> None:
        """Say that frames can no longer be saved, if that is so."""
        if self._writer.done() and (failure := self._writer.exception()) is not None:
            raise RunError(f"frames can no longer be saved: {failure}") from failure

    def _write(self) -> None:
        """Until the run has ended and none is left; bursts are sealed when there is time."""
        while not (self._ended.is_set() and self._queue.empty()):
            try:
                burst = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                self.spool.sync_when_due()
                continue
            self.spool.put(burst)
            self.saved += len(burst.frames)
        self.spool.sync()
