"""A DMD behind TI's DLPC900, in the mode whose patterns come over USB ("pattern on-the-fly")."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.drivers.dlpc900 import codec, commands
from dmu_hw.drivers.dlpc900.link import Hid, Link
from dmu_hw.drivers.dlpc900.packets import Code, Command, report_count
from dmu_hw.drivers.dlpc900.settings import MODELS, ControlSettings, DmdSettings, Model
from dmu_hw.drivers.dlpc900.table import Table
from dmu_hw.drivers.dlpc900.usb import open_hid
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.memory import check_frames, check_order
from dmu_hw.ports import Mount

_HOLD_US = 1_000_000
"""A pattern that is held is shown so long, again and again."""
_PATIENCE_S = 1.0
"""Longest wait for another display mode, and for the end of a sequence that was stopped."""
_OLDEST_FIRMWARE = 5
"""Major version from which on the order of the table can be told: DLPU101, "Edit LUT"."""


class Controlled:
    """All but how the controller is reached. Behind the frames of the memory lies a dark one: a sequence ends in it."""

    of_frames = ("timeout_ms", "report_ms", "serial")
    """Settings that calibrations do not depend on."""
    reads_back = False

    def __init__(self, settings: ControlSettings, mount: Mount, model: Model) -> None:
        self.settings = settings
        self.name = mount.name
        self.model = model
        self.shape = model.shape
        self.memory_frames = Table.room(triggered=settings.trigger_in is not None)
        self.settle_ms = (settings.lead_us + settings.settle_us) / 1e3
        self._link: Link | None = None
        self._table: Table | None = None
        """What the memory holds; None: nothing."""

    def _connect(self) -> Hid:
        raise NotImplementedError

    # ---------------------------------------------------------------- from opening to closing

    def open(self) -> None:
        """Stopped and dark before anything else; then whether it is what the rig says, and fit for this driver."""
        self.close()
        self._link = Link(self.name, self._connect(), self.settings.timeout_ms)
        try:
            if self._link.number(Code.MODE) != commands.VIDEO:  # there is nothing to stop in that one
                self._link.tell(commands.stop())
            self._check_hardware(self._link)
            self._check_status(self._link)
            self._set_mode(self._link)
            self._link.tell(commands.stop())
            self._set_triggers(self._link)
        except DeviceError:
            link, self._link = self._link, None
            link.close()
            raise

    def close(self) -> None:
        link, self._link = self._link, None
        self._table = None
        if link is None:
            return
        try:
            link.tell(commands.stop())
        finally:
            link.close()

    def _check_hardware(self, link: Link) -> None:
        found = link.number(Code.HARDWARE)
        if found != self.model.hardware:
            names = {model.hardware: name for name, model in MODELS.items()}
            there, wanted = (names.get(number, f"of type {number}") for number in (found, self.model.hardware))
            raise DeviceError(self.name, f"USB: the DMD is {there}, the rig says {wanted}")
        version = link.ask(commands.ask(Code.VERSION))
        if len(version) < 4 or version[3] < _OLDEST_FIRMWARE:
            told = ".".join(str(part) for part in (*version[3:1:-1], int.from_bytes(version[:2], "little")))
            raise DeviceError(self.name, f"USB: firmware {told}, needed is {_OLDEST_FIRMWARE}.0.0 or later: update it")

    def _check_status(self, link: Link) -> None:
        faults = commands.faults_of(link.number(Code.HARDWARE_STATUS))
        if faults:
            raise DeviceError(self.name, f"USB: the controller reports: {', '.join(faults)}")

    def _set_mode(self, link: Link) -> None:
        link.tell(commands.set_mode(commands.ON_THE_FLY))
        until_s = time.monotonic() + _PATIENCE_S
        while (mode := link.number(Code.MODE)) != commands.ON_THE_FLY:
            if time.monotonic() > until_s:
                raise DeviceError(self.name, f"USB: display mode is {mode}, told was {commands.ON_THE_FLY}")
            time.sleep(0.01)

    def _set_triggers(self, link: Link) -> None:
        delay_us = round(self.settle_ms * 1e3) - self.settings.lead_us
        link.tell(
            commands.set_trigger_out(self.settings.trigger_out, delay_us, inverted=self.settings.trigger_out_inverted),
            commands.set_trigger_in(commands.SHORTEST_US, falling=self.settings.trigger_in == "falling"),
        )

    def _opened(self) -> Link:
        if self._link is None:
            raise DeviceError(self.name, "is not open")
        return self._link

    def wait_ms(self, settle_ms: float) -> None:
        low_ms, high_ms = ((self.settings.lead_us + delay_us) / 1e3 for delay_us in (0, commands.DELAYS_US[1]))
        if not low_ms <= settle_ms <= high_ms:
            raise DeviceError(self.name, f"can wait {low_ms:g} to {high_ms:g} ms for its mirrors, given {settle_ms:g}")
        self.settle_ms = settle_ms
        if self._link is not None:
            self._link.tell(commands.stop())
            self._set_triggers(self._link)

    # ---------------------------------------------------------------- the memory

    def upload_ms(self, frames: int) -> float:
        """For the most that any patterns can be coded in; `coded_upload_ms` tells what some of them take."""
        images = math.ceil((frames + 1) / codec.BITS)
        size = codec.most_bytes(self.model.image_shape) + commands.IMAGE_HEAD_BYTES
        pieces = math.ceil(size / commands.PIECE_BYTES)
        full = report_count(Command(Code.IMAGE_DATA, bytes(2 + commands.PIECE_BYTES)))
        lines = len(Table(frames, triggered=self.settings.trigger_in is not None).entries)
        begins = report_count(commands.stop())
        return self.settings.report_ms * (images * self.model.halves * (pieces * full + begins) + (lines + 3) * begins)

    def coded_upload_ms(self, frames: BoolArray) -> float:
        table = Table(len(frames), triggered=self.settings.trigger_in is not None)
        return self.settings.report_ms * sum(report_count(command) for command in self._loading(frames, table))

    def load(self, frames: BoolArray) -> None:
        link = self._opened()
        self._table = None
        self.stop()
        check_frames(self.name, frames, self.shape, self.memory_frames)
        table = Table(len(frames), triggered=self.settings.trigger_in is not None)
        link.tell_all(self._loading(frames, table))
        self._check_status(link)
        self._table = table

    def _loading(self, frames: BoolArray, table: Table) -> Iterator[Command]:
        """All that fills table and memory. Images go in the reverse order (DLPU018, section 2.4.4.4.1); the size of the
        table is told before them, as in the guide's example, and after them, as those do who drive it."""
        for line, entry in enumerate(table.entries):
            yield commands.define(line, entry)
        size = commands.set_size(len(table.entries), 0)
        yield size
        shape = self.model.image_shape
        for first in reversed(range(0, len(frames) + 1, codec.BITS)):
            part = frames[first : first + codec.BITS]
            if len(part) < codec.BITS:
                part = np.concatenate([part, np.zeros((1, *frames.shape[1:]), dtype=np.bool_)])
            image = codec.merge(part)
            for half in range(self.model.halves):
                coded = codec.encode(image[:, half * shape[1] : (half + 1) * shape[1]])
                yield from commands.put_image(first // codec.BITS, coded, shape, second=half == 1)
        yield size

    # ---------------------------------------------------------------- what is shown

    def show(self, index: int | None) -> None:
        link = self._opened()
        if index is None:
            self.stop()
            return
        table = self._holding((index,))
        link.tell(commands.stop())
        self._time(link, table, [index], _HOLD_US, 0)
        link.tell(commands.set_order([index], 0), commands.start())

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        link = self._opened()
        table = self._holding(order)
        lines, times_us = self._sequence(table, order, period_ms)
        if len(lines) > commands.MOST_IN_ORDER:
            most = commands.MOST_IN_ORDER - 1
            raise DeviceError(self.name, f"shows at most {most} frames in a sequence, given {len(order)}")
        link.tell(commands.stop())
        self._time(link, table, list(dict.fromkeys(order)) if period_ms is not None else [lines[0]], *times_us)
        link.tell(commands.set_order(lines, len(lines)), commands.start())

    def stop(self) -> None:
        """A controller that is stopped shows darkness (e2e.ti.com, thread 845747). Whether it has, it is asked; and if
        its sequencer failed meanwhile, that is said now."""
        link = self._opened()
        link.tell(commands.stop())
        until_s = time.monotonic() + _PATIENCE_S
        while link.number(Code.MAIN_STATUS) & commands.RUNNING:
            if time.monotonic() > until_s:
                raise DeviceError(self.name, "USB: the sequencer still runs though it was told to stop")
            time.sleep(0.01)
        self._check_status(link)

    def shown(self) -> tuple[int, ...] | None:
        """The controller does not tell."""
        return None

    def _holding(self, order: Sequence[int]) -> Table:
        """The table, if all of these frames are in the memory."""
        check_order(self.name, order, 0 if self._table is None else self._table.frames)
        return cast("Table", self._table)

    def _sequence(
        self, table: Table, order: Sequence[int], period_ms: float | None
    ) -> tuple[list[int], tuple[int, int]]:
        """Lines in turn, and exposure and dark time of the frames among them."""
        if period_ms is None:
            if self.settings.trigger_in is None:
                raise DeviceError(self.name, "cannot be stepped by the camera: say trigger_in if a line is wired to it")
            return table.stepped_by_pulses(order), (commands.SHORTEST_US, 0)
        exposure_us = round(period_ms * 1e3) - self.settings.dark_us
        if not period_ms > self.settle_ms or not commands.SHORTEST_US <= exposure_us <= commands.LONGEST_US:
            shortest_ms = max(self.settle_ms, (commands.SHORTEST_US + self.settings.dark_us) / 1e3)
            longest_ms = commands.LONGEST_US / 1e3
            raise DeviceError(self.name, f"steps every {shortest_ms:g} to {longest_ms:g} ms, given {period_ms:g} ms")
        return table.stepped_by_time(order), (exposure_us, self.settings.dark_us)

    def _time(self, link: Link, table: Table, lines: Sequence[int], exposure_us: int, dark_us: int) -> None:
        """Give lines their times, where they have others. If that fails, nobody knows which they have."""
        changed = table.timed(lines, exposure_us, dark_us)
        if not changed:
            return
        self._table = None
        link.tell_all(commands.define(line, table.entries[line]) for line in changed)
        link.tell(commands.set_size(len(table.entries), 0))
        self._table = table


class Dmd(Controlled):
    """On USB."""

    Settings = DmdSettings

    def __init__(self, settings: DmdSettings, mount: Mount) -> None:
        model = MODELS[settings.model]
        if mount.optics.mirrors.shape != model.shape:
            where = mount.document.where(("model",))
            told = f"{settings.model} has {model.shape} mirrors, optics.mirrors.shape is {mount.optics.mirrors.shape}"
            raise InputError([Problem(where, told)])
        super().__init__(settings, mount, model)
        self._serial = settings.serial

    def _connect(self) -> Hid:
        return open_hid(self.name, self._serial)
