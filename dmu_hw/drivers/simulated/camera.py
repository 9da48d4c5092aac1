"""The simulated camera: exposure, ROI, binning, triggers, and a frame buffer that can overflow."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from dmu_hw.data import Uint16Array
from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Count, NonNegative, Positive, Settings
from dmu_hw.ports import CameraMode, Mount, RawFrame


class CameraSettings(Settings):
    """A camera with a global shutter and one buffer."""

    binnings: tuple[Count, ...] = (1, 2, 4, 8, 16, 32, 64)
    buffer_frames: Annotated[int, Field(ge=1)] = 64
    readout_ms: NonNegative = 0.5
    """Time after an exposure before the next can begin."""
    trigger_latency_ms: NonNegative = 0.01
    exposure_ms: tuple[Positive, Positive] = (0.01, 10_000.0)
    """Shortest and longest exposure."""


class Camera:
    """A face of the world."""

    Settings = CameraSettings

    def __init__(self, settings: CameraSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.binnings = settings.binnings
        self.buffer_frames = settings.buffer_frames
        self._world = world_of(mount)
        self.sensor_shape = self._world.settings.sensor_shape
        self._mode: CameraMode | None = None
        self._buffer: Uint16Array = np.zeros((0, 0), dtype=np.uint16)
        self._dead = False
        self._left = 0
        self._number = 0
        self._free_from_ms = 0.0

    def open(self) -> None:
        self._dead = False

    def close(self) -> None:
        self.disarm()

    def readout_ms(self, mode: CameraMode) -> float:
        return self.settings.readout_ms * mode.roi.height / self.sensor_shape[0]

    def configure(self, mode: CameraMode) -> None:
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
        self._mode = mode
        self._buffer = np.zeros(mode.shape, dtype=np.uint16)

    def arm(self, frames: int) -> None:
        self._configured()
        self._world.pulses_ms.clear()
        self._left, self._number = frames, 0
        self._free_from_ms = self._world.clock.now_ms()

    def disarm(self) -> None:
        self._left = 0

    def pop(self, timeout_ms: float) -> RawFrame:
        mode, clock = self._configured(), self._world.clock
        deadline = clock.now_ms() + timeout_ms
        while True:
            if self._world.faults.strikes("camera_death"):
                self._dead = True
                self._configured()
            start = self._next_start(mode)
            ready = None if start is None else start + mode.exposure_ms + self.readout_ms(mode)
            if start is None or ready is None or ready > deadline:
                clock.advance_to(deadline)
                raise DeviceTimeout(self.name, f"gave no frame within {timeout_ms:g} ms")
            clock.advance_to(ready)
            self._check_buffer(mode)
            frame = self._expose(start, mode)
            if frame is not None:
                return frame

    def _configured(self) -> CameraMode:
        if self._dead:
            raise DeviceError(self.name, "does not answer any more")
        if self._mode is None:
            raise DeviceError(self.name, "was not configured")
        return self._mode

    def _next_start(self, mode: CameraMode) -> float | None:
        """When the next exposure begins, or None if nothing will start one."""
        if not self._left:
            return None
        if mode.trigger == "internal":
            return self._free_from_ms
        latency, pulses = self.settings.trigger_latency_ms, self._world.pulses_ms
        while pulses and pulses[0] + latency < self._free_from_ms:
            pulses.pop(0)  # a pulse during exposure or readout is not seen
        return pulses[0] + latency if pulses else None

    def _check_buffer(self, mode: CameraMode) -> None:
        """Frames that nobody fetched fill the buffer; one more than it holds is an overflow."""
        cycle = max(mode.exposure_ms + self.readout_ms(mode), mode.interval_ms)
        now = self._world.clock.now_ms()
        if mode.trigger == "internal":
            waiting = min(self._left, int((now - self._free_from_ms) // cycle) + 1)
        else:
            waiting = sum(pulse + cycle <= now for pulse in self._world.pulses_ms)
        if waiting > self.buffer_frames or self._world.faults.strikes("buffer_overflow"):
            self.disarm()
            raise DeviceError(self.name, f"buffer of {self.buffer_frames} frames overflowed")

    def _expose(self, start_ms: float, mode: CameraMode) -> RawFrame | None:
        world = self._world
        stop_ms = start_ms + mode.exposure_ms
        if mode.trigger == "external":
            world.pulses_ms.pop(0)
        self._left -= 1
        number, self._number = self._number, self._number + 1
        self._free_from_ms = max(stop_ms + self.readout_ms(mode), start_ms + mode.interval_ms)
        pixels = world.expose(start_ms, stop_ms, mode)
        world.exposure_ended(stop_ms)
        if world.faults.strikes("dropped_frame"):
            return None
        if not world.faults.strikes("repeated_frame"):
            self._buffer[:] = pixels
        return RawFrame(self._buffer, number, start_ms)
