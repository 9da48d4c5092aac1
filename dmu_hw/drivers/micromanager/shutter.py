"""A shutter in Micro-Manager."""

from __future__ import annotations

from dmu_hw.drivers.micromanager.core import link_of
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import SwitchSettings
from dmu_hw.drivers.micromanager.switch import Switch
from dmu_hw.files import NonNegative
from dmu_hw.ports import Mount


class ShutterSettings(SwitchSettings):
    """A shutter, or a device with a property that is one."""

    switch_ms: NonNegative = 30.0
    """Until it stands open, or closed, as is to be expected."""


class Shutter:
    """Told, and asked until it stands as it should."""

    Settings = ShutterSettings

    def __init__(self, settings: ShutterSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.switch_ms = settings.switch_ms
        self._link = link_of(mount)
        self._handle = Handle(self._link, mount.name, settings.label)
        self._switch = Switch(self._handle, settings.switch)

    def open(self) -> None:
        """Find it, and close it: whoever was here before may have left it open."""
        self._switch.find()
        self._link.opened(self.name, self.block_light, first=True)
        self.set_open(False)
        self._handle.set_all(self.settings.properties)

    def close(self) -> None:
        if self._link.closed(self.name):
            self.set_open(False)

    def set_open(self, wanted: bool) -> None:
        self._switch.set(wanted)
        self._switch.reach(wanted, 2 * self.switch_ms + self._link.settings.timeout_ms)

    def is_open(self) -> bool:
        return self._switch.is_on()

    def block_light(self) -> None:
        self.set_open(False)
