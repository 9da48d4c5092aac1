"""What of a configuration (.cfg) a core refuses. MMCore stops at the first line; here every device gets its turn."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Protocol

from dmu_hw.errors import DeviceError

_FIRST = {7: 0, 15: 1}
"""Serial ports are initialised before hubs, and those before what hangs on them."""


class Asking(Protocol):
    """Speaks with a core."""

    def ask(self, device: str, call: str, *arguments: object) -> object: ...


def refusals(link: Asking, name: str, path: Path) -> tuple[DeviceError, ...]:
    """Devices that cannot be loaded or initialised, and properties that cannot be set, each by itself. All devices are
    unloaded before; those that work are there afterwards."""
    link.ask(name, "unloadAllDevices")
    return tuple(_Trial(link, name, path).failures())


class _Trial:
    """One pass through a file, line by line."""

    def __init__(self, link: Asking, name: str, path: Path) -> None:
        self._link = link
        self._name = name
        self._path = path
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = [line.split("#")[0].strip() for line in text.splitlines()]
        self._lines = [
            (number, [word.strip() for word in line.split(",")]) for number, line in enumerate(lines, 1) if line
        ]
        self._dead: set[str] = set()
        """Labels of devices that are not there: what their other lines say is no news."""
        self._on: dict[str, str] = {}
        """Device → the hub that it hangs on."""

    def failures(self) -> Iterator[DeviceError]:
        loaded: list[tuple[int, str]] = []
        begun = False
        for number, words in self._lines:
            match words:
                case ["Property", "Core", "Initialize", "1"]:
                    begun = True
                    yield from self._initialise(loaded)
                case ["Property", "Core", "Initialize", _]:
                    continue
                case ["Device", label, library, device]:
                    failed = yield from self._told(number, label, "loadDevice", label, library, device)
                    if not failed:
                        loaded.append((number, label))
                case ["Parent", label, hub] if not begun:
                    self._on[label] = hub
                    yield from self._told(number, label, "setParentLabel", label, hub)
                case ["Property", label, prop, *value] if label != "Core":
                    yield from self._told(number, label, "setProperty", label, prop, ",".join(value))

    def _initialise(self, loaded: list[tuple[int, str]]) -> Iterator[DeviceError]:
        kinds = {label: self._link.ask(self._name, "getDeviceType", label) for _, label in loaded}
        for number, label in sorted(loaded, key=lambda one: _FIRST.get(int(str(kinds[one[1]])), 2)):
            if self._on.get(label) in self._dead:
                self._dead.add(label)  # its hub was told
            else:
                yield from self._told(number, label, "initializeDevice", label)

    def _told(self, number: int, label: str, call: str, *arguments: str) -> Generator[DeviceError, None, bool]:
        """What came of it; gives whether it failed."""
        if label in self._dead:
            return True
        try:
            self._link.ask(self._name, call, *arguments)
        except DeviceError as error:
            if call != "setProperty":
                self._dead.add(label)
            yield DeviceError(self._name, f"{self._path.name}:{number}: {label}: {error.what}")
            return True
        return False
