"""The simulated world: truth, clock, seed, and the state that the devices share. Loads torch when it is to be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dmu_hw.data import Float32Array, Uint16Array
from dmu_hw.drivers.simulated.clock import WorldClock
from dmu_hw.drivers.simulated.dosemap import DoseMap
from dmu_hw.drivers.simulated.faults import Faults
from dmu_hw.drivers.simulated.history import History, Light, MirrorFrame, Place
from dmu_hw.drivers.simulated.settings import DyeSettings, WorldSettings
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.files import Document
from dmu_hw.orientation import Orientation
from dmu_hw.physics.optics import Optics, overridden
from dmu_hw.physics.specimens import Scene
from dmu_hw.ports import CameraMode, Mount, Roi

if TYPE_CHECKING:
    from dmu_hw.drivers.simulated.render import Renderer
    from dmu_hw.drivers.simulated.stain import Stain


_DOSE_PIXELS = 4
"""Dose is remembered on nodes of so many object pixels."""
_CREEP_STEP_UM = 0.005
"""Light is computed anew for each such step of creeping mirrors."""
_OF_THE_CHIP = ("sensor", "object_pixel_um", "sensor_pixel_um")
"""What no dye can change."""
Given = tuple[float, float, float] | tuple[float, float, float, str]
"""Stage x and y, what was given there in mJ/cm², and by which light if it was not `light`."""


class World:
    """One microscope and its specimen."""

    Settings = WorldSettings

    def __init__(self, settings: WorldSettings, mount: Mount) -> None:
        self.settings = settings
        self._believed, self._document = mount.optics, mount.document
        self.turn(Orientation(flip_x=False, flip_y=False, sensor_shape=settings.sensor_shape))
        _check_dyes(settings, mount.document)
        self._truths()  # what is wrong with them is said now
        self.clock = WorldClock(realtime=settings.realtime)
        self.history = History()
        self.faults = Faults(settings.faults)
        pitch_um = _DOSE_PIXELS * self.truth.object_pixel_um
        self.doses = {name: DoseMap(pitch_um) for name in settings.stained}
        """What each dye has taken."""
        self.pulses_ms: list[float] = []
        """Trigger pulses from the DMD to the camera, not yet used."""
        self.exposure_ended: Callable[[float], None] = nobody_listens
        """Called with the time when the camera ends an exposure: its trigger output."""
        self.exposures = 0
        self._seen_until_ms = 0.0
        self._renderer: Renderer | None = None
        self._slide: str | None = None
        self._slide_doses = {name: DoseMap(pitch_um) for name in settings.slides}

    def turn(self, orientation: Orientation) -> None:
        """By the camera that hands its frames over so. What is believed is said of frames, and so is the way that the
        stage goes; truth is the bare chip's."""
        self.orientation = orientation
        self.truth = overridden(orientation.optics(self._believed), self.settings.truth, self._document, "truth")

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Let go of the rendered pictures; what light did to the specimen stays."""
        self._renderer = None

    @property
    def holds(self) -> tuple[str, ...]:
        return tuple(self.settings.slides)

    def hold(self, sample: str | None) -> None:
        """Another sample under the objective; what light did to each stays."""
        if sample is not None and sample not in self.settings.slides:
            raise DeviceError("world", f"has no slide {sample!r}; it has: {', '.join(self.holds)}")
        if sample != self._slide:
            self._slide, self._renderer = sample, None

    def remember(self) -> dict[str, Any]:
        """What another world of the same settings must know to go on from here as this one would, but for the light
        that it has taken."""
        return {"exposures": self.exposures, "clock_ms": self.clock.now_ms(), "occasions": self.faults.remember()}

    def recall(self, memory: Mapping[str, Any], doses: Iterable[Given]) -> None:
        """Go on from what another world has remembered. `doses` bleach as uniform light of the same dose would, which
        no pattern can tell from its own sum."""
        self.exposures = memory["exposures"]
        self.clock.recall(memory["clock_ms"])
        self.faults.recall(memory["occasions"])
        self._seen_until_ms = self.clock.now_ms()
        if all(truth.dye.bleach_dose_mj_cm2 is None for truth in self._truths().values()):
            return
        everywhere = MirrorFrame("all mirrors on", np.ones(self.truth.mirrors.shape, dtype=bool))
        for x, y, dose, *light in doses:
            source = light[0] if light else "light"
            point = self.point_um((x, y, 0.0), self.clock.now_ms())
            self.renderer.bleach(Light(everywhere, 1.0, point, dose / self.truth.dose_mj_cm2(1.0, 1.0), source))

    def _truths(self) -> dict[str, Optics]:
        """What is true for each dye."""
        return {
            name: overridden(self.truth, mine.truth, self._document.inside(("dyes", name)), "truth")
            if name
            else self.truth
            for name, mine in self.settings.stained.items()
        }

    @property
    def renderer(self) -> Renderer:
        if self._renderer is None:
            # torch takes seconds to load: only a world that is looked at pays for it
            from dmu_hw.drivers.simulated.render import Renderer  # noqa: PLC0415
            from dmu_hw.drivers.simulated.stain import Stain  # noqa: PLC0415

            self._renderer = Renderer(self.truth, self.settings, list(self._stains(Stain)))
        return self._renderer

    def _stains(self, build: type[Stain]) -> Iterator[Stain]:
        """The dyes of the specimen, or the slide that lies there instead of it."""
        if self._slide is not None:
            slide = DyeSettings(specimen=self.settings.slides[self._slide])
            yield build(self.truth, slide, self.settings, self._slide_doses[self._slide])
            return
        truths = self._truths()
        for name, mine in self.settings.stained.items():
            yield build(truths[name], mine, self.settings, self.doses[name])

    def prepare(self, mode: CameraMode) -> None:
        """Compute what is needed before the first exposure in a mode: no light waits for it."""
        with self.clock.held():
            self.renderer.prepare(mode, self.point_um(self.place_um, self.clock.now_ms())[2])

    @property
    def place_um(self) -> Place:
        """Where stage and focus stand now."""
        return self.history.place_um.at(self.clock.now_ms())

    def go(self, place_um: Place) -> None:
        """Stage and focus stand there from now on."""
        self.history.place_um.set(self.clock.now_ms(), place_um)

    def point_um(self, place_um: Place, time_ms: float) -> Place:
        """The point of the specimen on the optical axis, and how far it is from focus.

        A stage at (x, y) has the point (x, y) of the specimen on the axis, as x and y run in frames, until drift
        carries the specimen on.
        """
        seconds = time_ms * 1e-3
        sign_x, sign_y = self.orientation.signs
        x, y, z = sign_x * place_um[0], sign_y * place_um[1], place_um[2]
        creep_x, creep_y = self.settings.drift_um_s
        sharp_z = self.settings.specimen_z_um + self.settings.focus_drift_um_s * seconds
        return x - creep_x * seconds, y - creep_y * seconds, z - sharp_z

    def expose(self, start_ms: float, stop_ms: float, mode: CameraMode) -> Uint16Array:
        """What the camera's converter gives for light gathered between two moments."""
        with self.clock.held():
            for part in self._light(self._seen_until_ms, start_ms):
                self.renderer.bleach(part)
            light = self._flickering(self._light(start_ms, stop_ms))
            pixels = self.renderer.expose(light, mode, stop_ms - start_ms, self.exposures)
        self.exposures += 1
        self._seen_until_ms = stop_ms
        self.history.forget_before(stop_ms)
        return pixels

    def power_mw(self, start_ms: float, stop_ms: float) -> float:
        """Mean power at the sample between two moments, over all that the mirrors light."""
        leakage, energy = self.truth.mirrors.leakage, 0.0
        for part in self.history.light(start_ms, stop_ms):
            on = 0.0 if part.frame is None else float(part.frame.on.mean())
            energy += part.power_mw * part.duration_ms * (on + leakage * (1 - on))
        return energy / (stop_ms - start_ms)

    def _flickering(self, light: list[Light]) -> list[Light]:
        """The light of an exposure, which is not as bright as that of another."""
        if self.settings.flicker == 0:
            return light
        luck = np.random.default_rng([self.settings.seed, self.exposures, 0xF11C]).standard_normal()
        factor = max(0.0, 1 + self.settings.flicker * luck)
        return [replace(part, power_mw=part.power_mw * factor) for part in light]

    def _light(self, start_ms: float, stop_ms: float) -> list[Light]:
        """The light of a time, and the point of the specimen that was on the axis in the middle of it."""
        middle_ms = (start_ms + stop_ms) / 2
        light = self.history.light(start_ms, stop_ms)
        seen = [replace(part, place_um=self.point_um(part.place_um, middle_ms)) for part in light]
        return [self._drifted(part, middle_ms * 1e-3) for part in seen]

    def _drifted(self, part: Light, seconds: float) -> Light:
        """From mirrors that creep, and a lamp that is not as bright as it was."""
        creep, growth = self.settings.mirror_drift_um_s, self.settings.power_drift_per_s
        if creep == (0.0, 0.0) and growth == 0:
            return part
        across_um, down_um = (round(speed * seconds / _CREEP_STEP_UM) * _CREEP_STEP_UM for speed in creep)
        power_mw = part.power_mw * max(0.0, 1 + growth * seconds)
        return replace(part, power_mw=power_mw, creep_um=(across_um, down_um))

    def scene(
        self,
        roi: Roi,
        xy_um: tuple[float, float] | None = None,
        time_ms: float | None = None,
        light: str = "light",
        filters: Mapping[str, str] | None = None,
    ) -> Scene:
        """The specimen itself, unbleached, on the object grid behind a window of frames: for comparison only.
        As it is here and now, or as it was at another place or time; of several dyes, the one that this light and these
        filters show best."""
        mine = max(self.settings.stained.values(), key=lambda dye: dye.shown_by(light, filters or {}))
        fine = self.settings.oversampling
        ratio = self.truth.sensor_ratio
        shape = (roi.height * ratio, roi.width * ratio)
        x, y = self.settings.axis_to_window_um(self.orientation.window(roi), self.truth.sensor_pixel_um)
        place = self.place_um if xy_um is None else (*xy_um, 0.0)
        point = self.point_um(place, self.clock.now_ms() if time_ms is None else time_ms)
        centre = (point[0] + x, point[1] + y)
        rendered = mine.specimen.scene(centre, (shape[0] * fine, shape[1] * fine), self.truth.object_pixel_um / fine)
        image: Float32Array = rendered.image.reshape(shape[0], fine, shape[1], fine).mean(axis=(1, 3), dtype=np.float32)
        turned = self.orientation.turned
        return Scene(turned(image).copy(), turned(rendered.labels[::fine, ::fine]).copy())


def _check_dyes(settings: WorldSettings, document: Document) -> None:
    """Dyes that no light of this rig excites, or no filter shows, are mistakes of writing."""
    problems = []
    for name, mine in settings.dyes.items():
        named = [("light", mine.light), *(("filters", device) for device in mine.filters)]
        for key, device in named:
            if device is not None and ("devices", device) not in document.lines:
                where = document.where(("dyes", name, key))
                problems.append(Problem(where, f"there is no device {device!r}"))
        for key in _OF_THE_CHIP:
            if key in mine.truth:
                where = document.where(("dyes", name, "truth", key))
                problems.append(Problem(where, "is the same for all dyes: say it in the world's truth"))
    if problems:
        raise InputError(problems)


def world_of(mount: Mount) -> World:
    """The world that a simulated device belongs to."""
    if not isinstance(mount.connection, World):
        where = mount.document.where(("connection",))
        raise InputError([Problem(where, "driver simulated needs a connection whose driver is simulated")])
    return mount.connection


def nobody_listens(_time_ms: float) -> None:
    """No device listens to the camera's trigger output."""
