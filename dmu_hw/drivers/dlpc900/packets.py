"""Commands as reports of 64 bytes, and replies: the frame round everything that is said on USB.

TI's programmer's guide DLPU018, section 1.2: a report begins with its ID, 0; the first one goes on with a byte of
flags, a sequence byte that the reply repeats, and the length of what follows, the command's number and its data; the
next reports have no more than data. Numbers have their lowest byte first. The controller's buffer has 512 bytes, for
reading and writing. That replies longer than a report go on in further reports without a head was not verified.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

REPORT_BYTES: Final = 64
"""Of a report without its ID."""
BUFFER_BYTES: Final = 512
"""Of the controller, for a command with its head."""
HEAD_BYTES: Final = 4
MOST_DATA_BYTES: Final = BUFFER_BYTES - HEAD_BYTES - 2
READ, REPLY, FAILED = 0x80, 0x40, 0x20
"""Flags: a question; an answer is wanted, also to what is no question; it was not understood or not obeyed."""


class Code(IntEnum):
    """Numbers of commands: DLPU018, appendix A, and the sections that describe them."""

    ERROR_CODE = 0x0100
    ERROR_TEXT = 0x0101
    VERSION = 0x0205
    HARDWARE = 0x0206
    HARDWARE_STATUS = 0x1A0A
    MAIN_STATUS = 0x1A0C
    MODE = 0x1A1B
    TRIGGER_OUT_1 = 0x1A1D
    TRIGGER_OUT_2 = 0x1A1E
    START_STOP = 0x1A24
    IMAGE_BEGIN = 0x1A2A
    IMAGE_DATA = 0x1A2B
    SECOND_IMAGE_BEGIN = 0x1A2C
    SECOND_IMAGE_DATA = 0x1A2D
    TABLE_SIZE = 0x1A31
    TABLE_ORDER = 0x1A32
    TABLE_ENTRY = 0x1A34
    TRIGGER_IN_1 = 0x1A35


@dataclass(frozen=True)
class Command:
    """One command, or one question."""

    code: Code
    data: bytes = b""
    reads: bool = False

    def __post_init__(self) -> None:
        if len(self.data) > MOST_DATA_BYTES:
            raise ValueError(f"a command has at most {MOST_DATA_BYTES} bytes of data, given {len(self.data)}")

    @property
    def flags(self) -> int:
        """An answer is always wanted: without one nobody knows whether it was obeyed."""
        return (READ if self.reads else 0) | REPLY

    def __str__(self) -> str:
        return f"{self.code.name.lower().replace('_', ' ')} ({self.code:04X})"


@dataclass(frozen=True)
class Head:
    """How a reply begins."""

    flags: int
    sequence: int
    length: int

    @property
    def failed(self) -> bool:
        return bool(self.flags & FAILED)

    def answers(self, command: Command, sequence: int) -> bool:
        """Whether it is the reply to this command and not to one before it, nor noise."""
        return self.sequence == sequence and self.flags & ~FAILED == command.flags and self.length <= BUFFER_BYTES


def reports_of(command: Command, sequence: int) -> list[bytes]:
    """What is written for a command, ID included; the last report is filled up with zeros."""
    body = command.code.to_bytes(2, "little") + command.data
    whole = bytes([command.flags, sequence]) + len(body).to_bytes(2, "little") + body
    return [
        b"\0" + whole[first : first + REPORT_BYTES].ljust(REPORT_BYTES, b"\0")
        for first in range(0, len(whole), REPORT_BYTES)
    ]


def report_count(command: Command) -> int:
    """Reports that go back and forth for a command with a short reply."""
    return -(-(HEAD_BYTES + 2 + len(command.data)) // REPORT_BYTES) + 1


def head_of(report: bytes) -> Head | None:
    """How the reply begins whose first report this is; None if it is too short for one."""
    if len(report) < HEAD_BYTES:
        return None
    return Head(report[0], report[1], int.from_bytes(report[2:4], "little"))
