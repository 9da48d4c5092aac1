"""The simulated stage and focus: limits, speed, backlash, and a busy flag that can stick."""

from __future__ import annotations

import math

from dmu_hw.drivers.simulated.settings import Range
from dmu_hw.drivers.simulated.world import World, world_of
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import NonNegative, Positive, Settings
from dmu_hw.ports import Mount


class StageSettings(Settings):
    """A motor stage."""

    x_um: Range = (-50_000.0, 50_000.0)
    y_um: Range = (-35_000.0, 35_000.0)
    speed_um_ms: Positive = 10.0
    start_ms: NonNegative = 5.0
    """Time that any move takes, however short."""
    backlash_um: NonNegative = 0.0
    """How far short it stops when it comes from above."""


class FocusSettings(Settings):
    """A focus drive."""

    z_um: Range = (-500.0, 500.0)
    speed_um_ms: Positive = 1.0
    start_ms: NonNegative = 5.0


class Stage:
    """A face of the world."""

    Settings = StageSettings

    def __init__(self, settings: StageSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.limits_um = (settings.x_um, settings.y_um)
        self._world = world_of(mount)
        self._commanded = (0.0, 0.0)

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Stays where it is."""

    def travel_ms(self, distance_um: float) -> float:
        return self.settings.start_ms + distance_um / self.settings.speed_um_ms if distance_um else 0.0

    def move_um(self, x_um: float, y_um: float, timeout_ms: float) -> None:
        for axis, value, (low, high) in zip("xy", (x_um, y_um), self.limits_um, strict=True):
            if not low <= value <= high:
                raise DeviceError(self.name, f"{axis} must be {low:g} to {high:g} µm, given {value:g}")
        before = self._commanded
        distance = math.hypot(x_um - before[0], y_um - before[1])
        _travel(self._world, self.name, self.travel_ms(distance), timeout_ms)
        self._commanded = (x_um, y_um)
        slack = self.settings.backlash_um
        reached = [new + slack if new < old else new for new, old in zip((x_um, y_um), before, strict=True)]
        self._world.go((reached[0], reached[1], self._world.place_um[2]))

    def position_um(self) -> tuple[float, float]:
        return self._commanded


class Focus:
    """A face of the world."""

    Settings = FocusSettings

    def __init__(self, settings: FocusSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.limits_um = settings.z_um
        self._world = world_of(mount)

    def open(self) -> None:
        """Nothing to connect."""

    def close(self) -> None:
        """Stays where it is."""

    def travel_ms(self, distance_um: float) -> float:
        return self.settings.start_ms + distance_um / self.settings.speed_um_ms if distance_um else 0.0

    def move_um(self, z_um: float, timeout_ms: float) -> None:
        low, high = self.limits_um
        if not low <= z_um <= high:
            raise DeviceError(self.name, f"z must be {low:g} to {high:g} µm, given {z_um:g}")
        x_um, y_um, before_um = self._world.place_um
        _travel(self._world, self.name, self.travel_ms(abs(z_um - before_um)), timeout_ms)
        self._world.go((x_um, y_um, z_um))

    def position_um(self) -> float:
        return self._world.place_um[2]


def _travel(world: World, name: str, duration_ms: float, timeout_ms: float) -> None:
    if (duration_ms and world.faults.strikes("stuck_busy")) or duration_ms > timeout_ms:
        world.clock.sleep_ms(timeout_ms)
        raise DeviceTimeout(name, f"still busy after {timeout_ms:g} ms")
    world.clock.sleep_ms(duration_ms)
