"""The simulated stage and focus: limits, speed, backlash, and a busy flag that can stick."""

from __future__ import annotations

import math

from dmu_hw.drivers.simulated.world import World, world_of
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import NonNegative, Positive, Range, Settings
from dmu_hw.ports import Mount


class StageTruth(Settings):
    """What is so, while the stage counts its own micrometres along its own axes."""

    scale: Positive = 1.0
    """True micrometres in one of the stage."""
    angle_deg: float = 0.0
    """From the camera's axes to those of the stage, from x towards y."""
    backlash_um: tuple[NonNegative, NonNegative] | None = None
    """Of x and of y; null: as said."""


class StageSettings(Settings):
    """A motor stage."""

    x_um: Range = (-50_000.0, 50_000.0)
    y_um: Range = (-35_000.0, 35_000.0)
    speed_um_ms: Positive = 10.0
    start_ms: NonNegative = 5.0
    """Time that any move takes, however short."""
    backlash_um: NonNegative = 0.0
    """How far short it stops when it comes from above."""
    true: StageTruth = StageTruth()


class FocusSettings(Settings):
    """A focus drive."""

    z_um: Range = (-500.0, 500.0)
    speed_um_ms: Positive = 1.0
    start_ms: NonNegative = 5.0


class Stage:
    """A face of the world."""

    Settings = StageSettings
    of_frames = ("true",)
    """Settings that calibrations do not depend on."""

    def __init__(self, settings: StageSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.limits_um = (settings.x_um, settings.y_um)
        self._world = world_of(mount)
        self._commanded = (0.0, 0.0)
        self._reached = (0.0, 0.0)

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
        x_slack, y_slack = self.settings.true.backlash_um or (self.settings.backlash_um,) * 2
        reached_x, reached_y = self._reached
        # the screw turns in its nut until it meets the flank that drives the way it goes
        self._reached = min(max(reached_x, x_um), x_um + x_slack), min(max(reached_y, y_um), y_um + y_slack)
        self._world.go((*self._true_um(*self._reached), self._world.place_um[2]))

    def position_um(self) -> tuple[float, float]:
        return self._commanded

    def _true_um(self, x_um: float, y_um: float) -> tuple[float, float]:
        true = self.settings.true
        angle = math.radians(true.angle_deg)
        along, across = true.scale * math.cos(angle), true.scale * math.sin(angle)
        return along * x_um - across * y_um, across * x_um + along * y_um


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
