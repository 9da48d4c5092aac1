"""The simulated world: truth, clock, seed, and the state that the devices share. Loads torch on the first exposure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from dmu_hw.data import BoolArray, Float32Array, Uint16Array
from dmu_hw.drivers.simulated.clock import WorldClock
from dmu_hw.drivers.simulated.faults import Fault, Faults
from dmu_hw.drivers.simulated.history import History
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.files import Count, Settings
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.specimens import Scene, Specimen
from dmu_hw.ports import CameraMode, Mount, Roi

if TYPE_CHECKING:
    from dmu_hw.drivers.simulated.render import Renderer


class WorldSettings(Settings):
    """What is true here, and may differ from what the rig's `optics` believes."""

    seed: Annotated[int, Field(ge=0)] = 1
    """The same seed, the same world: specimen, chip and noise, bit for bit."""
    specimen: Specimen
    truth: dict[str, Any] = Field(default_factory=dict)
    """Numbers of `optics` that are otherwise in truth, in the same layout; the rest is as believed."""
    oversampling: Annotated[int, Field(ge=1, le=4)] = 2
    """Pixels of the rendering along one object pixel."""
    sensor_shape: tuple[Count, Count] = (512, 512)
    """Rows and columns of the camera chip."""
    realtime: bool = False
    """true: exposures take their time; false: as fast as this machine computes them."""
    drift_um_s: tuple[float, float] = (0.0, 0.0)
    """Creep of the specimen in x and y."""
    focus_drift_um_s: float = 0.0
    specimen_z_um: float = 0.0
    """Focus position at which the specimen is sharp."""
    faults: tuple[Fault, ...] = ()


class World:
    """One microscope and its specimen."""

    Settings = WorldSettings

    def __init__(self, settings: WorldSettings, mount: Mount) -> None:
        self.settings = settings
        self.truth = overridden(mount.optics, settings.truth, where=f"{mount.name}.truth")
        self.clock = WorldClock(realtime=settings.realtime)
        self.history = History()
        self.faults = Faults(settings.faults)
        self.frames: dict[str, BoolArray] = {}
        """Mirror frames that may be shown, by content."""
        self.pulses_ms: list[float] = []
        """Trigger pulses from the DMD to the camera, not yet used."""
        self.exposure_ended: Callable[[float], None] = nobody_listens
        """Called with the time when the camera ends an exposure: its trigger output."""
        self.stage_um = (0.0, 0.0)
        self.focus_um = 0.0
        self.exposures = 0
        self._renderer: Renderer | None = None

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Let go of the rendered pictures."""
        self._renderer = None

    @property
    def renderer(self) -> Renderer:
        if self._renderer is None:
            # torch takes seconds to load: only a world that is looked at pays for it
            from dmu_hw.drivers.simulated.render import Renderer  # noqa: PLC0415

            self._renderer = Renderer(self.truth, self.settings)
        return self._renderer

    def specimen_place(self) -> tuple[float, float, float]:
        """The point of the specimen on the optical axis, and how far it is from focus."""
        seconds = self.clock.now_ms() * 1e-3
        x, y = (p - d * seconds for p, d in zip(self.stage_um, self.settings.drift_um_s, strict=True))
        defocus = self.focus_um - self.settings.specimen_z_um - self.settings.focus_drift_um_s * seconds
        return x, y, defocus

    def expose(self, start_ms: float, stop_ms: float, mode: CameraMode) -> Uint16Array:
        """What the camera's converter gives for light gathered between two moments."""
        with self.clock.held():
            light = self.history.light(start_ms, stop_ms)
            pixels = self.renderer.expose(self, light, mode, stop_ms - start_ms)
        self.exposures += 1
        self.history.forget_before(stop_ms)
        return pixels

    def scene(self, roi: Roi) -> Scene:
        """The specimen itself, unbleached, on the object grid behind a window of the camera: for comparison only."""
        fine = self.settings.oversampling
        ratio = self.truth.sensor_ratio
        shape = (roi.height * ratio, roi.width * ratio)
        x, y = self.axis_to_window_um(roi)
        centre = (self.specimen_place()[0] + x, self.specimen_place()[1] + y)
        rendered = self.settings.specimen.scene(
            centre, (shape[0] * fine, shape[1] * fine), self.truth.object_pixel_um / fine
        )
        image: Float32Array = rendered.image.reshape(shape[0], fine, shape[1], fine).mean(axis=(1, 3), dtype=np.float32)
        return Scene(image, rendered.labels[::fine, ::fine])

    def axis_to_window_um(self, roi: Roi) -> tuple[float, float]:
        """Centre of a camera window as seen from the optical axis, which meets the middle of the chip."""
        rows, columns = self.settings.sensor_shape
        pixel = self.truth.sensor_pixel_um
        return (roi.x + roi.width / 2 - columns / 2) * pixel, (roi.y + roi.height / 2 - rows / 2) * pixel


def world_of(mount: Mount) -> World:
    """The world that a simulated device belongs to."""
    if not isinstance(mount.connection, World):
        raise DeviceError(mount.name, "driver simulated needs a connection whose driver is simulated")
    return mount.connection


def overridden(optics: Optics, changes: Mapping[str, Any], *, where: str) -> Optics:
    """Optics with some numbers replaced; what is no number of optics is refused."""
    try:
        return Optics.model_validate(_merged(optics.model_dump(), changes))
    except ValidationError as error:
        problems = [
            Problem(".".join((where, *map(str, detail["loc"]))), detail["msg"])
            for detail in error.errors(include_url=False)
        ]
        raise InputError(problems) from None


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def nobody_listens(_time_ms: float) -> None:
    """No device listens to the camera's trigger output."""
