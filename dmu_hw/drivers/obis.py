"""Lasers OBIS LX and LS of Coherent, by their text commands (SCPI).

Commands and their answers are those of the "OBIS LX/LS Operator's Manual", part 3, "Interface Commands". The manual
itself could not be read for this; what stands here is what programs agree on that were written by it and are used on
instruments: python-microscope (`SYST:COMM:HAND`, `SOUR:AM:STAT`, `SOUR:POW:LEV:IMM:AMPL`, `SOUR:POW:LIM`; a reply is
followed by a line OK), the drivers of the Allen Institute (status words of an instrument, `SYST:CDRH`), the emulator of
ISIS for the OBIS Remote (bits of status and faults). Not verified: that the bit of emission follows an OFF at once,
that the interlock is told without an OBIS Remote, what exactly the lowest power is. No watchdog is documented: the
laser stays on when its computer dies.
"""

from __future__ import annotations

import math

from dmu_hw.lines import LineLight, Source

_STATE, _POWER = "SOUR:AM:STAT", "SOUR:POW:LEV:IMM:AMPL"
_END = "OK|ERR.*"
"""The last line of an answer."""
_FAULT, _EMITS, _BROKEN, _INTERLOCK, _CONTROLLER = 0x1, 0x2, 0x20, 0x400_0000, 0x2000_0000
"""Bits of the status: the last two are of the remote or controller that the laser hangs on."""
_FAULTS = {
    0: "temperature of the base plate",
    1: "temperature of the diode",
    2: "internal temperature",
    3: "power supply",
    4: "I2C",
    5: "current too high",
    6: "checksum",
    7: "checksum recovery",
    8: "buffer overflow",
    9: "warm-up",
    10: "TEC driver",
    11: "CCB",
    12: "limit of the diode's temperature",
    13: "not ready",
    14: "photodiode",
    15: "fatal",
    16: "start-up",
    17: "watchdog reset",
    18: "field calibration",
    20: "power too high",
    30: "checksum of the controller",
    31: "status of the controller",
}
"""Bits of SYST:FAUL?."""


class Light(LineLight):
    """In constant power, by its own control: what gates it from outside is switched off."""

    Settings = Source

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the guardian counts the time
        self._tell(f"{_STATE} ON")

    def off(self) -> None:
        self._tell(f"{_STATE} OFF")

    def is_on(self) -> bool:
        """Told to be on, or giving light, whatever it was told."""
        told = self._is(_STATE)
        return bool(self._status() & _EMITS) or told

    def interlock_closed(self) -> bool:
        status = self._status()
        if status & _INTERLOCK:
            return False
        if status & (_FAULT | _BROKEN | _CONTROLLER):
            raise self._error(f"is in a fault state: {self._fault()}")
        return True

    def _greet(self) -> None:
        """A laser that waits with its light until long after ON would leave frames in the dark."""
        for command in (f"{_STATE} OFF", "SYST:COMM:HAND ON"):
            self._line.hail(command, _END)  # from then on each command is answered by OK
        self.off()
        if self._is("SYST:CDRH"):
            raise self._error("gives light only 5 s after ON: its CDRH delay is on (SYST:CDRH OFF ends it)")
        self._tell("SOUR:AM:INT CWP")
        highest_mw = 1e3 * self._number("SOUR:POW:LIM:HIGH?")
        if self.most_mw > highest_mw:
            raise self._error(f"gives {highest_mw:g} mW; max_power_mw and transmission ask for {self.most_mw:g} mW")
        self._tell_power(1e3 * self._number("SOUR:POW:LIM:LOW?"))

    def _tell_power(self, own_mw: float) -> None:
        """What is lower than the laser can give it refuses, and this is an error: more light than asked for is none."""
        self._tell(f"{_POWER} {own_mw / 1e3:.6f}")
        self._check_power(own_mw, 1e3 * self._number(f"{_POWER}?"))

    def _status(self) -> int:
        return self._word("SYST:STAT?")

    def _fault(self) -> str:
        faults = self._word("SYST:FAUL?")
        return ", ".join(what for bit, what in _FAULTS.items() if faults >> bit & 1) or f"{faults:08X}"

    def _is(self, what: str) -> bool:
        return self._meant(f"{what}?", self._asked(f"{what}?"), ("ON",), ("OFF",))

    def _number(self, command: str) -> float:
        return self._line.number(command, self._asked(command))

    def _word(self, command: str) -> int:
        """Eight hexadecimal digits."""
        reply = self._asked(command)
        if len(reply) != 8 or set(reply) - set("0123456789ABCDEFabcdef"):
            raise self._line.odd(command, reply, ("eight hexadecimal digits",))
        return int(reply, 16)

    def _asked(self, command: str) -> str:
        """What stands before the line OK."""
        lines = self._line.lines(command, _END)
        if len(lines) != 2 or lines[1] != "OK":
            raise self._line.odd(command, "\n".join(lines), ("an answer", "OK"))
        return lines[0]

    def _tell(self, command: str) -> None:
        self._line.tell(command, "OK")
