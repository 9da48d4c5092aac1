"""What the twin of a laser is and does, whatever words it obeys; each change of its light is written down."""

from __future__ import annotations

import json
import time
from typing import IO

_NEVER_S = 3600.0


class Emitter:
    """Knows nothing of lines and processes."""

    def __init__(self, log: IO[str], watchdog_ms: float | None = None) -> None:
        self.lit = False
        self.power_w = 0.0
        self.closed = True
        """The interlock."""
        self.broken = False
        self.refuses = 0
        """How many OFF it will not obey."""
        self.watchdog_ms = watchdog_ms
        self._log = log
        self._heard_s = time.monotonic()

    def patience_s(self) -> float:
        """How long until the watchdog bites."""
        if not self.lit or self.watchdog_ms is None:
            return _NEVER_S
        return max(0.0, self._heard_s + self.watchdog_ms / 1e3 - time.monotonic())

    def look(self) -> None:
        """The watchdog's turn."""
        if self.patience_s() == 0:
            self._switch(False, "watchdog")

    def hear(self) -> None:
        """Its host lives."""
        self.look()
        self._heard_s = time.monotonic()

    def on(self) -> bool:
        """Whether it does so."""
        able = self.closed and not self.broken
        if able:
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
            fact = {"time_s": time.monotonic(), "lit": lit, "why": why, "power_w": self.power_w}
            self._log.write(json.dumps(fact) + "\n")
            self._log.flush()
