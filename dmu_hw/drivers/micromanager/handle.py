"""One of Micro-Manager's devices as one of ours speaks with it: by label and property, with errors that name both."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol

from dmu_hw.drivers.micromanager.settings import ConnectionSettings
from dmu_hw.drivers.micromanager.words import said_by, same, texts
from dmu_hw.errors import DeviceError, DeviceTimeout

_ASK_AGAIN_S = 0.002
_MOST_SHOWN = 30
KINDS = {2: "camera", 3: "shutter", 4: "state device", 5: "stage", 6: "XY stage", 8: "generic device", 14: "SLM"}
"""Micro-Manager's numbers for types of devices, as far as they are used here."""


class Link(Protocol):
    """What calls go through: the connection."""

    settings: ConnectionSettings

    @property
    def borrowed(self) -> bool: ...

    @property
    def metadata(self) -> Callable[[], Any] | None: ...

    def ask(self, device: str, call: str, *arguments: Any, of: str = "") -> Any: ...

    def keep(self, what: Hashable, call: str, *arguments: Any) -> None: ...


class Handle:
    """A device of Micro-Manager's."""

    def __init__(self, link: Link, device: str, label: str) -> None:
        self.link = link
        self.device = device
        self.label = label

    def call(self, name: str, *arguments: Any) -> Any:
        """A call of the core that takes this device's label first."""
        return self.link.ask(self.device, name, self.label, *arguments, of=f"'s {self.label!r}")

    def core(self, name: str, *arguments: Any) -> Any:
        """A call of the core that takes no label."""
        return self.link.ask(self.device, name, *arguments, of=f"'s {self.label!r}")

    def find(self, *kinds: str) -> None:
        """Is it there, and of the kind that is needed?"""
        labels = texts(self.core("getLoadedDevices"))
        if self.label not in labels:
            fitting = [label for label in labels if self._kind(label) in kinds] if kinds else []
            there = ", ".join(map(repr, fitting)) or f"no {' or '.join(kinds)}, but {', '.join(map(repr, labels))}"
            raise DeviceError(self.device, f"Micro-Manager has no device {self.label!r}; it has: {there}")
        kind = self._kind(self.label)
        if kinds and kind is not None and kind not in kinds:
            raise self.error(f"is a {kind}, needed is a {' or '.join(kinds)}")

    def _kind(self, label: str) -> str | None:
        """None: the bridge does not tell."""
        number = self.link.ask(self.device, "getDeviceType", label)
        return KINDS.get(number, f"device of type {number}") if isinstance(number, int) else None

    def error(self, what: str) -> DeviceError:
        return DeviceError(self.device, f"Micro-Manager's {self.label!r}: {what}")

    # ---------------------------------------------------------------- properties

    def has(self, name: str) -> bool:
        return bool(self.call("hasProperty", name))

    def get(self, name: str) -> str:
        """Asked of the device itself, not of the core's memory."""
        try:
            return str(self.call("getProperty", name))
        except DeviceError as error:
            raise self._property_error(name, "cannot be read", error) from error

    def number(self, name: str) -> float:
        text = self.get(name)
        try:
            found = float(text)
        except ValueError:
            found = math.nan
        if not math.isfinite(found):
            raise self.error(f"property {name!r} is {text!r}, not a number")
        return found

    def meaning(self, name: str, yes: tuple[str, ...], no: tuple[str, ...]) -> bool:
        """Which of two things a property says; any other value is an error."""
        found = self.get(name)
        if any(same(found, value) for value in yes):
            return True
        if any(same(found, value) for value in no):
            return False
        raise self.error(f"property {name!r} is {found!r}, not {' or '.join(map(repr, (*yes, *no)))}")

    def set(self, name: str, value: str, *, keep: bool = True) -> None:
        """Set it, wait until the device is not busy with it, and see that it took it."""
        self.tell(name, value, keep=keep)
        self.wait(self.link.settings.timeout_ms)
        found = self.get(name)
        if not same(found, value):
            raise self.error(f"property {name!r} was set to {value!r} and is {found!r}{self._allowed(name)}")

    def tell(self, name: str, value: str, *, keep: bool = True) -> None:
        """Set it, for those who ask themselves what came of it."""
        if keep and self.link.borrowed:
            self.link.keep(("property", self.label, name), "setProperty", self.label, name, self.get(name))
        try:
            self.call("setProperty", name, value)
        except DeviceError as error:
            raise self._property_error(name, f"cannot be set to {value!r}", error) from error

    def set_all(self, values: Mapping[str, str]) -> None:
        for name, value in values.items():
            self.set(name, value)

    def allowed(self, name: str) -> tuple[str, ...]:
        return texts(self.call("getAllowedPropertyValues", name))

    def _property_error(self, name: str, what: str, error: DeviceError) -> DeviceError:
        """With what would have been allowed, as far as the device still answers."""
        cause = said_by(error.__cause__) if isinstance(error.__cause__, Exception) else error.what
        try:
            hint = self._allowed(name) if self.has(name) else f": it has none of this name{self._close(name)}"
        except DeviceError:
            hint = ""
        return self.error(f"property {name!r} {what}{hint} ({cause})")

    def _allowed(self, name: str) -> str:
        if self.call("isPropertyReadOnly", name):
            return "; it is read only"
        values = self.allowed(name)
        if values:
            return f"; allowed: {', '.join(values[:_MOST_SHOWN])}"
        if not self.call("hasPropertyLimits", name):
            return ""
        low, high = (self.call(f"getProperty{end}Limit", name) for end in ("Lower", "Upper"))
        return f"; allowed: {low:g} to {high:g}"

    def _close(self, name: str) -> str:
        names = texts(self.call("getDevicePropertyNames"))
        close = difflib.get_close_matches(name, names, n=1)
        return f"; did you mean {close[0]!r}?" if close else f"; it has: {', '.join(names[:_MOST_SHOWN])}"

    # ---------------------------------------------------------------- waiting

    def wait(self, timeout_ms: float) -> None:
        """Until the device says that it is not busy any more. Micro-Manager's own wait would hold the adapter, with a
        limit that is the same for all."""
        until_s = time.monotonic() + timeout_ms / 1e3
        while self.call("deviceBusy"):
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise DeviceTimeout(self.device, f"Micro-Manager's {self.label!r}: is busy after {timeout_ms:g} ms")
            time.sleep(min(_ASK_AGAIN_S, left_s))
