"""The thread that writes. Its queue is bounded: a slow disk pauses the run in the dark and never costs a frame."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from types import TracebackType

from dmu_hw import patience
from dmu_hw.data import Burst
from dmu_hw.errors import RunError
from dmu_hw.spool import Spool

QUEUED_BURSTS = 16
QUEUED_BYTES = 256_000_000
_IDLE_S = 0.05
_LOOK_S = 0.1
"""Who waits for the writer looks so often whether it still works."""


class Saver:
    """Saves bursts in their order. Within its context the thread works; leaving it waits for all that was put."""

    def __init__(self, spool: Spool, burst_bytes: int) -> None:
        """`burst_bytes` is the size of the largest burst."""
        self.spool = spool
        self.saved = 0
        """Frames."""
        self._queue: queue.Queue[Burst] = queue.Queue(min(QUEUED_BURSTS, max(1, QUEUED_BYTES // burst_bytes)))
        self._ended = threading.Event()
        self._writer: Future[None] = Future()
        self._writing_since_s: float | None = None
        """Since when the thread is at one burst; None while it is idle."""

    def __enter__(self) -> Saver:
        self._writer = patience.in_the_background(self._write, "writer")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        while not self._writer.done():
            if self._hangs():
                self.spool.abandon()
                hung = self._hung()
                if error is None:
                    raise hung
                if str(error) != str(hung):
                    error.add_note(str(hung))
                return
            self._ended_within(_LOOK_S)

    def put(self, burst: Burst) -> None:
        """Wait for room in the queue, but not behind a writer that has failed, nor for ever behind one that hangs."""
        while not self._writer.done():
            try:
                self._queue.put(burst, timeout=_LOOK_S)
            except queue.Full:
                if self._hangs():
                    raise self._hung() from None
                continue
            return

    def raise_failure(self) -> None:
        """Say that frames can no longer be saved, if that is so."""
        if self._writer.done() and (failure := self._writer.exception()) is not None:
            raise RunError(f"frames can no longer be saved: {failure}") from failure

    def _hangs(self) -> bool:
        since_s = self._writing_since_s
        return since_s is not None and time.monotonic() - since_s > patience.STALLED_S

    def _hung(self) -> RunError:
        return patience.hung(self.spool.folder, patience.STALLED_S)

    def _ended_within(self, wait_s: float) -> None:
        """The writer's end, or so much time, whichever comes first."""
        try:
            self._writer.exception(wait_s)
        except TimeoutError:
            return

    def _write(self) -> None:
        """Until the run has ended and none is left; bursts are sealed when there is time."""
        while not (self._ended.is_set() and self._queue.empty()):
            self._writing_since_s = None
            try:
                burst = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                burst = None
            self._writing_since_s = time.monotonic()
            if burst is None:
                self.spool.sync_when_due()
                continue
            self.spool.put(burst)
            self.saved += len(burst.frames)
        self._writing_since_s = time.monotonic()
        self.spool.sync()
