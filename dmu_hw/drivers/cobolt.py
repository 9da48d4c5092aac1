"""Lasers Cobolt 06-01 (MLD, DPL) of Hübner Photonics, by their text commands.

Commands and their answers are those of the manual of the 06-01 series, "Serial communication", table of commands. The
manual itself could not be read for this; what stands here is what programs agree on that were written by it and are
used on instruments: pyLabLib (tried on a 06-01 by USB), python-microscope, Micro-Manager's adapter. A command is
answered by OK or by "Syntax error: …". Not verified: that `l?` is 0 at once when a fault ends the light, and that every
model knows `@cobas?`; one that does not is taken to have no autostart. No watchdog is documented: the laser stays on
when its computer dies. Lasers of class 3B and 4 with a key (CDRH) start by the key alone and refuse `l1`.
"""

from __future__ import annotations

import math

from dmu_hw.lines import LineLight, Source

_FAULTS = {"1": "temperature", "3": "its interlock was opened", "4": "constant power is not reached"}


class Light(LineLight):
    """In constant power."""

    Settings = Source

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the guardian counts the time
        self._line.tell("l1", "OK")

    def off(self) -> None:
        self._line.tell("l0", "OK")

    def is_on(self) -> bool:
        return self._is("l?")

    def interlock_closed(self) -> bool:
        """A fault that an interlock left behind is cleared by a person, not by this program."""
        if self._is("ilk?"):
            return False
        fault = self._line.ask("f?")
        if fault not in ("0", *_FAULTS):
            raise self._line.odd("f?", fault, ("0", *_FAULTS))
        if fault != "0":
            raise self._error(f"is in a fault state: {_FAULTS[fault]}")
        return True

    def _greet(self) -> None:
        self.off()
        if self._line.ask("@cobas?") == "1":
            raise self._error("its autostart is on, and only its key lights it (@cobas 0 leaves that to this program)")
        self._line.tell("cp", "OK")
        self._tell_power(0.0)

    def _tell_power(self, own_mw: float) -> None:
        self._line.tell(f"p {own_mw / 1e3:.5f}", "OK")
        self._check_power(own_mw, 1e3 * self._line.number("p?", self._line.ask("p?")))

    def _is(self, question: str) -> bool:
        return self._meant(question, self._line.ask(question), ("1",), ("0",))
