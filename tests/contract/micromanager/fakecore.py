"""A core of Micro-Manager's in Python: devices that do what they are told, and a list of all that was asked of them.

`FakeCore` speaks as pymmcore does, `FakeBridge` as pycromanager's bridge to an open Micro-Manager: in snake_case, with
Java's objects for lists, rectangles and frames, and errors that are nothing but an Exception.
"""

# ruff: noqa: ARG002, N802, TRY002 - names and arguments are those of Micro-Manager
from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmu_hw.drivers.micromanager.words import snake

CAMERA, SHUTTER, STATE, STAGE, XY, SLM = 2, 3, 4, 5, 6, 14


@dataclass
class FakeDevice:
    """What one device is and holds."""

    kind: int
    properties: dict[str, str] = field(default_factory=dict)
    allowed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    state: int = 0
    is_open: bool = False
    busy: int = 0
    """How often it says that it is busy before it is not; -1: for ever."""
    place: list[float] = field(default_factory=lambda: [0.0, 0.0])
    stuck: bool = False
    """It does not do what it is told, and says nothing."""


@dataclass
class TaggedImage:
    """A frame as pycromanager hands it over."""

    tags: dict[str, Any]
    pix: Any


class FakeCore:
    """Devices by label; `failing` are calls that fail, by name or by name and label."""

    def __init__(self) -> None:
        self.devices = {
            "Cam": FakeDevice(
                CAMERA,
                {"Binning": "1", "Trigger": "Internal", "Interval": "0", "Transpose": "0", "TransposeMirrorX": "0"},
                {"Binning": ("1", "2", "4"), "Trigger": ("Internal", "External")},
            ),
            "Mirrors": FakeDevice(SLM, {"Mode": "Live", "Period": "10"}, {"Mode": ("Live", "Camera", "Itself")}),
            "Laser": FakeDevice(SHUTTER, {"Power": "0", "Lock": "closed"}, limits={"Power": (0.0, 100.0)}),
            "Lamps": FakeDevice(
                STATE, {"State": "0"}, {"State": ("0", "1", "2", "3")}, labels=("off", "blue", "red", "?")
            ),
            "Gate": FakeDevice(SHUTTER),
            "Wheel": FakeDevice(STATE, {"State": "0"}, labels=("GFP", "RFP", "none")),
            "XY": FakeDevice(XY),
            "Z": FakeDevice(STAGE),
        }
        self.calls: list[tuple[Any, ...]] = []
        self.failing: set[str] = set()
        self.shape, self.longest = (6, 8), 100
        self.pictures: list[bytes] = []
        """All that were shown one by one."""
        self.sequence: list[bytes] = []
        self.picture = b""
        self.chip = (32, 48)
        self.roi = [0, 0, 48, 32]
        self.keeps_roi = False
        self.exposure = 10.0
        self.footprint, self.auto_shutter, self.current = 16, True, "Other"
        self.running = False
        self.overflowed = False
        self.room = 100
        self.dtype: Any = np.uint16
        self.given: deque[TaggedImage] = deque()

    def names(self, *calls: str) -> list[tuple[Any, ...]]:
        """The calls of these names, in turn."""
        return [call for call in self.calls if call[0] in calls]

    def frame(self, number: int, **changes: Any) -> None:
        """The camera has put one into the buffer."""
        _, _, width, height = self.roi
        now = datetime.datetime.now().astimezone().replace(tzinfo=None)
        tags = {"ImageNumber": str(number), "ElapsedTime-ms": f"{5.0 + 10 * number}", "TimeReceivedByCore": str(now)}
        tags |= {"Width": str(width), "Height": str(height)}
        pixels = np.full((height, width), number + 1, dtype=self.dtype)
        self.given.append(TaggedImage({**tags, **changes}, pixels))

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if (
            name.startswith("_")
            or not callable(found)
            or not (name[:3] in ("get", "set", "has", "pop") or name in _CALLS)
        ):
            return found

        def called(*arguments: Any) -> Any:
            self.calls.append((name, *arguments))
            if name in self.failing or f"{name} {arguments[0] if arguments else ''}" in self.failing:
                raise RuntimeError(
                    f'Error in device "{arguments[0] if arguments else "Core"}": it does not want to (1)'
                )
            return found(*arguments)

        return called

    # ------------------------------------------------- devices and properties

    def getLoadedDevices(self) -> tuple[str, ...]:
        return (*self.devices, "Core")

    def getDeviceType(self, label: str) -> int:
        return 10 if label == "Core" else self._device(label).kind

    def _device(self, label: str) -> FakeDevice:
        if label not in self.devices:
            raise RuntimeError(f'No device with label "{label}"')
        return self.devices[label]

    def hasProperty(self, label: str, name: str) -> bool:
        return name in self._device(label).properties

    def getDevicePropertyNames(self, label: str) -> tuple[str, ...]:
        return tuple(self._device(label).properties)

    def getProperty(self, label: str, name: str) -> str:
        if not self.hasProperty(label, name):
            raise RuntimeError(f'Error in device "{label}": Invalid property name encountered: {name} (2)')
        return self._device(label).properties[name]

    def setProperty(self, label: str, name: str, value: str) -> None:
        assert isinstance(value, str)
        device = self._device(label)
        self.getProperty(label, name)
        if value not in device.allowed.get(name, (value,)):
            raise RuntimeError(f'Cannot set property "{name}" to "{value}"')
        if not device.stuck:
            device.properties[name] = value

    def getAllowedPropertyValues(self, label: str, name: str) -> tuple[str, ...]:
        return self._device(label).allowed.get(name, ())

    def isPropertyReadOnly(self, label: str, name: str) -> bool:
        return False

    def hasPropertyLimits(self, label: str, name: str) -> bool:
        return name in self._device(label).limits

    def getPropertyLowerLimit(self, label: str, name: str) -> float:
        return self._device(label).limits[name][0]

    def getPropertyUpperLimit(self, label: str, name: str) -> float:
        return self._device(label).limits[name][1]

    def deviceBusy(self, label: str) -> bool:
        device = self._device(label)
        if device.busy > 0:
            device.busy -= 1
            return True
        return device.busy < 0

    # ------------------------------------------------- mirrors

    def getSLMWidth(self, label: str) -> int:
        return self.shape[1]

    def getSLMHeight(self, label: str) -> int:
        return self.shape[0]

    def getSLMSequenceMaxLength(self, label: str) -> int:
        if not self.longest:
            raise RuntimeError('Error in device "Mirrors": not supported (11)')
        return self.longest

    def setSLMImage(self, label: str, pixels: Any) -> None:
        assert pixels.dtype == np.uint8
        assert pixels.shape == self.shape
        self.picture = pixels.tobytes()

    def displaySLMImage(self, label: str) -> None:
        self.pictures.append(self.picture)

    def loadSLMSequence(self, label: str, pictures: list[bytes]) -> None:
        assert all(isinstance(one, bytes) and len(one) == self.shape[0] * self.shape[1] for one in pictures)
        self.sequence = list(pictures)

    def startSLMSequence(self, label: str) -> None:
        assert self.sequence

    def stopSLMSequence(self, label: str) -> None:
        pass

    # ------------------------------------------------- camera

    def getCameraDevice(self) -> str:
        return self.current

    def setCameraDevice(self, label: str) -> None:
        self.current = label

    def getExposure(self, label: str) -> float:
        return self.exposure

    def setExposure(self, label: str, exposure_ms: float) -> None:
        if not self.devices["Cam"].stuck:
            self.exposure = exposure_ms

    def getROI(self, label: str) -> list[int]:
        return list(self.roi)

    def setROI(self, label: str, x: int, y: int, width: int, height: int) -> None:
        if not self.keeps_roi:
            self.roi = [x, y, width, height]

    def clearROI(self) -> None:
        side = int(self.devices["Cam"].properties["Binning"])
        self.roi = [0, 0, self.chip[1] // side, self.chip[0] // side]

    def getImageWidth(self) -> int:
        return self.roi[2]

    def getImageHeight(self) -> int:
        return self.roi[3]

    def getBytesPerPixel(self) -> int:
        return int(np.dtype(self.dtype).itemsize)

    def getNumberOfComponents(self) -> int:
        return 1

    def isSequenceRunning(self, label: str) -> bool:
        return self.running

    def startSequenceAcquisition(self, label: str, frames: int, unused: float, stops: bool) -> None:
        assert stops, "a buffer that overflows must not write over frames"
        self.running, self.overflowed = True, False
        self.given.clear()

    def stopSequenceAcquisition(self, label: str) -> None:
        self.running = False

    def getRemainingImageCount(self) -> int:
        return len(self.given)

    def isBufferOverflowed(self) -> bool:
        return self.overflowed

    def getBufferTotalCapacity(self) -> int:
        return self.room

    def getCircularBufferMemoryFootprint(self) -> int:
        return self.footprint

    def setCircularBufferMemoryFootprint(self, size_mb: int) -> None:
        self.footprint = size_mb

    def popNextTaggedImage(self) -> TaggedImage:
        if not self.given:
            raise IndexError("Circular buffer is empty.")
        return self.given.popleft()

    # ------------------------------------------------- the rest

    def getAutoShutter(self) -> bool:
        return self.auto_shutter

    def setAutoShutter(self, wanted: bool) -> None:
        self.auto_shutter = wanted

    def setShutterOpen(self, label: str, wanted: bool) -> None:
        if not self._device(label).stuck:
            self._device(label).is_open = wanted

    def getShutterOpen(self, label: str) -> bool:
        return self._device(label).is_open

    def getStateLabels(self, label: str) -> tuple[str, ...]:
        return self._device(label).labels

    def setStateLabel(self, label: str, state: str) -> None:
        if not self._device(label).stuck:
            self._device(label).state = self._device(label).labels.index(state)

    def getStateLabel(self, label: str) -> str:
        return self._device(label).labels[self._device(label).state]

    def setXYPosition(self, label: str, x_um: float, y_um: float) -> None:
        if not self._device(label).stuck:
            self._device(label).place = [x_um, y_um]

    def getXPosition(self, label: str) -> float:
        return self._device(label).place[0]

    def getYPosition(self, label: str) -> float:
        return self._device(label).place[1]

    def setPosition(self, label: str, z_um: float) -> None:
        if not self._device(label).stuck:
            self._device(label).place[0] = z_um

    def getPosition(self, label: str) -> float:
        return self._device(label).place[0]


_CALLS = {
    "clearROI",
    "deviceBusy",
    "displaySLMImage",
    "isBufferOverflowed",
    "isPropertyReadOnly",
    "isSequenceRunning",
    "loadSLMSequence",
    "startSLMSequence",
    "startSequenceAcquisition",
    "stopSLMSequence",
    "stopSequenceAcquisition",
}
"""Beside those that begin with get, set, has and pop."""


class JavaList:
    """Java's list of text, over the bridge."""

    def __init__(self, values: tuple[str, ...]) -> None:
        self._values = values

    def size(self) -> int:
        return len(self._values)

    def get(self, place: int) -> str:
        return self._values[place]


@dataclass
class Rectangle:
    """Java's."""

    x: int
    y: int
    width: int
    height: int


class FakeBridge:
    """The same core on the other side of pycromanager's bridge."""

    def __init__(self, core: FakeCore) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Any:
        for call in _calls_of(self._core):
            if snake(call) == name:
                return lambda *arguments: self._over(call, *arguments)
        raise AttributeError(name)

    def _over(self, call: str, *arguments: Any) -> Any:
        if call == "loadSLMSequence":
            raise Exception("Incorrect arguments: a list of arrays")
        if call == "setSLMImage":
            label, pixels = arguments
            assert pixels.ndim == 1
            arguments = label, pixels.reshape(self._core.shape)
        try:
            found = getattr(self._core, call)(*arguments)
        except (RuntimeError, IndexError) as error:
            raise Exception(f"java.lang.Exception: {error}\nat mmcorej.CMMCore.{call}") from error
        if call == "getROI":
            return Rectangle(*found)
        if call == "getDeviceType":
            return object()
        if call == "popNextTaggedImage":
            return TaggedImage(found.tags, found.pix.ravel().view(np.int16))
        return JavaList(found) if isinstance(found, tuple) else found


def _calls_of(core: FakeCore) -> Iterator[str]:
    return (name for name in dir(type(core)) if not name.startswith("_"))
