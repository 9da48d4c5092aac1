"""A shutter that obeys lines of text on a serial port."""

from __future__ import annotations

import time

from dmu_hw.drivers.generic.settings import ShutterSettings
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.lines import Line
from dmu_hw.ports import Mount

_ASK_AGAIN_S = 0.005


class Shutter:
    """Told, and asked until it stands as it should; a reply that nobody has told of is an error."""

    Settings = ShutterSettings

    def __init__(self, settings: ShutterSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.switch_ms = settings.switch_ms
        self._line = Line(mount.name, settings.port, settings.baud_rate, settings.line_end, settings.timeout_ms)

    def open(self) -> None:
        """Connect, and close it: whoever was here before may have left it open."""
        self._line.open()
        for command in self.settings.set_up:
            self._line.tell(command, self.settings.acknowledged_by)
        self.set_open(False)

    def close(self) -> None:
        """Closed if it can still be told; the port is let go in any case."""
        if not self._line.is_open:
            return
        try:
            self.set_open(False)
        finally:
            self._line.close()

    def set_open(self, wanted: bool) -> None:
        command = self.settings.set_open if wanted else self.settings.set_closed
        longest_ms = 2 * self.switch_ms + self.settings.timeout_ms
        until_s = time.monotonic() + longest_ms / 1e3
        self._line.tell(command, self.settings.acknowledged_by)
        while self._stands() is not wanted:
            if time.monotonic() >= until_s:
                state = "open" if wanted else "closed"
                what = f"{self.settings.port}: is not {state} {longest_ms:g} ms after {command!r}"
                raise DeviceTimeout(self.name, what)
            time.sleep(_ASK_AGAIN_S)

    def is_open(self) -> bool:
        stands = self._stands()
        if stands is None:
            raise DeviceError(self.name, f"{self.settings.port}: is neither open nor closed")
        return stands

    def block_light(self) -> None:
        self.set_open(False)

    def _stands(self) -> bool | None:
        """Open or closed, as it says; None in between."""
        state = self.settings.state
        reply = self._line.ask(state.ask)
        if reply not in (*state.open, *state.closed, *state.moving):
            raise self._line.odd(state.ask, reply, (*state.open, *state.closed, *state.moving))
        return None if reply in state.moving else reply in state.open
