"""`dmu devices`: what is there, what may be set, and what cannot be looked at."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from dmu_hw import inventory

Dmu = Callable[..., Any]


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Two serial ports, one of which this user may not open; the name of that one."""
    closed = tmp_path / "ttyUSB0"
    closed.touch()
    real = inventory.os.access
    monkeypatch.setattr(inventory.os, "access", lambda path, mode: path != str(closed) and real(path, mode))
    found = [
        SimpleNamespace(device="COM3", description="n/a", vid=None, pid=None, serial_number=None),
        SimpleNamespace(device=str(closed), description="OBIS", vid=0x0D4D, pid=0x003D, serial_number="A7"),
    ]
    monkeypatch.setattr(inventory.list_ports, "comports", lambda: found)
    return str(closed)


@pytest.fixture
def hid(monkeypatch: pytest.MonkeyPatch) -> None:
    """A DMD and a keyboard."""
    module = ModuleType("hid")
    keyboard = {"vendor_id": 0x046D, "product_id": 0xC31C, "product_string": "Keyboard", "path": b"1"}
    dmd = {"vendor_id": 0x0451, "product_id": 0xC900, "serial_number": "LCR3", "path": b"2"}
    module.enumerate = lambda: [keyboard, dmd]  # type: ignore[attr-defined]
    module.device = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hid", module)


def demo() -> tuple[str, str]:
    """Folder and configuration of Micro-Manager's own demonstration."""
    folder = pytest.importorskip("mm_test_adapters").device_adapter_path()
    return str(folder), str(Path(folder) / "MMConfig_demo.cfg")


def test_ports_and_usb_are_listed(dmu: Dmu, ports: str, hid: None) -> None:
    said = dmu("devices", "--json")
    assert said.status == 0
    assert said.told["serial"] == [
        {"port": ports, "what": "OBIS", "usb": "0d4d:003d", "serial": "A7", "usable": False},
        {"port": "COM3", "what": "", "usb": "", "serial": "", "usable": None},
    ]
    assert [(one["usb"], one["dlpc900"], one["serial"]) for one in said.told["hid"]] == [
        ("046d:c31c", False, ""),
        ("0451:c900", True, "LCR3"),
    ]
    lines = said.err.splitlines()
    (closed,) = [line for line in lines if ports in line]
    assert "NOT FOR THIS USER" in closed
    assert "  0451:c900  DLPC900  serial LCR3" in lines
    assert not any("COM3" in line and "NOT" in line for line in lines)


@pytest.mark.parametrize(
    ("module", "key", "advice"),
    [
        ("hid", "hid", "pip install 'dmu-hw[dlpc900]'"),
        ("ALP4", "vialux", "pip install 'dmu-hw[vialux]'"),
        ("pymmcore", "micromanager", "pip install 'dmu-hw[micromanager]'"),
    ],
)
def test_what_is_not_installed_is_said_with_how_to(
    dmu: Dmu, monkeypatch: pytest.MonkeyPatch, module: str, key: str, advice: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    said = dmu("devices", "--json")
    assert said.status == 0
    assert said.told[key] is None
    assert advice in said.told["unseen"][key]
    assert advice in said.err


def test_a_vendors_library_that_is_not_there_is_said(dmu: Dmu) -> None:
    pytest.importorskip("ALP4")
    said = dmu("devices", "--json")
    assert "its installer" in said.told["unseen"]["vialux"]
    assert len(said.out.splitlines()) == 1, "what ALP4lib prints must not come among what programs read"


def test_devices_of_a_configuration_are_told_with_what_they_may_be_set_to(dmu: Dmu) -> None:
    folder, config = demo()
    said = dmu("devices", "--json", "--config", config, "--adapters", folder)
    assert said.status == 0
    found = said.told["micromanager"]
    assert "DemoCamera" in found["adapters"]
    devices = {one["label"]: one for one in found["devices"]}
    assert (devices["Camera"]["kind"], devices["Camera"]["adapter"]) == ("camera", "DemoCamera/DCam")
    assert (devices["XY"]["kind"], devices["Path"]["kind"]) == ("XY stage", "state device")
    properties = {one["name"]: one for one in devices["Camera"]["properties"]}
    assert properties["Binning"]["allowed"] == ["1", "2", "4", "8"]
    assert properties["CCDTemperature"]["limits"] == [-100.0, 10.0]
    assert properties["CameraName"]["read_only"]
    assert properties["MaximumExposureMs"]["before_open"]
    assert "      Binning = '1'  (one of 1, 2, 4, 8)" in said.err
    assert "      CameraName = 'DemoCamera-MultiMode'  (read only)" in said.err


def test_without_a_configuration_no_adapter_is_loaded(dmu: Dmu) -> None:
    folder, _config = demo()
    said = dmu("devices", "--json", "--adapters", folder)
    assert said.status == 0
    assert said.told["micromanager"]["devices"] == []
    assert "dmu devices --config FILE.cfg" in said.err


def test_a_configuration_that_cannot_be_loaded_is_a_failure_that_names_it(dmu: Dmu, tmp_path: Path) -> None:
    folder, _config = demo()
    broken = tmp_path / "mine.cfg"
    broken.write_text("Device,Camera,Pegasus,Winged\n")
    said = dmu("devices", "--json", "--config", broken, "--adapters", folder)
    assert said.status == 1
    assert str(broken) in said.told["problems"][0]
    assert "Pegasus" in said.told["problems"][0]
    assert said.told["serial"] is not None, "the rest is told all the same"
