"""What the twin of a laser is and does, whatever words it obeys; each change of its light is written down."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import IO

_NEVER_S = 3600.0


class Emitter:
    """Knows nothing of lines and processes."""

    def __init__(
        self, log: IO[str], watchdog_ms: float | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.lit = False
        self.power_w = 0.0
        self.closed = True
        """The interlock."""
        self.broken = False
        self.refuses = 0
        """How many OFF it will not obey."""
        self.watchdog_ms = watchdog_ms
        self._log = log
        self._clock_s = clock_s
        self._heard_s = clock_s()
        self._until_s = math.inf

    def patience_s(self) -> float:
        """How long until it goes off by itself."""
        if not self.lit:
            return _NEVER_S
        bites_s = math.inf if self.watchdog_ms is None else self._heard_s + self.watchdog_ms / 1e3
        return min(_NEVER_S, max(0.0, min(bites_s, self._until_s) - self._clock_s()))

    def look(self) -> None:
        """Its own turn: the watchdog's, and that of the time that it was lit for."""
        if self.patience_s() == 0:
            self._switch(False, "watchdog" if self._clock_s() < self._until_s else "time")

    def hear(self) -> None:
        """Its host lives."""
        self._heard_s = self._clock_s()

    def on(self, longest_s: float = math.inf) -> bool:
        """Whether it does so."""
        able = self.closed and not self.broken
        if able:
            self._until_s = self._clock_s() + longest_s
            self._switch(True, "command")
        return able

    def off(self) -> None:
        if self.refuses:
            self.refuses -= 1
        else:
            self._switch(False, "command")

    def lock(self, closed: bool) -> None:
        """The interlock opens or closes."""
        self.closed = closed
        if not closed:
            self._switch(False, "interlock")

    def fail(self, broken: bool) -> None:
        """A fault of the laser, or its end."""
        self.broken = broken
        if broken:
            self._switch(False, "fault")

    def _switch(self, lit: bool, why: str) -> None:
        if lit != self.lit:
            self.lit = lit
            fact = {"time_s": self._clock_s(), "lit": lit, "why": why, "power_w": self.power_w}
            self._log.write(json.dumps(fact) + "\n")
            self._log.flush()
