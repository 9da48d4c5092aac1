"""A filter wheel that obeys lines of text on a serial port."""

from __future__ import annotations

import itertools
import time

from dmu_hw.drivers.generic.settings import FilterSettings
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.lines import Line
from dmu_hw.ports import Mount

_ASK_AGAIN_S = 0.01


class Filter:
    """Turns, and asks until it stands where it should; a reply that nobody has told of is an error."""

    Settings = FilterSettings

    def __init__(self, settings: FilterSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.positions = tuple(settings.positions)
        self._meant = {reply: name for name, place in settings.positions.items() for reply in place.at}
        self._line = Line(mount.name, settings.port, settings.baud_rate, settings.line_end, settings.timeout_ms)

    def open(self) -> None:
        """It stays where it stands, if it answers."""
        self._line.open()
        for command in self.settings.set_up:
            self._line.tell(command, self.settings.acknowledged_by)
        self._stands()

    def close(self) -> None:
        """Stays where it is."""
        self._line.close()

    def switch_ms(self, before: str, after: str) -> float:
        return self.settings.switch_ms if before != after else 0.0

    def select(self, position: str, timeout_ms: float) -> None:
        if position not in self.positions:
            raise DeviceError(self.name, f"has {', '.join(self.positions)}, asked for {position!r}")
        until_s = time.monotonic() + timeout_ms / 1e3
        self._line.tell(self.settings.positions[position].select, self.settings.acknowledged_by)
        if not self.settings.moving:  # then it may name the position that it is only on its way to
            time.sleep(min(self.settings.switch_ms, timeout_ms) / 1e3)
        while (stands := self._stands()) != position:
            if time.monotonic() >= until_s:
                where = "turns" if stands is None else f"says that it stands at {stands!r}"
                what = f"{self.settings.port}: did not arrive at {position!r} within {timeout_ms:g} ms: it {where}"
                raise DeviceTimeout(self.name, what)
            time.sleep(_ASK_AGAIN_S)

    def selected(self) -> str:
        stands = self._stands()
        if stands is None:
            raise DeviceError(self.name, f"{self.settings.port}: turns")
        return stands

    def _stands(self) -> str | None:
        """The position that it says it stands at; None while it turns."""
        reply = self._line.ask(self.settings.ask)
        if reply in self._meant:
            return self._meant[reply]
        if reply not in self.settings.moving:
            raise self._line.odd(self.settings.ask, reply, itertools.chain(self._meant, self.settings.moving))
        return None
