"""The picture that the camera gets: the truth rendered finer than the object grid."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.drivers.simulated.dosemap import DoseMap
from dmu_hw.drivers.simulated.history import Light
from dmu_hw.physics import dye
from dmu_hw.physics.aligned import collection_window
from dmu_hw.physics.blur import blur
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.mirrors import leak
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.sensor import SensorMaps, SensorModel
from dmu_hw.ports import CameraMode, Roi

if TYPE_CHECKING:
    from dmu_hw.drivers.simulated.world import World, WorldSettings

_CACHED_ILLUMINATIONS = 48
_DEFOCUS_STEP_UM = 0.05
"""Blurs are computed anew for each such step of defocus."""


@dataclass(frozen=True)
class View:
    """A window of the camera and the grid that it is rendered on, with a margin from which blur brings light in."""

    roi: Roi
    binning: int
    forward: Forward
    side: int
    """A camera pixel in pixels of the grid."""
    margin: int
    """Camera pixels that are rendered around the window."""


class Renderer:
    """Stateless but for caches and for what light has done to the specimen."""

    def __init__(self, truth: Optics, settings: WorldSettings) -> None:
        self.truth = truth
        self.settings = settings
        self.maps = SensorMaps.draw(truth.sensor, settings.sensor_shape, settings.seed)
        self.dose = DoseMap(4 * truth.object_pixel_um)
        self._views: OrderedDict[tuple[Roi, int, float], View] = OrderedDict()
        self._lit: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._scene: tuple[tuple[object, ...], Tensor] | None = None

    @torch.no_grad()
    def expose(self, world: World, light: list[Light], mode: CameraMode, exposure_ms: float) -> Uint16Array:
        """One frame: light on the specimen, through the lens, onto the chip, into numbers."""
        x, y, defocus = world.specimen_place()
        view = self._view(world, mode, round(defocus / _DEFOCUS_STEP_UM) * _DEFOCUS_STEP_UM)
        dx, dy = view.forward.centre_um
        specimen = self._specimen(view, (x + dx, y + dy))
        photons = torch.zeros(mode.shape, dtype=torch.float32)
        for part in light:
            lit = self._illumination(view, part.frame, world.frames)
            emitted = specimen * dye.saturated(lit, part.power_mw, self.truth.dye)
            signal = self._collect(view, emitted)
            photons = photons + view.forward.photons(signal, part.power_mw, part.duration_ms)
            self._bleach(view, (x + dx, y + dy), lit, part)
        model = self._sensor(mode, exposure_ms)
        generator = torch.Generator().manual_seed(_mix(self.settings.seed, world.exposures))
        adu = model.draw(photons, generator)
        pixels: Uint16Array = adu.to(torch.int32).numpy().astype(np.uint16)
        return pixels

    def _view(self, world: World, mode: CameraMode, defocus_um: float) -> View:
        key = (mode.roi, mode.binning, defocus_um)
        if key not in self._views:
            fine = self.settings.oversampling
            pixel_um = self.truth.object_pixel_um / fine
            side = mode.binning * self.truth.sensor_ratio * fine
            centre = world.axis_to_window_um(mode.roi)
            probe = Forward(self.truth, (side, side), side, pixel_um=pixel_um, defocus_um=defocus_um)
            margin = -(-(probe.emission.shape[-1] // 2) // side)
            shape = ((mode.shape[0] + 2 * margin) * side, (mode.shape[1] + 2 * margin) * side)
            forward = Forward(self.truth, shape, side, pixel_um=pixel_um, centre_um=centre, defocus_um=defocus_um)
            self._views[key] = View(mode.roi, mode.binning, forward, side, margin)
            if len(self._views) > 8:
                self._views.popitem(last=False)
        return self._views[key]

    def _specimen(self, view: View, centre_um: tuple[float, float]) -> Tensor:
        forward = view.forward
        key = (centre_um, forward.shape_px, forward.pixel_um)
        if self._scene is None or self._scene[0] != key:
            scene = self.settings.specimen.scene(centre_um, forward.shape_px, forward.pixel_um)
            self._scene = (key, torch.from_numpy(np.ascontiguousarray(scene.image)))
        specimen = self._scene[1]
        if self.truth.dye.bleach_dose_mj_cm2 is None:
            return specimen
        taken = self.dose.read(centre_um, forward.shape_px, forward.pixel_um)
        return dye.bleached(specimen, torch.from_numpy(taken), self.truth.dye)

    def _illumination(self, view: View, frame: str | None, frames: dict[str, BoolArray]) -> Tensor:
        """Relative intensity at the specimen for one state of the mirrors."""
        forward = view.forward
        key = (frame, forward.shape_px, forward.centre_um, forward.pixel_um, forward.excitation.shape)
        if key in self._lit:
            self._lit.move_to_end(key)
            return self._lit[key]
        rows, columns = self.truth.mirrors.shape
        mirrors = torch.zeros(rows, columns) if frame is None else torch.from_numpy(frames[frame]).to(torch.float32)
        # leakage comes from mirrors too: beyond the array there is no light at all
        lit = forward.from_mirrors(leak(mirrors, self.truth.mirrors.leakage))
        self._lit[key] = forward.profile * blur(lit, forward.excitation)
        if len(self._lit) > _CACHED_ILLUMINATIONS:
            self._lit.popitem(last=False)
        return self._lit[key]

    def _collect(self, view: View, emitted: Tensor) -> Tensor:
        """Emission blur and binning; one strided convolution where that is cheaper and the camera is not distorted."""
        forward, margin = view.forward, view.margin
        reach = forward.emission.shape[-1] // 2
        if view.side < reach or not self.truth.sample_to_sensor.is_identity:
            ones = torch.ones(1, *forward.shape_px)
            signal = forward.image(emitted[None], ones)[0, 0]
        else:
            window = collection_window(forward.emission, view.side)
            padded = functional.pad(emitted[None, None], (reach,) * 4)
            signal = functional.conv2d(padded, window[None, None], stride=view.side)[0, 0]
        return signal[margin : signal.shape[0] - margin, margin : signal.shape[1] - margin]

    def _bleach(self, view: View, centre_um: tuple[float, float], lit: Tensor, part: Light) -> None:
        if self.truth.dye.bleach_dose_mj_cm2 is not None:
            dose = lit.numpy() * np.float32(self.truth.dose_mj_cm2(part.power_mw, part.duration_ms))
            self.dose.add(centre_um, dose, view.forward.pixel_um)

    def _sensor(self, mode: CameraMode, exposure_ms: float) -> SensorModel:
        """The chip behind this window at this binning: charges add, readings are one or many."""
        roi, side, sensor = mode.roi, mode.binning, self.truth.sensor
        window = (slice(roi.y, roi.y + roi.height), slice(roi.x, roi.x + roi.width))

        def binned(values: Tensor) -> Tensor:
            cut = values[window]
            return cut.reshape(mode.shape[0], side, mode.shape[1], side).mean(dim=(1, 3))

        return SensorModel(
            sensor,
            read_noise_e=sensor.read_noise_of(side),
            offset_adu=binned(self.maps.offset_adu),
            dark_e=binned(self.maps.dark_e_per_ms) * side**2 * exposure_ms,
            response=binned(self.maps.response),
        )


def _mix(seed: int, exposure: int) -> int:
    """A seed for one exposure, so that its noise depends on nothing that came before."""
    return int(np.random.SeedSequence([seed, exposure]).generate_state(1, np.uint64)[0] >> np.uint64(1))
