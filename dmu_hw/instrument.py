"""What a calibration routine has in hand: the ports of a rig, with the light under its guard.

Frames come in the coordinates of the bare chip, however the camera turns them, so that what is found holds for any
ROI, binning and flip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from dmu_hw.channels import Channel
from dmu_hw.data import BoolArray, Progress, Uint16Array
from dmu_hw.errors import DeviceError
from dmu_hw.guard import Guard
from dmu_hw.orientation import Orientation
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import Camera, CameraMode, Clock, Dmd, RawFrame, Roi
from dmu_hw.rig import Rig
from dmu_hw.wheels import Wheels

_SLACK_MS = 2000.0
"""Beyond what a frame needs before it is given up."""
_MARGIN = 1.5


class Instrument:
    """One channel of an opened rig. `optics` is what is believed of it so far, in coordinates of the bare chip."""

    def __init__(self, rig: Rig, channel: Channel, optics: Optics, guard: Guard, progress: Progress) -> None:
        self.rig = rig
        self.channel = channel
        self.optics = optics
        self.guard = guard
        self.progress = progress
        """Of the routine that is at work."""
        self.orientation = Orientation.of(rig.camera)
        self.dose_mj_cm2 = 0.0
        """What the sample took so far where all mirrors were on, an upper bound elsewhere."""
        self.light_on_ms = 0.0
        self._loaded: BoolArray | None = None

    @property
    def dmd(self) -> Dmd:
        return self.rig.dmd

    @property
    def camera(self) -> Camera:
        return self.rig.camera

    @property
    def clock(self) -> Clock:
        return self.rig.clock

    @property
    def sensor_shape(self) -> tuple[int, int]:
        return self.rig.camera.sensor_shape

    @property
    def mirrors_shape(self) -> tuple[int, int]:
        return self.rig.dmd.shape

    @property
    def highest_mw(self) -> float:
        """What the rig allows this light."""
        return self.rig.highest_mw(self.channel.light)

    @property
    def whole(self) -> Roi:
        """The whole chip."""
        rows, columns = self.sensor_shape
        return Roi(0, 0, columns, rows)

    # ---------------------------------------------------------------- frames

    def dark(self, exposure_ms: float, count: int, *, roi: Roi | None = None, binning: int = 1) -> Uint16Array:
        """Frames (frame, y, x) with the light off and the mirrors dark."""
        mode = self.mode(exposure_ms, roi=roi, binning=binning)
        self.dmd.show(None)
        self.camera.configure(mode)
        return np.stack([self.snap(mode) for _ in range(count)])

    def take(
        self,
        mirrors: BoolArray,
        *,
        power_mw: float,
        exposure_ms: float,
        repeats: int = 1,
        roi: Roi | None = None,
        binning: int = 1,
    ) -> Uint16Array:
        """One frame of each state of the mirrors (pattern, row, column), shown one by one with their settle time;
        (pattern × repeats, y, x), the repeats of a pattern one after the other."""
        mode = self.mode(exposure_ms, roi=roi, binning=binning)
        self.camera.configure(mode)
        frames: list[Uint16Array] = []
        held = self.dmd.memory_frames
        for first in range(0, len(mirrors), held):
            part = mirrors[first : first + held]
            self.load(part)
            for order in self._lots(len(part), mode, repeats):
                each_ms = exposure_ms + self.rig.readout_ms(mode) + self.rig.settle_ms
                with self.lit(power_mw, _MARGIN * each_ms * repeats * len(order) + _SLACK_MS):
                    for index in order:
                        self.dmd.show(index)
                        self.clock.sleep_ms(self.rig.settle_ms)
                        frames += [self.snap(mode) for _ in range(repeats)]
                    self.dmd.show(None)
        return np.stack(frames)

    def _lots(self, count: int, mode: CameraMode, repeats: int) -> Iterator[Sequence[int]]:
        """So many patterns at a time that the light is not on for longer than the rig allows."""
        each_ms = repeats * (mode.exposure_ms + self.rig.readout_ms(mode) + self.rig.settle_ms) * _MARGIN
        most = int((self.rig.settings.limits.on_time_ms - _SLACK_MS) / each_ms)
        if most < 1:
            longest_ms = self.rig.settings.limits.on_time_ms
            raise DeviceError("light", f"would be on for {each_ms + _SLACK_MS:.0f} ms, the rig allows {longest_ms:g}")
        return (range(first, min(count, first + most)) for first in range(0, count, most))

    # ---------------------------------------------------------------- one by one, for routines with their own order

    def mode(
        self,
        exposure_ms: float,
        *,
        roi: Roi | None = None,
        binning: int = 1,
        external: bool = False,
        interval_ms: float = 0.0,
    ) -> CameraMode:
        """How to take frames of a window of the bare chip."""
        longest_ms = self.rig.settings.limits.exposure_ms
        if exposure_ms > longest_ms:
            raise DeviceError("camera", f"would expose for {exposure_ms:g} ms, the rig allows {longest_ms:g} ms")
        window = self.orientation.window(roi or self.whole)
        return CameraMode(exposure_ms, binning, window, "external" if external else "internal", interval_ms)

    def load(self, mirrors: BoolArray) -> None:
        """Into the memory of the DMD, if it is not there already; the light is off meanwhile."""
        if self._loaded is None or not np.array_equal(self._loaded, mirrors):
            self._loaded = None
            self.dmd.load(mirrors)
            self._loaded = mirrors.copy()

    def snap(self, mode: CameraMode) -> Uint16Array:
        """One frame now, under the internal trigger; the camera is configured so."""
        self.camera.arm(1)
        return self.upright(self.pop(mode))

    def pop(self, mode: CameraMode, wait_ms: float = 0.0) -> RawFrame:
        """The next frame of a camera that is armed, which may take so much longer. Its pixels are the camera's own, and
        as the camera turns them: `upright` copies them."""
        longest_ms = mode.exposure_ms + self.rig.readout_ms(mode) + wait_ms + _SLACK_MS
        return self.camera.pop(longest_ms)

    def upright(self, frame: RawFrame) -> Uint16Array:
        """A copy of its pixels as they lie on the bare chip."""
        return self.orientation.turned(frame.pixels).copy()

    @contextmanager
    def lit(self, power_mw: float, longest_ms: float, *, bare: bool = False) -> Iterator[None]:
        """Light for the length of a block; the sample takes it where mirrors are on. Dark mirrors at its end. `bare`:
        the light is told that number, whatever comes of it."""
        Wheels(self.rig).confirm(self.channel)
        began_ms = self.clock.now_ms()
        try:
            with self.guard.light_on(power_mw, longest_ms, self.channel.light, bare=bare):
                yield
                self.dmd.show(None)
        finally:
            on_ms = self.clock.now_ms() - began_ms
            self.light_on_ms += on_ms
            self.dose_mj_cm2 += self.optics.dose_mj_cm2(power_mw, on_ms)
