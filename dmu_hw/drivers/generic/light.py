"""A light that obeys lines of text on a serial port: most lasers and LED drivers with a manual."""

from __future__ import annotations

import math

from dmu_hw.drivers.generic.settings import LightSettings
from dmu_hw.lines import LineLight
from dmu_hw.ports import Mount


class Light(LineLight):
    """Asks back what can be asked; a reply that nobody has told of is an error."""

    Settings = LightSettings

    def __init__(self, settings: LightSettings, mount: Mount) -> None:
        super().__init__(settings, mount, settings.line_end)
        self.settings = settings
        self.watchdog_ms = settings.watchdog_ms

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the guardian counts the time
        self._command(self.settings.set_on)

    def off(self) -> None:
        self._command(self.settings.set_off)

    def is_on(self) -> bool:
        state = self.settings.state
        return self._meant(state.ask, self._line.ask(state.ask), state.lit, state.dark)

    def interlock_closed(self) -> bool:
        interlock = self.settings.interlock
        if interlock is None:
            return True
        return self._meant(interlock.ask, self._line.ask(interlock.ask), interlock.closed, interlock.open)

    def keep_alive(self) -> None:
        if self.settings.keep_alive is None:
            self.is_on()
        else:
            self._command(self.settings.keep_alive)

    def _greet(self) -> None:
        self.off()
        for command in self.settings.set_up:
            self._command(command)
        self.set_power(0.0)

    def _tell_power(self, own_mw: float) -> None:
        percent = 100 * own_mw / self.most_mw
        self._command(self.settings.set_power.format(power_w=own_mw / 1e3, power_mw=own_mw, percent=percent))

    def _command(self, command: str) -> None:
        self._line.tell(command, self.settings.acknowledged_by)
