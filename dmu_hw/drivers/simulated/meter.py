"""The simulated power meter: under the objective, wide enough for all light."""

from __future__ import annotations

import numpy as np

from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.errors import DeviceError
from dmu_hw.files import NonNegative, Positive, Settings
from dmu_hw.ports import Mount


class MeterSettings(Settings):
    """A thermal or photodiode head."""

    reading_ms: NonNegative = 20.0
    """Time over which it averages."""
    highest_mw: Positive = 1000.0
    zero_mw: float = 0.0
    """What it reads in the dark."""
    noise: NonNegative = 0.001
    """Standard deviation of readings, as a part of them."""
    noise_mw: NonNegative = 0.0
    """Standard deviation of readings in the dark."""


class Meter:
    """A face of the world."""

    Settings = MeterSettings
    of_frames = ("zero_mw", "noise", "noise_mw")
    """Settings that calibrations do not depend on."""

    def __init__(self, settings: MeterSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self._world = world_of(mount)
        self._readings = 0

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Nothing to let go of."""

    def read_mw(self) -> float:
        settings, clock = self.settings, self._world.clock
        start_ms = clock.now_ms()
        clock.sleep_ms(max(settings.reading_ms, 1e-3))
        power_mw = self._world.power_mw(start_ms, clock.now_ms())
        rng = np.random.default_rng([self._world.settings.seed, self._readings, 0x3E7E4])
        self._readings += 1
        luck = rng.standard_normal(2)
        read_mw = settings.zero_mw + power_mw * (1 + settings.noise * luck[0]) + settings.noise_mw * luck[1]
        if read_mw > settings.highest_mw:
            raise DeviceError(self.name, f"more than the {settings.highest_mw:g} mW that it can measure")
        return float(read_mw)
