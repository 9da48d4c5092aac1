"""devices/*.yaml → Rig: which instrument, opened and closed as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field

from dmu_hw import plugin
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.files import Document, Name, Positive, Settings, parse_yaml, read_text, validate
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import PORTS, Camera, Clock, Device, Dmd, Focus, Light, MachineClock, Mount, Stage

Role = Literal["dmd", "camera", "light", "stage", "focus"]
_REQUIRED: tuple[Role, ...] = ("dmd", "camera", "light")
Range = tuple[float, float]


class Part(Settings):
    """A device or connection: its driver, and whatever that driver's settings are."""

    model_config = ConfigDict(extra="allow")
    driver: Annotated[str, Field(min_length=1)]
    """A module of dmu_hw.drivers, a dotted path, or a .py file beside this YAML."""
    connection: str | None = None
    """The link that the device hangs on, if it shares one."""


class Limits(Settings):
    """What no protocol may exceed."""

    power_mw: Positive = 50.0
    exposure_ms: Positive = 10_000.0
    dose_mj_cm2: Positive | None = None
    """Dose of one field."""


class RigSettings(Settings):
    """One instrument."""

    kind: Literal["rig"]
    name: Name
    optics: Optics
    """What is believed of the microscope where no calibration says otherwise."""
    connections: dict[Name, Part] = Field(default_factory=dict)
    devices: dict[Role, Part]
    stepping: Literal["dmd", "camera", "software"]
    """Who sets the pace of a burst: the DMD triggers the camera, the camera triggers the DMD, or this program."""
    limits: Limits = Limits()


@dataclass(frozen=True)
class RigFile:
    """A rig YAML that has been read and checked, drivers' settings included; nothing is connected."""

    path: Path
    text: str
    settings: RigSettings
    parts: dict[str, tuple[type, Settings, Part]]
    """Connections and devices: class, its checked settings, what the YAML says."""

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_rig(path: Path) -> RigFile:
    """Read a rig YAML; everything that is wrong with it at once."""
    text = read_text(path)
    document = parse_yaml(text, path)
    settings = validate(document, RigSettings)
    absent = [role for role in _REQUIRED if role not in settings.devices]
    problems = [Problem(document.where(("devices",)), f"device {role!r} is missing") for role in absent]
    parts: dict[str, tuple[type, Settings, Part]] = {}
    for section, name, part in _all_parts(settings):
        if part.connection is not None and (section == "connections" or part.connection not in settings.connections):
            known = ", ".join(settings.connections) or "none"
            problems.append(
                Problem(
                    document.where((section, name, "connection")),
                    f"there is no connection {part.connection!r}; there are: {known}",
                )
            )
            continue
        try:
            parts[name] = _driver_of(document, section, name, part)
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    return RigFile(path, text, settings, parts)


def _all_parts(settings: RigSettings) -> Iterator[tuple[str, str, Part]]:
    for name, part in settings.connections.items():
        yield "connections", name, part
    for role, part in settings.devices.items():
        yield "devices", role, part


def _driver_of(document: Document, section: str, name: str, part: Part) -> tuple[type, Settings, Part]:
    attribute = "Connection" if section == "connections" else name.capitalize()
    where = document.where((section, name, "driver"))
    found = plugin.load_class("dmu_hw.drivers", part.driver, attribute, where=where, folder=document.path.parent)
    model: Any = getattr(found, "Settings", None)
    if not (isinstance(model, type) and issubclass(model, Settings)):
        raise InputError([Problem(where, f"{part.driver}.{attribute} has no Settings")])
    inner = document.inside((section, name), without=("driver", "connection"))
    return found, validate(inner, model), part


class Rig:
    """The instrument. Built from a checked file; `open` connects everything or names all that failed."""

    def __init__(self, file: RigFile) -> None:
        self.file = file
        self.settings = file.settings
        self.optics = file.settings.optics
        self._parts: dict[str, Device] = {}
        self._opened: list[str] = []
        for name, (driver, settings, part) in file.parts.items():
            link = self._parts[part.connection] if part.connection else None
            mount = Mount(name, self.optics, file.path.parent, link)
            self._parts[name] = driver(settings, mount)
        self.clock: Clock = next(
            (cast("Clock", part.clock) for part in self._parts.values() if hasattr(part, "clock")), MachineClock()
        )
        self._check_promises()

    def _check_promises(self) -> None:
        broken = [
            Problem(
                f"{self.file.path}: devices.{role}",
                f"driver {part.driver!r} does not keep the promise of {PORTS[role].__name__}",
            )
            for role, part in self.settings.devices.items()
            if not isinstance(self._parts[role], PORTS[role])
        ]
        if broken:
            raise InputError(broken)

    @property
    def dmd(self) -> Dmd:
        return cast("Dmd", self._parts["dmd"])

    @property
    def camera(self) -> Camera:
        return cast("Camera", self._parts["camera"])

    @property
    def light(self) -> Light:
        return cast("Light", self._parts["light"])

    @property
    def stage(self) -> Stage | None:
        return cast("Stage | None", self._parts.get("stage"))

    @property
    def focus(self) -> Focus | None:
        return cast("Focus | None", self._parts.get("focus"))

    def connection(self, name: str) -> Device | None:
        """A link by its name, for those who know what is behind it."""
        return self._parts.get(name)

    @property
    def connections(self) -> tuple[Device, ...]:
        return tuple(self._parts[name] for name in self.settings.connections)

    def open(self) -> None:
        """Connect all; if any fails, close what was opened and name every one that failed."""
        failures: list[DeviceError] = []
        for name, part in self._parts.items():
            try:
                part.open()
                self._opened.append(name)
            except DeviceError as error:
                failures.append(error)
        if failures:
            self.close()
            if len(failures) == 1:
                raise failures[0]
            raise DeviceError(", ".join(f.device for f in failures), "; ".join(str(f) for f in failures))

    def close(self) -> None:
        """Light first, then the rest in the reverse order; every part gets its turn, whatever the others do."""
        opened = self._opened[::-1]
        order = [name for name in opened if name == "light"] + [name for name in opened if name != "light"]
        self._opened = []
        failures: list[Exception] = []
        for name in order:
            try:
                self._parts[name].close()
            except Exception as error:  # noqa: BLE001 - one device that fails to close must not keep another open
                failures.append(error)
        if failures:
            raise DeviceError(
                self.settings.name, f"did not close cleanly: {'; '.join(map(str, failures))}"
            ) from failures[0]

    @contextmanager
    def opened(self) -> Iterator[Rig]:
        """Open for the length of a block."""
        self.open()
        try:
            yield self
        finally:
            self.close()
