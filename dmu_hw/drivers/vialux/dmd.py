"""A DMD of ViALUX, by the functions of its ALP-4 interface.

The board holds one sequence with all frames of the memory and a dark one behind them; a table of numbers (FLUT) says
which are shown in turn. Another sequence of one dark picture is shown whenever nothing else is: what the mirrors do
when the board is only halted is not written in what was read. It was tried on a twin, and on no instrument.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from dmu_hw.data import BoolArray
from dmu_hw.drivers.vialux import names
from dmu_hw.drivers.vialux.vendor import Alp, open_alp
from dmu_hw.errors import DeviceError
from dmu_hw.files import FilePath, NonNegative, Settings
from dmu_hw.memory import check_frames, check_order
from dmu_hw.ports import Mount

_HOLD_US = 1_000_000
"""A pattern that is held is shown so long, again and again."""


class BoardSettings(Settings):
    """What is the same whatever library speaks with it."""

    memory_frames: Annotated[int, Field(ge=1, le=names.MOST_FRAMES - 1)] = 400
    """How many are used; the board must have room for two more."""
    settle_us: Annotated[int, Field(ge=1, le=100_000)] = 20
    """From the beginning of a picture until its mirrors stand. The pulse to the camera is so long: its end counts."""
    pulse: Literal["low", "high"] = "low"
    """Level of the pulse on the synch output: low for a camera that takes rising edges, high for falling ones."""
    trigger_in: Literal["rising", "falling"] | None = None
    """The edge on the trigger input that steps a sequence which the camera paces; null: nothing is wired to it."""
    shortest_us: Annotated[int, Field(ge=1, le=names.LONGEST_US)] = 100
    """Time of one picture that the board can keep. After an edge on the trigger input a picture is shown to its end."""
    upload_ms_per_frame: NonNegative = 5.0
    """For the price of an upload. The library compresses frames in a way of its own."""


class DmdSettings(BoardSettings):
    """A board by the vendor's library."""

    version: Literal["4.1", "4.2", "4.3", "4.4", "5.0", "5.1"] = "4.3"
    """Of the interface."""
    folder: FilePath | None = None
    """Folder of the vendor's library; null: where its installer put it."""
    serial: Annotated[int, Field(ge=1)] | None = None
    """Where several are connected."""


class Controlled:
    """All but how the board is reached."""

    of_frames = ("upload_ms_per_frame", "memory_frames", "folder", "serial")
    """Settings that calibrations do not depend on."""
    reads_back = False

    def __init__(self, settings: BoardSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.shape = mount.optics.mirrors.shape
        self.memory_frames = settings.memory_frames
        lead_us = 0 if settings.trigger_in is None else settings.shortest_us
        self.settle_ms = (lead_us + settings.settle_us) / 1e3
        self._lead_us = lead_us
        self._alp: Alp | None = None
        self._dark: Any = None
        """The sequence of one dark picture."""
        self._memory: Any = None
        self._held = 0

    def _connect(self) -> Alp:
        raise NotImplementedError

    # ---------------------------------------------------------------- from opening to closing

    def open(self) -> None:
        """Dark before anything else; then whether the board is what the rig says."""
        self.close()
        self._alp = self._connect()
        try:
            with self._asking("opening") as alp:
                alp.Halt()
                self._check_board(alp)
                level = names.LEVEL_LOW if self.settings.pulse == "low" else names.LEVEL_HIGH
                alp.DevControl(names.SYNCH_POLARITY, level)
                self._dark = self._filled(alp, np.zeros((1, *self.shape), dtype=np.bool_))
                self._check_speed(alp)
            self.stop()
        except DeviceError:
            self._let_go()
            raise

    def close(self) -> None:
        if self._alp is None:
            return
        try:
            self.stop()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Of the board, and of all that it held."""
        try:
            with self._asking("closing") as alp:
                alp.Halt()
                alp.Free()
        finally:
            self._alp = self._dark = self._memory = None
            self._held = 0

    def _check_board(self, alp: Any) -> None:
        there, wanted = (int(alp.nSizeY), int(alp.nSizeX)), self.shape
        if there != wanted:
            raise DeviceError(self.name, f"ALP: the board has {there} mirrors, optics.mirrors.shape is {wanted}")
        room = int(alp.DevInquire(names.AVAILABLE_MEMORY))
        if room < self.memory_frames + 2:
            most = room - 2
            raise DeviceError(self.name, f"ALP: the board has memory for {most} frames, given {self.memory_frames}")

    def _check_speed(self, alp: Any) -> None:
        shortest_us = int(alp.SeqInquire(names.SHORTEST_PICTURE, self._dark))
        if shortest_us > self.settings.shortest_us:
            what = f"ALP: a picture takes {shortest_us} us, the rig says {self.settings.shortest_us}"
            raise DeviceError(self.name, what)

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        if self._alp is None:
            raise DeviceError(self.name, "is not open")
        with self._alp.failing_as(self.name, what):
            yield self._alp.calls

    def wait_ms(self, settle_ms: float) -> None:
        pulse_us = round(settle_ms * 1e3) - self._lead_us
        if not 1 <= pulse_us <= 100_000:
            low_ms, high_ms = (self._lead_us + 1) / 1e3, self._lead_us / 1e3 + 100
            raise DeviceError(self.name, f"can wait {low_ms:g} to {high_ms:g} ms for its mirrors, given {settle_ms:g}")
        self.settle_ms = settle_ms

    # ---------------------------------------------------------------- the memory

    def upload_ms(self, frames: int) -> float:
        return (frames + 1) * self.settings.upload_ms_per_frame

    def load(self, frames: BoolArray) -> None:
        self.stop()
        self._held = 0
        check_frames(self.name, frames, self.shape, self.memory_frames)
        with self._asking(f"the upload of {len(frames)} frames") as alp:
            if self._memory is not None:
                memory, self._memory, self._held = self._memory, None, 0
                alp.FreeSeq(memory)
            memory = self._filled(alp, np.concatenate([frames, np.zeros((1, *self.shape), dtype=np.bool_)]))
            alp.SeqControl(names.FLUT_MODE, names.FLUT_9BIT, memory)
            self._memory, self._held = memory, len(frames)

    def _filled(self, alp: Any, frames: BoolArray) -> Any:
        """A sequence of these, one by one: ALP4lib copies what it sends."""
        sequence = alp.SeqAlloc(nbImg=len(frames), bitDepth=1)
        alp.SeqControl(names.BINARY_MODE, names.UNINTERRUPTED, sequence)
        for place, frame in enumerate(frames):
            alp.SeqPut(frame.ravel() * np.uint8(255), sequence, PicOffset=place, PicLoad=1)
        return sequence

    # ---------------------------------------------------------------- what is shown

    def show(self, index: int | None) -> None:
        if index is None:
            self.stop()
        else:
            check_order(self.name, [index], self._held)
            self._run([index], _HOLD_US, loop=True)

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        check_order(self.name, order, self._held)
        if len(order) >= names.MOST_FLUT_ENTRIES:
            most = names.MOST_FLUT_ENTRIES - 1
            raise DeviceError(self.name, f"shows at most {most} frames in a sequence, given {len(order)}")
        step, picture_us = names.DEFAULT, self.settings.shortest_us
        if period_ms is not None:
            picture_us = round(period_ms * 1e3)
            if not period_ms > self.settle_ms or not self.settings.shortest_us <= picture_us <= names.LONGEST_US:
                low_ms, high_ms = max(self.settle_ms, self.settings.shortest_us / 1e3), names.LONGEST_US / 1e3
                raise DeviceError(self.name, f"steps every {low_ms:g} to {high_ms:g} ms, given {period_ms:g} ms")
        elif self.settings.trigger_in is None:
            raise DeviceError(self.name, "cannot be stepped by the camera: say trigger_in if a line is wired to it")
        else:
            step = names.EDGE_FALLING if self.settings.trigger_in == "falling" else names.EDGE_RISING
        self._run(order, picture_us, step=step)

    def _run(self, order: Sequence[int], picture_us: int, *, step: int = names.DEFAULT, loop: bool = False) -> None:
        """Frames in turn; those that are not shown for ever end in darkness."""
        places = [*order] if loop else [*order, self._held]
        table = names.FlutWrite(offset=0, size=len(places))
        table.frames[: len(places)] = places
        pulse_us = round(self.settle_ms * 1e3) - self._lead_us
        with self._asking(f"a sequence of {len(order)} frames") as alp:
            alp.Halt()
            alp.ProjControl(names.STEP, step)
            alp.ProjControlEx(names.FLUT_WRITE, ctypes.pointer(table))
            alp.SeqControl(names.FLUT_ENTRIES, len(places), self._memory)
            alp.SetTiming(self._memory, pictureTime=picture_us, synchPulseWidth=min(pulse_us, picture_us - 1))
            alp.Run(self._memory, loop=loop)

    def stop(self) -> None:
        """One dark picture, which stays. It has a pulse as any other: that is over before this ends, so that no camera
        that is armed next takes it for a pattern's."""
        with self._asking("stopping") as alp:
            alp.Halt()
            alp.ProjControl(names.STEP, names.DEFAULT)
            alp.SetTiming(self._dark, pictureTime=self.settings.shortest_us, synchPulseWidth=1)
            alp.Run(self._dark, loop=False)
            alp.Wait()

    def shown(self) -> tuple[int, ...] | None:
        """The board is not asked."""
        return None


class Dmd(Controlled):
    """By the vendor's library."""

    Settings = DmdSettings

    def __init__(self, settings: DmdSettings, mount: Mount) -> None:
        super().__init__(settings, mount)
        self._version = settings.version
        self._folder: Path | None = settings.folder
        self._serial = settings.serial

    def _connect(self) -> Alp:
        return open_alp(self.name, self._version, self._folder, self._serial)
