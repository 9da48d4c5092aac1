"""What this machine sees: serial ports, DMDs on USB, ViALUX's library, Micro-Manager's adapters and devices.

Nothing is lit and nothing is told to move. Only a configuration (.cfg) that is given is loaded as Micro-Manager itself
loads it: its devices are initialised, and its preset System/Startup is applied, if it has one.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from serial.tools import list_ports

from dmu_hw.drivers.dlpc900.usb import PRODUCT, VENDOR
from dmu_hw.drivers.micromanager.handle import KINDS
from dmu_hw.drivers.vialux.dmd import DmdSettings as ViaLuxSettings

_KINDS = KINDS | {7: "serial port", 9: "autofocus", 12: "signals", 13: "magnifier", 15: "hub", 16: "galvo"}


class UnseenError(Exception):
    """Why something cannot be looked at, and how it could."""


@dataclass(frozen=True)
class SerialPort:
    port: str
    """As `port:` of a rig wants it."""
    what: str
    usb: str
    """Numbers of vendor and product; empty if it does not hang on USB."""
    serial: str
    usable: bool | None
    """Whether this user may open it; None: the system does not tell."""


@dataclass(frozen=True)
class HidDevice:
    what: str
    usb: str
    serial: str
    """As `serial:` of a DLPC900 wants it, where several are connected."""
    dlpc900: bool
    usable: bool | None


@dataclass(frozen=True)
class MmProperty:
    """One property of one of Micro-Manager's devices."""

    name: str
    value: str
    allowed: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    read_only: bool = False
    before_open: bool = False
    """It counts only in the .cfg, before the device is initialised."""


@dataclass(frozen=True)
class MmDevice:
    label: str
    kind: str
    adapter: str
    """Library and name in it."""
    what: str
    properties: tuple[MmProperty, ...]


@dataclass(frozen=True)
class MicroManager:
    """A core, and what it found."""

    version: str
    folder: str
    adapters: tuple[str, ...]
    devices: tuple[MmDevice, ...] = field(default=())


def serial_ports() -> tuple[SerialPort, ...]:
    found = sorted(list_ports.comports(), key=lambda port: port.device)
    return tuple(
        SerialPort(
            port.device,
            port.description if port.description != "n/a" else "",
            _usb(port.vid, port.pid) if port.vid is not None else "",
            port.serial_number or "",
            _usable(port.device),
        )
        for port in found
    )


def hid_devices() -> tuple[HidDevice, ...]:
    """All of them: a keyboard is better seen than a DMD missed."""
    try:
        import hid  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnseenError(f"needs hidapi: pip install 'dmu-hw[dlpc900]' ({error})") from error
    if not hasattr(hid, "enumerate") or not hasattr(hid, "device"):
        raise UnseenError("needs hidapi, but the module hid is of another package: pip uninstall hid")
    return tuple(
        HidDevice(
            " ".join(filter(None, (one.get("manufacturer_string"), one.get("product_string")))),
            _usb(one["vendor_id"], one["product_id"]),
            one.get("serial_number") or "",
            (one["vendor_id"], one["product_id"]) == (VENDOR, PRODUCT),
            _usable(os.fsdecode(one["path"])),
        )
        for one in hid.enumerate()
    )


def vialux_versions() -> tuple[str, ...]:
    """Versions of ViALUX's interface whose library is here. No board is asked."""
    try:
        import ALP4  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnseenError(f"needs ALP4lib: pip install 'dmu-hw[vialux]' ({error})") from error
    versions = get_args(ViaLuxSettings.model_fields["version"].annotation)
    found = tuple(version for version in versions if _has_library(ALP4, version))
    if not found:
        raise UnseenError(
            "ViALUX's library is not where its installer puts it: install it, or say `folder:` in the rig"
        )
    return found


def _has_library(package: Any, version: str) -> bool:
    """ALP4lib raises whatever the system's loader does, and prints."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        package.ALP4(version=version)
        return True
    return False


def micro_manager(folder: Path | None, config: Path | None) -> MicroManager:
    """Adapters by name; their libraries are loaded only as far as a configuration asks for them."""
    try:
        import pymmcore  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UnseenError(f"needs pymmcore: pip install 'dmu-hw[micromanager]' ({error})") from error
    folder = folder or _installed()
    core = pymmcore.CMMCore()
    core.setDeviceAdapterSearchPaths([str(folder)])
    try:
        adapters = tuple(sorted(core.getDeviceAdapterNames()))
        if config is not None:
            core.loadSystemConfiguration(str(config))
        devices = tuple(_devices(core))
    except (RuntimeError, OSError) as error:  # what pymmcore makes of the core's errors
        raise UnseenError(f"{config or folder}: {str(error).splitlines()[0]}") from error
    finally:
        core.unloadAllDevices()  # some adapters crash at the end of the process otherwise
    return MicroManager(core.getVersionInfo(), str(folder), adapters, devices)


def _installed() -> Path:
    """Where Micro-Manager is, or the adapters that the tests use."""
    with contextlib.suppress(ImportError, ValueError):  # not installed; no installer for this system
        from mmpycorex import find_existing_mm_install  # noqa: PLC0415 - an extra

        found = find_existing_mm_install()
        if found:
            return Path(found)
    with contextlib.suppress(ImportError):
        import mm_test_adapters  # noqa: PLC0415 - few have it

        return Path(mm_test_adapters.device_adapter_path())
    raise UnseenError("no Micro-Manager was found: say its folder by --adapters DIR, or pip install mm-test-adapters")


def _devices(core: Any) -> Iterator[MmDevice]:
    for label in core.getLoadedDevices():
        if label == "Core":
            continue
        number = int(core.getDeviceType(label))
        adapter = f"{core.getDeviceLibrary(label)}/{core.getDeviceName(label)}"
        names = core.getDevicePropertyNames(label)
        properties = tuple(_property(core, label, name) for name in names)
        kind = _KINDS.get(number, f"device of type {number}")
        yield MmDevice(label, kind, adapter, core.getDeviceDescription(label), properties)


def _property(core: Any, label: str, name: str) -> MmProperty:
    """A device that cannot read one of its properties has the others still."""
    try:
        value = core.getProperty(label, name)
    except RuntimeError as error:
        value = f"cannot be read: {str(error).splitlines()[0]}"
    limits = None
    if core.hasPropertyLimits(label, name):
        limits = core.getPropertyLowerLimit(label, name), core.getPropertyUpperLimit(label, name)
    return MmProperty(
        name,
        value,
        tuple(core.getAllowedPropertyValues(label, name)),
        limits,
        core.isPropertyReadOnly(label, name),
        core.isPropertyPreInit(label, name),
    )


def _usb(vendor: int, product: int) -> str:
    return f"{vendor:04x}:{product:04x}"


def _usable(path: str) -> bool | None:
    """Windows tells only by opening it, and would open COM3 even to see whether it is there."""
    if os.name == "nt" or not Path(path).exists():
        return None
    return os.access(path, os.R_OK | os.W_OK)
