"""When the next shot may be taken: not before it is due, not while the run is paused, and never after an abort."""

from __future__ import annotations

from collections.abc import Callable

from dmu_hw.control import Control
from dmu_hw.journal import Journal
from dmu_hw.plan import Shot
from dmu_hw.ports import Clock

_SLICE_MS = 100.0
"""Longest sleep between two looks at what people want."""


class Pace:
    """The time of a run on the rig's clock. It stands still while the run is paused, so that intervals are true again
    afterwards."""

    def __init__(self, clock: Clock, control: Control, journal: Journal, darken: Callable[[], None]) -> None:
        """`darken` puts the light off and the mirrors too; it is called when a pause begins."""
        self.clock = clock
        self.control = control
        self._journal = journal
        self._darken = darken
        self._began_ms = clock.now_ms()
        self._series: int | None = None

    def elapsed(self, elapsed_ms: float) -> None:
        """So much of the run's time has passed in an earlier life of it."""
        self._began_ms -= elapsed_ms

    @property
    def zero_ms(self) -> float:
        """When the run's time began."""
        return self._began_ms

    def late_ms(self, shot: Shot) -> float:
        """How long a shot is overdue; below 0, how long there is still to wait."""
        return self.clock.now_ms() - self._began_ms - shot.due_s * 1e3

    def wait(self, shot: Shot) -> None:
        """Return when a shot may be taken."""
        self._heed()
        if shot.series != (self._series or 0):
            # a run that is resumed in the middle of a series goes on with its next point at once
            self._began_ms = self.clock.now_ms() - (shot.due_s * 1e3 if self._series is None else 0.0)
        self._series = shot.series
        while (left_ms := -self.late_ms(shot)) > 0:
            self.clock.sleep_ms(min(left_ms, _SLICE_MS))
            self._heed()

    def _heed(self) -> None:
        self.control.check()
        if self.control.state != "paused":
            return
        self._darken()
        began_ms = self.clock.now_ms()
        self._journal.add("paused", time_ms=began_ms)
        self.control.wait_while_paused()
        paused_ms = self.clock.now_ms() - began_ms
        self._began_ms += paused_ms
        self._journal.add("went_on", paused_ms=paused_ms)
        self.control.check()
