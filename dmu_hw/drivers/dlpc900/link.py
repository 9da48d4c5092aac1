"""Commands to and replies from a HID device: answered within a stated time, or an error that names the command."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Protocol

from dmu_hw.drivers.dlpc900.commands import ERRORS, ask
from dmu_hw.drivers.dlpc900.packets import HEAD_BYTES, REPORT_BYTES, Code, Command, Head, head_of, reports_of
from dmu_hw.errors import DeviceError, DeviceTimeout

_SLICE_MS = 5
"""How long one look for a report may take. hidapi takes 0 for: for ever."""
_MOST_STALE = 64
"""Reports that belong to no command, thrown away before one."""
_GONE = (OSError, ValueError)
"""What hidapi raises of a device that is gone, or was closed."""


class Hid(Protocol):
    """What of hidapi's `hid.device` is used."""

    def write(self, report: bytes) -> int: ...

    def read(self, max_length: int, timeout_ms: int) -> Sequence[int]: ...

    def close(self) -> None: ...


class Link:
    """One controller. An exchange that failed leaves doubt, and the next one first clears the line."""

    def __init__(self, name: str, hid: Hid, timeout_ms: float) -> None:
        self.name = name
        self.timeout_ms = timeout_ms
        self._hid = hid
        self._sequence = 0
        self._doubtful = True

    def close(self) -> None:
        try:
            self._hid.close()
        except _GONE as error:
            raise DeviceError(self.name, f"USB does not close: {error}") from error

    def tell(self, *commands: Command) -> None:
        self.tell_all(commands)

    def tell_all(self, commands: Iterable[Command]) -> None:
        """One after the other, each acknowledged."""
        for command in commands:
            self.ask(command)

    def ask(self, command: Command) -> bytes:
        """The data of its reply; a DeviceError that says why if it was refused."""
        head, data = self._exchange(command)
        if head.failed:
            raise DeviceError(self.name, f"USB: {command} was refused: {self._why()}")
        return data

    def number(self, code: Code) -> int:
        """A question that is answered by one byte."""
        data = self.ask(ask(code))
        if not data:
            raise DeviceError(self.name, f"USB: {ask(code)} was answered by nothing")
        return data[0]

    def _why(self) -> str:
        """What the controller says of the command that it refused last."""
        head, data = self._exchange(ask(Code.ERROR_CODE))
        if head.failed or not data:
            return "it does not say why"
        head, text = self._exchange(ask(Code.ERROR_TEXT))
        told = "" if head.failed else text.partition(b"\0")[0].decode("ascii", "replace").strip()
        meant = ERRORS.get(data[0], "an error that the guide does not know")
        return f"{data[0]}, {meant}{f' ({told!r})' if told else ''}"

    def _exchange(self, command: Command) -> tuple[Head, bytes]:
        self._sequence = (self._sequence + 1) % 256
        try:
            self._clear()
            for report in reports_of(command, self._sequence):
                if self._hid.write(report) < len(report):
                    raise DeviceError(self.name, f"USB: {command} could not be sent")
            head, data = self._reply(command)
        except _GONE as error:
            raise DeviceError(self.name, f"USB is gone: {command} failed: {error}") from error
        self._doubtful = False
        return head, data

    def _clear(self) -> None:
        """Throw away what belongs to no command; from here on the line is in doubt until an exchange went well."""
        was_doubtful, self._doubtful = self._doubtful, True
        for _ in range(_MOST_STALE if was_doubtful else 0):
            if not self._hid.read(REPORT_BYTES, _SLICE_MS):
                return

    def _reply(self, command: Command) -> tuple[Head, bytes]:
        """The reply to this command, whatever comes before it."""
        deadline_s = time.monotonic() + self.timeout_ms / 1e3
        other = 0
        while (report := self._report(deadline_s)) is not None:
            head = head_of(report)
            if head is None or not head.answers(command, self._sequence):
                other += 1
                continue
            data = report[HEAD_BYTES:]
            while len(data) < head.length and (more := self._report(deadline_s)) is not None:
                data += more
            if len(data) < head.length:
                break
            return head, data[: head.length]
        heard = f"{other} other reports came" if other else "nothing came"
        raise DeviceTimeout(self.name, f"USB: {command} was not answered within {self.timeout_ms:g} ms: {heard}")

    def _report(self, deadline_s: float) -> bytes | None:
        """The next one; None when it is too late."""
        while (left_s := deadline_s - time.monotonic()) > 0:
            report = self._hid.read(REPORT_BYTES, max(1, min(_SLICE_MS, int(left_s * 1e3))))
            if report:
                return bytes(report)
        return None
