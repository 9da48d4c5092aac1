"""Estimates beside an acquisition, in a thread of their own: what saves frames never waits for the inverse."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol

from dmu_hw.data import Estimate, Uint16Array
from dmu_hw.pycromanager.asked import Axes

_WAITING = 4
"""Bursts that may wait; of those that come while as many do, none is reconstructed live."""
_END_S = 60.0


class Inverse(Protocol):
    """A reconstructor."""

    def estimate(self, frames: Uint16Array) -> Estimate: ...


class Live:
    """Has bursts reconstructed one after the other; a failure is told, and stops no acquisition."""

    def __init__(
        self,
        inverse: Inverse,
        deliver: Callable[[Axes, Estimate], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.dropped = 0
        """Bursts that came too fast."""
        self._inverse = inverse
        self._deliver = deliver
        self._failed = failed
        self._bursts: queue.Queue[tuple[Axes, Uint16Array] | None] = queue.Queue(_WAITING)
        self._thread = threading.Thread(target=self._work, name="dmu live", daemon=True)
        self._thread.start()

    def add(self, axes: Axes, frames: Uint16Array) -> None:
        """A whole burst (pattern, y, x)."""
        try:
            self._bursts.put_nowait((axes, frames))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """When all that waits is done."""
        with contextlib.suppress(queue.Full):  # told below
            self._bursts.put(None, timeout=_END_S)
        self._thread.join(_END_S)
        if self._thread.is_alive():
            self._failed(TimeoutError(f"the inverse was not done after {_END_S:g} s"))

    def _work(self) -> None:
        while (found := self._bursts.get()) is not None:
            axes, burst = found
            try:
                self._deliver(axes, self._inverse.estimate(burst))
            except Exception as error:  # noqa: BLE001 - what a script's own function raises must not end this thread
                self._failed(error)
