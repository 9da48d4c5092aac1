"""The picture that the camera gets: the light of all dyes, turned into numbers by one chip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dmu_hw.data import Uint16Array
from dmu_hw.drivers.simulated.history import Light
from dmu_hw.drivers.simulated.settings import WorldSettings
from dmu_hw.drivers.simulated.stain import Stain
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.sensor import SensorMaps, SensorModel
from dmu_hw.ports import CameraMode


class Renderer:
    """One chip before a sample with one dye or several."""

    def __init__(self, truth: Optics, settings: WorldSettings, stains: Sequence[Stain]) -> None:
        self.truth = truth
        self.settings = settings
        self.stains = stains
        self.maps = SensorMaps.draw(truth.sensor, settings.sensor_shape, settings.seed)

    def prepare(self, mode: CameraMode, defocus_um: float) -> None:
        """Compute beforehand what the first exposure needs."""
        for stain in self.stains:
            stain.view(mode, defocus_um)

    @torch.no_grad()
    def expose(self, light: Sequence[Light], mode: CameraMode, exposure_ms: float, number: int) -> Uint16Array:
        """One frame: light on the specimen, through the lens, onto the chip, into numbers."""
        photons = torch.zeros(mode.shape, dtype=torch.float32)
        for stain in self.stains:
            photons = photons + stain.photons(light, mode)
        generator = torch.Generator().manual_seed(_mix(self.settings.seed, number))
        adu = self._sensor(mode, exposure_ms).draw(photons, generator)
        pixels: Uint16Array = adu.to(torch.int32).numpy().astype(np.uint16)
        return pixels

    def bleach(self, part: Light) -> None:
        """Book what light did to the specimen that the camera did not see."""
        for stain in self.stains:
            stain.bleach(part)

    def _sensor(self, mode: CameraMode, exposure_ms: float) -> SensorModel:
        """The chip behind this window at this binning: charges add, readings are one or many."""
        roi, side, sensor = mode.roi, mode.binning, self.truth.sensor
        window = (slice(roi.y, roi.y + roi.height), slice(roi.x, roi.x + roi.width))

        def binned(values: Tensor) -> Tensor:
            cut = values[window]
            return cut.reshape(mode.shape[0], side, mode.shape[1], side).mean(dim=(1, 3))

        return SensorModel(
            sensor,
            read_noise_e=sensor.read_noise_of(side) * binned(self.maps.read_noise**2).sqrt(),
            offset_adu=binned(self.maps.offset_adu),
            dark_e=binned(self.maps.dark_e_per_ms) * side**2 * exposure_ms,
            response=binned(self.maps.response),
        )


def _mix(seed: int, exposure: int) -> int:
    """A seed for one exposure, so that its noise depends on nothing that came before."""
    return int(np.random.SeedSequence([seed, exposure]).generate_state(1, np.uint64)[0] >> np.uint64(1))
