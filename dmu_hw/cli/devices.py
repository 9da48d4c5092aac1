"""`dmu devices`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dmu_hw import inventory
from dmu_hw.cli.output import DONE, FAILED, Output
from dmu_hw.inventory import HidDevice, MicroManager, MmDevice, MmProperty, SerialPort, UnseenError

_SHOWN = 12


def show_devices(adapters: Path | None, config: Path | None, output: Output) -> None:
    """What can be looked at; of the rest, why not. Failed only if what was asked for by name cannot be seen."""
    found: dict[str, Any] = {}
    unseen: dict[str, str] = {}

    def look(name: str, title: str, looked: Callable[[], Any], told: Callable[[Any], Iterable[str]]) -> None:
        output.say(title)
        try:
            seen = looked()
        except UnseenError as error:
            found[name], unseen[name], lines = None, str(error), [str(error)]
        else:
            found[name], lines = _plain(seen), list(told(seen)) or ["none"]
        for line in lines:
            output.say(f"  {line}")

    look("serial", "serial ports", inventory.serial_ports, lambda ports: map(_port, ports))
    look("hid", "USB HID (a DLPC900 is 0451:c900)", inventory.hid_devices, lambda devices: map(_hid, devices))
    look("vialux", "ViALUX", inventory.vialux_versions, lambda versions: [f"library ALP-{one}" for one in versions])
    look("micromanager", "Micro-Manager", lambda: inventory.micro_manager(adapters, config), _micro_manager)
    if unseen.get("micromanager") and (adapters is not None or config is not None):
        output.known.update(found, unseen=unseen)
        output.fail(FAILED, [unseen["micromanager"]])
    output.finish(DONE, **found, unseen=unseen)


def _plain(seen: Any) -> Any:
    """For machines."""
    if isinstance(seen, tuple):
        return [_plain(one) for one in seen]
    return seen if isinstance(seen, str) else asdict(seen)


def _port(one: SerialPort) -> str:
    return _joined([f"{one.port:<16}", one.what, one.usb, _serial(one.serial), _permission(one.usable)])


def _hid(one: HidDevice) -> str:
    name = "DLPC900" if one.dlpc900 else ""
    return _joined([one.usb, name, one.what, _serial(one.serial), _permission(one.usable if one.dlpc900 else None)])


def _serial(number: str) -> str:
    return f"serial {number}" if number else ""


def _permission(usable: bool | None) -> str:
    return "NOT FOR THIS USER: a udev rule or a group (dialout) must allow it" if usable is False else ""


def _micro_manager(core: MicroManager) -> Iterable[str]:
    yield core.version
    yield f"adapters in {core.folder}: {_short(core.adapters)}"
    for device in core.devices:
        yield from _device(device)
    if not core.devices:
        yield "devices of a configuration: dmu devices --config FILE.cfg"


def _device(device: MmDevice) -> Iterable[str]:
    yield f"{device.label}: {device.kind}, {device.adapter}, {device.what}"
    for one in device.properties:
        yield _joined([f"    {one.name} = {one.value!r}", _limits(one)])


def _limits(one: MmProperty) -> str:
    """What it may be set to."""
    if one.read_only:
        return "(read only)"
    allowed = f"one of {_short(one.allowed)}" if one.allowed else ""
    within = f"{one.limits[0]:g} to {one.limits[1]:g}" if one.limits is not None else ""
    early = "only in the .cfg, before the device is initialised" if one.before_open else ""
    told = "; ".join(filter(None, (allowed, within, early)))
    return f"({told})" if told else ""


def _short(names: Sequence[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN]) or 'none'}{more}"


def _joined(parts: Iterable[str]) -> str:
    return "  ".join(part for part in parts if part)
