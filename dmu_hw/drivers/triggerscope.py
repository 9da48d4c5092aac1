"""TriggerScope 3 and 4 (Advanced Research Consulting) with the firmware for Micro-Manager: a light that it gates, with
or without an analogue input, or a shutter.

Confirmed by reading the firmware (github.com/micro-manager/TriggerScopeMM: V3, V4 and V4B): commands end with a line
feed, answers with carriage return and line feed; `*` and its name, `SDOn-mask`, `SAOn-value`, `SARn-range`, `PDCn`,
`BDOn-s-t`, `PASn-s-t`, `BAOn-s-t`, and `STAT?`, which tells what the pins are, and ends with an empty line. An
acknowledgement repeats the command behind `!`, and comes before the output has changed; outputs are low after a start;
a part of a line waits for its end for ever. Confirmed by Micro-Manager's adapter: the name ends with MM, a board may
need some seconds to start. Nothing was tried on a box, not how long `STAT?` takes either. The firmware has no watchdog
and no heartbeat.

Steps triggered in hardware, and gates that follow a trigger input, are what it is made for; no port here has use for
them, and what another program left of them is ended.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from dmu_hw.files import Settings
from dmu_hw.lines import Box, BoxLight, BoxPort, BoxShutter, Distinct, GatedSource, GateSettings, Line
from dmu_hw.ports import Mount

_OFF = ("SDO0-0", "SDO1-0")
_NAME = ".*(TRIGGERSCOPE|ARC_LED).*"
_STATE = re.compile("TTL: ((?:[0-9]{1,2}=[01],){16})")
_NOISE = ".*[^ -~].*"
_RANGES = {"0-5V": 1, "0-10V": 2}


class Outputs(Settings):
    """Which outputs gate; all others of the box stay low."""

    lines: Annotated[tuple[Annotated[int, Field(ge=1, le=16)], ...], Field(min_length=1), Distinct]
    """TTL outputs that go high together."""


class LightSettings(Outputs, GatedSource):
    """A light behind a TriggerScope."""

    dac: Annotated[int, Field(ge=1, le=16)] | None = None
    """The analogue output that sets its power; null: it has one power."""
    dac_range: Literal["0-5V", "0-10V"] = "0-5V"
    """What the analogue input of the light takes; all of it is `max_power_mw`."""


class ShutterSettings(Outputs, GateSettings):
    """A shutter behind a TriggerScope."""


class _Scope(Box):
    """The box."""

    def __init__(self, settings: BoxPort, mount: Mount, lines: tuple[int, ...]) -> None:
        self._start_ms = settings.start_ms
        self._lines = lines
        self._dac = 0
        self.wire: Line = Line(mount.name, settings.port, settings.baud_rate, "\n", settings.timeout_ms, b"\n")

    def use_dac(self, number: int, volts: str) -> None:
        self._dac, self._range, self.steps = number, _RANGES[volts], 65535

    def greet(self) -> None:
        for command in _OFF:
            self.wire.hail(command, f"!{command}")
        name = self.wire.first("*", _NAME, self._start_ms)[-1]
        if not name.endswith("MM"):
            raise self.wire.odd("*", name, ("ARC TRIGGERSCOPE … MM: it has the firmware for Micro-Manager",))
        for group in (0, 1):
            self._tell(f"PDC{group}")
            self._tell(f"BDO{group}-0-0")
        if self._dac:
            for command in (f"PAS{self._dac}-0-0", f"BAO{self._dac}-0-0", f"SAR{self._dac}-{self._range}"):
                self._tell(command)
        self.gate(False)

    def gate(self, high: bool) -> None:
        masks = [0, 0]
        for line in self._lines if high else ():
            masks[(line - 1) // 8] |= 1 << (line - 1) % 8
        for group, mask in enumerate(masks):
            self._tell(f"SDO{group}-{mask}")

    def is_high(self) -> bool:
        said = self.wire.lines("STAT?", "")
        pins = [found[1] for line in said if (found := _STATE.fullmatch(line)) is not None]
        if len(pins) != 1:
            raise self.wire.odd("STAT?", "\n".join(said)[:200], ("TTL: 1=0,2=0,…",))
        high = [int(pin.split("=")[0]) for pin in pins[0].split(",") if pin.endswith("=1")]
        return not set(self._lines).isdisjoint(high)

    def level(self, step: int) -> None:
        self._tell(f"SAO{self._dac}-{step}")

    def _tell(self, command: str) -> None:
        """What does not begin with ! may still answer the end of a line that came only in part; noise answers none."""
        reply = self.wire.lines(command, f"!{command}|!ERROR.*|{_NOISE}")[-1]
        if reply != f"!{command}":
            raise self.wire.odd(command, reply, (f"!{command}",))


class Light(BoxLight):
    """Its outputs high is on."""

    Settings = LightSettings

    def __init__(self, settings: LightSettings, mount: Mount) -> None:
        scope = _Scope(settings, mount, settings.lines)
        if settings.dac is not None:
            scope.use_dac(settings.dac, settings.dac_range)
        super().__init__(settings, mount, scope)


class Shutter(BoxShutter):
    """Its outputs high is open."""

    Settings = ShutterSettings

    def __init__(self, settings: ShutterSettings, mount: Mount) -> None:
        super().__init__(settings, mount, _Scope(settings, mount, settings.lines))
