"""A light that our own box gates (devices/firmware): an LED driver or a laser with a TTL and an analogue input.

The protocol is that of devices/firmware/README.md. The box puts its light off by itself a quarter of a second after the
last command: what gates it needs no computer that is alive. Its logic was tested on a computer, on no board.
"""

from __future__ import annotations

import math
import time
from typing import Final

from dmu_hw.files import NonNegative
from dmu_hw.lines import LineLight, Source
from dmu_hw.ports import Mount

NAME: Final = "dmu-hw lightbox 1"
_SILENCE_MS, _LONGEST_MS, _FULL = 250.0, 60_000, 1000


class LightboxSettings(Source):
    """A light behind the box; `max_power_mw` is what it gives with a full analogue input."""

    start_ms: NonNegative = 3000.0
    """Opening the port restarts many boards: so long is waited for a first answer."""
    settle_ms: NonNegative = 10.0
    """After another power, until the analogue input has it."""


class Light(LineLight):
    """Gate and power; interlock and longest time are watched by the box as well."""

    Settings = LightboxSettings
    watchdog_ms = _SILENCE_MS

    def __init__(self, settings: LightboxSettings, mount: Mount) -> None:
        super().__init__(settings, mount)
        self.settings = settings

    def on(self, longest_ms: float = math.inf) -> None:
        self._line.tell(f"ON {math.ceil(min(longest_ms, _LONGEST_MS))}", "OK")

    def off(self) -> None:
        self._line.tell("OFF", "OK")

    def is_on(self) -> bool:
        return self._is("LIT?")

    def interlock_closed(self) -> bool:
        return self._is("LOCK?")

    def keep_alive(self) -> None:
        self._line.tell("BEAT", "OK")

    def _greet(self) -> None:
        self._line.hail("OFF", "OK")
        name = self._line.first("ID?", ".*", self.settings.start_ms)[0]
        if name != NAME:
            raise self._line.odd("ID?", name, (NAME,))
        self.off()
        self._tell_power(0.0)

    def _tell_power(self, own_mw: float) -> None:
        self._line.tell(f"POWER {round(_FULL * own_mw / self.most_mw)}", "OK")
        found = self._line.number("POWER?", self._line.ask("POWER?"))
        self._check_power(own_mw, found * self.most_mw / _FULL)
        time.sleep(self.settings.settle_ms / 1e3)

    def _is(self, question: str) -> bool:
        return self._meant(question, self._line.ask(question), ("1",), ("0",))
