"""What all lights on a serial port share: dark when opened, dark when closed, and no power beyond their own."""

from __future__ import annotations

import abc
import math

from dmu_hw.errors import DeviceError
from dmu_hw.lines.line import Line
from dmu_hw.lines.settings import Source
from dmu_hw.lines.wire import Wire
from dmu_hw.ports import Mount

_OFF_BY, _OFF_BY_MW = 0.01, 0.1
"""By so much of itself, and so many mW, may a power that is read back differ from that which was told: some lasers tell
tenths."""


class SerialLight(abc.ABC):
    """A driver says in which bytes; none of them has to be trusted, since all of it is read back."""

    guarded = True
    """It lives in the guardian's process, which outlives this one."""
    watchdog_ms: float | None = None

    def __init__(self, settings: Source, mount: Mount, wire: Wire) -> None:
        self.name = mount.name
        self.port = settings.port
        self.max_power_mw = settings.max_power_mw
        self.most_mw = settings.max_power_mw / settings.transmission
        """Highest power of the source itself."""
        self._transmission = settings.transmission
        self._wire = wire

    def open(self) -> None:
        """Off before anything else: whoever was here before may have left it on."""
        self._wire.open()
        self._greet()
        if self.is_on():
            raise self._error("is on though it was told to be off")

    def close(self) -> None:
        """Off if it can still be told; the port is let go in any case."""
        if not self._wire.is_open:
            return
        try:
            self.off()
            if self.is_on():
                raise self._error("is still on: SWITCH IT OFF BY HAND")
        finally:
            self._wire.close()

    def set_power(self, power_mw: float) -> None:
        if not 0 <= power_mw <= self.max_power_mw:
            raise DeviceError(self.name, f"power must be 0 to {self.max_power_mw:g} mW, given {power_mw:g}")
        self._tell_power(power_mw / self._transmission)

    def keep_alive(self) -> None:
        """Tell the watchdog of the hardware, if there is one, that its host lives."""
        self.is_on()

    @abc.abstractmethod
    def _greet(self) -> None:
        """First `off`; then whatever it has to be told once."""

    @abc.abstractmethod
    def _tell_power(self, own_mw: float) -> None:
        """What the source itself is to give."""

    @abc.abstractmethod
    def on(self, longest_ms: float = math.inf) -> None: ...

    @abc.abstractmethod
    def off(self) -> None: ...

    @abc.abstractmethod
    def is_on(self) -> bool: ...

    @abc.abstractmethod
    def interlock_closed(self) -> bool: ...

    def _check_power(self, wanted_mw: float, found_mw: float) -> None:
        """What was read back must be what was told."""
        if abs(found_mw - wanted_mw) > _OFF_BY * wanted_mw + _OFF_BY_MW:
            raise self._error(f"was told to give {wanted_mw:g} mW itself, and says that it is set to {found_mw:g} mW")

    def _error(self, what: str) -> DeviceError:
        return DeviceError(self.name, f"{self.port}: {what}")


class LineLight(SerialLight):
    """One whose words are lines of text."""

    def __init__(self, settings: Source, mount: Mount, line_end: str = "\r\n") -> None:
        self._line = Line(mount.name, settings.port, settings.baud_rate, line_end, settings.timeout_ms)
        super().__init__(settings, mount, self._line)

    def _meant(self, asked: str, reply: str, yes: tuple[str, ...], no: tuple[str, ...]) -> bool:
        """Which of two things a reply means."""
        if reply not in (*yes, *no):
            raise self._line.odd(asked, reply, (*yes, *no))
        return reply in yes
