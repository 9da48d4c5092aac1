"""The simulated mirror array: memory, display, hardware sequence, settle and dark time, trigger in and out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from dmu_hw.data import BoolArray
from dmu_hw.drivers.simulated.history import DARK, MirrorFrame, Shown
from dmu_hw.drivers.simulated.world import nobody_listens, world_of
from dmu_hw.errors import DeviceError
from dmu_hw.files import Fraction, NonNegative, Settings
from dmu_hw.memory import check_frames, check_order
from dmu_hw.ports import Mount


class DmdTruth(Settings):
    """What is so, whatever is said of it; null: it is as said."""

    settle_ms: NonNegative | None = None
    dark_ms: NonNegative | None = None
    first_step: Annotated[int, Field(ge=0)] | None = None


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
    read_back_lies: bool = False
    """It tells what it was asked to show, whatever it showed."""
    first_step: Annotated[int, Field(ge=0)] = 0
    """The place in its order at which this device begins a sequence; orders are turned by as much against it."""
    true: DmdTruth = DmdTruth()

    @model_validator(mode="after")
    def _a_mirror_is_stuck_one_way(self) -> DmdSettings:
        if self.stuck_on_fraction + self.stuck_off_fraction > 1:
            raise ValueError("stuck_on_fraction and stuck_off_fraction must not be more than 1 together")
        return self


@dataclass(frozen=True)
class _Step:
    """One step of a sequence: what is told of it, and what the mirrors show; None is dark."""

    told: int
    frame: MirrorFrame | None


class Dmd:
    """A face of the world."""

    Settings = DmdSettings
    of_frames = ("true",)
    """Settings that calibrations do not depend on."""

    def __init__(self, settings: DmdSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.shape = mount.optics.mirrors.shape
        self.memory_frames = settings.memory_frames
        self.settle_ms = settings.settle_ms + settings.dark_ms
        true = settings.true
        self._dark_ms = settings.dark_ms if true.dark_ms is None else true.dark_ms
        self._stands_ms = self._dark_ms + (settings.settle_ms if true.settle_ms is None else true.settle_ms)
        self._late_steps = 0 if true.first_step is None else true.first_step - settings.first_step
        self.reads_back = settings.read_back
        self._world = world_of(mount)
        self._memory: list[MirrorFrame] = []
        self._stale: list[MirrorFrame] = []
        """What the memory held before the last upload."""
        self._steps: list[tuple[float, int]] = []
        self._next: list[_Step] = []

    def open(self) -> None:
        self.stop()

    def close(self) -> None:
        self.stop()

    def wait_ms(self, settle_ms: float) -> None:
        self.settle_ms = settle_ms

    def upload_ms(self, frames: int) -> float:
        return frames * self.settings.upload_ms_per_frame

    def load(self, frames: BoolArray) -> None:
        self.stop()
        self._stale = self._memory or self._stale
        self._steps, self._memory = [], []
        check_frames(self.name, frames, self.shape, self.memory_frames)
        if self._world.faults.strikes("refused_upload"):
            raise DeviceError(self.name, f"refused the upload of {len(frames)} frames")
        self._world.clock.sleep_ms(self.upload_ms(len(frames)))
        self._memory = [self._mirror_frame(frame) for frame in frames]

    def show(self, index: int | None) -> None:
        if index is not None:
            check_order(self.name, [index], len(self._memory))
        self._disarm()
        self._steps = []
        self._step_at(self._world.clock.now_ms(), None if index is None else self._memory[index])

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        check_order(self.name, order, len(self._memory))
        if period_ms is not None and not period_ms > self.settle_ms:
            raise DeviceError(
                self.name, f"cannot step every {period_ms:g} ms: a pattern needs {self.settle_ms:g} ms to stand"
            )
        self._disarm()
        steps = self._wronged(order)
        begin_ms = self._world.clock.now_ms()
        if period_ms is None:
            self._steps, self._next = [(begin_ms, steps[0].told)], steps[1:]
            self._step_at(begin_ms, steps[0].frame)
            self._world.exposure_ended = self._step_on_trigger
            return
        self._steps = [(begin_ms + place * period_ms, step.told) for place, step in enumerate(steps)]
        for (at_ms, _), step in zip(self._steps, steps, strict=True):
            self._step_at(at_ms, step.frame)
            if not self._world.faults.strikes("lost_trigger"):
                self._world.pulses_ms.append(at_ms + self.settle_ms)
        self._step_at(begin_ms + len(order) * period_ms, None)

    def stop(self) -> None:
        self._disarm()
        self._step_at(self._world.clock.now_ms(), None)

    def shown(self) -> tuple[int, ...] | None:
        if not self.settings.read_back:
            return None
        return tuple(index for at_ms, index in self._steps if at_ms <= self._world.clock.now_ms())

    def _wronged(self, asked: Sequence[int]) -> list[_Step]:
        """What a sequence shows, and what it will tell of it, once faults have had their way."""
        faults, frames = self._world.faults, self._memory
        begin = self._late_steps % len(asked)
        order = [*asked[begin:], *asked[:begin]]
        if (shift := faults.struck("shifted_sequence")) is not None:
            order = [*order[shift.by % len(order) :], *order[: shift.by % len(order)]]
        if (swap := faults.struck("swapped_patterns")) is not None:
            other = swap.by % len(order)
            order[0], order[other] = order[other], order[0]
        if (repeat := faults.struck("repeated_pattern")) is not None:
            order[repeat.by % len(order)] = order[0]
        if faults.strikes("stale_memory") and self._stale:
            frames = [self._stale[index % len(self._stale)] for index in range(len(frames))]
        told = asked if self.settings.read_back_lies else order
        steps = [_Step(index, frames[shown]) for index, shown in zip(told, order, strict=True)]
        if (dark := faults.struck("dark_pattern")) is not None:
            steps[dark.by % len(order)] = _Step(told[dark.by % len(order)], None)
        return steps

    def _disarm(self) -> None:
        """Nothing that was planned happens any more; what has happened stays."""
        now_ms = self._world.clock.now_ms()
        self._next = []
        self._steps = [step for step in self._steps if step[0] <= now_ms]
        self._world.pulses_ms[:] = [pulse for pulse in self._world.pulses_ms if pulse <= now_ms]
        self._world.exposure_ended = nobody_listens

    def _step_on_trigger(self, time_ms: float) -> None:
        if self._world.faults.strikes("lost_trigger"):
            return
        if not self._next:
            self._step_at(time_ms, None)
            return
        step = self._next.pop(0)
        self._steps.append((time_ms, step.told))
        self._step_at(time_ms, step.frame)

    def _step_at(self, time_ms: float, frame: MirrorFrame | None) -> None:
        """Dark, then half old and half new, then the new pattern; into the dark without delay."""
        mirrors = self._world.history.mirrors
        before = mirrors.at(time_ms)
        mirrors.set(time_ms, self._dark)
        if frame is None:
            return
        after: Shown = ((frame, 1.0),)
        mixed: Shown = tuple((shown, part / 2) for shown, part in (*before, *after))
        mirrors.set(time_ms + self._dark_ms, mixed)
        mirrors.set(time_ms + self._stands_ms, after)

    # ---------------------------------------------------------------- mirrors that do not obey

    @cached_property
    def _stuck(self) -> tuple[BoolArray, BoolArray] | None:
        """Mirrors that are always on and always off."""
        on, off = self.settings.stuck_on_fraction, self.settings.stuck_off_fraction
        if on == off == 0:
            return None
        luck = np.random.default_rng([self._world.settings.seed, 0xD3D]).random(self.shape)
        return luck < on, luck >= 1 - off

    @cached_property
    def _dark(self) -> Shown:
        """The array with all mirrors off that can be."""
        if self.settings.stuck_on_fraction == 0:
            return DARK
        return ((self._mirror_frame(np.zeros(self.shape, dtype=bool)), 1.0),)

    def _mirror_frame(self, wanted: BoolArray) -> MirrorFrame:
        """What the mirrors make of a frame: a copy, since the caller may go on writing to his."""
        on = wanted.copy()
        if self._stuck is not None:
            always_on, always_off = self._stuck
            on = (on | always_on) & ~always_off
        on.flags.writeable = False
        return MirrorFrame(hashlib.sha256(np.packbits(on).tobytes()).hexdigest(), on)
