"""A serial laser without hardware, behind a pseudo-terminal: `python -m dmu_hw.twins.laser --log laser.jsonl`.

It prints the name of its port, and writes each change of its light into the log with the time of `time.monotonic()`,
which on Linux is the same for all processes. What is to go wrong it is told on its standard input, a line each, and
repeats the line when it is so:

    refuse 3           the next three OFF are acknowledged and not obeyed
    garble 3           the next three replies are noise
    halve 3            of the next three replies half is sent, and no end of line
    silence 3          the next three commands are obeyed and not answered
    interlock open     or closed; open, the light goes off and does not go on
    watchdog 250       off after so many milliseconds without a command, or `watchdog never`
    unplug             the port vanishes; the light stays as it is

It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import sys
import time
from collections.abc import Sequence
from typing import IO, Any

YAML: dict[str, Any] = {
    "driver": "generic",
    "line_end": "\r\n",
    "set_on": "SOUR:AM:STAT ON",
    "set_off": "SOUR:AM:STAT OFF",
    "set_power": "SOUR:POW:LEV {power_w:.6f}",
    "acknowledged_by": "OK",
    "state": {"ask": "SOUR:AM:STAT?", "lit": ["ON"], "dark": ["OFF"]},
    "interlock": {"ask": "SYST:LOCK?", "closed": ["CLOSED"], "open": ["OPEN"]},
}
"""How a rig YAML tells the driver `generic` to speak with it; `port` is missing, and what it has of a watchdog."""
_HURRY = -15
_NEVER_S = 3600.0
_NOISE = b"\xff\x00\x1b?#\x80"


class Laser:
    """What the laser is and does; knows nothing of lines and processes."""

    def __init__(self, log: IO[str], watchdog_ms: float | None = None) -> None:
        self.lit = False
        self.power_w = 0.0
        self.closed = True
        self.watchdog_ms = watchdog_ms
        self.wrong = dict.fromkeys(("refuse", "garble", "halve", "silence"), 0)
        """How often each is still to happen."""
        self.unplugged = False
        self._log = log
        self._heard_s = time.monotonic()

    def patience_s(self) -> float:
        """How long until the watchdog bites."""
        if not self.lit or self.watchdog_ms is None:
            return _NEVER_S
        return max(0.0, self._heard_s + self.watchdog_ms / 1e3 - time.monotonic())

    def look(self) -> None:
        """The watchdog's turn."""
        if self.patience_s() == 0:
            self._switch(False, "watchdog")

    def hear(self, command: str) -> bytes:
        """Obey one line; what goes back."""
        self.look()
        self._heard_s = time.monotonic()
        reply = self._obeyed(command).encode() + b"\r\n"
        if self._goes_wrong("silence"):
            return b""
        if self._goes_wrong("garble"):
            return _NOISE + b"\r\n"
        return reply[: len(reply) // 2 - 1] if self._goes_wrong("halve") else reply

    def suffer(self, what: str) -> None:
        """Be told what goes wrong."""
        name, _, value = what.strip().partition(" ")
        if name in self.wrong:
            self.wrong[name] = int(value)
        elif name == "watchdog":
            self.watchdog_ms = None if value == "never" else float(value)
        elif name == "interlock":
            self.closed = value == "closed"
            if not self.closed:
                self._switch(False, "interlock")
        elif name == "unplug":
            self.unplugged = True
        else:
            sys.stderr.write(f"no such fault: {what!r}\n")

    def _obeyed(self, command: str) -> str:
        name, _, value = command.partition(" ")
        if command == "SOUR:AM:STAT ON" and self.closed:
            self._switch(True, "command")
        elif command == "SOUR:AM:STAT OFF":
            if not self._goes_wrong("refuse"):
                self._switch(False, "command")
        elif command == "SOUR:AM:STAT?":
            return "ON" if self.lit else "OFF"
        elif command == "SYST:LOCK?":
            return "CLOSED" if self.closed else "OPEN"
        elif command == "*IDN?":
            return "dmu-hw, twin laser"
        elif name == "SOUR:POW:LEV" and value.replace(".", "", 1).isdigit():
            self.power_w = float(value)
        else:
            return "ERR"
        return "OK"

    def _goes_wrong(self, what: str) -> bool:
        due = self.wrong[what] > 0
        self.wrong[what] -= due
        return due

    def _switch(self, lit: bool, why: str) -> None:
        if lit != self.lit:
            self.lit = lit
            fact = {"time_s": time.monotonic(), "lit": lit, "why": why, "power_w": self.power_w}
            self._log.write(json.dumps(fact) + "\n")
            self._log.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Open the line and serve it until standard input ends."""
    parser = argparse.ArgumentParser(description="A serial laser without hardware.")
    parser.add_argument("--log", required=True, help="file that each change of the light is appended to")
    parser.add_argument("--watchdog-ms", type=float, help="off after so long without a command")
    given = parser.parse_args(arguments)
    if sys.platform == "win32":
        parser.error("there are no pseudo-terminals on Windows")
    with open(given.log, "a", encoding="utf-8") as log:
        _serve(Laser(log, given.watchdog_ms))


def _serve(laser: Laser) -> None:
    import tty  # noqa: PLC0415 - not on Windows

    with contextlib.suppress(OSError):  # hardware waits for no other program; few systems let everybody hurry
        os.nice(_HURRY)
    ours, theirs = os.openpty()  # theirs stays open here as well: the line outlives those who open it
    tty.setraw(theirs)
    sys.stdout.write(os.ttyname(theirs) + "\n")
    sys.stdout.flush()
    told, heard = b"", b""
    while True:
        lines = [0] if laser.unplugged else [0, ours]
        ready = select.select(lines, [], [], laser.patience_s())[0]
        laser.look()
        if ours in ready:
            heard += os.read(ours, 4096)
            *commands, heard = heard.split(b"\r\n")
            for command in commands:
                os.write(ours, laser.hear(command.decode("ascii", "replace")))
        if 0 in ready:
            more = os.read(0, 4096)
            if not more:
                return
            told += more
            *faults, told = told.split(b"\n")
            for fault in faults:
                laser.suffer(fault.decode())
                sys.stdout.write(fault.decode() + "\n")
                sys.stdout.flush()
            if laser.unplugged and lines != [0]:
                os.close(theirs)
                os.close(ours)


if __name__ == "__main__":
    main()
