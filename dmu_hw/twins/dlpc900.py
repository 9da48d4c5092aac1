"""A DLPC900 without hardware: a HID device that decodes what it is sent, objects to what TI's guide does not allow, and
moves the mirrors of the simulated world.

`driver: dmu_hw.twins.dlpc900` in a rig YAML is the driver `dlpc900` as it is, with this device instead of USB, on a
connection whose driver is `simulated`. It has as many mirrors as the rig says.

It knows the protocol as the driver does, from the same reading of the guide: where both read it wrongly, they agree.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.drivers.dlpc900 import codec
from dmu_hw.drivers.dlpc900.commands import (
    DELAYS_US,
    IMAGE_HEAD_BYTES,
    LONGEST_US,
    MOST_ENTRIES,
    MOST_IN_ORDER,
    ON_THE_FLY,
    PIECE_BYTES,
    RUNNING,
    SHORTEST_US,
    VIDEO,
    Entry,
    head,
)
from dmu_hw.drivers.dlpc900.dmd import Controlled
from dmu_hw.drivers.dlpc900.packets import BUFFER_BYTES, FAILED, HEAD_BYTES, READ, REPLY, REPORT_BYTES, Code
from dmu_hw.drivers.dlpc900.settings import ControlSettings, Model
from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.ports import Mount
from dmu_hw.twins.mirrors import Mirrors
from dmu_hw.twins.sequencer import Sequencer

_LAST_IMAGE: Final = 17
_VERSION: Final = bytes([0, 0, 0, 6]) * 4
"""6.0.0, of program, interface, and configurations."""


class TwinSettings(ControlSettings):
    """A DMD that is not there."""

    dual: bool = False
    """Two controllers, each with half of the columns."""


class Dmd(Controlled):
    """The driver on its twin."""

    Settings = TwinSettings

    def __init__(self, settings: TwinSettings, mount: Mount) -> None:
        super().__init__(settings, mount, Model(mount.optics.mirrors.shape, 1, settings.dual))
        mirrors = Mirrors(world_of(mount), settings.settle_us / 1e3)
        self.controller = Controller(mirrors, self.model, settings.trigger_out, settings.report_ms)

    def _connect(self) -> Controller:
        self.controller.plug()
        return self.controller


class Refused(Exception):  # noqa: N818 - what happens to a command
    """The controller does not do that."""

    def __init__(self, error: int, why: str) -> None:
        self.error = error
        super().__init__(why)


@dataclass
class _Arriving:
    """An image of which not all has come."""

    half: int
    number: int
    size: int
    data: bytearray


class Controller:
    """What the controller is and does; to hidapi it looks like a device."""

    def __init__(self, mirrors: Mirrors, model: Model, wired_output: int, report_ms: float) -> None:
        self.model = model
        self.refusals: list[str] = []
        """All that it has refused, in words."""
        self.wrong = dict.fromkeys(("silence", "garble", "fail", "ignore"), 0)
        """How often each is still to happen: no reply, noise instead of one, a command that fails, one that is taken
        and not obeyed."""
        self.hardware_status = 1
        self._mirrors = mirrors
        self._report_ms = report_ms
        self._plugged = self._open = True
        self._heard = bytearray()
        self._replies: list[bytes] = []
        self._last_sequence: int | None = None
        self._luck = random.Random(900)  # noqa: S311 - noise on a line
        self._error, self._why = 0, ""
        self._mode = 1
        self._defined: dict[int, Entry] = {}
        self._entries: tuple[Entry, ...] = ()
        self._images: dict[tuple[int, int], codec.Image] = {}
        self._due: list[tuple[int, int]] = []
        """Images that are to come, the next one last."""
        self._arriving: _Arriving | None = None
        self.sequencer = Sequencer(mirrors, self._frame, wired_output)

    # ---------------------------------------------------------------- the line

    def plug(self) -> None:
        """Somebody opens the device."""
        if not self._plugged:
            raise OSError("open failed")
        self._open = True

    def unplug(self) -> None:
        """The cable is pulled; what is shown stays."""
        self._plugged = False

    def write(self, report: bytes) -> int:
        self._alive()
        if len(report) != REPORT_BYTES + 1 or report[0] != 0:
            return -1
        self._mirrors.pass_ms(self._report_ms)
        self._heard += report[1:]
        size = HEAD_BYTES + int.from_bytes(self._heard[2:4], "little")
        if size > BUFFER_BYTES:
            self._heard.clear()
            self.refusals.append(f"a command of {size} bytes")
        elif len(self._heard) >= size:
            whole, rest = bytes(self._heard[:size]), self._heard[size:]
            self._heard.clear()
            if any(rest):
                self.refusals.append(f"{rest.hex()} after a command")
            self._answer(whole)
        return len(report)

    def read(self, max_length: int, timeout_ms: int) -> list[int]:
        self._alive()
        if max_length < REPORT_BYTES or timeout_ms <= 0:
            raise ValueError(f"a read of {max_length} bytes within {timeout_ms} ms never ends, or loses some")
        if not self._replies:
            return []
        self._mirrors.pass_ms(self._report_ms)
        return list(self._replies.pop(0))

    def close(self) -> None:
        self._open = False

    def _alive(self) -> None:
        if not self._open:
            raise ValueError("not open")
        if not self._plugged:
            raise OSError("read error")

    def _answer(self, whole: bytes) -> None:
        flags, sequence = whole[0], whole[1]
        if sequence == self._last_sequence:
            self.refusals.append(f"sequence byte {sequence} twice: replies cannot be told from one another")
        self._last_sequence = sequence
        data, failed = b"", 0
        try:
            data = self._obey(whole[HEAD_BYTES:], reads=bool(flags & READ))
        except Refused as refusal:
            failed = FAILED
            self._error, self._why = refusal.error, str(refusal)
            self.refusals.append(f"{whole[HEAD_BYTES : HEAD_BYTES + 16].hex(' ')}: {refusal}")
        if not flags & REPLY or self._goes_wrong("silence"):
            return
        reply = bytes([flags | failed, sequence]) + len(data).to_bytes(2, "little") + data
        if self._goes_wrong("garble"):
            reply = self._luck.randbytes(len(reply))
        for first in range(0, len(reply), REPORT_BYTES):
            self._replies.append(reply[first : first + REPORT_BYTES].ljust(REPORT_BYTES, b"\0"))

    def _goes_wrong(self, what: str) -> bool:
        due = self.wrong[what] > 0
        self.wrong[what] -= due
        return due

    # ---------------------------------------------------------------- commands

    def _obey(self, body: bytes, *, reads: bool) -> bytes:
        code, data = int.from_bytes(body[:2], "little"), body[2:]
        answers: dict[int, Callable[[], bytes]] = {
            Code.ERROR_CODE: lambda: bytes([self._error]),
            Code.ERROR_TEXT: lambda: self._why.encode()[:127].ljust(128, b"\0"),
            Code.VERSION: lambda: _VERSION,
            Code.HARDWARE: lambda: bytes([self.model.hardware]) + b"twin".ljust(31, b"\0"),
            Code.HARDWARE_STATUS: lambda: bytes([self.hardware_status | self.model.dual << 4]),
            Code.MAIN_STATUS: lambda: bytes([self.sequencer.is_running * RUNNING]),
            Code.MODE: lambda: bytes([self._mode]),
        }
        orders: dict[int, Callable[[bytes], None]] = {
            Code.MODE: self._set_mode,
            Code.START_STOP: self._start_or_stop,
            Code.TABLE_ENTRY: self._define,
            Code.TABLE_SIZE: self._set_size,
            Code.TABLE_ORDER: self._set_order,
            Code.TRIGGER_OUT_1: lambda data: self._set_output(1, data),
            Code.TRIGGER_OUT_2: lambda data: self._set_output(2, data),
            Code.TRIGGER_IN_1: self._set_input,
            Code.IMAGE_BEGIN: lambda data: self._begin_image(0, data),
            Code.IMAGE_DATA: lambda data: self._take_piece(0, data),
            Code.SECOND_IMAGE_BEGIN: lambda data: self._begin_image(1, data),
            Code.SECOND_IMAGE_DATA: lambda data: self._take_piece(1, data),
        }
        if code not in (answers if reads else orders):
            raise Refused(3, f"there is no {'question' if reads else 'command'} {code:04x}")
        if reads:
            if data:
                raise Refused(6, f"question {code:04x} with {len(data)} bytes of data")
            return answers[code]()
        if self._goes_wrong("fail"):
            raise Refused(2, "told to fail")
        if code not in (Code.START_STOP, Code.MODE) and self.sequencer.is_running:
            raise Refused(5, f"command {code:04x} while a sequence runs")
        if not self._goes_wrong("ignore"):
            orders[code](data)
        return b""

    def _set_mode(self, data: bytes) -> None:
        (mode,) = _unpacked("<B", data)
        if mode > ON_THE_FLY:
            raise Refused(6, f"display mode {mode}")
        if self.sequencer.is_running:
            raise Refused(5, "another display mode while a sequence runs")
        self._mode = mode

    def _on_the_fly(self) -> None:
        if self._mode != ON_THE_FLY:
            raise Refused(5, f"display mode is {self._mode}")

    def _define(self, data: bytes) -> None:
        self._on_the_fly()
        number, exposure, options, dark, output, place = _unpacked("<H3sB3sBH", data)
        exposure_us, dark_us = int.from_bytes(exposure, "little"), int.from_bytes(dark, "little")
        image, bit = place & 0x7FF, place >> 11
        if number >= MOST_ENTRIES:
            raise Refused(15, f"line {number} of {MOST_ENTRIES}")
        if not SHORTEST_US <= exposure_us <= LONGEST_US:
            raise Refused(14, f"exposure of {exposure_us} us")
        if 0 < dark_us < SHORTEST_US:
            raise Refused(12, f"dark time of {dark_us} us")
        if bit >= codec.BITS:
            raise Refused(10, f"bit {bit} of {codec.BITS}")
        if options & 0x0E or not options & 0x70 or image > _LAST_IMAGE:
            raise Refused(16, f"options {options:02x}, image {image}")
        self._defined[number] = Entry(image, bit, exposure_us, dark_us, bool(options & 0x80), bool(output & 1))

    def _set_size(self, data: bytes) -> None:
        self._on_the_fly()
        entries, shown = _unpacked("<HI", data)
        if not 1 <= entries <= MOST_ENTRIES or any(number not in self._defined for number in range(entries)):
            raise Refused(15, f"a table of {entries} lines, of which {len(self._defined)} are defined")
        places = [(entry.image, entry.bit) for entry in self._entries]
        self._entries = tuple(self._defined[number] for number in range(entries))
        if places != [(entry.image, entry.bit) for entry in self._entries]:
            self._images.clear()  # the guide asks for all of them again
        self._due.clear()
        self._arriving = None
        self.sequencer.take(self._entries, shown)

    def _set_order(self, data: bytes) -> None:
        self._on_the_fly()
        count, shown = _unpacked("<HI", data[:6])
        numbers = _unpacked(f"<{count}H", data[6:])
        if not 1 <= count <= MOST_IN_ORDER or any(number >= len(self._entries) for number in numbers):
            raise Refused(15, f"an order of {count} of {len(self._entries)} lines")
        self.sequencer.reorder(numbers, shown)

    def _start_or_stop(self, data: bytes) -> None:
        (what,) = _unpacked("<B", data)
        if self._mode == VIDEO:
            raise Refused(5, "no sequences in video mode")
        if what == 0:
            self.sequencer.stop()
        elif what == 2:
            self._on_the_fly()
            missing = {
                image for image, _ in self._wanted() if any((h, image) not in self._images for h in self._halves)
            }
            if missing or not self._entries:
                raise Refused(11, f"images {sorted(missing)} are missing, or were loaded for another table")
            self.sequencer.start()
        else:
            raise Refused(6, f"start or stop {what}")

    def _set_output(self, line: int, data: bytes) -> None:
        inverted, up_us, down_us = _unpacked("<Bhh", data)
        if not all(DELAYS_US[0] <= delay_us <= DELAYS_US[1] for delay_us in (up_us, down_us)):
            raise Refused(13, f"delays of {up_us} and {down_us} us")
        self.sequencer.outputs[line] = (bool(inverted & 1), up_us, down_us)

    def _set_input(self, data: bytes) -> None:
        delay_us, edge = _unpacked("<HB", data)
        if delay_us < SHORTEST_US:
            raise Refused(13, f"delay of {delay_us} us")
        self.sequencer.input = (delay_us, bool(edge & 1))

    # ---------------------------------------------------------------- images

    @property
    def _halves(self) -> range:
        return range(self.model.halves)

    def _wanted(self) -> set[tuple[int, int]]:
        return {(entry.image, entry.bit) for entry in self._entries}

    def _begin_image(self, half: int, data: bytes) -> None:
        self._on_the_fly()
        number, size = _unpacked("<HI", data)
        if not self._due:
            numbers = sorted({image for image, _ in self._wanted()})
            self._due = [(half, image) for image in numbers for half in reversed(self._halves)]
        if not self._due or (half, number) != self._due[-1]:
            raise Refused(6, f"image {number} of controller {half} where {self._due[-1:]} is due: the last comes first")
        self._arriving = _Arriving(half, number, size, bytearray())

    def _take_piece(self, half: int, data: bytes) -> None:
        (size,) = _unpacked("<H", data[:2])
        arriving = self._arriving
        if arriving is None or arriving.half != half:
            raise Refused(6, "data of no image")
        if size != len(data) - 2 or size > PIECE_BYTES or len(arriving.data) + size > arriving.size:
            raise Refused(6, f"{len(data) - 2} bytes of an image that say {size}, after {len(arriving.data)}")
        arriving.data += data[2:]
        if len(arriving.data) == arriving.size:
            self._arriving = None
            self._store(arriving)

    def _store(self, arrived: _Arriving) -> None:
        shape = self.model.image_shape
        coded = bytes(arrived.data[IMAGE_HEAD_BYTES:])
        if arrived.data[:IMAGE_HEAD_BYTES] != head(shape, len(coded)):
            raise Refused(9, f"head {arrived.data[:IMAGE_HEAD_BYTES].hex(' ')}")
        try:
            self._images[arrived.half, arrived.number] = codec.decode(coded, shape)
        except ValueError as error:
            raise Refused(9, f"image {arrived.number}: {error}") from error
        self._due.pop()

    def _frame(self, entry: Entry) -> BoolArray:
        parts = [codec.pattern(self._images[half, entry.image], entry.bit) for half in self._halves]
        return np.concatenate(parts, axis=1)


def _unpacked(layout: str, data: bytes) -> tuple[Any, ...]:
    """The numbers of a command, which has neither more nor less."""
    if len(data) != struct.calcsize(layout):
        raise Refused(6, f"{len(data)} bytes instead of {struct.calcsize(layout)}")
    return struct.unpack(layout, data)
