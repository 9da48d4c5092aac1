"""A light in Micro-Manager: behind a shutter, on a state device, or a laser with a property for its power.

Nothing puts it off when this computer dies, and no guardian can hold it, since the core lives in the program that may
die with it: a rig has to accept that (`unwatched_light: accept`), or drive its lights by another driver.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dmu_hw.drivers.micromanager.core import link_of
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import SwitchSettings, Text, Value
from dmu_hw.drivers.micromanager.switch import Switch
from dmu_hw.errors import DeviceError
from dmu_hw.files import Positive, Settings
from dmu_hw.ports import Mount

_OFF_BY = 0.01
"""By so much of the highest power may what is read back differ from what was told."""


class Power(Settings):
    """The property that sets the power."""

    property: Text
    unit: Literal["mW", "W", "percent", "fraction"] = "mW"
    """What it counts in: power of the source itself, or parts of its highest."""
    label: Text | None = None
    """The device that has the property, where it is another one."""


class Interlock(Settings):
    """Whether the interlock is closed, as a property says."""

    property: Text
    closed: Annotated[tuple[Value, ...], Field(min_length=1)]
    """Values at which light may go on."""
    open: Annotated[tuple[Value, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_value_means_one_thing(self) -> Self:
        both = sorted(set(self.closed) & set(self.open))
        if both:
            raise ValueError(f"the value {both[0]!r} cannot mean both")
        return self


class LightSettings(SwitchSettings):
    """A light source."""

    max_power_mw: Positive
    """Highest power at the sample with all mirrors on."""
    transmission: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the source's own power that arrives at the sample with all mirrors on."""
    power: Power | None = None
    """null: it has one power, `max_power_mw`."""
    interlock: Interlock | None = None
    """Without it nobody knows, and the interlock is taken for closed."""


class Light:
    """All that is told is asked back."""

    Settings = LightSettings
    watchdog_ms = None

    def __init__(self, settings: LightSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self.max_power_mw = settings.max_power_mw
        self._link = link_of(mount)
        self._handle = Handle(self._link, mount.name, settings.label)
        self._switch = Switch(self._handle, settings.switch)
        label = settings.label if settings.power is None else settings.power.label or settings.label
        self._source = Handle(self._link, mount.name, label)

    def open(self) -> None:
        """Off before anything else: whoever was here before may have left it on."""
        self._switch.find()
        self._link.opened(self.name, self.off, first=True)
        self.off()
        self._handle.set_all(self.settings.properties)
        if self.settings.power is not None:
            self._source.get(self.settings.power.property)
        self._check_dark("is on though it was told to be off")

    def close(self) -> None:
        if self._link.closed(self.name):
            self.off()
            self._check_dark("is still on: SWITCH IT OFF BY HAND")

    def _check_dark(self, what: str) -> None:
        self._handle.wait(self._link.settings.timeout_ms)
        if self.is_on():
            raise self._handle.error(what)

    def set_power(self, power_mw: float) -> None:
        if not 0 <= power_mw <= self.max_power_mw:
            raise DeviceError(self.name, f"power must be 0 to {self.max_power_mw:g} mW, given {power_mw:g}")
        power = self.settings.power
        if power is None:
            self._check_only_power(power_mw)
            return
        own_mw, most_mw = (mw / self.settings.transmission for mw in (power_mw, self.max_power_mw))
        scale = {"mW": 1.0, "W": 1e-3, "percent": 100 / most_mw, "fraction": 1 / most_mw}[power.unit]
        self._source.tell(power.property, f"{own_mw * scale:.6g}")
        self._source.wait(self._link.settings.timeout_ms)
        found = self._source.number(power.property)
        if abs(found - own_mw * scale) > _OFF_BY * most_mw * scale:
            raise self._source.error(f"property {power.property!r} was set to {own_mw * scale:g} and is {found:g}")

    def _check_only_power(self, power_mw: float) -> None:
        if not math.isclose(power_mw, self.max_power_mw, rel_tol=_OFF_BY):
            what = f"has one power, {self.max_power_mw:g} mW: say power if a property sets it; given {power_mw:g} mW"
            raise DeviceError(self.name, what)

    def on(self, longest_ms: float = math.inf) -> None:  # noqa: ARG002 - the device counts no time
        self._switch.set(True)

    def off(self) -> None:
        self._switch.set(False)

    def is_on(self) -> bool:
        return self._switch.is_on()

    def interlock_closed(self) -> bool:
        lock = self.settings.interlock
        return lock is None or self._handle.meaning(lock.property, lock.closed, lock.open)
