"""Boxes on a serial port whose digital outputs gate a light, or hold a shutter, and whose analogue outputs set a power.

None of those that others have written needs a sign of life: what they have let go on stays on when their computer dies.
"""

from __future__ import annotations

import abc
import math
import time

from pydantic import AfterValidator

from dmu_hw.errors import DeviceError
from dmu_hw.files import NonNegative
from dmu_hw.lines.light import SerialLight
from dmu_hw.lines.settings import Port, Source
from dmu_hw.lines.wire import Wire
from dmu_hw.ports import Mount


def _to_outputs(outputs: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(outputs)) < len(outputs):
        raise ValueError("names an output twice")
    return outputs


Distinct = AfterValidator(_to_outputs)


class BoxPort(Port):
    """A box; it has the port for itself."""

    start_ms: NonNegative = 3000.0
    """Opening the port restarts many boards: so long is waited for a first answer."""


class GatedSource(BoxPort, Source):
    """A light behind a box; without an analogue output it has one power, `max_power_mw`."""

    settle_ms: NonNegative = 10.0
    """After another power, until the analogue input of the light has it."""


class GateSettings(BoxPort):
    """A shutter behind a box."""

    switch_ms: NonNegative = 30.0
    """Until it stands open, or closed: the box tells what it was told, not how the shutter stands."""


class Box(abc.ABC):
    """The outputs of a box that are used here: those that gate go together, all others stay low."""

    wire: Wire
    steps: int = 0
    """Of the analogue output from nothing to all; 0: there is none."""

    @abc.abstractmethod
    def greet(self) -> None:
        """The gate low before anything else; then is it the right box, and all that others left in it ended."""

    @abc.abstractmethod
    def gate(self, high: bool) -> None: ...

    @abc.abstractmethod
    def is_high(self) -> bool:
        """Read back; true if any output of the gate is."""

    @abc.abstractmethod
    def level(self, step: int) -> None:
        """Of the analogue output."""

    def locked_out(self) -> bool:
        """Whether an input that an interlock is wired to says that it is open."""
        return False


class BoxLight(SerialLight):
    """A light that a box gates."""

    def __init__(self, settings: GatedSource, mount: Mount, box: Box) -> None:
        super().__init__(settings, mount, box.wire)
        self._box = box
        self._settle_s = settings.settle_ms / 1e3
        self._dim = True
        """Nothing, or not all that it has, is wanted of it."""

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the guardian counts the time
        if not self._box.steps and self._dim:
            raise self._error("has no analogue output and would give all its power, and it is set to none")
        self._box.gate(True)

    def off(self) -> None:
        self._box.gate(False)

    def is_on(self) -> bool:
        return self._box.is_high()

    def interlock_closed(self) -> bool:
        """Where none is wired to the box, it is taken for closed."""
        return not self._box.locked_out()

    def _greet(self) -> None:
        self._box.greet()
        self._tell_power(0.0)

    def _tell_power(self, own_mw: float) -> None:
        part = own_mw / self.most_mw
        if self._box.steps:
            self._box.level(round(part * self._box.steps))
            time.sleep(self._settle_s)
        elif 0 < part < 1:
            what = f"has no analogue output, and gives {self.max_power_mw:g} mW or none"
            raise self._error(f"{what}, not {part * self.max_power_mw:g} mW")
        self._dim = part < 1


class BoxShutter:
    """A shutter that a box holds open. Whether it stands so nobody reads back: what is read is the output."""

    def __init__(self, settings: GateSettings, mount: Mount, box: Box) -> None:
        self.name = mount.name
        self.port = settings.port
        self.switch_ms = settings.switch_ms
        self._box = box

    def open(self) -> None:
        """Connect, and close it: whoever was here before may have left it open."""
        self._box.wire.open()
        self._box.greet()
        self.set_open(False)

    def close(self) -> None:
        """Closed if it can still be told; the port is let go in any case."""
        if not self._box.wire.is_open:
            return
        try:
            self.set_open(False)
        finally:
            self._box.wire.close()

    def set_open(self, wanted: bool) -> None:
        self._box.gate(wanted)
        if self._box.is_high() is not wanted:
            state = "open" if wanted else "closed"
            raise DeviceError(self.name, f"{self.port}: was told to be {state}, and its output says that it is not")
        time.sleep(self.switch_ms / 1e3)

    def is_open(self) -> bool:
        return self._box.is_high()

    def block_light(self) -> None:
        self.set_open(False)
