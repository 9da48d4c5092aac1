"""A serial laser without hardware, behind a pseudo-terminal: `python -m dmu_hw.twins.laser --log laser.jsonl`.
With `--dialect obis`, `cobolt` or `ibeam` it obeys the words of one that can be bought, with `lightbox` those of our
own box, with `triggerscope` or `mmarduino` those of the boxes of others; its light then hangs on their first output.

It prints the name of its port, and writes each change of its light into the log with the time of `time.monotonic()`,
which on Linux is the same for all processes. What is to go wrong it is told on its standard input, a line each, and
repeats the line when it is so:

    refuse 3           the next three OFF are acknowledged and not obeyed
    garble 3           the next three replies are noise
    halve 3            of the next three replies half is sent, and no end of line
    silence 3          the next three commands are obeyed and not answered
    interlock open     or closed; open, the light goes off and does not go on
    fault on           or off; on, the light goes off and does not go on, and the laser says why
    switch NAME VALUE  what somebody has set on it before: of `obis` SYST:CDRH, of `cobolt` @cobas, …
    watchdog 250       off after so many milliseconds without a command, or `watchdog never`
    unplug             the port vanishes; the light stays as it is

It ends when its standard input does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dmu_hw.twins.boxes import BOXES
from dmu_hw.twins.dialects import LASERS, Dialect
from dmu_hw.twins.emitter import Emitter

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
DIALECTS: dict[str, Callable[[Emitter], Dialect]] = {**LASERS, **BOXES}
_HURRY = -15
_NOISE = b"\xff\x00\x1b?#\x80"


class Laser:
    """A light, the words that it obeys, and what goes wrong between the two."""

    def __init__(self, emitter: Emitter, dialect: Dialect) -> None:
        self.emitter = emitter
        self.wrong = dict.fromkeys(("garble", "halve", "silence"), 0)
        """How often each is still to happen."""
        self.unplugged = False
        self._dialect = dialect

    def split(self, heard: bytes) -> tuple[list[bytes], bytes]:
        """Whole commands, and what may become one."""
        return self._dialect.split(heard)

    def hear(self, command: bytes) -> bytes:
        """Obey one command; what goes back."""
        self.emitter.look()
        reply = self._dialect.reply(command.decode("latin-1")).encode("latin-1")
        if not reply.startswith(b"ERR"):  # noise is no sign of life
            self.emitter.hear()
        if self._goes_wrong("silence"):
            return b""
        if self._goes_wrong("garble"):
            return _NOISE + b"\r\n"
        return _half(reply) if self._goes_wrong("halve") else reply

    def suffer(self, what: str) -> None:
        """Be told what goes wrong."""
        name, _, value = what.strip().partition(" ")
        if name in self.wrong:
            self.wrong[name] = int(value)
        elif name == "refuse":
            self.emitter.refuses = int(value)
        elif name == "watchdog":
            self.emitter.watchdog_ms = None if value == "never" else float(value)
        elif name == "interlock":
            self.emitter.lock(value == "closed")
        elif name == "fault":
            self.emitter.fail(value == "on")
        elif name == "switch":
            switch, _, place = value.partition(" ")
            self._dialect.switches[switch] = place
        elif name == "unplug":
            self.unplugged = True
        else:
            sys.stderr.write(f"no such fault: {what!r}\n")

    def _goes_wrong(self, what: str) -> bool:
        due = self.wrong[what] > 0
        self.wrong[what] -= due
        return due


def _half(reply: bytes) -> bytes:
    """Of a line, something, and not its end."""
    return reply[: max(1, len(reply) // 2 - 1)] if reply.endswith(b"\r\n") else reply[: len(reply) // 2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Open the line and serve it until standard input ends."""
    parser = argparse.ArgumentParser(description="A serial laser without hardware.")
    parser.add_argument("--log", required=True, help="file that each change of the light is appended to")
    parser.add_argument("--dialect", choices=DIALECTS, default="generic", help="whose words it obeys")
    parser.add_argument("--watchdog-ms", type=float, help="off after so long without a command")
    given = parser.parse_args(arguments)
    if sys.platform == "win32":
        parser.error("there are no pseudo-terminals on Windows")
    with open(given.log, "a", encoding="utf-8", newline="\n") as log:
        emitter = Emitter(log, given.watchdog_ms)
        _serve(Laser(emitter, DIALECTS[given.dialect](emitter)))


def _serve(laser: Laser) -> None:
    import tty  # noqa: PLC0415 - not on Windows

    if hasattr(os, "nice"):
        with contextlib.suppress(OSError):  # hardware waits for no other program; few systems let everybody hurry
            os.nice(_HURRY)
    ours, theirs = os.openpty()  # theirs stays open here as well: the line outlives those who open it
    tty.setraw(theirs)
    sys.stdout.write(os.ttyname(theirs) + "\n")
    sys.stdout.flush()
    told, heard = b"", b""
    while True:
        lines = [0] if laser.unplugged else [0, ours]
        ready = select.select(lines, [], [], laser.emitter.patience_s())[0]
        laser.emitter.look()
        if ours in ready:
            heard += os.read(ours, 4096)
            commands, heard = laser.split(heard)
            for command in commands:
                os.write(ours, laser.hear(command))
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
