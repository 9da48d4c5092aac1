"""The controller on USB, by hidapi."""

from __future__ import annotations

from typing import Any, Final, cast

from dmu_hw.drivers.dlpc900.link import Hid
from dmu_hw.errors import DeviceError

VENDOR: Final = 0x0451
PRODUCT: Final = 0xC900
_INTERFACES = (0, -1)
"""The one that takes commands; -1 where the system does not tell."""


def open_hid(name: str, serial: str | None) -> Hid:
    """The only controller there is, or the one with this serial number."""
    hid = _hidapi(name)
    there = [found for found in hid.enumerate(VENDOR, PRODUCT) if found.get("interface_number", -1) in _INTERFACES]
    mine = [found for found in there if serial is None or found.get("serial_number") == serial]
    if len(mine) != 1:
        others = ", ".join(repr(found.get("serial_number") or "") for found in there) or "none"
        wanted = f"with serial number {serial!r}" if serial is not None else "or say its serial number"
        raise DeviceError(name, f"needs one DLPC900 on USB ({VENDOR:04x}:{PRODUCT:04x}) {wanted}; there are: {others}")
    device = hid.device()
    try:
        device.open_path(mine[0]["path"])
    except OSError as error:
        advice = "another program may hold it; on Linux a udev rule must let this user read and write it"
        raise DeviceError(name, f"USB cannot be opened: {error}; {advice}") from error
    return cast("Hid", device)


def _hidapi(name: str) -> Any:
    """The module, or a DeviceError that says what to install. Another package is called `hid` as well."""
    try:
        import hid  # noqa: PLC0415 - an extra that only this driver needs
    except ImportError as error:
        raise DeviceError(name, f"needs hidapi: pip install 'dmu-hw[dlpc900]' ({error})") from error
    if not hasattr(hid, "device"):
        raise DeviceError(name, "needs hidapi, but the module hid is of another package: pip uninstall hid")
    return hid
