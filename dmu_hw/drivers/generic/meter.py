"""A power meter that obeys lines of text on a serial port."""

from __future__ import annotations

from dmu_hw.drivers.generic.settings import MeterSettings
from dmu_hw.lines import Line
from dmu_hw.ports import Mount

_MW = {"W": 1e3, "mW": 1.0, "uW": 1e-3}


class Meter:
    """Asked for one reading at a time; an answer that is no number is an error."""

    Settings = MeterSettings

    def __init__(self, settings: MeterSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self._line = Line(mount.name, settings.port, settings.baud_rate, settings.line_end, settings.timeout_ms)

    def open(self) -> None:
        self._line.open()
        for command in self.settings.set_up:
            self._line.tell(command, self.settings.acknowledged_by)
        self.read_mw()

    def close(self) -> None:
        self._line.close()

    def read_mw(self) -> float:
        reading = self._line.number(self.settings.ask, self._line.ask(self.settings.ask))
        return reading * _MW[self.settings.unit] / self.settings.transmission
