"""What may be asked of a device. Drivers keep these promises; engine and calibrations know nothing else.

A driver is a module with classes named after the ports (`Dmd`, `Camera`, …), and `Connection` where several devices
share a link. Each class has its `Settings` (what the rig YAML may say) and is built from them and a `Mount`; building
one touches no hardware, `open` does. What is asked for planning (shapes, limits, times) is answered before `open`,
from the settings; `open` checks that the device agrees. Every failure is a `DeviceError` that names the device.
`close` may be called at any time, more than once, and leaves light off and mirrors dark.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.files import Document
from dmu_hw.physics.optics import Optics


class Clock(Protocol):
    """The rig's time: the machine's own, or that of a simulated world."""

    def now_ms(self) -> float: ...

    def sleep_ms(self, duration_ms: float) -> None: ...


class MachineClock:
    """Time of this machine that never goes back. On Windows `time.monotonic` counts in steps of 16 ms, this does not;
    elsewhere they are the same."""

    def now_ms(self) -> float:
        return time.perf_counter() * 1e3

    def sleep_ms(self, duration_ms: float) -> None:
        time.sleep(max(0.0, duration_ms) / 1e3)


@dataclass(frozen=True)
class Mount:
    """What a driver is handed beside its settings: its place in the rig."""

    name: str
    optics: Optics
    document: Document
    """What the rig YAML says of it: refusals name file, line and key."""
    connection: object | None = None


@dataclass(frozen=True)
class Roi:
    """A window of the camera in unbinned pixels."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class CameraMode:
    """How the camera is to take frames."""

    exposure_ms: float
    binning: int
    roi: Roi
    trigger: Literal["internal", "external"] = "internal"
    interval_ms: float = 0.0
    """Least time from frame to frame under the internal trigger."""

    @property
    def shape(self) -> tuple[int, int]:
        return self.roi.height // self.binning, self.roi.width // self.binning


@dataclass(frozen=True)
class RawFrame:
    """A frame as the camera hands it over. Its pixels are the camera's own buffer: copy before the next call."""

    pixels: Uint16Array
    number: int
    """Counts exposures since the camera was armed, those it could not deliver included."""
    time_ms: float


@runtime_checkable
class Device(Protocol):
    """What all devices share."""

    def open(self) -> None: ...

    def close(self) -> None: ...


@runtime_checkable
class Dmd(Device, Protocol):
    """A mirror array with a memory of frames."""

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def memory_frames(self) -> int:
        """How many frames the memory holds."""

    @property
    def settle_ms(self) -> float:
        """Time from a step until the new pattern stands."""

    @property
    def reads_back(self) -> bool:
        """Whether `shown` will tell what a sequence has shown."""

    def upload_ms(self, frames: int) -> float:
        """Expected time to load so many frames."""

    def load(self, frames: BoolArray) -> None:
        """Fill the memory with frames (n, y, x), True sends light to the sample. All mirrors off; if the frames are
        refused, the memory is empty."""

    def show(self, index: int | None) -> None:
        """Show one frame of the memory and hold it; None: all mirrors off."""

    def start(self, order: Sequence[int], period_ms: float | None) -> None:
        """Step through frames in hardware, then go dark: every period_ms, a pulse going to the camera once each
        stands; with None, a step whenever the camera ends an exposure."""

    def stop(self) -> None:
        """End a sequence, also in the middle of it; all mirrors off."""

    def shown(self) -> tuple[int, ...] | None:
        """Frames that the sequence has shown since `start`, read back; None if the device cannot tell."""


@runtime_checkable
class Waiting(Protocol):
    """What a DMD may promise beside its port: it takes another time for the one after which its patterns stand."""

    def wait_ms(self, settle_ms: float) -> None:
        """From now on this is `settle_ms`, and pulses go to the camera so long after a step."""


@runtime_checkable
class Coding(Protocol):
    """What a DMD may promise beside its port: it takes frames in a code, and what they show decides how long that
    takes. `upload_ms` then is the most that so many frames can take."""

    def coded_upload_ms(self, frames: BoolArray) -> float:
        """Expected time to load these frames."""


@runtime_checkable
class Preparing(Protocol):
    """What a DMD may promise beside its port: it can make a sequence ready, so that no light waits for its upload."""

    def prepare(self, order: Sequence[int], period_ms: float | None) -> None:
        """All that `start` would do before the first step."""


@runtime_checkable
class Stepping(Protocol):
    """What a DMD or a camera may promise beside its port: it says who can set the pace of a burst, as it is wired."""

    @property
    def steppings(self) -> tuple[str, ...]:
        """Some of dmd, camera and software."""


@runtime_checkable
class Camera(Device, Protocol):
    """A camera with a frame buffer."""

    @property
    def sensor_shape(self) -> tuple[int, int]: ...

    @property
    def binnings(self) -> tuple[int, ...]: ...

    @property
    def buffer_frames(self) -> int: ...

    def readout_ms(self, mode: CameraMode) -> float:
        """Time after an exposure before the next can begin."""

    def configure(self, mode: CameraMode) -> None: ...

    def arm(self, frames: int) -> None:
        """Take so many frames: at once (internal trigger) or one a pulse (external)."""

    def pop(self, timeout_ms: float) -> RawFrame:
        """The next frame; DeviceTimeout when none comes, DeviceError when the buffer overflowed."""

    def disarm(self) -> None: ...


@runtime_checkable
class Light(Device, Protocol):
    """A light source; off when opened. `off` and `is_on` may be called from any thread, at any time."""

    @property
    def max_power_mw(self) -> float: ...

    @property
    def watchdog_ms(self) -> float | None:
        """After how long without its host the hardware itself goes off; None: never."""

    def set_power(self, power_mw: float) -> None:
        """Power at the sample when all mirrors are on; takes effect when on."""

    def on(self, longest_ms: float = math.inf) -> None:
        """On, for so long at most where the device counts the time itself; whoever calls this counts it too."""

    def off(self) -> None: ...

    def is_on(self) -> bool:
        """Read back from the device, not remembered."""

    def interlock_closed(self) -> bool: ...


@runtime_checkable
class Blocker(Protocol):
    """What a device or connection may promise beside its port: it holds a shutter, or the line that gates the light."""

    def block_light(self) -> None:
        """Shutter closed, gates low. Called when a light does not go off."""


@runtime_checkable
class Turning(Protocol):
    """What a camera may promise beside its port: its frames are turned against the bare chip, and it says how. Windows
    are asked for as they lie in the frames that it gives."""

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether x, and y, run the other way."""


@runtime_checkable
class Holder(Protocol):
    """What a device or connection may promise beside its port: it puts a sample under the objective by itself."""

    @property
    def holds(self) -> tuple[str, ...]:
        """Names of the samples that it has."""

    def hold(self, sample: str | None) -> None:
        """Put it there; None: what a run images."""


@runtime_checkable
class Stage(Device, Protocol):
    """Where in the plane the sample stands."""

    @property
    def limits_um(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """(lowest, highest) in x and in y."""

    def move_um(self, x_um: float, y_um: float, timeout_ms: float) -> None:
        """Bring the point (x, y) of the specimen onto the optical axis and arrive; DeviceTimeout if it does not.

        A move to larger x takes what is seen to the left in the image, a move to larger y takes it up.
        """

    def position_um(self) -> tuple[float, float]:
        """Where it was sent last."""

    def travel_ms(self, distance_um: float) -> float:
        """Expected time for a move."""


@runtime_checkable
class Focus(Device, Protocol):
    """The distance of sample and objective."""

    @property
    def limits_um(self) -> tuple[float, float]: ...

    def move_um(self, z_um: float, timeout_ms: float) -> None: ...

    def position_um(self) -> float: ...

    def travel_ms(self, distance_um: float) -> float: ...


@runtime_checkable
class Filter(Device, Protocol):
    """What stands in the way of the light to the camera, one of several: a wheel, a slider, a turret."""

    @property
    def positions(self) -> tuple[str, ...]:
        """What they are called, by name."""

    def switch_ms(self, before: str, after: str) -> float:
        """Expected time from one position to another."""

    def select(self, position: str, timeout_ms: float) -> None:
        """Turn there and arrive; DeviceTimeout if it does not."""

    def selected(self) -> str:
        """Where it stands, read back from the device and not remembered; DeviceError where it stands between two."""


@runtime_checkable
class Shutter(Device, Blocker, Protocol):
    """What keeps the light from the sample while it is closed; closed when opened as a device, and when closed as one.
    `block_light` closes it; it and `is_open` may be called from any thread, at any time."""

    @property
    def switch_ms(self) -> float:
        """Time until it stands open, or closed."""

    def set_open(self, wanted: bool) -> None:
        """Open it, or close it, and wait until it stands."""

    def is_open(self) -> bool:
        """Read back from the device, not remembered."""


@runtime_checkable
class Meter(Device, Protocol):
    """A power meter at the sample, or behind something that takes a known part of the light there."""

    def read_mw(self) -> float:
        """Power at the sample now, with the mirrors as they stand; DeviceError when it is too much for the meter."""


PORTS: dict[str, type] = {
    "dmd": Dmd,
    "camera": Camera,
    "light": Light,
    "stage": Stage,
    "focus": Focus,
    "filter": Filter,
    "shutter": Shutter,
    "meter": Meter,
}
"""Role in the rig YAML → the promise that its driver keeps."""
SEVERAL = ("light", "filter")
"""Roles that several devices of a rig may have: `light`, `light_561`, …"""


def role_of(device: str) -> str | None:
    """What a device is by its name in the rig YAML, a role or a role with a suffix; None: no device is called that."""
    role, split, suffix = device.partition("_")
    return role if role in PORTS and (not split or (role in SEVERAL and suffix)) else None
