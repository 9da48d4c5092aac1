"""Stages in Micro-Manager, in the plane and along the axis."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from dmu_hw.drivers.micromanager.core import link_of
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import DeviceSettings
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import NonNegative, Positive, Range
from dmu_hw.ports import Mount

_ASK_AGAIN_S = 0.005


class Motion(DeviceSettings):
    """How something moves."""

    speed_um_ms: Positive = 5.0
    settle_ms: NonNegative = 20.0
    """From the end of a move until it stands still: waited for after every move."""
    tolerance_um: Positive = 1.0
    """As near as this to where it was sent has it arrived."""


class StageSettings(Motion):
    """An XY stage."""

    x_um: Range
    """Lowest and highest, as positions are counted here."""
    y_um: Range
    flip_x: bool = False
    """Micro-Manager counts x, or y, the other way: what is seen has to go left when x grows, and up when y does."""
    flip_y: bool = False


class FocusSettings(Motion):
    """A stage along the axis."""

    z_um: Range
    speed_um_ms: Positive = 0.5
    tolerance_um: Positive = 0.1
    flip_z: bool = False


class Mover:
    """What both have in common: told, and asked until it has arrived."""

    def __init__(self, settings: Motion, mount: Mount, limits_um: tuple[Range, ...]) -> None:
        self.name = mount.name
        self._motion = settings
        self._limits_um = limits_um
        self._handle = Handle(link_of(mount), mount.name, settings.label)
        self._sent_um: tuple[float, ...] = ()

    def close(self) -> None:
        """Stays where it is."""

    def travel_ms(self, distance_um: float) -> float:
        return abs(distance_um) / self._motion.speed_um_ms + self._motion.settle_ms

    def _open(self, kind: str) -> None:
        self._handle.find(kind)
        self._handle.set_all(self._motion.properties)
        self._sent_um = self._read_um()

    def _read_um(self) -> tuple[float, ...]:
        raise NotImplementedError

    def _go(self, target_um: tuple[float, ...], timeout_ms: float, tell: Callable[[], object]) -> None:
        for place_um, (low_um, high_um) in zip(target_um, self._limits_um, strict=True):
            if not low_um <= place_um <= high_um:
                raise DeviceError(self.name, f"moves from {low_um:g} to {high_um:g} um, sent to {place_um:g} um")
        way_ms = self.travel_ms(math.dist(self._read_um(), target_um))
        if way_ms > timeout_ms:
            raise DeviceTimeout(self.name, f"needs {way_ms:.4g} ms for this move, and was given {timeout_ms:g} ms")
        until_s = time.monotonic() + timeout_ms / 1e3
        self._sent_um = target_um
        tell()
        while self._handle.call("deviceBusy") or math.dist(self._read_um(), target_um) > self._motion.tolerance_um:
            if time.monotonic() >= until_s:
                wanted, there = (" ".join(f"{um:.5g}" for um in place) for place in (target_um, self._read_um()))
                what = f"did not arrive at {wanted} um within {timeout_ms:g} ms: it is at {there} um"
                raise DeviceTimeout(self.name, f"Micro-Manager's {self._handle.label!r}: {what}")
            time.sleep(_ASK_AGAIN_S)
        time.sleep(self._motion.settle_ms / 1e3)


class Stage(Mover):
    """In the plane."""

    Settings = StageSettings

    def __init__(self, settings: StageSettings, mount: Mount) -> None:
        super().__init__(settings, mount, (settings.x_um, settings.y_um))
        self.settings = settings
        self.limits_um = (settings.x_um, settings.y_um)
        self._signs = (-1 if settings.flip_x else 1, -1 if settings.flip_y else 1)

    def open(self) -> None:
        self._open("XY stage")

    def move_um(self, x_um: float, y_um: float, timeout_ms: float) -> None:
        sign_x, sign_y = self._signs
        self._go((x_um, y_um), timeout_ms, lambda: self._handle.call("setXYPosition", sign_x * x_um, sign_y * y_um))

    def position_um(self) -> tuple[float, float]:
        x_um, y_um = self._sent_um
        return x_um, y_um

    def _read_um(self) -> tuple[float, float]:
        x_um, y_um = (float(self._handle.call(f"get{axis}Position")) for axis in "XY")
        return self._signs[0] * x_um, self._signs[1] * y_um


class Focus(Mover):
    """Along the axis."""

    Settings = FocusSettings

    def __init__(self, settings: FocusSettings, mount: Mount) -> None:
        super().__init__(settings, mount, (settings.z_um,))
        self.settings = settings
        self.limits_um = settings.z_um
        self._sign = -1 if settings.flip_z else 1

    def open(self) -> None:
        self._open("stage")

    def move_um(self, z_um: float, timeout_ms: float) -> None:
        self._go((z_um,), timeout_ms, lambda: self._handle.call("setPosition", self._sign * z_um))

    def position_um(self) -> float:
        return self._sent_um[0]

    def _read_um(self) -> tuple[float, ...]:
        return (self._sign * float(self._handle.call("getPosition")),)
