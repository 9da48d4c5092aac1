"""The words that twins of lasers obey and answer by: one class a manual. What is not known of a laser is said in its
driver; the twins answer as the drivers believe."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from dmu_hw.twins.emitter import Emitter


class Dialect(Protocol):
    """What one laser makes of a line."""

    switches: dict[str, str]
    """What people may have set on it before."""

    def split(self, heard: bytes) -> tuple[list[bytes], bytes]:
        """Whole commands, and what may become one."""

    def reply(self, command: str) -> str:
        """All that goes back, with the ends of its lines."""


class Lines:
    """Commands are lines."""

    end = b"\r\n"

    def split(self, heard: bytes) -> tuple[list[bytes], bytes]:
        *commands, rest = heard.split(self.end)
        return commands, rest


def _number(text: str) -> float | None:
    return float(text) if text.replace(".", "", 1).isdigit() else None


class Generic(Lines):
    """A laser whose words are made up: those of no manual."""

    def __init__(self, emitter: Emitter) -> None:
        self.switches: dict[str, str] = {}
        self._emitter = emitter

    def reply(self, command: str) -> str:
        return f"{self._obeyed(command)}\r\n"

    def _obeyed(self, command: str) -> str:
        emitter = self._emitter
        name, _, value = command.partition(" ")
        if command == "SOUR:AM:STAT ON":
            emitter.on()
        elif command == "SOUR:AM:STAT OFF":
            emitter.off()
        elif command == "SOUR:AM:STAT?":
            return "ON" if emitter.lit else "OFF"
        elif command == "SYST:LOCK?":
            return "CLOSED" if emitter.closed else "OPEN"
        elif command == "*IDN?":
            return "dmu-hw, twin laser"
        elif name == "SOUR:POW:LEV" and (power_w := _number(value)) is not None:
            emitter.power_w = power_w
        else:
            return "ERR"
        return "OK"


class Obis(Lines):
    """Coherent's. Until its handshake is on, commands are not answered, and questions not followed by OK."""

    _LOWEST_W, _HIGHEST_W = 0.001, 0.1
    _REMOTE, _READY, _STANDBY, _INTERLOCK, _FAULT = 0xC800_0000, 0x1002, 0x0008, 0x0400_0000, 0x1001
    _TOO_HOT = 0x2

    def __init__(self, emitter: Emitter) -> None:
        self.switches = {"SYST:COMM:HAND": "OFF", "SYST:CDRH": "OFF", "SOUR:AM:SOUR": "DIGITAL"}
        self._emitter = emitter
        self._questions: dict[str, Callable[[], str]] = {
            "SOUR:AM:STAT?": lambda: "ON" if emitter.lit else "OFF",
            "SOUR:POW:LEV:IMM:AMPL?": lambda: f"{emitter.power_w:.5f}",
            "SOUR:POW:LIM:LOW?": lambda: f"{self._LOWEST_W:.5f}",
            "SOUR:POW:LIM:HIGH?": lambda: f"{self._HIGHEST_W:.5f}",
            "SYST:STAT?": lambda: f"{self._status():08X}",
            "SYST:FAUL?": lambda: f"{self._TOO_HOT * emitter.broken:08X}",
        }

    def reply(self, command: str) -> str:
        switch = command.removesuffix("?")
        if command in self._questions:
            said = self._questions[command]() + "\r\n"
        elif command.endswith("?") and switch in self.switches:
            said = self.switches[switch] + "\r\n"
        elif not self._obeyed(command):
            return "ERR-100\r\n"
        else:
            said = ""
        return said + "OK\r\n" if self.switches["SYST:COMM:HAND"] == "ON" else said

    def _obeyed(self, command: str) -> bool:
        name, _, value = command.partition(" ")
        if command == "SOUR:AM:STAT ON":
            self._emitter.on()
        elif command == "SOUR:AM:STAT OFF":
            self._emitter.off()
        elif command == "SOUR:AM:INT CWP":
            self.switches["SOUR:AM:SOUR"] = "CWP"
        elif name in ("SYST:COMM:HAND", "SYST:CDRH") and value in ("ON", "OFF"):
            self.switches[name] = value
        elif name == "SOUR:POW:LEV:IMM:AMPL" and self._LOWEST_W <= (_number(value) or 0.0) <= self._HIGHEST_W:
            self._emitter.power_w = _number(value) or 0.0
        else:
            return False
        return True

    def _status(self) -> int:
        emitter = self._emitter
        if not emitter.closed:
            return self._REMOTE | self._INTERLOCK | self._STANDBY
        if emitter.broken:
            return self._REMOTE | self._FAULT
        return self._REMOTE | (self._READY if emitter.lit else self._STANDBY)


class Cobolt(Lines):
    """Hübner's. The fault that an open interlock is stays until it is cleared."""

    _HIGHEST_W: Final = 0.1

    def __init__(self, emitter: Emitter) -> None:
        self.switches = {"@cobas": "0"}
        self._emitter = emitter
        self._was_open = False
        self._questions: dict[str, Callable[[], str]] = {
            "l?": lambda: f"{emitter.lit:d}",
            "p?": lambda: f"{emitter.power_w:.4f}",
            "ilk?": lambda: f"{not emitter.closed:d}",
            "f?": lambda: "3" if self._was_open else f"{emitter.broken:d}",
            "@cobas?": lambda: self.switches["@cobas"],
        }

    def reply(self, command: str) -> str:
        self._was_open |= not self._emitter.closed
        return f"{self._questions[command]() if command in self._questions else self._obeyed(command)}\r\n"

    def _obeyed(self, command: str) -> str:
        name, _, value = command.partition(" ")
        if command == "l1":
            if self.switches["@cobas"] == "1":
                return "Syntax error: not allowed in autostart mode."
            if not self._was_open:
                self._emitter.on()
        elif command == "l0":
            self._emitter.off()
        elif command == "cf":
            self._was_open = not self._emitter.closed
        elif name == "p" and (power_w := _number(value)) is not None:
            if power_w > self._HIGHEST_W:
                return "Syntax error: Value is out of range."
            self._emitter.power_w = power_w
        elif command != "cp":
            return "Syntax error: illegal command"
        return "OK"


class Ibeam(Lines):
    """Toptica's. As it is switched on it echoes, and ends its answers with a prompt."""

    _HIGHEST_UW = 100_000.0

    def __init__(self, emitter: Emitter) -> None:
        self.switches = {"echo": "on", "prom": "on", "talk": "usual"}
        self._emitter = emitter
        self._levels_uw = [1000.0, 0.0]
        self._enabled = [True, True]

    def reply(self, command: str) -> str:
        echo = f"{command}\r\n" if self.switches["echo"] == "on" else ""
        said = self._obeyed(command)
        end = "CMD> " if self.switches["prom"] == "on" else "[OK]\r\n"
        return f"{echo}\r\n{said}{end}"

    def _obeyed(self, command: str) -> str:
        match command.split():
            case ["la", "on"]:
                if not self._emitter.on():
                    return "%SYS-E-030, laser locked\r\n"
            case ["la", "off"]:
                self._emitter.off()
            case ["sta", "la"]:
                return "ON\r\n" if self._emitter.lit else "OFF\r\n"
            case ["sh", "level", "pow"]:
                return "".join(f"CH{i}, PWR: {uw / 1e3:.3f} mW\r\n" for i, uw in enumerate(self._levels_uw, 1))
            case [("echo" | "prom" | "talk") as name, value]:
                self.switches[name] = value
            case [("en" | "di") as what, ("1" | "2") as channel]:
                self._enabled[int(channel) - 1] = what == "en"
            case ["ch", ("1" | "2") as channel, "pow", level, "mic"] if (_number(level) or 0.0) <= self._HIGHEST_UW:
                self._levels_uw[int(channel) - 1] = _number(level) or 0.0
            case _:
                return "%SYS-E-025, parameter error\r\n"
        self._emitter.power_w = sum(uw for uw, on in zip(self._levels_uw, self._enabled, strict=True) if on) / 1e6
        return ""


class Lightbox(Lines):
    """Our own box, as devices/firmware has it: a quarter of a second without a command, and it is off."""

    _SILENCE_MS, _LONGEST_MS, _FULL, _FULL_W = 250.0, 60_000, 1000, 0.01

    def __init__(self, emitter: Emitter) -> None:
        self.switches: dict[str, str] = {}
        self._emitter = emitter
        self._power = 0
        emitter.watchdog_ms = self._SILENCE_MS

    def reply(self, command: str) -> str:
        return f"{self._obeyed(command)}\r\n"

    def _obeyed(self, command: str) -> str:
        emitter = self._emitter
        told = re.fullmatch("(ON|POWER) ([0-9]{1,5})", command)
        if told is not None:
            return self._set(told[1], int(told[2]))
        if command == "OFF":
            emitter.off()
        said = {
            "OFF": "OK",
            "BEAT": "OK",
            "POWER?": str(self._power),
            "LIT?": f"{emitter.lit:d}",
            "LOCK?": f"{emitter.closed:d}",
            "ID?": "dmu-hw lightbox 1",
        }
        return said.get(command, "ERR")

    def _set(self, what: str, value: int) -> str:
        if value > (self._LONGEST_MS if what == "ON" else self._FULL):
            return "ERR"
        if what == "ON":
            return "OK" if self._emitter.on(value / 1e3) else "OPEN"
        self._power, self._emitter.power_w = value, value / self._FULL * self._FULL_W
        return "OK"


LASERS: Final[dict[str, Callable[[Emitter], Dialect]]] = {
    "generic": Generic,
    "obis": Obis,
    "cobolt": Cobolt,
    "ibeam": Ibeam,
    "lightbox": Lightbox,
}
