"""The mirrors through one of pycromanager's bursts: begun by its hooks, ended in darkness whatever comes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from dmu_hw.errors import DeviceError
from dmu_hw.plan import Take
from dmu_hw.rig import Rig

Order = tuple[int, ...]


class Mirrors:
    """Hooks call this from several threads, and so does the watch: a burst ends once, and nobody ends another's."""

    def __init__(self, rig: Rig, take: Take, timeout_ms: float) -> None:
        self._rig = rig
        self._take = take
        self._timeout_ms = timeout_ms
        self._stepping = rig.settings.stepping
        self._lock = threading.Lock()
        self._order: Order = ()
        """Places in the memory that the burst on its way shows."""
        self._watch: threading.Timer | None = None

    def begin(self, patterns: Sequence[int], overdue: Callable[[], None]) -> Order:
        """Just before the camera starts. `overdue` is called when the burst has not ended in time. Gives what ends this
        burst and no other."""
        order = tuple(self._take.memory[pattern] for pattern in patterns)
        with self._lock:
            if self._stepping == "software" and len(order) > 1:
                what = "shows patterns one by one, but pycromanager merged their events: hand over what events() gives"
                raise DeviceError("dmd", what)
            if self._stepping != "software" and len(order) == 1:
                what = "steps with the camera, but pycromanager snaps a burst of one frame: say stepping: software"
                raise DeviceError("dmd", what)
            self._order = order
            limit_ms = 2 * len(order) * self._take.period_ms + self._timeout_ms
            self._watch = threading.Timer(limit_ms / 1e3, self._expire, [self._order, overdue])
            self._watch.daemon = True
            self._watch.start()
            if self._stepping != "dmd":
                if self._stepping == "camera":
                    self._rig.dmd.start(order, None)
                else:
                    self._rig.dmd.show(order[0])
                self._rig.clock.sleep_ms(self._rig.settle_ms)
        return order

    def camera_started(self) -> None:
        """The camera takes a sequence, or has snapped a frame."""
        if self._stepping == "software":
            self.end()
        elif self._stepping == "dmd":
            with self._lock:
                if self._order:
                    self._rig.dmd.start(self._order, self._take.period_ms)

    def end(self, burst: Order | None = None) -> None:
        """Dark, and nothing on its way; what the mirrors say that they have shown must be what they should. Another
        burst than the one that is given is left alone."""
        with self._lock:
            if burst is not None and burst is not self._order:
                return
            order, self._order = self._order, ()
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None
            self._rig.dmd.stop()
            shown = self._rig.dmd.shown() if order and self._stepping != "software" else None
        if shown is not None and tuple(shown) != order:
            raise DeviceError("dmd", f"showed {len(shown)} patterns, {list(shown)[:8]}, instead of {list(order)[:8]}")

    def _expire(self, order: Order, overdue: Callable[[], None]) -> None:
        with self._lock:
            if self._order is not order:
                return  # it ended while the clock struck
        overdue()
