"""The simulated light source."""

from __future__ import annotations

import math

from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.errors import DeviceError
from dmu_hw.files import NonNegative, Positive, Settings
from dmu_hw.ports import Mount


class LightTruth(Settings):
    """What comes of a setting: nothing below a threshold, then so much of it, and less the more there is."""

    threshold_mw: NonNegative = 0.0
    gain: Positive = 1.0
    saturation_mw: Positive | None = None
    """Setting beyond the threshold at which half of what there could be comes; null: it is never less."""

    def delivered_mw(self, setting_mw: float) -> float:
        above_mw = max(0.0, setting_mw - self.threshold_mw)
        loss = 1.0 if self.saturation_mw is None else 1 + above_mw / self.saturation_mw
        return self.gain * above_mw / loss


class LightSettings(Settings):
    """A source that can be set and switched at once."""

    max_power_mw: Positive = 50.0
    """Highest power at the sample with all mirrors on."""
    watchdog_ms: Positive | None = 300.0
    """After how long without its host it would go off; null: never, and a rig must accept that."""
    true: LightTruth = LightTruth()


class Light:
    """A face of the world."""

    Settings = LightSettings
    of_frames = ("true",)
    """Settings that calibrations do not depend on."""

    def __init__(self, settings: LightSettings, mount: Mount) -> None:
        self.max_power_mw = settings.max_power_mw
        self.watchdog_ms = settings.watchdog_ms
        self.name = mount.name
        self._true = settings.true
        self._world = world_of(mount)
        self._power_mw = 0.0
        self._on = False
        self._interlock_open = False

    def open(self) -> None:
        self._interlock_open = False
        self._power_mw = 0.0
        self.off()

    def close(self) -> None:
        self.off()

    def set_power(self, power_mw: float) -> None:
        if not 0 <= power_mw <= self.max_power_mw:
            raise DeviceError(self.name, f"power must be 0 to {self.max_power_mw:g} mW, given {power_mw:g}")
        self._power_mw = power_mw
        if self._on:
            self._shine(power_mw)

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the guard counts the time
        # an interlock that has opened stays open: nobody closes a door by software
        self._interlock_open = self._interlock_open or self._world.faults.strikes("interlock_open")
        if self._interlock_open:
            self.off()
            raise DeviceError(self.name, "interlock is open")
        self._on = True
        self._shine(self._power_mw)

    def off(self) -> None:
        self._on = False
        self._shine(0.0)

    def is_on(self) -> bool:
        return self._on

    def interlock_closed(self) -> bool:
        return not self._interlock_open

    def _shine(self, power_mw: float) -> None:
        delivered_mw = self._true.delivered_mw(power_mw)
        self._world.history.power_mw[self.name].set(self._world.clock.now_ms(), delivered_mw)
