"""The link to a core of Micro-Manager, and the one place through which all calls to it go.

No lock of ours is held during a call: the core has its own, one for each device adapter, so that a light can be put off
while a camera exposes, unless both are in the same adapter and that one is busy. Over the bridge, calls take turns.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.drivers.micromanager.config import refusals
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import ConnectionSettings
from dmu_hw.drivers.micromanager.sources import source_of
from dmu_hw.drivers.micromanager.words import said_by, snake
from dmu_hw.errors import DeviceError, InputError, Problem, SeveralDevicesError
from dmu_hw.ports import Mount


class Connection:
    """A core while it is open. Of one that is borrowed, whatever devices change is put back when it is closed."""

    Settings = ConnectionSettings

    def __init__(self, settings: ConnectionSettings, mount: Mount) -> None:
        self.settings = settings
        self.name = mount.name
        self._source = source_of(mount.name, settings)
        self._core: Any = None
        self._methods: dict[str, Callable[..., Any]] = {}
        self._undo: dict[Hashable, Callable[[], object]] = {}
        self._ends: dict[str, Callable[[], object]] = {}
        problems = list(_contradictions(settings, mount))
        if problems:
            raise InputError(problems)

    @property
    def is_open(self) -> bool:
        return self._core is not None

    @property
    def core(self) -> Any:
        """The core itself, for those who know what they do with it."""
        if self._core is None:
            raise DeviceError(self.name, "is not open")
        return self._core

    @property
    def borrowed(self) -> bool:
        return self._source.borrowed

    def open(self) -> None:
        if self.is_open:
            return
        self._core = self._source.start()
        atexit.register(self.close)  # before pycromanager unloads devices, which fails while a camera takes frames
        try:
            self._load()
        except DeviceError:
            self.close()
            raise

    def close(self) -> None:
        """Devices that nobody has closed are put to rest, lights first; what was borrowed goes back as it was; what is
        ours is unloaded."""
        atexit.unregister(self.close)
        failures: list[DeviceError] = []
        try:
            for end in (*self._ends.values(), *reversed(self._undo.values())):
                try:
                    end()
                except DeviceError as error:
                    failures.append(error)
        finally:
            self._ends, self._undo, self._methods, self._core = {}, {}, {}, None
            self._source.stop()
        if failures:
            raise DeviceError(self.name, f"was not left as it should be: {'; '.join(map(str, failures))}")

    def opened(self, device: str, end: Callable[[], object], *, first: bool = False) -> None:
        """This puts a device to rest if nobody closes it before the core goes."""
        self._ends.pop(device, None)
        self._ends = {device: end, **self._ends} if first else {**self._ends, device: end}

    def closed(self, device: str) -> bool:
        """Somebody closes it; whether it was open."""
        return self.is_open and self._ends.pop(device, None) is not None

    def _load(self) -> None:
        """Configuration, buffer, properties."""
        if self.settings.config is not None:
            if not self.settings.config.is_file():
                raise DeviceError(self.name, f"there is no file {self.settings.config}")
            self._load_config(self.settings.config)
        held_mb = int(self.ask(self.name, "getCircularBufferMemoryFootprint"))
        if held_mb != self.settings.buffer_mb:
            self.keep("buffer", "setCircularBufferMemoryFootprint", held_mb)
            self.ask(self.name, "setCircularBufferMemoryFootprint", self.settings.buffer_mb)
        self.keep("auto shutter", "setAutoShutter", bool(self.ask(self.name, "getAutoShutter")))
        self.ask(self.name, "setAutoShutter", False)  # it would open what somebody has closed, for every sequence
        for label, values in self.settings.properties.items():
            Handle(self, self.name, label).set_all(values)

    def _load_config(self, path: Path) -> None:
        """All that is wrong with it, where something is."""
        try:
            self.ask(self.name, "loadSystemConfiguration", str(path))
        except DeviceError:
            found = refusals(self, self.name, path)
            if len(found) < 2:
                raise  # MMCore has told it
            raise SeveralDevicesError([self.name], found) from None

    def ask(self, device: str, call: str, *arguments: Any, of: str = "") -> Any:
        """What the core answers; a failure is an error of that device of ours. `of` is what it is about."""
        try:
            return self._method(device, call)(*arguments)
        except DeviceError:
            raise
        except Exception as error:  # the bridge raises nothing narrower, and all of it is a failed call
            raise DeviceError(device, f"Micro-Manager{of}: {call} failed: {said_by(error)}") from error

    def keep(self, what: Hashable, call: str, *arguments: Any) -> None:
        """This call puts back what is going to be changed; of a core of our own, nothing has to be."""
        if self.borrowed:
            self._undo.setdefault(what, lambda: self.ask(self.name, call, *arguments))

    # ---------------------------------------------------------------- what cores take in different forms

    @property
    def metadata(self) -> Callable[[], Any] | None:
        """What makes an object that tags are written into; None: this core hands over frames and tags together."""
        import pymmcore  # noqa: PLC0415 - loaded with the core

        return pymmcore.Metadata if isinstance(self._core, pymmcore.CMMCore) else None

    def picture(self, pixels: bytes, shape: tuple[int, int]) -> NDArray[np.uint8]:
        """One for an SLM. Java has no arrays of two axes."""
        picture = np.frombuffer(pixels, dtype=np.uint8)
        return picture if self.settings.backend == "java" else picture.reshape(shape)

    def _method(self, device: str, call: str) -> Callable[..., Any]:
        """Cores speak in camelCase, in snake_case over the bridge, or in both."""
        found = self._methods.get(call)
        if found is not None:
            return found
        if self._core is None:
            raise DeviceError(device, f"its connection {self.name!r} is not open")
        for name in (call, snake(call)):
            method: Callable[..., Any] | None = getattr(self._core, name, None)
            if method is not None:
                self._methods[call] = method
                return method
        raise DeviceError(device, f"this core of Micro-Manager has no {call}")


def _contradictions(settings: ConnectionSettings, mount: Mount) -> list[Problem]:
    """What is said of a core of our own and of none, or the other way round."""
    document = mount.document
    if settings.backend == "python":
        if settings.config is not None:
            return []
        return [Problem(document.where(("config",)), "key 'config' is missing: a core of our own has to load one")]
    what = f"only a core of our own can be told, and this one is said to be {settings.backend}"
    given = [key for key in ("adapters", "config") if getattr(settings, key) is not None]
    return [Problem(document.where((key,)), what) for key in given]


def link_of(mount: Mount) -> Connection:
    """The connection that a device of Micro-Manager's hangs on."""
    if not isinstance(mount.connection, Connection):
        where = mount.document.where(("connection",))
        raise InputError([Problem(where, "driver micromanager needs a connection whose driver is micromanager")])
    return mount.connection
