"""A light that obeys lines of text on a serial port: most lasers and LED drivers with a manual."""

from __future__ import annotations

import math

from dmu_hw.drivers.generic.line import Line
from dmu_hw.drivers.generic.settings import LightSettings
from dmu_hw.errors import DeviceError
from dmu_hw.ports import Mount


class Light:
    """Asks back what can be asked; a reply that nobody has told of is an error."""

    Settings = LightSettings
    guarded = True
    """It lives in the guardian's process, which outlives this one."""

    def __init__(self, settings: LightSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.max_power_mw = settings.max_power_mw
        self.watchdog_ms = settings.watchdog_ms
        self._line = Line(mount.name, settings.port, settings.baud_rate, settings.line_end, settings.timeout_ms)

    def open(self) -> None:
        """Off before anything else: whoever was here before may have left it on."""
        self._line.open()
        self.off()
        for command in self.settings.set_up:
            self._command(command)
        self.set_power(0.0)
        if self.is_on():
            raise DeviceError(self.name, f"{self.settings.port}: is on though it was told {self.settings.set_off!r}")

    def close(self) -> None:
        """Off if it can still be told; the port is let go in any case."""
        if not self._line.is_open:
            return
        try:
            self.off()
            if self.is_on():
                raise DeviceError(self.name, f"{self.settings.port}: is still on: SWITCH IT OFF BY HAND")
        finally:
            self._line.close()

    def set_power(self, power_mw: float) -> None:
        if not 0 <= power_mw <= self.max_power_mw:
            raise DeviceError(self.name, f"power must be 0 to {self.max_power_mw:g} mW, given {power_mw:g}")
        own_mw = power_mw / self.settings.transmission
        percent = 100 * power_mw / self.max_power_mw
        self._command(self.settings.set_power.format(power_w=own_mw / 1e3, power_mw=own_mw, percent=percent))

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the guardian counts the time
        self._command(self.settings.set_on)

    def off(self) -> None:
        self._command(self.settings.set_off)

    def is_on(self) -> bool:
        state = self.settings.state
        return self._meant(state.ask, state.lit, state.dark)

    def interlock_closed(self) -> bool:
        interlock = self.settings.interlock
        return interlock is None or self._meant(interlock.ask, interlock.closed, interlock.open)

    def keep_alive(self) -> None:
        """Tell the watchdog of the hardware that its host lives."""
        if self.settings.keep_alive is None:
            self.is_on()
        else:
            self._command(self.settings.keep_alive)

    def _command(self, command: str) -> None:
        self._line.tell(command, self.settings.acknowledged_by)

    def _meant(self, ask: str, yes: tuple[str, ...], no: tuple[str, ...]) -> bool:
        reply = self._line.ask(ask)
        if reply not in yes and reply not in no:
            raise self._line.odd(ask, reply, (*yes, *no))
        return reply in yes
