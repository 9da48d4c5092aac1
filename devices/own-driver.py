"""A driver of one's own: a template that works.

A rig YAML names this file (`driver: own-driver.py`), and each of its devices finds here the class that is called as
its port: Dmd, Camera, Light, Shutter, Stage; a rig may also have Focus, Filter and Meter. Delete what you do not drive.
What each class promises stands in dmu_hw/ports.py, and `DMU_RIG=devices/mine.yaml pytest -m hardware` holds it against
your device.

Five rules are the same for all of them:

- `Settings` are the keys that the YAML may have. What planning asks (shapes, limits, times) is answered from them,
  before `open`; `__init__` touches no hardware.
- Light is off, the shutter closed and all mirrors dark when a device is opened, and when it is closed. `close` may come
  at any time, also twice, also after `open` failed.
- Whatever goes wrong is a DeviceError that names the device, and what does not come in time a DeviceTimeout. Let no
  call to a vendor's library wait for ever.
- Ask the device; remember nothing that it can tell. Above all `Light.is_on`.
- Times are in ms of this machine's clock (`now_ms` below); arrays are (y, x).

The lines marked HERE are where the vendor's calls go. `Toy` stands in for all of them: it is a lamp, mirrors and a
camera that look at an invented sample, in real time. Take it away in the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.errors import DeviceError, DeviceTimeout, InputError, Problem
from dmu_hw.files import Count, NonNegative, Positive, Settings
from dmu_hw.memory import check_frames, check_order
from dmu_hw.ports import CameraMode, MachineClock, Mount, RawFrame


def now_ms() -> float:
    """The clock of a rig that is no simulation."""
    return MachineClock().now_ms()


class ConnectionSettings(Settings):
    """What the YAML may say of it; perhaps yours needs `port: COM3`."""


class Connection:
    """What several devices share: a session with a core, a USB handle, a box with many outputs. Opened before them and
    closed after them; each device finds it in `mount.connection`. A device that shares nothing needs none."""

    Settings = ConnectionSettings

    def __init__(self, settings: ConnectionSettings, mount: Mount) -> None:
        self.name = mount.name
        self.settings = settings
        self.toy = Toy(mount.optics.mirrors.shape)

    def open(self) -> None:
        """HERE: connect, and look that it is the right one."""

    def close(self) -> None:
        """HERE: let go."""
        self.toy.lit = self.toy.open = False
        self.toy.show(None)


def toy_of(mount: Mount) -> Toy:
    """What the devices below speak with; yours may keep the session of their Connection instead."""
    if not isinstance(mount.connection, Connection):
        raise InputError([Problem(mount.document.where(()), "needs a connection whose driver is this file")])
    return mount.connection.toy


# ---------------------------------------------------------------- mirrors


class DmdSettings(Settings):
    """What the YAML may say of the mirrors."""

    memory_frames: Count = 64
    settle_ms: NonNegative = 0.1
    """From a step until the new pattern stands."""
    upload_ms_per_frame: NonNegative = 0.2


class Dmd:
    """An array with a memory of frames, which a sequence steps through by itself."""

    Settings = DmdSettings

    def __init__(self, settings: DmdSettings, mount: Mount) -> None:
        self.name = mount.name
        self.settings = settings
        self.shape = mount.optics.mirrors.shape
        self.memory_frames = settings.memory_frames
        self.settle_ms = settings.settle_ms
        self.reads_back = False
        """True if `shown` can tell what a sequence has shown. It is worth much: see devices/README.md."""
        self._toy = toy_of(mount)
        self._loaded = 0

    def open(self) -> None:
        """HERE: connect, and compare the number of mirrors with `self.shape`."""
        self.stop()

    def close(self) -> None:
        self.stop()

    def upload_ms(self, frames: int) -> float:
        return frames * self.settings.upload_ms_per_frame

    def load(self, frames: BoolArray) -> None:
        """If they are refused, the memory is empty: nobody images with the patterns of before."""
        self.stop()
        self._loaded = 0
        check_frames(self.name, frames, self.shape, self.memory_frames)
        time.sleep(self.upload_ms(len(frames)) / 1e3)
        self._toy.memory = frames.copy()  # HERE: True sends light to the sample
        self._loaded = len(frames)

    def show(self, index: int | None) -> None:
        if index is not None:
            check_order(self.name, [index], self._loaded)
        self._toy.show(index)  # HERE

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        """Returns at once. With a period a pulse goes to the camera when each pattern stands; with None every end of an
        exposure steps. After the last pattern all is dark."""
        check_order(self.name, order, self._loaded)
        if period_ms is not None and not period_ms > self.settle_ms:
            raise DeviceError(self.name, f"cannot step every {period_ms:g} ms: a pattern needs {self.settle_ms:g} ms")
        self._toy.start(order, period_ms, self.settle_ms)  # HERE

    def stop(self) -> None:
        self._toy.show(None)  # HERE

    def shown(self) -> tuple[int, ...] | None:
        """None: it cannot tell."""
        return None


# ---------------------------------------------------------------- camera


class CameraSettings(Settings):
    """What the YAML may say of the camera."""

    sensor_shape: tuple[Count, Count] = (64, 64)
    binnings: tuple[Count, ...] = (1, 2, 4, 8)
    buffer_frames: Count = 100
    readout_ms: NonNegative = 0.5
    longest_exposure_ms: Positive = 10_000.0


class Camera:
    """Counts its exposures, so that one which was lost leaves a gap in the numbers."""

    Settings = CameraSettings

    def __init__(self, settings: CameraSettings, mount: Mount) -> None:
        self.name = mount.name
        self.settings = settings
        self.sensor_shape = settings.sensor_shape
        self.binnings = settings.binnings
        self.buffer_frames = settings.buffer_frames
        self._toy = toy_of(mount)
        self._mode: CameraMode | None = None
        self._left = 0
        self._number = 0
        self._free_ms = 0.0
        """When the next exposure can begin."""

    def open(self) -> None:
        """HERE: connect, and compare what it says of its chip with `self.sensor_shape`."""
        self._mode = None
        self.disarm()

    def close(self) -> None:
        self.disarm()

    def readout_ms(self, mode: CameraMode) -> float:  # noqa: ARG002 - of this one it is always the same
        return self.settings.readout_ms

    def configure(self, mode: CameraMode) -> None:
        """Refuse what it cannot do, rather than do something like it."""
        roi, (rows, columns), longest_ms = mode.roi, self.sensor_shape, self.settings.longest_exposure_ms
        if mode.binning not in self.binnings:
            raise DeviceError(self.name, f"binning must be one of {self.binnings}, given {mode.binning}")
        if min(roi.x, roi.y) < 0 or roi.x + roi.width > columns or roi.y + roi.height > rows:
            raise DeviceError(self.name, f"{roi} does not fit the sensor of {rows}x{columns} pixels")
        if roi.width % mode.binning or roi.height % mode.binning or min(roi.width, roi.height) < 1:
            raise DeviceError(self.name, f"{roi} is no multiple of the binning {mode.binning}")
        if not 0 < mode.exposure_ms <= longest_ms:
            raise DeviceError(self.name, f"exposure must be up to {longest_ms:g} ms, given {mode.exposure_ms:g}")
        self.disarm()
        self._mode = mode  # HERE: and read back what it has made of it

    def arm(self, frames: int) -> None:
        """Whatever is still in its buffer goes: an old frame would be taken for a new one."""
        mode = self._configured()
        self._left, self._number, self._free_ms = frames, 0, now_ms()
        if mode.trigger == "external":
            self._toy.pulses_ms.clear()
        else:  # HERE: it begins at once, and tells the mirrors of each end
            cycle_ms = max(mode.interval_ms, mode.exposure_ms + self.settings.readout_ms)
            self._toy.pulses_ms[:] = [self._free_ms + place * cycle_ms for place in range(frames)]
            for start_ms in self._toy.pulses_ms:
                self._toy.step(start_ms + mode.exposure_ms)

    def disarm(self) -> None:
        self._left = 0

    def pop(self, timeout_ms: float) -> RawFrame:
        """HERE: ask its buffer again and again, with a short sleep, until the time is over. Of a buffer that overflowed
        say so, loudly."""
        mode, until_ms = self._configured(), now_ms() + timeout_ms
        while self._left:
            while self._toy.pulses_ms and self._toy.pulses_ms[0] < self._free_ms:  # it was busy: that one is lost
                self._toy.pulses_ms.pop(0)
                self._number += 1
            due_ms = (
                self._toy.pulses_ms[0] + mode.exposure_ms + self.settings.readout_ms if self._toy.pulses_ms else None
            )
            if due_ms is None or due_ms > until_ms:
                break
            time.sleep(max(0.0, due_ms - now_ms()) / 1e3)
            start_ms = self._toy.pulses_ms.pop(0)
            frame = RawFrame(self._toy.picture(start_ms, mode, self.sensor_shape), self._number, start_ms)
            self._left, self._number, self._free_ms = self._left - 1, self._number + 1, due_ms
            return frame
        time.sleep(max(0.0, until_ms - now_ms()) / 1e3)
        raise DeviceTimeout(self.name, f"no frame within {timeout_ms:g} ms")

    def _configured(self) -> CameraMode:
        if self._mode is None:
            raise DeviceError(self.name, "is not configured")
        return self._mode


# ---------------------------------------------------------------- light


class LightSettings(Settings):
    """What the YAML may say of the light."""

    max_power_mw: Positive
    """At the sample, with all mirrors on."""


class Light:
    """This one hangs on a connection, so that it lives in the same process as all else, and stays on when that dies:
    the rig has to accept it (`unwatched_light`). A light with a port of its own should rather say `guarded = True` and
    have `keep_alive(self)`: then a second process holds it, and puts it off when the program is gone. Best is hardware
    that goes off by itself: `watchdog_ms` says after how long. `dmu_hw.lines.LineLight` is a beginning for serial
    ports."""

    Settings = LightSettings
    watchdog_ms: float | None = None

    def __init__(self, settings: LightSettings, mount: Mount) -> None:
        self.name = mount.name
        self.max_power_mw = settings.max_power_mw
        self._toy = toy_of(mount)

    def open(self) -> None:
        """HERE: connect, and off before anything else."""
        self.off()
        if self.is_on():
            raise DeviceError(self.name, "is on though it was told to be off")
        self.set_power(0.0)

    def close(self) -> None:
        self.off()

    def set_power(self, power_mw: float) -> None:
        if not 0 <= power_mw <= self.max_power_mw:
            raise DeviceError(self.name, f"power must be 0 to {self.max_power_mw:g} mW, given {power_mw:g}")
        self._toy.power_mw = power_mw  # HERE

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - hand it on if your device counts the time
        self._toy.lit = True  # HERE

    def off(self) -> None:
        self._toy.lit = False  # HERE

    def is_on(self) -> bool:
        """HERE: ask it. Whoever calls this wants to know whether people may look."""
        return self._toy.lit

    def interlock_closed(self) -> bool:
        """HERE; True if it cannot tell."""
        return True


# ---------------------------------------------------------------- shutter and stage


class ShutterSettings(Settings):
    """What the YAML may say of the shutter."""

    switch_ms: NonNegative = 5.0


class Shutter:
    """Closed unless a run takes light; `block_light` is called when a light does not go off."""

    Settings = ShutterSettings

    def __init__(self, settings: ShutterSettings, mount: Mount) -> None:
        self.name = mount.name
        self.switch_ms = settings.switch_ms
        self._toy = toy_of(mount)

    def open(self) -> None:
        self.set_open(False)

    def close(self) -> None:
        self.set_open(False)

    def set_open(self, wanted: bool) -> None:
        """Wait until it stands."""
        self._toy.open = wanted  # HERE
        time.sleep(self.switch_ms / 1e3)

    def is_open(self) -> bool:
        return self._toy.open  # HERE

    def block_light(self) -> None:
        self.set_open(False)


class StageSettings(Settings):
    """What the YAML may say of the stage."""

    limits_um: tuple[tuple[float, float], tuple[float, float]] = ((-1000.0, 1000.0), (-1000.0, 1000.0))
    speed_um_ms: Positive = 20.0


class Stage:
    """A move to larger x takes what is seen to the left, a move to larger y takes it up."""

    Settings = StageSettings

    def __init__(self, settings: StageSettings, mount: Mount) -> None:
        self.name = mount.name
        self.settings = settings
        self.limits_um = settings.limits_um
        self._at_um = (0.0, 0.0)

    def open(self) -> None:
        """HERE: connect. It stays where it stands."""

    def close(self) -> None:
        """HERE: let go."""

    def move_um(self, x_um: float, y_um: float, timeout_ms: float) -> None:
        """Returns when it has arrived."""
        for value, (low, high) in zip((x_um, y_um), self.limits_um, strict=True):
            if not low <= value <= high:
                raise DeviceError(self.name, f"({x_um:g}, {y_um:g}) um is beyond its limits {self.limits_um}")
        takes_ms = self.travel_ms(math.dist(self._at_um, (x_um, y_um)))
        time.sleep(min(takes_ms, timeout_ms) / 1e3)  # HERE
        if takes_ms > timeout_ms:
            raise DeviceTimeout(self.name, f"did not arrive within {timeout_ms:g} ms")
        self._at_um = (x_um, y_um)

    def position_um(self) -> tuple[float, float]:
        return self._at_um

    def travel_ms(self, distance_um: float) -> float:
        return distance_um / self.settings.speed_um_ms


# ---------------------------------------------------------------- the toy


class Toy:
    """A lamp, mirrors one camera pixel large, and a sample. Not part of a driver."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.lit = self.open = False
        self.power_mw = 0.0
        self.memory: BoolArray = np.zeros((0, *shape), dtype=bool)
        self.pulses_ms: list[float] = []
        """When exposures begin."""
        self._steps: list[tuple[float, int | None]] = []
        """From when on the mirrors show which frame."""
        self._waiting: list[int | None] = []
        """What ends of exposures will step to."""
        self._rng = np.random.default_rng(0)
        self._sample: NDArray[np.float64] = 20 + 200 * self._rng.random(shape) ** 4

    def show(self, index: int | None) -> None:
        self._steps, self._waiting = [(now_ms(), index)], []
        self.pulses_ms.clear()

    def start(self, order: Sequence[int], period_ms: float | None, settle_ms: float) -> None:
        begin_ms = now_ms()
        self.show(order[0])
        if period_ms is None:
            self._waiting = [*order[1:], None]
            return
        self._steps = [(begin_ms + place * period_ms, index) for place, index in enumerate((*order, None))]
        self.pulses_ms[:] = [at_ms + settle_ms for at_ms, _ in self._steps[:-1]]

    def step(self, at_ms: float) -> None:
        if self._waiting:
            self._steps.append((at_ms, self._waiting.pop(0)))

    def picture(self, start_ms: float, mode: CameraMode, sensor_shape: tuple[int, int]) -> Uint16Array:
        """What an exposure that began then has seen."""
        shown = [index for at_ms, index in self._steps if at_ms <= start_ms]
        light: NDArray[np.float64] = np.zeros_like(self._sample)
        if self.lit and self.open and shown and shown[-1] is not None:
            light = self._sample * np.where(self.memory[shown[-1]], 1.0, 0.01)
        x = (light.shape[1] - sensor_shape[1]) // 2 + mode.roi.x
        y = (light.shape[0] - sensor_shape[0]) // 2 + mode.roi.y
        seen = light[y : y + mode.roi.height, x : x + mode.roi.width] * self.power_mw * mode.exposure_ms
        (height, width), binning = mode.shape, mode.binning
        electrons = self._rng.poisson(seen.reshape(height, binning, width, binning).sum(axis=(1, 3)))
        noisy = 100 + electrons + 2 * self._rng.standard_normal(mode.shape)
        pixels: Uint16Array = np.clip(np.round(noisy), 0, 65535).astype(np.uint16)
        return pixels
