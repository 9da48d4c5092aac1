"""An Arduino with the firmware of Micro-Manager (AOTFcontroller): a light that it gates, with or without an analogue
input, or a shutter.

Confirmed by reading the firmware (mmCoreAndDevices, DeviceAdapters/Arduino/AOTFcontroller, version 5): commands of
bytes at 57,600 baud; 1 sets the pins 8 to 13 and is answered by 1, 2 reads them, 3 sets an analogue output of 12 bits,
9 and 21 end what triggers step and gate, 30 and 31 tell name and version as lines of text, 34 (from version 5) how many
analogue outputs it was built with, 40 reads the inputs A0 to A5, which are high when open. A byte that is missing is
waited for for a second, bytes that are no command are ignored, and an analogue output without hardware behind it is
acknowledged too. Confirmed by Micro-Manager's adapter: analogue outputs are counted from 0 on the line; a board needs
up to 2 s after its port was opened. Nothing was tried on a board. The firmware has no watchdog and no heartbeat.

Since it waits for what is missing, the next command would be taken for the rest of one that came only in part, and
might light. So after any doubt zeros come first: as a rest they switch off, as commands they are ignored.

Micro-Manager calls its outputs inverted unless told otherwise. Here high is on, since all pins are low while it starts.
"""

from __future__ import annotations

import contextlib
from typing import Annotated

from pydantic import Field

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.lines import Box, BoxLight, BoxPort, BoxShutter, Distinct, GatedSource, GateSettings, Wire, patiently
from dmu_hw.ports import Mount

_SET, _READ, _LEVEL, _END_STEPS, _END_GATING, _NAME, _VERSION, _LEVELS, _INPUTS = 1, 2, 3, 9, 21, 30, 31, 34, 40
_WAKE = bytes(4)
"""The longest command has three bytes behind its first."""
_TELLS_LEVELS = 5
"""From this version on."""
_FIRST_PIN, _PINS = 8, 0x3F


class Outputs(BoxPort):
    """Which outputs gate; all others of the board stay low."""

    baud_rate: Annotated[int, Field(ge=1)] = 57_600
    pins: Annotated[tuple[Annotated[int, Field(ge=8, le=13)], ...], Field(min_length=1), Distinct]
    """Pins that go high together."""


class LightSettings(Outputs, GatedSource):
    """A light behind an Arduino."""

    dac: Annotated[int, Field(ge=1, le=4)] | None = None
    """The analogue output that sets its power, as Micro-Manager counts them; null: it has one power."""
    interlock_input: Annotated[int, Field(ge=0, le=5)] | None = None
    """The input A0 to A5 that the contacts of an interlock hold at ground; an open one, or a broken wire, is high."""


class ShutterSettings(Outputs, GateSettings):
    """A shutter behind an Arduino."""


class _Board(Box):
    """The board."""

    def __init__(self, settings: Outputs, mount: Mount) -> None:
        self._start_ms = settings.start_ms
        self._mask = sum(1 << pin - _FIRST_PIN for pin in settings.pins)
        self._dac: int | None = None
        self._interlock: int | None = None
        self.wire = Wire(mount.name, settings.port, settings.baud_rate, settings.timeout_ms, _WAKE)

    def use(self, dac: int | None, interlock_input: int | None) -> None:
        self._dac, self._interlock = dac, interlock_input
        self.steps = 4095 if dac is not None else 0

    def greet(self) -> None:
        with contextlib.suppress(DeviceTimeout):
            self.gate(False)
        if patiently(lambda: self._text(_NAME), self._start_ms) != "MM-Ard":
            raise self._error(f"{_name(_NAME)!r} was not answered by 'MM-Ard': it has another firmware")
        version = self._text(_VERSION)
        if not version.isdigit():
            raise self._error(f"{_name(_VERSION)!r} was answered by {version!r}, not by a number")
        self._ask(bytes([_END_STEPS]), bytes([_END_STEPS]), 1)
        self._ask(bytes([_END_GATING]), bytes([_END_GATING]))
        if self._dac is not None and int(version) >= _TELLS_LEVELS:
            found = self._ask(bytes([_LEVELS]), bytes([_LEVELS]), 1)[0]
            if found < self._dac:
                raise self._error(f"its firmware was built for {found} analogue outputs, asked for number {self._dac}")
        self.gate(False)

    def gate(self, high: bool) -> None:
        self._ask(bytes([_SET, self._mask if high else 0]), bytes([_SET]))

    def is_high(self) -> bool:
        return bool(self._ask(bytes([_READ]), bytes([_READ]), 1)[0] & _PINS & self._mask)

    def level(self, step: int) -> None:
        assert self._dac is not None  # noqa: S101 - or there would be no steps
        told = bytes([_LEVEL, self._dac - 1, *step.to_bytes(2, "big")])
        self._ask(told, told)

    def locked_out(self) -> bool:
        if self._interlock is None:
            return False
        return bool(self._ask(bytes([_INPUTS]), bytes([_INPUTS]), 1)[0] >> self._interlock & 1)

    def _ask(self, sent: bytes, begins: bytes, more: int = 0) -> bytes:
        """What comes behind the repeated command; so much and nothing else."""
        name = _name(*sent)

        def meant(reply: bytes) -> bytes | None:
            if reply[: len(begins)] != begins[: len(reply)] or len(reply) > len(begins) + more:
                raise self._error(f"{name!r} was answered by {reply[:20].hex(' ')}, not by {begins.hex(' ')}")
            return reply[len(begins) :] if len(reply) == len(begins) + more else None

        return self.wire.exchange(name, sent, meant)

    def _text(self, command: int) -> str:
        """A line of text."""
        name = _name(command)

        def meant(reply: bytes) -> str | None:
            line, end, rest = reply.partition(b"\r\n")
            if not line.isascii() or rest:
                raise self._error(f"{name!r} was answered by noise: {reply[:20].hex(' ')}")
            return line.decode() if end else None

        return self.wire.exchange(name, bytes([command]), meant)

    def _error(self, what: str) -> DeviceError:
        return DeviceError(self.wire.name, f"{self.wire.port}: {what}")


def _name(*sent: int) -> str:
    """What a command is called in an error: its bytes."""
    return f"command {' '.join(map(str, sent))}"


class Light(BoxLight):
    """Its pins high is on."""

    Settings = LightSettings

    def __init__(self, settings: LightSettings, mount: Mount) -> None:
        board = _Board(settings, mount)
        board.use(settings.dac, settings.interlock_input)
        super().__init__(settings, mount, board)


class Shutter(BoxShutter):
    """Its pins high is open."""

    Settings = ShutterSettings

    def __init__(self, settings: ShutterSettings, mount: Mount) -> None:
        super().__init__(settings, mount, _Board(settings, mount))
