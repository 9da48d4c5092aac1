"""Bytes to and from a serial port: answered within a stated time, or an error that names port and command."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import serial

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.lines.identity import Identity, identity_of

_SLICE_S = 0.005
"""How long one look at the port may take."""
_QUIET_S = 0.02
"""After an exchange that failed, the line must be quiet for so long: what is still coming is no answer to the next."""
MOST_BYTES = 1000
"""More than that is no reply."""
_SHOWN_BYTES = 60
_Said = TypeVar("_Said")

if sys.platform == "win32":
    _LOST: tuple[type[Exception], ...] = (OSError,)
else:
    import termios

    _LOST = (OSError, termios.error)
"""What a port raises that is gone. pyserial's own errors are OSErrors."""


class Wire:
    """One port. Threads take turns, an exchange at a time."""

    def __init__(self, name: str, port: str, baud_rate: int, timeout_ms: float, wake: bytes = b"") -> None:
        """`wake` is sent after an exchange that failed: it ends a command of which the device has only a part."""
        self.name = name
        self.port = port
        self.baud_rate = baud_rate
        self.timeout_ms = timeout_ms
        self._wake = wake
        self._serial: serial.Serial | None = None
        self._identity: Identity | None = None
        """What it was when it was opened first, and not closed since."""
        self._turn = threading.Lock()
        self._doubtful = False

    @property
    def is_open(self) -> bool:
        return self._serial is not None

    def open(self) -> None:
        """Take the port for this process alone. Opened again without a `close`, it must be the same device still: who
        tries to put off a light whose cable was pulled must not do so to what has its name now."""
        self._let_go()
        found = identity_of(self.port)
        if None not in (found, self._identity) and found != self._identity:
            raise DeviceError(self.name, f"{self.port} is gone: another device has its name now")
        self._identity = self._identity or found
        self._doubtful = self._doubtful or bool(self._wake)  # nobody knows what the last program sent last
        try:
            self._serial = serial.Serial(
                self.port,
                self.baud_rate,
                timeout=_SLICE_S,
                write_timeout=self.timeout_ms / 1e3,
                exclusive=True,
            )
        except (*_LOST, ValueError) as error:
            raise DeviceError(self.name, f"{self.port} cannot be opened: {error}") from error

    def close(self) -> None:
        self._identity = None
        self._let_go()

    def _let_go(self) -> None:
        with self._turn:
            line, self._serial = self._serial, None
            if line is not None:
                try:
                    line.close()
                except _LOST as error:
                    raise DeviceError(self.name, f"{self.port} does not close: {error}") from error

    def exchange(self, command: str, sent: bytes, meant: Callable[[bytes], _Said | None]) -> _Said:
        """What comes back means, once it is whole: until then that is None, and where it is nonsense, an error.
        `command` is what people are told was sent."""
        with self._turn, _Told(self, command):
            line = self._ready(command)
            line.write(sent)
            raw, said = self._reply(line, meant)
            if said is None:
                raise self._unanswered(command, raw)
            self._doubtful = False
            return said

    def put(self, command: str, sent: bytes) -> None:
        """For what is not answered."""
        with self._turn, _Told(self, command):
            self._ready(command).write(sent)
            self._doubtful = False

    def _unanswered(self, command: str, raw: bytes) -> DeviceTimeout:
        got = f"only {shown(raw)} came" if raw else "nothing came"
        within = f"within {self.timeout_ms:g} ms" if len(raw) < MOST_BYTES else "without an end"
        return DeviceTimeout(self.name, f"{self.port}: {command!r} was not answered {within}: {got}")

    def _ready(self, command: str) -> serial.Serial:
        """Throw away what belongs to no command; from here on the line is in doubt until an exchange went well."""
        line = self._serial
        if line is None:
            raise DeviceError(self.name, f"{self.port} is not open, and {command!r} was to be sent")
        pause_s = _QUIET_S if self._doubtful else 0.0
        if self._doubtful and self._wake:
            line.write(self._wake)
        self._doubtful = True
        until_s = time.monotonic() + self.timeout_ms / 1e3
        quiet_s = time.monotonic() + pause_s
        while time.monotonic() < until_s and (line.in_waiting or time.monotonic() < quiet_s):
            if line.read(max(1, line.in_waiting)):
                quiet_s = time.monotonic() + pause_s
        return line

    def _reply(self, line: serial.Serial, meant: Callable[[bytes], _Said | None]) -> tuple[bytes, _Said | None]:
        """What comes until it is whole, or until it is too late or too much, and what it means. What is there already
        when it is too late came in time, to a computer that was busy."""
        deadline_s = time.monotonic() + self.timeout_ms / 1e3
        reply, late = b"", False
        while len(reply) < MOST_BYTES and not late:
            late = time.monotonic() >= deadline_s
            more = line.read(min(MOST_BYTES, max(line.in_waiting, 0 if late else 1)))
            reply += more
            if more and (said := meant(reply)) is not None:
                return reply, said
        return reply, None


class _Told:
    """What a port raises, told with its name and the command."""

    def __init__(self, wire: Wire, command: str) -> None:
        self._wire, self._command = wire, command

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        wire, what = self._wire, f"{self._wire.port}: {self._command!r} could not be sent: {error}"
        if isinstance(error, serial.SerialTimeoutException):
            raise DeviceTimeout(wire.name, what) from error
        if isinstance(error, _LOST):
            what = f"{wire.port} is gone: {self._command!r} failed: {error}"
            raise DeviceError(wire.name, what) from error


def patiently(ask: Callable[[], _Said], within_ms: float) -> _Said:
    """What a board answers that may only be starting: asked again until it does, or for so long."""
    until_s = time.monotonic() + within_ms / 1e3
    while True:
        try:
            return ask()
        except DeviceTimeout:
            if time.monotonic() >= until_s:
                raise


def shown(raw: bytes) -> str:
    """Short enough for a line."""
    return repr(raw[:_SHOWN_BYTES])[1:]
