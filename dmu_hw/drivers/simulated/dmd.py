"""The simulated mirror array: memory, display, hardware sequence, settle and dark time, trigger in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from dmu_hw.data import BoolArray
from dmu_hw.drivers.simulated.history import DARK, Shown
from dmu_hw.drivers.simulated.world import nobody_listens, world_of
from dmu_hw.errors import DeviceError
from dmu_hw.files import Fraction, NonNegative, Settings
from dmu_hw.ports import Mount


class DmdSettings(Settings):
    """A DMD with its own pattern memory."""

    memory_frames: Annotated[int, Field(ge=1)] = 400
    settle_ms: NonNegative = 0.05
    """From the end of the dark time until the mirrors stand still; until then half old, half new."""
    dark_ms: NonNegative = 0.02
    """All mirrors off while they change."""
    upload_ms_per_frame: NonNegative = 5.0
    stuck_on_fraction: Fraction = 0.0
    stuck_off_fraction: Fraction = 0.0
    read_back: bool = True
    """Whether the device tells which frames a sequence has shown."""


class Dmd:
    """A face of the world."""

    Settings = DmdSettings

    def __init__(self, settings: DmdSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.shape = mount.optics.mirrors.shape
        self.memory_frames = settings.memory_frames
        self.settle_ms = settings.settle_ms + settings.dark_ms
        self._world = world_of(mount)
        self._memory: list[str] = []
        self._steps: list[tuple[float, int]] = []
        self._next: list[int] = []

    def open(self) -> None:
        self.stop()

    def close(self) -> None:
        self.stop()

    def upload_ms(self, frames: int) -> float:
        return frames * self.settings.upload_ms_per_frame

    def load(self, frames: BoolArray) -> None:
        if frames.ndim != 3 or frames.shape[1:] != self.shape or frames.dtype != np.bool_:
            raise DeviceError(
                self.name,
                f"wants boolean frames (n, {self.shape[0]}, {self.shape[1]}), given {frames.dtype} {frames.shape}",
            )
        if len(frames) > self.memory_frames:
            raise DeviceError(self.name, f"has memory for {self.memory_frames} frames, given {len(frames)}")
        self.stop()
        self._memory = []
        if self._world.faults.strikes("refused_upload"):
            raise DeviceError(self.name, f"refused the upload of {len(frames)} frames")
        self._world.clock.sleep_ms(self.upload_ms(len(frames)))
        stuck = [self._with_stuck(frame) for frame in frames]
        self._memory = [hashlib.sha256(np.packbits(frame).tobytes()).hexdigest() for frame in stuck]
        self._world.frames = dict(zip(self._memory, stuck, strict=True))

    def _with_stuck(self, frame: BoolArray) -> BoolArray:
        rng = np.random.default_rng([self._world.settings.seed, 0xD3D])
        luck = rng.random(frame.shape)
        on = luck < self.settings.stuck_on_fraction
        off = luck > 1 - self.settings.stuck_off_fraction
        stuck: BoolArray = (frame | on) & ~off
        return stuck

    def show(self, index: int | None) -> None:
        self._disarm()
        self._step_at(self._world.clock.now_ms(), None if index is None else self._frame(index))

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        if not order:
            raise DeviceError(self.name, "a sequence needs at least one frame")
        if period_ms is not None and period_ms <= self.settle_ms:
            raise DeviceError(
                self.name, f"cannot step every {period_ms} ms: a pattern needs {self.settle_ms} ms to stand"
            )
        self._disarm()
        keys = [self._frame(index) for index in order]
        if self._world.faults.strikes("shifted_sequence"):
            order = [*order[1:], order[0]]
            keys = [*keys[1:], keys[0]]
        begin = self._world.clock.now_ms()
        if period_ms is None:
            self._steps = [(begin, order[0])]
            self._next = list(order[1:])
            self._step_at(begin, keys[0])
            self._world.exposure_ended = self._step_on_trigger
            return
        for step, (index, key) in enumerate(zip(order, keys, strict=True)):
            at = begin + step * period_ms
            self._steps.append((at, index))
            self._step_at(at, key)
            if not self._world.faults.strikes("lost_trigger"):
                self._world.pulses_ms.append(at + self.settle_ms)
        self._step_at(begin + len(order) * period_ms, None)

    def stop(self) -> None:
        self._disarm()
        self._world.history.set_mirrors(self._world.clock.now_ms(), DARK)

    def shown(self) -> tuple[int, ...] | None:
        if not self.settings.read_back:
            return None
        return tuple(index for at, index in self._steps if at <= self._world.clock.now_ms())

    def _frame(self, index: int) -> str:
        if not 0 <= index < len(self._memory):
            raise DeviceError(self.name, f"has no frame {index}: {len(self._memory)} frames are loaded")
        return self._memory[index]

    def _disarm(self) -> None:
        self._steps = []
        self._next = []
        self._world.pulses_ms.clear()
        self._world.exposure_ended = nobody_listens

    def _step_on_trigger(self, time_ms: float) -> None:
        if self._world.faults.strikes("lost_trigger"):
            return
        if not self._next:
            self._step_at(time_ms, None)
            return
        index = self._next.pop(0)
        self._steps.append((time_ms, index))
        self._step_at(time_ms, self._frame(index))

    def _step_at(self, time_ms: float, key: str | None) -> None:
        """Dark, then half old and half new, then the new pattern."""
        history = self._world.history
        before = history.mirrors_at(time_ms)
        after: Shown = ((key, 1.0),)
        mixed: Shown = tuple((frame, part / 2) for frame, part in (*before, *after))
        history.set_mirrors(time_ms, DARK)
        if key is None:
            return
        history.set_mirrors(time_ms + self.settings.dark_ms, mixed)
        history.set_mirrors(time_ms + self.settle_ms, after)
