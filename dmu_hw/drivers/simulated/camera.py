"""The simulated camera: exposure, ROI, binning, triggers, and a frame buffer that can overflow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dmu_hw.data import Uint16Array
from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Count, NonNegative, Range, Settings
from dmu_hw.orientation import Orientation
from dmu_hw.ports import CameraMode, Mount, RawFrame

_SAME_MS = 1e-6
"""Moments that differ by less are one: sums of times are not exact."""


class CameraTruth(Settings):
    """What is so, whatever is said of it; null: it is as said."""

    trigger_latency_ms: NonNegative | None = None
    trigger_jitter_ms: NonNegative = 0.0
    """Standard deviation of the latency; no pulse is off by more than three of them."""
    readout_ms: NonNegative | None = None
    tick_ms: NonNegative = 0.0
    """The times of frames are whole multiples of it."""
    alignment: Literal["low", "high"] = "low"
    """Which bits of 16 its numbers fill where it has fewer. high, as some drivers hand them over, is a fault to be
    found: all numbers are too large by the same power of two."""


class CameraSettings(Settings):
    """A camera with a global shutter and one buffer."""

    binnings: tuple[Count, ...] = (1, 2, 4, 8, 16, 32, 64)
    buffer_frames: Annotated[int, Field(ge=1)] = 64
    readout_ms: NonNegative = 0.5
    """Time after an exposure before the next can begin."""
    trigger_latency_ms: NonNegative = 0.01
    exposure_ms: Range = (0.01, 10_000.0)
    """Shortest and longest exposure."""
    flip_x: bool = False
    """Frames are handed over with x, or y, running against the chip."""
    flip_y: bool = False
    true: CameraTruth = CameraTruth()


class Camera:
    """A face of the world. A frame is computed when it is fetched, from what was so while it was exposed."""

    Settings = CameraSettings
    of_frames = ("flip_x", "flip_y", "buffer_frames", "binnings", "exposure_ms", "true")
    """Settings that calibrations do not depend on."""

    def __init__(self, settings: CameraSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.binnings = settings.binnings
        self.buffer_frames = settings.buffer_frames
        self._world = world_of(mount)
        self.sensor_shape = self._world.settings.sensor_shape
        self.flips = (settings.flip_x, settings.flip_y)
        self._orientation = Orientation(*self.flips, self.sensor_shape)
        self._world.turn(self._orientation)
        true = settings.true
        latency_ms, readout_ms = true.trigger_latency_ms, true.readout_ms
        self._latency_ms = settings.trigger_latency_ms if latency_ms is None else latency_ms
        self._readout_ms = settings.readout_ms if readout_ms is None else readout_ms
        self._mode: CameraMode | None = None
        self._buffer: Uint16Array = np.zeros((0, 0), dtype=np.uint16)
        self._dead = False
        self._left = 0
        self._number = 0
        self._free_from_ms = 0.0

    def open(self) -> None:
        self._dead = False
        self._mode = None

    def close(self) -> None:
        self.disarm()

    def readout_ms(self, mode: CameraMode) -> float:
        return self.settings.readout_ms * self._part(mode)

    def configure(self, mode: CameraMode) -> None:
        self._alive()
        roi, (rows, columns) = mode.roi, self.sensor_shape
        low, high = self.settings.exposure_ms
        if mode.binning not in self.binnings:
            raise DeviceError(self.name, f"binning must be one of {self.binnings}, given {mode.binning}")
        if not (roi.x >= 0 and roi.y >= 0 and roi.x + roi.width <= columns and roi.y + roi.height <= rows):
            raise DeviceError(self.name, f"{roi} does not fit the sensor of {rows}x{columns} pixels")
        if roi.width % mode.binning or roi.height % mode.binning or roi.width < 1 or roi.height < 1:
            raise DeviceError(self.name, f"{roi} is not a multiple of the binning {mode.binning}")
        if not low <= mode.exposure_ms <= high:
            raise DeviceError(self.name, f"exposure must be {low} to {high} ms, given {mode.exposure_ms}")
        self.disarm()
        self._world.prepare(self._on_chip(mode))
        self._mode = mode
        self._buffer = np.zeros(mode.shape, dtype=np.uint16)

    def arm(self, frames: int) -> None:
        self._configured()
        if frames < 1:
            raise DeviceError(self.name, f"takes at least one frame, given {frames}")
        now_ms = self._world.clock.now_ms()
        self._world.pulses_ms[:] = [pulse for pulse in self._world.pulses_ms if pulse >= now_ms]
        self._left, self._number = frames, 0
        self._free_from_ms = now_ms

    def disarm(self) -> None:
        self._left = 0

    def pop(self, timeout_ms: float) -> RawFrame:
        mode, clock = self._configured(), self._world.clock
        deadline_ms = clock.now_ms() + timeout_ms
        while True:
            if self._world.faults.strikes("camera_death"):
                self._dead = True
            self._alive()
            start_ms = next(self._starts(mode), None)
            if start_ms is None or self._ready_ms(start_ms, mode) > deadline_ms:
                clock.advance_to(deadline_ms)
                raise DeviceTimeout(self.name, f"gave no frame within {timeout_ms:g} ms")
            clock.advance_to(self._ready_ms(start_ms, mode))
            self._check_buffer(mode)
            frame = self._expose(start_ms, mode)
            if frame is not None:
                return frame

    def _on_chip(self, mode: CameraMode) -> CameraMode:
        return replace(mode, roi=self._orientation.window(mode.roi))

    def _part(self, mode: CameraMode) -> float:
        """Of the rows of the chip that are read out."""
        return mode.roi.height / self.sensor_shape[0]

    def _alive(self) -> None:
        if self._dead:
            raise DeviceError(self.name, "does not answer any more")

    def _configured(self) -> CameraMode:
        self._alive()
        if self._mode is None:
            raise DeviceError(self.name, "was not configured")
        return self._mode

    def _starts(self, mode: CameraMode) -> Iterator[float]:
        """When the exposures still to be fetched begin, as far as pulses for them are known."""
        return itertools.islice(self._own(mode) if mode.trigger == "internal" else self._triggered(mode), self._left)

    def _own(self, mode: CameraMode) -> Iterator[float]:
        start_ms = self._free_from_ms
        while True:
            yield start_ms
            start_ms = self._free_after(start_ms, mode)

    def _triggered(self, mode: CameraMode) -> Iterator[float]:
        free_from_ms = self._free_from_ms
        for pulse_ms in self._world.pulses_ms:
            start_ms = self._answer_ms(pulse_ms)
            if start_ms > free_from_ms - _SAME_MS:  # a pulse during exposure or readout is not seen
                yield start_ms
                free_from_ms = self._free_after(start_ms, mode)

    def _answer_ms(self, pulse_ms: float) -> float:
        """When it begins to expose for a pulse, however often it is asked."""
        jitter_ms = self.settings.true.trigger_jitter_ms
        if jitter_ms == 0:
            return pulse_ms + self._latency_ms
        luck = np.random.default_rng([self._world.settings.seed, 0x717, round(pulse_ms * 1e6)]).standard_normal()
        return pulse_ms + max(0.0, self._latency_ms + jitter_ms * float(np.clip(luck, -3, 3)))

    def _stamp_ms(self, start_ms: float) -> float:
        tick_ms = self.settings.true.tick_ms
        return start_ms if tick_ms == 0 else round(start_ms / tick_ms) * tick_ms

    def _ready_ms(self, start_ms: float, mode: CameraMode) -> float:
        return start_ms + mode.exposure_ms + self._readout_ms * self._part(mode)

    def _free_after(self, start_ms: float, mode: CameraMode) -> float:
        return max(self._ready_ms(start_ms, mode), start_ms + mode.interval_ms)

    def _check_buffer(self, mode: CameraMode) -> None:
        """Frames that nobody fetched fill the buffer; one more than it holds is an overflow."""
        now_ms = self._world.clock.now_ms()
        waiting = itertools.takewhile(lambda start_ms: self._ready_ms(start_ms, mode) <= now_ms, self._starts(mode))
        full = len(list(itertools.islice(waiting, self.buffer_frames + 1))) > self.buffer_frames
        if full or self._world.faults.strikes("buffer_overflow"):
            self.disarm()
            raise DeviceError(self.name, f"buffer of {self.buffer_frames} frames overflowed")

    def _expose(self, start_ms: float, mode: CameraMode) -> RawFrame | None:
        world, stop_ms = self._world, start_ms + mode.exposure_ms
        self._left -= 1
        number, self._number = self._number, self._number + 1
        self._free_from_ms = self._free_after(start_ms, mode)
        world.pulses_ms[:] = [pulse for pulse in world.pulses_ms if self._answer_ms(pulse) > start_ms]
        pixels = self._orientation.turned(world.expose(start_ms, stop_ms, self._on_chip(mode)))
        if self.settings.true.alignment == "high":
            pixels = np.left_shift(pixels, np.uint16(16 - world.truth.sensor.bits))
        world.exposure_ended(stop_ms)
        if world.faults.strikes("dropped_frame"):
            return None
        if not world.faults.strikes("repeated_frame"):
            self._buffer[:] = pixels
        return RawFrame(self._buffer, number, self._stamp_ms(start_ms))
