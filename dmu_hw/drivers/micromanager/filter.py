"""A state device in Micro-Manager: a filter wheel, a slider, a turret."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field

from dmu_hw.drivers.micromanager.core import link_of
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import DeviceSettings, Text
from dmu_hw.drivers.micromanager.words import texts
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import NonNegative
from dmu_hw.ports import Mount

_ASK_AGAIN_S = 0.005


class FilterSettings(DeviceSettings):
    """A state device whose states have labels."""

    positions: Annotated[dict[Text, Text], Field(min_length=1)]
    """The names that channels use, and the labels that Micro-Manager has for them."""
    switch_ms: NonNegative = 200.0
    """From one position to another, as is to be expected."""


class Filter:
    """Turns, and is asked until it stands where it should."""

    Settings = FilterSettings

    def __init__(self, settings: FilterSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.positions = tuple(settings.positions)
        self._names = {label: name for name, label in settings.positions.items()}
        self._handle = Handle(link_of(mount), mount.name, settings.label)

    def open(self) -> None:
        """It stays where it stands."""
        self._handle.find("state device")
        labels = texts(self._handle.call("getStateLabels"))
        lacking = [label for label in self._names if label not in labels]
        if lacking:
            there = ", ".join(map(repr, labels))
            raise self._handle.error(f"has no state {' and no '.join(map(repr, lacking))}; it has: {there}")
        self._handle.set_all(self.settings.properties)

    def close(self) -> None:
        """Stays where it is."""

    def switch_ms(self, before: str, after: str) -> float:
        return self.settings.switch_ms if before != after else 0.0

    def select(self, position: str, timeout_ms: float) -> None:
        if position not in self.positions:
            raise DeviceError(self.name, f"has {', '.join(self.positions)}, asked for {position!r}")
        label = self.settings.positions[position]
        until_s = time.monotonic() + timeout_ms / 1e3
        self._handle.call("setStateLabel", label)
        while self._handle.call("deviceBusy") or self._label() != label:
            if time.monotonic() >= until_s:
                what = f"Micro-Manager's {self.settings.label!r}: did not arrive at {label!r} within {timeout_ms:g} ms"
                raise DeviceTimeout(self.name, what)
            time.sleep(_ASK_AGAIN_S)

    def selected(self) -> str:
        if self._handle.call("deviceBusy"):
            raise self._handle.error("turns")
        label = self._label()
        if label not in self._names:
            raise self._handle.error(f"stands at {label!r}, which has no name in the rig")
        return self._names[label]

    def _label(self) -> str:
        return str(self._handle.call("getStateLabel"))
