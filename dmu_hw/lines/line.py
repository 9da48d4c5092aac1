"""Lines of text to and from a serial port: answered within a stated time, or an error that names port and command."""

from __future__ import annotations

import contextlib
import math
import re
import sys
import threading
import time
from collections.abc import Iterable

import serial

from dmu_hw.errors import DeviceError, DeviceTimeout

_SLICE_S = 0.005
"""How long one look at the port may take."""
_QUIET_S = 0.02
"""After an exchange that failed, the line must be quiet for so long: what is still coming is no answer to the next."""
_MOST_BYTES = 1000
"""More than that is no reply."""
_SHOWN_BYTES = 60
_ANY = re.compile(rb".*", re.DOTALL)

if sys.platform == "win32":
    _LOST: tuple[type[Exception], ...] = (OSError,)
else:
    import termios

    _LOST = (OSError, termios.error)
"""What a port raises that is gone. pyserial's own errors are OSErrors."""


class Line:
    """One port. Threads take turns, an exchange at a time."""

    def __init__(self, name: str, port: str, baud_rate: int, line_end: str, timeout_ms: float) -> None:
        self.name = name
        self.port = port
        self.baud_rate = baud_rate
        self.line_end = line_end.encode("ascii")
        self.timeout_ms = timeout_ms
        self._serial: serial.Serial | None = None
        self._turn = threading.Lock()
        self._doubtful = False

    @property
    def is_open(self) -> bool:
        return self._serial is not None

    def open(self) -> None:
        """Take the port for this process alone."""
        self.close()
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
        with self._turn:
            line, self._serial = self._serial, None
            if line is not None:
                try:
                    line.close()
                except _LOST as error:
                    raise DeviceError(self.name, f"{self.port} does not close: {error}") from error

    def send(self, command: str) -> None:
        """For what is not answered."""
        with self._turn:
            self._exchange(command, None)

    def hail(self, command: str, last: str) -> None:
        """Like `lines`, for a device of which nobody knows yet how it answers: it may do so in other words, or not."""
        with contextlib.suppress(DeviceTimeout):
            self.lines(command, last)

    def ask(self, command: str) -> str:
        """The next line that comes after a command."""
        with self._turn:
            return self._exchange(command, _ANY)[0]

    def lines(self, command: str, last: str) -> tuple[str, ...]:
        """All lines that come after a command, the last of which is the first that this regular expression matches as
        a whole."""
        with self._turn:
            return self._exchange(command, re.compile(last.encode("ascii")))

    def number(self, command: str, reply: str) -> float:
        """What a reply says, if it is a number."""
        try:
            found = float(reply)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise self.odd(command, reply, ("a number",))
        return found

    def tell(self, command: str, acknowledged_by: str | None) -> None:
        """A command that is no question; the reply, where there is one, must be that."""
        if acknowledged_by is None:
            self.send(command)
            return
        reply = self.ask(command)
        if reply != acknowledged_by:
            raise self.odd(command, reply, (acknowledged_by,))

    def odd(self, command: str, reply: str, wanted: Iterable[str]) -> DeviceError:
        """A reply that nobody has told of."""
        allowed = " or ".join(map(repr, wanted))
        return DeviceError(self.name, f"{self.port}: {command!r} was answered by {reply!r}, not {allowed}")

    def _exchange(self, command: str, last: re.Pattern[bytes] | None) -> tuple[str, ...]:
        """What comes up to a line that is like `last`; None: nothing is awaited."""
        if self._serial is None:
            raise DeviceError(self.name, f"{self.port} is not open, and {command!r} was to be sent")
        try:
            self._drain(self._serial)
            self._serial.write(command.encode("ascii") + self.line_end)
            raw, found = (b"", True) if last is None else self._reply(self._serial, last)
        except serial.SerialTimeoutException as error:
            raise DeviceTimeout(self.name, f"{self.port}: {command!r} could not be sent: {error}") from error
        except _LOST as error:
            raise DeviceError(self.name, f"{self.port} is gone: {command!r} failed: {error}") from error
        if not found:
            got = f"only {_shown(raw)} came" if raw else "nothing came"
            within = f"within {self.timeout_ms:g} ms" if len(raw) < _MOST_BYTES else "without an end"
            raise DeviceTimeout(self.name, f"{self.port}: {command!r} was not answered {within}: {got}")
        try:
            said = tuple(line.decode("ascii").strip() for line in raw.split(self.line_end))
        except UnicodeDecodeError:
            raise DeviceError(self.name, f"{self.port}: {command!r} was answered by noise: {_shown(raw)}") from None
        self._doubtful = False
        return said

    def _drain(self, line: serial.Serial) -> None:
        """Throw away what belongs to no command; from here on the line is in doubt until an exchange went well."""
        pause_s = _QUIET_S if self._doubtful else 0.0
        self._doubtful = True
        until_s = time.monotonic() + self.timeout_ms / 1e3
        quiet_s = time.monotonic() + pause_s
        while time.monotonic() < until_s and (line.in_waiting or time.monotonic() < quiet_s):
            if line.read(max(1, line.in_waiting)):
                quiet_s = time.monotonic() + pause_s

    def _reply(self, line: serial.Serial, last: re.Pattern[bytes]) -> tuple[bytes, bool]:
        """What comes until the end of the last line, or until it is too late or too much, and which of the two."""
        deadline_s = time.monotonic() + self.timeout_ms / 1e3
        reply, begins = b"", 0
        while len(reply) < _MOST_BYTES and time.monotonic() < deadline_s:
            reply += line.read(1 if not line.in_waiting else min(line.in_waiting, _MOST_BYTES))
            while (ends := reply.find(self.line_end, begins)) >= 0:
                if last.fullmatch(reply[begins:ends].strip()):
                    return reply[:ends], True
                begins = ends + len(self.line_end)
        return reply, False


def _shown(raw: bytes) -> str:
    return repr(raw[:_SHOWN_BYTES])[1:]
