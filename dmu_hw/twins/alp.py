"""A ViALUX board without hardware: the functions of ALP4lib that the driver `vialux` uses, on the simulated world.

`driver: dmu_hw.twins.alp` in a rig YAML is that driver with this board, on a connection whose driver is `simulated`.
It has as many mirrors as the rig says. It knows the interface from ALP4lib and its comments, as the driver does: where
both read it wrongly, they agree.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dmu_hw.drivers.simulated.history import MirrorFrame
from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.drivers.vialux import names
from dmu_hw.drivers.vialux.dmd import BoardSettings, Controlled
from dmu_hw.drivers.vialux.vendor import Alp
from dmu_hw.ports import Mount
from dmu_hw.twins.mirrors import Mirrors, mirror_frame

_ROOM: Final = 2000
_SHORTEST_US: Final = 50
_ERRORS: Final = {
    1001: "not online",
    1002: "not idle",
    1003: "no such device",
    1005: "invalid parameter",
    1007: "memory full",
    1008: "sequence in use",
    1011: "communication error",
}


class AlpError(Exception):
    """What a function of the interface returned."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(f"{_ERRORS[code]}: {why}")


class Dmd(Controlled):
    """The driver on its twin."""

    Settings = BoardSettings

    def __init__(self, settings: BoardSettings, mount: Mount) -> None:
        super().__init__(settings, mount)
        mirrors = Mirrors(world_of(mount), settings.settle_us / 1e3)
        self.board = Board(mirrors, self.shape, settings.upload_ms_per_frame)

    def _connect(self) -> Alp:
        self.board.Initialize()
        return Alp(self.board, AlpError)


@dataclass
class _Sequence:
    """Pictures on the board, and how they are shown."""

    pictures: list[MirrorFrame | None]
    picture_us: int = 33_334
    pulse_us: int = 0
    controls: dict[int, int] = field(default_factory=dict)


class Board:
    """To the driver it looks like ALP4lib's `ALP4`."""

    def __init__(self, mirrors: Mirrors, shape: tuple[int, int], picture_ms: float) -> None:
        self.refusals: list[str] = []
        """All that it has refused."""
        self.fails = 0
        """How many calls are still to fail as if the cable were pulled."""
        self.lost = 0
        """Edges that stepped nothing."""
        self.nSizeY, self.nSizeX = shape
        self._mirrors = mirrors
        self._picture_ms = picture_ms
        self._there = False
        self._numbers = itertools.count(1)
        self._sequences: dict[int, _Sequence] = {}
        self._flut: list[int] = []
        self._polarity = names.LEVEL_HIGH
        self._step = names.DEFAULT
        self._running: _Sequence | None = None
        self._ends_ms = 0.0
        self._left: list[MirrorFrame | None] = []

    # ---------------------------------------------------------------- the device

    def Initialize(self, DeviceNum: int | None = None) -> None:  # noqa: N802 - ALP4lib's name
        self._require(not self._there and DeviceNum is None, 1001, "allocated already, or another one")
        self._there = True

    def Free(self) -> None:  # noqa: N802
        self._called()
        self._require(not self._is_running(), 1002, "freed while it shows something")
        self._there = False
        self._sequences.clear()

    def Halt(self) -> None:  # noqa: N802
        self._called()
        stays = self._mirrors.world.history.mirrors.at(self._mirrors.now_ms())
        self._mirrors.cancel()
        self._mirrors.world.history.mirrors.set(self._mirrors.now_ms(), stays)  # halting alone darkens nothing
        self._running = None
        self._left = []

    def DevInquire(self, inquireType: int) -> int:  # noqa: N802
        self._called()
        self._require(inquireType == names.AVAILABLE_MEMORY, 1005, f"inquiry {inquireType}")
        return _ROOM - sum(len(sequence.pictures) for sequence in self._sequences.values())

    def DevControl(self, controlType: int, value: int) -> None:  # noqa: N802
        self._called()
        levels = (names.LEVEL_HIGH, names.LEVEL_LOW)
        self._require(controlType == names.SYNCH_POLARITY and value in levels, 1005, f"control {controlType}: {value}")
        self._polarity = value

    def ProjControl(self, controlType: int, value: int) -> None:  # noqa: N802
        self._idle()
        steps = (names.DEFAULT, names.EDGE_FALLING, names.EDGE_RISING)
        self._require(controlType == names.STEP and value in steps, 1005, f"control {controlType}: {value}")
        self._step = value

    def ProjControlEx(self, controlType: int, pointerToStruct: Any) -> None:  # noqa: N802
        self._idle()
        table = pointerToStruct.contents
        fits = controlType == names.FLUT_WRITE and table.offset == 0 and 1 <= table.size <= names.MOST_FLUT_ENTRIES
        self._require(fits, 1005, f"control {controlType}, {table.size} entries")
        self._flut = [int(number) % names.MOST_FRAMES for number in table.frames[: table.size]]

    # ---------------------------------------------------------------- sequences

    def SeqAlloc(self, nbImg: int = 1, bitDepth: int = 1) -> int:  # noqa: N802
        self._called()
        self._require(bitDepth == 1 and nbImg >= 1, 1005, f"{nbImg} pictures of {bitDepth} bits")
        self._require(nbImg <= self.DevInquire(names.AVAILABLE_MEMORY), 1007, f"{nbImg} pictures")
        number = next(self._numbers)
        self._sequences[number] = _Sequence([None] * nbImg)
        return number

    def FreeSeq(self, SequenceId: int) -> None:  # noqa: N802
        self._unused(SequenceId)
        del self._sequences[SequenceId]

    def SeqPut(self, imgData: npt.NDArray[np.uint8], SequenceId: int, PicOffset: int = 0, PicLoad: int = 0) -> None:  # noqa: N802
        sequence = self._unused(SequenceId)
        count = PicLoad or len(sequence.pictures) - PicOffset
        fits = PicOffset >= 0 and count >= 1 and PicOffset + count <= len(sequence.pictures)
        self._require(fits, 1005, f"pictures {PicOffset} to {PicOffset + count} of {len(sequence.pictures)}")
        size = (count, self.nSizeY, self.nSizeX)
        self._require(imgData.dtype == np.uint8 and imgData.shape == (np.prod(size),), 1005, f"data {imgData.shape}")
        self._mirrors.pass_ms(count * self._picture_ms)
        for place, picture in enumerate(imgData.reshape(size)):
            sequence.pictures[PicOffset + place] = mirror_frame(picture >= 128) if picture.any() else None

    def SeqControl(self, controlType: int, value: int, SequenceId: int) -> None:  # noqa: N802
        known = (names.BINARY_MODE, names.FLUT_MODE, names.FLUT_ENTRIES)
        self._require(controlType in known, 1005, f"control {controlType}")
        self._of(SequenceId).controls[controlType] = value

    def SeqInquire(self, inquireType: int, SequenceId: int) -> int:  # noqa: N802
        self._of(SequenceId)
        self._require(inquireType == names.SHORTEST_PICTURE, 1005, f"inquiry {inquireType}")
        return _SHORTEST_US

    def SetTiming(self, SequenceId: int, pictureTime: int = 0, synchPulseWidth: int = 0) -> None:  # noqa: N802
        sequence = self._of(SequenceId)
        fits = _SHORTEST_US <= pictureTime <= names.LONGEST_US and 0 < synchPulseWidth < pictureTime
        self._require(fits, 1005, f"pictures of {pictureTime} us with pulses of {synchPulseWidth}")
        sequence.picture_us, sequence.pulse_us = pictureTime, synchPulseWidth

    # ---------------------------------------------------------------- display

    def Run(self, SequenceId: int, loop: bool = True) -> None:  # noqa: N802
        sequence = self._of(SequenceId)
        self._idle()
        self._require(sequence.controls.get(names.BINARY_MODE) == names.UNINTERRUPTED, 1005, "dark phases")
        places = list(range(len(sequence.pictures)))
        if sequence.controls.get(names.FLUT_MODE) == names.FLUT_9BIT:
            places = self._flut[: sequence.controls[names.FLUT_ENTRIES]]
        self._require(all(place < len(sequence.pictures) for place in places), 1005, f"pictures {places}")
        self._require(not loop or len(places) == 1, 1005, "the twin repeats no more than one picture")
        self._running = sequence
        self._left = [sequence.pictures[place] for place in places]
        self._ends_ms = float("inf") if loop else self._mirrors.now_ms()
        self._next(sequence, self._mirrors.now_ms())
        if self._step == names.EDGE_FALLING:
            self._mirrors.listen(self._hear)
        while self._step == names.DEFAULT and self._left:
            self._next(sequence, self._ends_ms)

    def Wait(self) -> None:  # noqa: N802
        """Until all is shown; for ever where that does not end by itself."""
        self._called()
        self._require(not self._left and self._ends_ms < float("inf"), 1005, "the twin does not wait for ever")
        self._mirrors.pass_ms(self._ends_ms - self._mirrors.now_ms())

    def _next(self, running: _Sequence, at_ms: float) -> None:
        self._mirrors.show(at_ms, self._left.pop(0))
        late_us = running.pulse_us if self._polarity == names.LEVEL_LOW else 0
        self._mirrors.pulse(at_ms + late_us / 1e3)
        self._ends_ms = max(self._ends_ms, at_ms + running.picture_us / 1e3)

    def _hear(self, edge_ms: float) -> None:
        """The camera's output falls: the picture that is shown is shown to its end, and then the next one."""
        if not self._left or self._running is None:
            self.lost += 1
            return
        picture_ms = self._running.picture_us / 1e3
        ends = -(-(edge_ms - self._ends_ms) // picture_ms)
        self._next(self._running, self._ends_ms + max(0.0, ends) * picture_ms)

    def _is_running(self) -> bool:
        return self._running is not None and (bool(self._left) or self._mirrors.now_ms() < self._ends_ms)

    # ---------------------------------------------------------------- refusals

    def _called(self) -> None:
        self._require(self._there, 1003, "not allocated")
        if self.fails > 0:
            self.fails -= 1
            raise AlpError(1011, "told to fail")

    def _idle(self) -> None:
        self._called()
        self._require(not self._is_running(), 1002, "it shows something")

    def _of(self, number: int) -> _Sequence:
        self._called()
        self._require(number in self._sequences, 1005, f"sequence {number}")
        return self._sequences[number]

    def _unused(self, number: int) -> _Sequence:
        sequence = self._of(number)
        self._require(not (self._is_running() and self._running is sequence), 1008, f"sequence {number}")
        return sequence

    def _require(self, holds: bool, code: int, why: str) -> None:
        if not holds:
            self.refusals.append(f"{_ERRORS[code]}: {why}")
            raise AlpError(code, why)
