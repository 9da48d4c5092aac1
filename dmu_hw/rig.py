"""devices/*.yaml → Rig: which instrument, opened and closed as a whole."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from dmu_hw import plugin
from dmu_hw.channels import Channel, ChannelSettings, channels_of
from dmu_hw.errors import DeviceError, InputError, Problem, SeveralDevicesError
from dmu_hw.files import NAME_PATTERN, Document, FilePath, Name, Positive, Settings, parse_yaml, read_text, validate
from dmu_hw.guardian import Charge, GuardedLight
from dmu_hw.mechanics import Mechanics
from dmu_hw.physics.optics import Optics
from dmu_hw.pixels import PixelMaps
from dmu_hw.ports import (
    PORTS,
    SEVERAL,
    Blocker,
    Camera,
    CameraMode,
    Clock,
    Device,
    Dmd,
    Filter,
    Focus,
    Light,
    MachineClock,
    Meter,
    Mount,
    Shutter,
    Stage,
    Waiting,
    role_of,
)
from dmu_hw.powercurve import PowerCurve
from dmu_hw.stepping import unable

_REQUIRED = ("dmd", "camera", "light")


def _to_device(name: str) -> str:
    if role_of(name) is None or not re.fullmatch(NAME_PATTERN, name):
        *most, last = map(repr, PORTS)
        raise PydanticCustomError("device", f"should be {', '.join(most)} or {last}, or {_SUFFIXED}")
    return name


_EARLY_MS = 0.005
"""Less than that of a pattern that does not stand yet is not seen."""
_SUFFIXED = " or ".join(f"'{role}_NAME'" for role in SEVERAL)
_DEVICE_PATTERN = rf"^({'|'.join(PORTS)}|({'|'.join(SEVERAL)})_[A-Za-z0-9_-]+)$"
DeviceName = Annotated[str, AfterValidator(_to_device), WithJsonSchema({"type": "string", "pattern": _DEVICE_PATTERN})]
"""A device is called what it is, with a suffix where a rig may have several of them."""


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
    on_time_ms: Positive = 60_000.0
    """Longest that the light may be on in one go."""


class CalibrationSettings(Settings):
    """Where what was measured of this instrument lies, and what of it no run goes without."""

    results: FilePath
    """Folder of results."""
    demand: tuple[Name, ...] = ()
    """Routines without a good result of which no run begins; results of others are used where there are some."""


class RigSettings(Settings):
    """One instrument."""

    kind: Literal["rig"]
    name: Name
    optics: Optics
    """What is believed of the microscope where no calibration says otherwise."""
    objective: Name = "main"
    """Which objective is in place: results of calibrations hold for one."""
    calibration: CalibrationSettings | None = None
    """null: `optics` is all that is believed."""
    connections: dict[Name, Part] = Field(default_factory=dict)
    devices: Annotated[dict[DeviceName, Part], Field(json_schema_extra={"additionalProperties": False})]
    channels: dict[Name, ChannelSettings] = Field(default_factory=dict)
    """What a protocol may ask for by name; none: the light `light` is all there is."""
    stepping: Literal["dmd", "camera", "software"]
    """Who sets the pace of a burst: the DMD triggers the camera, the camera triggers the DMD, or this program."""
    unwatched_light: Literal["refuse", "accept"] = "refuse"
    """What to do with a light that stays on by itself when this computer dies, since its hardware has no watchdog."""
    limits: Limits = Limits()


@dataclass(frozen=True)
class PartFile:
    """What a rig YAML says of one device or connection, checked against its driver."""

    driver: type
    settings: Settings
    connection: str | None
    promise: type
    document: Document


@dataclass(frozen=True)
class RigFile:
    """A rig YAML that has been read and checked, drivers' settings included; nothing is connected."""

    path: Path
    text: str
    settings: RigSettings
    parts: dict[str, PartFile]
    """Connections, then devices."""
    channels: dict[str, Channel]
    """What a protocol may ask for, and what is believed of each; where the rig names none, one without a name."""
    optics: Optics
    """What is believed of the rig: what the file says, until calibrations say otherwise."""

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_rig(path: Path, text: str | None = None) -> RigFile:
    """Read a rig YAML; everything that is wrong with it at once. Of a copy that a run keeps, `text` is given, and
    `path` is where it stood, which other paths in it are relative to."""
    text = read_text(path) if text is None else text
    document = parse_yaml(text, path)
    problems: list[Problem] = []
    settings: RigSettings | None = None
    try:
        settings = validate(document, RigSettings)
    except InputError as error:
        problems.extend(error.problems)
    parts: dict[str, PartFile] = {}
    for section, name in _drivable(document):
        problems.extend(_miswired(document, section, name))
        try:
            parts[name] = _part(document, section, name)
        except InputError as error:
            problems.extend(error.problems)
    if settings is not None:
        absent = [role for role in _REQUIRED if role not in settings.devices]
        problems.extend(Problem(document.where(("devices",)), f"device {role!r} is missing") for role in absent)
    channels: dict[str, Channel] = {}
    if settings is not None:
        try:
            channels = channels_of(document, settings.devices, settings.optics, settings.channels)
        except InputError as error:
            problems.extend(error.problems)
    if problems or settings is None:
        raise InputError(problems)
    return RigFile(path, text, settings, parts, channels, settings.optics)


def _drivable(document: Document) -> Iterator[tuple[str, str]]:
    """Section and name of all that names a driver, whatever else may be wrong with the file."""
    for section in ("connections", "devices"):
        for name, part in _mapping(_mapping(document.value).get(section)).items():
            known = section == "connections" or role_of(name) is not None
            driver = _mapping(part).get("driver")
            if known and isinstance(driver, str) and driver:
                yield section, name


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _miswired(document: Document, section: str, name: str) -> Iterator[Problem]:
    """What is wrong with who hangs on what."""
    connections = _mapping(document.value.get("connections"))
    link = document.value[section][name].get("connection")
    where = document.where((section, name, "connection"))
    if section == "connections" and role_of(name) is not None:
        yield Problem(where, f"{name!r} is what a device is called; give the connection another name")
    if section == "connections" and link is not None:
        yield Problem(where, "a connection does not hang on another one")
    elif isinstance(link, str) and link not in connections:
        yield Problem(where, f"there is no connection {link!r}; there are: {', '.join(connections) or 'none'}")


def _part(document: Document, section: str, name: str) -> PartFile:
    inner = document.inside((section, name), without=("driver", "connection"))
    given = document.value[section][name]
    is_link = section == "connections"
    role = "connection" if is_link else str(role_of(name))
    attribute, promise = role.capitalize(), PORTS.get(role, Device)
    where, folder = document.where((section, name, "driver")), document.path.parent
    found = plugin.load_class("dmu_hw.drivers", given["driver"], attribute, where=where, folder=folder)
    model: Any = getattr(found, "Settings", None)
    if not (isinstance(model, type) and issubclass(model, Settings)):
        raise InputError([Problem(where, f"{attribute} of {given['driver']!r} has no Settings")])
    return PartFile(found, validate(inner, model), given.get("connection"), promise, inner)


class Rig:
    """The instrument. Built from a checked file; `open` connects everything or names all that failed."""

    def __init__(self, file: RigFile) -> None:
        self.file = file
        self.settings = file.settings
        self.optics = file.optics
        self.mechanics = Mechanics()
        self.curves: dict[str, PowerCurve] = {}
        """What comes of the settings of lights, by name, where it was measured; of others, what they are told."""
        self._of_file = {name: channel.optics for name, channel in file.channels.items()}
        self._parts = _built(file)
        problems = list(_misplaced(file, self.filters))
        documents = {name: part.document for name, part in file.parts.items()}
        problems += unable(file.settings.stepping, self._parts, documents)
        if problems:
            raise InputError(problems)
        self._opened: list[str] = []
        self.clock: Clock = next(
            (cast("Clock", part.clock) for part in self._parts.values() if hasattr(part, "clock")), MachineClock()
        )

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
    def lights(self) -> dict[str, Light]:
        """All of them, by name; `light` is one."""
        return {name: cast("Light", part) for name, part in self._parts.items() if role_of(name) == "light"}

    @property
    def filters(self) -> dict[str, Filter]:
        return {name: cast("Filter", part) for name, part in self._parts.items() if role_of(name) == "filter"}

    @property
    def shutter(self) -> Shutter | None:
        return cast("Shutter | None", self._parts.get("shutter"))

    @property
    def meter(self) -> Meter | None:
        return cast("Meter | None", self._parts.get("meter"))

    @property
    def channels(self) -> dict[str, Channel]:
        """What a protocol may ask for; where the rig names none, one without a name."""
        return self.file.channels

    @property
    def pixels(self) -> PixelMaps | None:
        """What is believed of the camera pixel by pixel, the same in all channels."""
        return next(iter(self.channels.values())).pixels

    def file_optics(self, channel: str) -> Optics:
        """What the rig's file says of a channel, whatever was measured since."""
        return self._of_file[channel]

    def setting_mw(self, light: str, power_mw: float) -> float:
        """What a light is to be told so that a power arrives at the sample."""
        if light not in self.curves:
            return power_mw
        try:
            return self.curves[light].setting(power_mw)
        except ValueError as error:
            raise DeviceError(light, str(error)) from None

    def highest_mw(self, light: str) -> float:
        """What the rig allows a light, and what comes of it."""
        highest_mw = min(self.settings.limits.power_mw, self.lights[light].max_power_mw)
        return min(highest_mw, self.curves[light].highest_mw) if light in self.curves else highest_mw

    def believe(
        self,
        optics: Mapping[str, Optics],
        curves: Mapping[str, PowerCurve] | None = None,
        pixels: PixelMaps | None = None,
    ) -> None:
        """From now on that is believed of the channels, of lights by their names, and of the pixels in frames; devices
        stay as they were built."""
        self.curves = dict(curves or {})
        channels = {
            name: replace(channel, optics=optics[name], pixels=pixels) for name, channel in self.channels.items()
        }
        self.file = replace(self.file, channels=channels, optics=next(iter(optics.values())))
        self.optics = self.file.optics

    def moves(self, mechanics: Mechanics) -> None:
        """From now on it is believed to move so; a DMD that can wait for its patterns as long as they need does."""
        self.mechanics = mechanics
        if isinstance(self.dmd, Waiting):
            self.dmd.wait_ms(self.settle_ms)
        elif self.settings.stepping == "dmd" and mechanics.early_ms > _EARLY_MS:
            where = self.file.parts["dmd"].document.where(())
            what = f"exposures begin {mechanics.early_ms:.3g} ms before patterns stand: let it wait"
            raise InputError([Problem(where, f"{what} {mechanics.settle_ms:.4g} ms, and run the routine timing again")])

    @property
    def settle_ms(self) -> float:
        """From a step of the mirrors until the pattern stands: as told or as measured, whichever is longer."""
        return max(self.dmd.settle_ms, self.mechanics.settle_ms or 0.0)

    def readout_ms(self, mode: CameraMode) -> float:
        """What the camera needs after an exposure: as told or as measured, whichever is longer."""
        return self.camera.readout_ms(mode) * max(1.0, self.mechanics.readout_part)

    @property
    def unwatched_light(self) -> bool:
        """Whether nothing puts some light off if this computer dies, and the rig accepts that."""
        unwatched = any(light.watchdog_ms is None for light in self.lights.values())
        return unwatched and self.settings.unwatched_light == "accept"

    @property
    def blockers(self) -> dict[str, Blocker]:
        """All that can keep light from the sample when the light itself does not obey, by name."""
        return {name: part for name, part in self._parts.items() if isinstance(part, Blocker)}

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
        failures: dict[str, DeviceError] = {}
        try:
            for name, part in self._parts.items():
                if self.file.parts[name].connection in failures:
                    continue  # what hangs on a dead link cannot say more than the link did
                self._opened.append(name)  # before, so that what fails half-way is closed as well
                try:
                    part.open()
                except DeviceError as error:
                    failures[name] = error
        except BaseException as error:
            for failure in self._close_all():
                error.add_note(f"{self.settings.name} did not close cleanly: {failure}")
            raise
        if failures:
            found = [*failures.values(), *self._close_all()]
            if len(found) == 1:
                raise found[0]
            raise SeveralDevicesError(failures, found) from found[0]

    def close(self) -> None:
        """Lights first, then the shutter, then the rest in the reverse order; every part gets its turn, whatever the
        others do."""
        failures = self._close_all()
        if failures:
            raise DeviceError(
                self.settings.name, f"did not close cleanly: {'; '.join(map(str, failures))}"
            ) from failures[0]

    def _close_all(self) -> list[Exception]:
        darkest = {"light": 0, "shutter": 1}
        opened, self._opened = self._opened[::-1], []
        order = sorted(opened, key=lambda name: darkest.get(role_of(name) or "", len(darkest)))
        failures: list[Exception] = []
        for name in order:
            try:
                self._parts[name].close()
            except Exception as error:  # noqa: BLE001 - one device that fails to close must not keep another open
                failures.append(error)
        return failures

    @contextmanager
    def opened(self) -> Iterator[Rig]:
        """Open for the length of a block."""
        self.open()
        try:
            yield self
        except BaseException as error:
            # what went wrong in the block is what people must be told: that closing fails too is a note to it
            for failure in self._close_all():
                error.add_note(f"{self.settings.name} did not close cleanly: {failure}")
            raise
        self.close()


def _built(file: RigFile) -> dict[str, Device]:
    """All parts, or an InputError with all that stands against them."""
    parts: dict[str, Device] = {}
    problems: list[Problem] = []
    for name, part in file.parts.items():
        if part.connection is not None and part.connection not in parts:
            continue  # the problem is the connection's
        link = None if part.connection is None else parts[part.connection]
        try:
            mount = Mount(name, file.settings.optics, part.document, link)
            built = _kept(part, mount)
            parts[name] = _guarded(file, part, mount, built) if getattr(built, "guarded", False) else built
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    return parts


def _misplaced(file: RigFile, filters: Mapping[str, Filter]) -> Iterator[Problem]:
    """Positions that channels ask for and filters have not."""
    for channel in file.channels.values():
        for name, position in channel.filters.items():
            allowed = tuple(filters[name].positions)
            if position not in allowed:
                inner = file.parts[name].document
                where = Document({}, inner.lines, inner.path).where(("channels", channel.name, "filters", name))
                yield Problem(where, f"there is no {position!r}; there are: {', '.join(allowed) or 'none'}")


def _guarded(file: RigFile, part: PartFile, mount: Mount, light: Device) -> Device:
    """The same light, held by a process of its own."""
    where = part.document.where(("driver",))
    if part.promise is not Light or not hasattr(light, "keep_alive"):
        raise InputError([Problem(where, "only a Light can be guarded, and it needs keep_alive")])
    if mount.connection is not None:
        where = part.document.where(("connection",))
        raise InputError([Problem(where, "its guardian holds this light alone: it cannot share a connection")])
    charge = Charge.of(file.settings.devices[mount.name].driver, mount)
    return GuardedLight(cast("Light", light), charge, file.settings.limits.on_time_ms)


def _kept(part: PartFile, mount: Mount) -> Device:
    """A device or connection that keeps the promise of its port."""
    where, promise = part.document.where(("driver",)), part.promise.__name__
    try:
        inspect.signature(part.driver).bind(part.settings, mount)
    except TypeError as error:
        raise InputError([Problem(where, f"{promise} is to be built from its settings and a mount: {error}")]) from None
    built = part.driver(part.settings, mount)
    members = {name for base in part.promise.__mro__ if base.__module__ == Device.__module__ for name in vars(base)}
    lacking = sorted(name for name in members if not name.startswith("_") and not hasattr(built, name))
    if lacking:
        raise InputError([Problem(where, f"does not keep the promise of {promise}: it lacks {', '.join(lacking)}")])
    return cast("Device", built)
