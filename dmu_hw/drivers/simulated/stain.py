"""One dye as the camera sees it: the truth rendered finer than the object grid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw.drivers.simulated.dosemap import DoseMap
from dmu_hw.drivers.simulated.history import Light, MirrorFrame
from dmu_hw.drivers.simulated.settings import DyeSettings, WorldSettings
from dmu_hw.physics import dye
from dmu_hw.physics.aligned import collection_window
from dmu_hw.physics.blur import blur
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.mirrors import leak
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode

_CACHED_ILLUMINATIONS = 48
_CACHED_VIEWS = 8
_DEFOCUS_STEP_UM = 0.05
"""Blurs are computed anew for each such step of defocus."""
_MOST_DEFOCUS_UM = 20.0
"""Beyond it nothing is to be seen, and the blur would only grow larger than memory."""


@dataclass(frozen=True)
class View:
    """A window of the camera and the grid that it is rendered on, with a margin from which blur brings light in."""

    forward: Forward
    side: int
    """A camera pixel in pixels of the grid."""
    margin: int
    """Camera pixels that are rendered around the window."""

    @cached_property
    def window(self) -> Tensor:
        """Which light of its surroundings a camera pixel collects."""
        return collection_window(self.forward.emission, self.side)


class Stain:
    """Stateless but for caches and for what light has done to the dye.

    Bleaching is booked wherever mirrors send light, in the camera's window or not, as if in focus and as a mean over
    nodes of several pixels; an exposure sees the dye as it was when the exposure began.
    """

    def __init__(self, truth: Optics, mine: DyeSettings, settings: WorldSettings, dose: DoseMap) -> None:
        self.truth = truth
        self.mine = mine
        self.settings = settings
        self.dose = dose
        self._views: OrderedDict[tuple[object, ...], View] = OrderedDict()
        self._lit: OrderedDict[tuple[Forward, MirrorFrame | None, tuple[float, float]], Tensor] = OrderedDict()
        self._scene: tuple[tuple[object, ...], Tensor] | None = None

    @torch.no_grad()
    def photons(self, light: Sequence[Light], mode: CameraMode) -> Tensor:
        """What it sends onto the pixels of one frame; the light bleaches it."""
        photons = torch.zeros(mode.shape, dtype=torch.float32)
        seen = [(part, self.mine.passed_by(dict(part.filters))) for part in light if self._power_mw(part) > 0]
        dyes = [self._specimen(self.view(mode, part.place_um[2]), part) if passed else None for part, passed in seen]
        for (part, passed), specimen in zip(seen, dyes, strict=True):
            if specimen is not None:
                view, power_mw = self.view(mode, part.place_um[2]), self._power_mw(part)
                lit = self._illumination(view.forward, part.frame, part.creep_um)
                emitted = specimen * dye.saturated(lit, power_mw, self.truth.dye)
                sent = view.forward.photons(self._collect(view, emitted), power_mw, part.duration_ms)
                photons = photons + passed * sent
            self.bleach(part)
        return photons

    @torch.no_grad()
    def bleach(self, part: Light) -> None:
        """Book what light did to the specimen, whether or not the camera saw it."""
        power_mw = self._power_mw(part)
        if self.truth.dye.bleach_dose_mj_cm2 is None or power_mw == 0:
            return
        lit = self._illumination(self._lamp, part.frame, part.creep_um)
        dose = lit * self.truth.dose_mj_cm2(power_mw, part.duration_ms)
        self.dose.add(_centre_um(self._lamp, part), dose.numpy(), self._lamp.pixel_um)

    def _power_mw(self, part: Light) -> float:
        """What of it excites this dye."""
        return part.power_mw * self.mine.excited_by(part.source)

    @cached_property
    def _lamp(self) -> Forward:
        """A grid over all that the mirrors light."""
        rows, columns = self.truth.mirrors.shape
        edge_x, edge_y = np.linspace(-columns / 2, columns / 2, 33), np.linspace(-rows / 2, rows / 2, 33)
        x_um, y_um = self.truth.mirrors.to_sample.apply(*np.meshgrid(edge_x, edge_y))
        pixel_um = self.truth.object_pixel_um
        shape = (math.ceil(np.ptp(y_um) / pixel_um) + 1, math.ceil(np.ptp(x_um) / pixel_um) + 1)
        centre_um = (float(x_um.min() + x_um.max()) / 2, float(y_um.min() + y_um.max()) / 2)
        return Forward(self.truth, shape, 1, pixel_um=pixel_um, centre_um=centre_um)

    def view(self, mode: CameraMode, defocus_um: float) -> View:
        """How a window of the camera sees the specimen, so far out of focus."""
        defocus_um = min(max(defocus_um, -_MOST_DEFOCUS_UM), _MOST_DEFOCUS_UM)
        step = round(defocus_um / _DEFOCUS_STEP_UM)
        key = (mode.roi, mode.binning, step)
        if key not in self._views:
            self._views[key] = self._new_view(mode, step * _DEFOCUS_STEP_UM)
            if len(self._views) > _CACHED_VIEWS:
                self._views.popitem(last=False)
        return self._views[key]

    def _new_view(self, mode: CameraMode, defocus_um: float) -> View:
        fine = self.settings.oversampling
        pixel_um = self.truth.object_pixel_um / fine
        side = mode.binning * self.truth.sensor_ratio * fine

        def over(margin: int) -> Forward:
            shape = ((mode.shape[0] + 2 * margin) * side, (mode.shape[1] + 2 * margin) * side)
            centre_um = self.settings.axis_to_window_um(mode.roi, self.truth.sensor_pixel_um)
            return Forward(self.truth, shape, side, pixel_um=pixel_um, centre_um=centre_um, defocus_um=defocus_um)

        bare = over(0)
        blur_px = sum(kernel.shape[-1] // 2 for kernel in (bare.excitation, bare.emission))
        margin = math.ceil((blur_px + _bend_um(bare) / pixel_um) / side)
        return View(over(margin), side, margin)

    def _specimen(self, view: View, part: Light) -> Tensor:
        forward, centre_um = view.forward, _centre_um(view.forward, part)
        key = (centre_um, forward.shape_px, forward.pixel_um)
        if self._scene is None or self._scene[0] != key:
            scene = self.mine.specimen.scene(centre_um, forward.shape_px, forward.pixel_um)
            self._scene = (key, torch.from_numpy(np.ascontiguousarray(scene.image)))
        specimen = self._scene[1]
        if self.truth.dye.bleach_dose_mj_cm2 is None:
            return specimen
        taken = self.dose.read(centre_um, forward.shape_px, forward.pixel_um)
        return dye.bleached(specimen, torch.from_numpy(taken), self.truth.dye)

    def _illumination(self, forward: Forward, frame: MirrorFrame | None, creep_um: tuple[float, float]) -> Tensor:
        """Relative intensity on a grid at the specimen for one state of the mirrors."""
        key = (forward, frame, creep_um)
        if key in self._lit:
            self._lit.move_to_end(key)
            return self._lit[key]
        rows, columns = self.truth.mirrors.shape
        mirrors = torch.zeros(rows, columns) if frame is None else torch.tensor(frame.on, dtype=torch.float32)
        # leakage comes from mirrors too: beyond the array there is no light at all
        lit = forward.from_mirrors(leak(mirrors, self.truth.mirrors.leakage), creep_um)
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
            padded = functional.pad(emitted[None, None], (reach,) * 4)
            signal = functional.conv2d(padded, view.window[None, None], stride=view.side)[0, 0]
        return signal[margin : signal.shape[0] - margin, margin : signal.shape[1] - margin]


def _centre_um(forward: Forward, part: Light) -> tuple[float, float]:
    """The point of the specimen in the middle of a grid."""
    x_um, y_um = forward.centre_um
    return part.place_um[0] + x_um, part.place_um[1] + y_um


def _bend_um(forward: Forward) -> float:
    """How far the camera's lens carries light sideways, at most."""
    x_um, y_um = np.meshgrid(forward.x_um, forward.y_um)
    from_x_um, from_y_um = forward.optics.sample_to_sensor.invert(x_um, y_um)
    return float(max(np.abs(from_x_um - x_um).max(), np.abs(from_y_um - y_um).max()))
