"""The simulated shutter: none of the lights reaches the sample while it is closed."""

from __future__ import annotations

from dmu_hw.drivers.simulated.world import world_of
from dmu_hw.files import NonNegative, Settings
from dmu_hw.ports import Mount


class ShutterSettings(Settings):
    """A mechanical shutter."""

    switch_ms: NonNegative = 10.0
    """Until it stands open, or closed."""


class Shutter:
    """A face of the world."""

    Settings = ShutterSettings

    def __init__(self, settings: ShutterSettings, mount: Mount) -> None:
        self.name = mount.name
        self.switch_ms = settings.switch_ms
        self._world = world_of(mount)
        self._line = self._world.history.shutter
        self._line.set(self._world.clock.now_ms(), False)

    def open(self) -> None:
        self.set_open(False)

    def close(self) -> None:
        self.set_open(False)

    def set_open(self, wanted: bool) -> None:
        if wanted == self.is_open() or self._world.faults.strikes("stuck_shutter"):
            return
        self._world.clock.sleep_ms(self.switch_ms)
        self._line.set(self._world.clock.now_ms(), wanted)

    def is_open(self) -> bool:
        return self._line.at(self._world.clock.now_ms())

    def block_light(self) -> None:
        self.set_open(False)
