"""Lines of text to and from a serial port: answered within a stated time, or an error that names port and command."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable
from functools import partial

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.lines.wire import Wire, patiently, shown

_ANY = re.compile(rb".*", re.DOTALL)


class Line(Wire):
    """One port on which commands and answers are lines."""

    def __init__(
        self, name: str, port: str, baud_rate: int, line_end: str, timeout_ms: float, wake: bytes = b""
    ) -> None:
        super().__init__(name, port, baud_rate, timeout_ms, wake)
        self.line_end = line_end.encode("ascii")

    def send(self, command: str) -> None:
        """For what is not answered."""
        self.put(command, command.encode("ascii") + self.line_end)

    def hail(self, command: str, last: str) -> None:
        """Like `lines`, for a device of which nobody knows yet how it answers: it may do so in other words, or not."""
        with contextlib.suppress(DeviceTimeout):
            self.lines(command, last)

    def ask(self, command: str) -> str:
        """The next line that comes after a command."""
        return self._said(command, _ANY)[0]

    def lines(self, command: str, last: str) -> tuple[str, ...]:
        """All lines that come after a command, the last of which is the first that this regular expression matches as
        a whole."""
        return self._said(command, re.compile(last.encode("ascii")))

    def first(self, command: str, last: str, within_ms: float) -> tuple[str, ...]:
        """Like `lines`, from a board that may only be starting."""
        return patiently(partial(self.lines, command, last), within_ms)

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

    def _said(self, command: str, last: re.Pattern[bytes]) -> tuple[str, ...]:
        """What comes up to a line that is like `last`."""

        def meant(reply: bytes) -> tuple[str, ...] | None:
            begins = 0
            while (ends := reply.find(self.line_end, begins)) >= 0:
                if last.fullmatch(reply[begins:ends].strip()):
                    return self._text(command, reply[:ends])
                begins = ends + len(self.line_end)
            return None

        return self.exchange(command, command.encode("ascii") + self.line_end, meant)

    def _text(self, command: str, raw: bytes) -> tuple[str, ...]:
        try:
            return tuple(line.decode("ascii").strip() for line in raw.split(self.line_end))
        except UnicodeDecodeError:
            what = f"{self.port}: {command!r} was answered by noise: {shown(raw)}"
            raise DeviceError(self.name, what) from None
