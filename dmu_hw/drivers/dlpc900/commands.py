"""What the DLPC900 can be told and asked, byte by byte: TI's programmer's guide DLPU018 (revisions I and J).

The head of an image is that of section 2.4.2, the commands of a pattern sequence are those of 2.4.4, the trigger lines
those beside them, the status that of 2.1. Not verified from the guide: the bits of the main status, the layout of the
version, and that TRIG_OUT_2 takes the same five bytes as TRIG_OUT_1; these are what programs on instruments use.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from dmu_hw.drivers.dlpc900.packets import MOST_DATA_BYTES, Code, Command

VIDEO, ON_THE_FLY = 0, 3
"""Display modes: what comes on a video input, and images that come over USB."""
SHORTEST_US: Final = 105
"""Exposure of a binary pattern, and the delay of TRIG_IN_1. A dark time is none or as long: TI's SDK has it so."""
RUNNING: Final = 2
"""Bit of the main status: the sequencer runs."""
LONGEST_US: Final = (1 << 24) - 1
MOST_ENTRIES: Final = 400
"""Of the table."""
MOST_IN_ORDER: Final = (MOST_DATA_BYTES - 6) // 2
"""Of a sequence in an order of its own: the command has no room for more."""
DELAYS_US: Final = (-20, 20_000)
"""Of an edge of a trigger output."""
IMAGE_HEAD_BYTES: Final = 48
PIECE_BYTES: Final = 504
"""Of an image in one command."""
_ENHANCED = 2
_LED = 1
"""The colour of an entry, here red: all examples name one, and what an entry without shows was not verified."""

ERRORS: Final = {
    0: "no error",
    1: "batch file checksum error",
    2: "device failure",
    3: "invalid command number",
    4: "incompatible controller and DMD",
    5: "command not allowed in the current mode",
    6: "invalid command parameter",
    7: "item referred to is not present",
    8: "out of memory",
    9: "invalid compression of an image",
    10: "pattern bit out of range",
    11: "image not present",
    12: "dark time out of range",
    13: "trigger delay out of range",
    14: "exposure out of range",
    15: "pattern number out of range",
    16: "invalid pattern definition",
    17: "image memory address out of range",
    255: "internal error",
}
"""Section 2.1.6."""
_STATUS = {
    1: "controller and DMD, or the firmware, do not fit",
    2: "resets of the DMD overlapped",
    3: "a swap was forced",
    6: "the sequencer aborted",
    7: "the sequencer found an error",
}
"""Bits of the hardware status that are faults, section 2.1.1; bit 0 is one when it is not set."""


@dataclass(frozen=True)
class Entry:
    """A line of the table: which pattern, for how long, and whether it waits for a pulse on TRIG_IN_1."""

    image: int
    bit: int
    exposure_us: int = SHORTEST_US
    dark_us: int = 0
    waits: bool = False
    """Then it stands until the next one that waits has its pulse."""
    silent: bool = False
    """No pulse on TRIG_OUT_2."""


def ask(code: Code) -> Command:
    return Command(code, reads=True)


def set_mode(mode: int) -> Command:
    return Command(Code.MODE, bytes([mode]))


def stop() -> Command:
    return Command(Code.START_STOP, b"\0")


def start() -> Command:
    return Command(Code.START_STOP, b"\2")


def define(number: int, entry: Entry) -> Command:
    """Line `number` of the table. It counts once the size has been told again."""
    options = _LED << 4 | entry.waits << 7
    place = entry.image | entry.bit << 11
    times = entry.exposure_us.to_bytes(3, "little"), entry.dark_us.to_bytes(3, "little")
    data = struct.pack("<H3sB3sBH", number, times[0], options, times[1], entry.silent, place)
    return Command(Code.TABLE_ENTRY, data)


def set_size(entries: int, shown: int) -> Command:
    """So many lines, of which `shown` are shown in turn before it ends; 0: for ever."""
    return Command(Code.TABLE_SIZE, struct.pack("<HI", entries, shown))


def set_order(numbers: Sequence[int], shown: int) -> Command:
    """Lines in another order than that of the table, each as often as one likes."""
    return Command(Code.TABLE_ORDER, struct.pack(f"<HI{len(numbers)}H", len(numbers), shown, *numbers))


def set_trigger_out(line: Literal[1, 2], delay_us: int, *, inverted: bool) -> Command:
    """How long after the beginning of a pattern the line goes up."""
    code = Code.TRIGGER_OUT_1 if line == 1 else Code.TRIGGER_OUT_2
    return Command(code, struct.pack("<Bhh", inverted, delay_us, 0))


def set_trigger_in(delay_us: int, *, falling: bool) -> Command:
    """How long after an edge of TRIG_IN_1 a pattern that waits is shown."""
    return Command(Code.TRIGGER_IN_1, struct.pack("<HB", delay_us, falling))


def head(shape: tuple[int, int], coded_bytes: int) -> bytes:
    """What goes before the data of an image."""
    rows, columns = shape
    return struct.pack("<4sHHI8s4xBBB21x", b"Spld", columns, rows, coded_bytes, b"\xff" * 8, 0, _ENHANCED, 1)


def put_image(number: int, coded: bytes, shape: tuple[int, int], *, second: bool = False) -> Iterator[Command]:
    """All that loads an image into one of two controllers."""
    begin, data = (Code.SECOND_IMAGE_BEGIN, Code.SECOND_IMAGE_DATA) if second else (Code.IMAGE_BEGIN, Code.IMAGE_DATA)
    whole = head(shape, len(coded)) + coded
    yield Command(begin, struct.pack("<HI", number, len(whole)))
    for first in range(0, len(whole), PIECE_BYTES):
        piece = whole[first : first + PIECE_BYTES]
        yield Command(data, len(piece).to_bytes(2, "little") + piece)


def faults_of(status: int) -> list[str]:
    """What a hardware status speaks of."""
    found = [what for bit, what in _STATUS.items() if status >> bit & 1]
    return found if status & 1 else ["it did not start up properly", *found]
