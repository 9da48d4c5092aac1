"""The world's own time: as fast as the machine can, or real time with the time spent on rendering taken out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class WorldClock:
    """Time only goes forward, and only when something waits; in real time, also by itself."""

    def __init__(self, *, realtime: bool) -> None:
        self.realtime = realtime
        self._virtual_ms = 0.0
        self._wall_zero_ms = time.perf_counter() * 1e3

    def now_ms(self) -> float:
        if not self.realtime:
            return self._virtual_ms
        return time.perf_counter() * 1e3 - self._wall_zero_ms

    def sleep_ms(self, duration_ms: float) -> None:
        self.advance_to(self.now_ms() + max(0.0, duration_ms))

    def advance_to(self, time_ms: float) -> None:
        """Let time pass until then; nothing happens if it is past already."""
        if self.realtime:
            time.sleep(max(0.0, time_ms - self.now_ms()) / 1e3)
        else:
            self._virtual_ms = max(self._virtual_ms, time_ms)

    def recall(self, time_ms: float) -> None:
        """It is that time now, as it was when another clock of this world was last looked at."""
        self._virtual_ms = time_ms
        self._wall_zero_ms = time.perf_counter() * 1e3 - time_ms

    @contextmanager
    def held(self) -> Iterator[None]:
        """The world stands still while its picture is computed: nature needs no time for that."""
        began_ms = time.perf_counter() * 1e3
        try:
            yield
        finally:
            self._wall_zero_ms += time.perf_counter() * 1e3 - began_ms
