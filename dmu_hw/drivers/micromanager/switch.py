"""What is on or off, and says so: shutters, state devices, and lasers with a property for it."""

from __future__ import annotations

import time

from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.drivers.micromanager.settings import SwitchProperty
from dmu_hw.errors import DeviceTimeout

_ASK_AGAIN_S = 0.002


class Switch:
    """Told and asked from any thread: it remembers nothing, and every call goes to the device."""

    def __init__(self, handle: Handle, by: SwitchProperty | None) -> None:
        self._handle = handle
        self._by = by

    def find(self) -> None:
        if self._by is None:
            self._handle.find("shutter")
            return
        self._handle.find()
        self._handle.get(self._by.property)

    def set(self, on: bool) -> None:
        """Told, and not waited for. Of a core that is borrowed this is not put back: what gives light stays off."""
        if self._by is None:
            self._handle.call("setShutterOpen", on)
        else:
            self._handle.tell(self._by.property, self._by.on if on else self._by.off, keep=False)

    def is_on(self) -> bool:
        """As the device says; a value that nobody has told of is an error."""
        if self._by is None:
            return bool(self._handle.call("getShutterOpen"))
        return self._handle.meaning(self._by.property, (self._by.on,), (self._by.off, *self._by.also_off))

    def reach(self, on: bool, timeout_ms: float) -> None:
        """Until it is so."""
        until_s = time.monotonic() + timeout_ms / 1e3
        while self._handle.call("deviceBusy") or self.is_on() is not on:
            if time.monotonic() >= until_s:
                state = "open" if on else "closed"
                what = f"Micro-Manager's {self._handle.label!r}: is not {state} after {timeout_ms:g} ms"
                raise DeviceTimeout(self._handle.device, what)
            time.sleep(_ASK_AGAIN_S)
