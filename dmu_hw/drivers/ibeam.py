"""Lasers iBeam smart of Toptica, by their text commands.

Commands and their answers are those of the "iBeam smart" manual, chapter on the command line. The manual itself could
not be read for this; what stands here is what programs agree on that were written by it and are used on instruments:
python-microscope (form of answers and errors, channels), pymeasure, Micro-Manager's adapter (`sh level pow`). Not
verified: the words of an interlock. None of them asks for it, so that it is not known before ON, which a laser with an
open interlock then refuses, or does not keep. No watchdog is documented: the laser stays on when its computer dies.

An answer is an empty line, lines of text, and [OK]; lines that begin with %SYS- are errors unless an I follows.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from dmu_hw.lines import LineLight, Source
from dmu_hw.ports import Mount

_LEVEL = "sh level pow"
_END = r"\[OK\]"
"""The last line of an answer."""


class IbeamSettings(Source):
    """An iBeam smart."""

    channel: Literal[1, 2] = 2
    """The level that is used; the other one, which would add to it, is switched off. 1 is the bias in most uses."""


class Light(LineLight):
    """One level, in constant power; what was set of FINE, SKILL and gates from outside stays as it is."""

    Settings = IbeamSettings

    def __init__(self, settings: IbeamSettings, mount: Mount) -> None:
        super().__init__(settings, mount)
        self._channel = settings.channel

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the guardian counts the time
        self._tell("la on")

    def off(self) -> None:
        self._tell("la off")

    def is_on(self) -> bool:
        lines = self._said("sta la")
        return self._meant("sta la", "\n".join(lines), ("ON",), ("OFF",))

    def interlock_closed(self) -> bool:
        """No command is known that asks for it."""
        return True

    def _greet(self) -> None:
        for command in ("la off", "echo off", "prom off", "talk usual"):
            self._line.hail(command, _END)  # until then it may echo, and end its answers with a prompt instead of [OK]
        self.off()
        self._tell(f"di {3 - self._channel}")
        self._tell_power(0.0)
        self._tell(f"en {self._channel}")

    def _tell_power(self, own_mw: float) -> None:
        self._tell(f"ch {self._channel} pow {1e3 * own_mw:.0f} mic")
        lines = self._said(_LEVEL)
        level = re.search(rf"^CH{self._channel}, PWR: *([0-9.]+) mW", "\n".join(lines), re.MULTILINE)
        if level is None:
            raise self._line.odd(_LEVEL, "\n".join(lines), (f"CH{self._channel}, PWR: … mW",))
        self._check_power(own_mw, self._line.number(_LEVEL, level[1]))

    def _tell(self, command: str) -> None:
        """It says nothing but [OK]."""
        lines = self._said(command)
        if lines:
            raise self._line.odd(command, "\n".join(lines), ("[OK]",))

    def _said(self, command: str) -> list[str]:
        """The lines before [OK], without empty ones."""
        lines = [line for line in self._line.lines(command, _END)[:-1] if line]
        errors = [line for line in lines if re.match("%SYS-[^I]", line)]
        if errors:
            raise self._error(f"{command!r} was refused: {'; '.join(errors)}")
        return lines
