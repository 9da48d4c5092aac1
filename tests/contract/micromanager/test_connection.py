"""How a core of Micro-Manager is spoken with, lent, and given back: on one in Python; tests/mmcore has the real one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakecore import FakeBridge, FakeCore
from told import CAMERA, DMD, FAST, FRAMES, LASER, MODE, Make, built, connection

from dmu_hw.drivers import micromanager
from dmu_hw.drivers.micromanager import Camera, Dmd, Filter, Light, lend
from dmu_hw.drivers.micromanager.words import same, snake
from dmu_hw.errors import DeviceError, InputError
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode, Roi

PYCROMANAGER = pytest.mark.skipif(find_spec("pycromanager") is None, reason="the extra micromanager is not installed")

# ---------------------------------------------------------------- the connection


def test_importing_the_driver_loads_neither_pycromanager_nor_torch() -> None:
    code = "import sys, dmu_hw.drivers.micromanager; print({'pycromanager', 'pymmcore', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_lent_core_is_left_as_it_was_found(core: FakeCore, optics: Optics) -> None:
    core.devices["Cam"].properties["Binning"] = "2"
    core.roi, core.exposure = [3, 2, 10, 8], 33.0
    before = {label: dict(device.properties) for label, device in core.devices.items()}
    link = connection(optics, backend="given", buffer_mb=2, properties={"Laser": {"Lock": "open"}})
    with lend(core):
        link.open()
    assert (core.footprint, core.auto_shutter, core.devices["Laser"].properties["Lock"]) == (2, False, "open")
    camera, dmd = (
        built(found, name, told, optics, link) for found, name, told in ((Camera, "camera", CAMERA), (Dmd, "dmd", DMD))
    )
    for device in (camera, dmd):
        device.open()
    camera.configure(CameraMode(5.0, 1, Roi(8, 4, 16, 12), "external"))
    dmd.load(FRAMES)
    dmd.start((0, 1), 20.0)
    assert core.devices["Mirrors"].properties["Period"] == "20.0"
    for device in (camera, dmd):
        device.close()
    link.close()
    after = {label: dict(device.properties) for label, device in core.devices.items()}
    assert after == before
    assert (core.roi, core.exposure, core.footprint, core.auto_shutter) == ([3, 2, 10, 8], 33.0, 16, True)
    assert core.current == "Other"
    assert not core.names("loadSystemConfiguration", "reset", "unloadAllDevices")
    with pytest.raises(DeviceError, match="mm: is not open"):
        _ = link.core


def test_what_nobody_closes_is_put_to_rest_lights_first(core: FakeCore, optics: Optics) -> None:
    """As at the end of a program that has failed."""
    link = connection(optics, backend="given")
    with lend(core):
        link.open()
    camera, dmd, light = (
        built(found, name, told, optics, link)
        for found, name, told in ((Camera, "camera", CAMERA), (Dmd, "dmd", DMD), (Light, "light", LASER))
    )
    for device in (camera, dmd, light):
        device.open()
    dmd.load(FRAMES)
    camera.configure(MODE)
    camera.arm(5)
    light.on()
    dmd.start((0, 1), None)
    core.calls.clear()
    core.failing = {"stopSequenceAcquisition"}
    with pytest.raises(DeviceError, match=r"mm: was not left as it should be: camera: .*stopSequence.* failed"):
        link.close()
    assert core.calls[0] == ("setShutterOpen", "Laser", False)
    assert not core.devices["Laser"].is_open
    assert not any(core.pictures[-1]), "mirrors are dark"
    assert core.auto_shutter


def test_what_cannot_be_put_back_is_said(core: FakeCore, optics: Optics) -> None:
    link = connection(optics, backend="given", properties={"Laser": {"Lock": "open"}})
    with lend(core):
        link.open()
    core.failing = {"setProperty Laser"}
    with pytest.raises(DeviceError, match=r"mm: was not left as it should be: .*setProperty failed"):
        link.close()
    assert core.auto_shutter, "the rest was"
    link.close()


def test_a_core_that_nobody_lends(optics: Optics) -> None:
    with pytest.raises(DeviceError, match=r"mm: backend: given, and no core was lent: use .*lend\(core\)"):
        connection(optics, backend="given").open()


def test_the_core_that_was_lent_last_is_used(optics: Optics) -> None:
    outer, inner = FakeCore(), FakeCore()
    link = connection(optics, backend="given")
    with lend(outer), lend(inner):
        link.open()
    assert link.core is inner
    link.close()
    with lend(outer):
        link.open()
    assert link.core is outer
    link.close()


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({}, "key 'config' is missing"),
        ({"backend": "given", "config": Path("a.cfg")}, "only a core of our own can be told"),
        ({"backend": "java", "adapters": Path("a")}, "only a core of our own can be told"),
    ],
)
def test_a_connection_that_contradicts_itself(optics: Optics, told: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        connection(optics, **told)


def test_a_property_of_the_connection_that_does_not_hold(core: FakeCore, optics: Optics) -> None:
    core.devices["Laser"].stuck = True
    link = connection(optics, backend="given", properties={"Laser": {"Lock": "open"}})
    with lend(core), pytest.raises(DeviceError, match="'Laser': property 'Lock' was set to 'open' and is 'closed'"):
        link.open()
    assert not link.is_open
    assert core.auto_shutter, "and the core is as it was"


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("property 'Binning' cannot be set to '3'; allowed: 1, 2, 4", {"Cam": {"Binning": 3}}),
        ("property 'Binnin' cannot be read: it has none of this name; did you mean 'Binning'?", {"Cam": {"Binnin": 1}}),
        ('No device with label "Camm"', {"Camm": {"Binning": 1}}),
    ],
)
def test_what_a_core_refuses_names_device_and_property(core: FakeCore, optics: Optics, what: str, told: Any) -> None:
    link = connection(optics, backend="given", properties=told)
    with lend(core), pytest.raises(DeviceError) as caught:
        link.open()
    assert what in str(caught.value)
    assert caught.value.device == "mm"


def test_a_device_needs_a_connection_of_this_driver(optics: Optics) -> None:
    for found, told in ((Camera, CAMERA), (Dmd, DMD), (Light, LASER)):
        with pytest.raises(InputError, match="needs a connection whose driver is micromanager"):
            built(found, "device", told, optics)


def test_a_device_on_a_connection_that_is_not_open(optics: Optics) -> None:
    link = connection(optics, backend="given")
    light = built(Light, "light", LASER, optics, link)
    light.close()
    for ask in (light.open, light.off, light.is_on):
        with pytest.raises(DeviceError, match="light: its connection 'mm' is not open"):
            ask()


@pytest.mark.parametrize(
    ("found", "name", "told"),
    [
        (Camera, "camera", CAMERA),
        (Dmd, "dmd", DMD),
        (Light, "light", LASER),
        (Filter, "filter", {"label": "Wheel", "positions": {"a": "GFP"}}),
    ],
)
def test_a_device_that_is_not_there_or_another_kind(make: Make, found: type, name: str, told: dict[str, Any]) -> None:
    with pytest.raises(DeviceError, match=f"{name}: Micro-Manager has no device 'Nix'; it has: '"):
        make(found, name, {**told, "label": "Nix"})
    with pytest.raises(DeviceError, match=f"{name}: Micro-Manager's 'XY': is a XY stage, needed is a "):
        make(found, name, {**told, "label": "XY"})


# ---------------------------------------------------------------- the bridge


@PYCROMANAGER
def test_the_bridge_is_spoken_with_as_pycromanager_writes_it(core: FakeCore, optics: Optics) -> None:
    """In snake_case, with Java's objects; bursts one by one, since sequences do not go over it."""
    link = connection(optics, backend="given", **FAST)
    object.__setattr__(link, "settings", link.settings.model_copy(update={"backend": "java"}))
    with lend(FakeBridge(core)):
        link.open()
    dmd = built(Dmd, "dmd", {**DMD, "sequences": False}, optics, link)
    camera = built(Camera, "camera", CAMERA, optics, link)
    light, wheel = (
        built(Light, "light", LASER, optics, link),
        built(Filter, "filter", {"label": "Wheel", "positions": {"g": "GFP"}}, optics, link),
    )
    for device in (dmd, camera, light, wheel):
        device.open()
    assert dmd.steppings == ("software",)
    dmd.load(FRAMES)
    camera.configure(MODE)
    light.set_power(10.0)
    light.on()
    for index in (0, 3, 1):
        dmd.show(index)
        camera.arm(1)
        core.frame(0)
        frame = camera.pop(50.0)
        assert frame.pixels.dtype == np.uint16
        assert frame.pixels.shape == MODE.shape
        assert core.pictures[-1] == (FRAMES[index] * np.uint8(255)).tobytes()
    light.off()
    assert not light.is_on()
    with pytest.raises(DeviceError) as caught:
        wheel._handle.call("getProperty", "nothing")
    assert "\n" not in str(caught.value), "Java's stack is left out"
    for device in (light, dmd, camera, wheel):
        device.close()
    link.close()
    assert core.auto_shutter


def test_sequences_over_the_bridge_are_refused_when_the_rig_is_read(optics: Optics) -> None:
    link = connection(optics, backend="java")
    with pytest.raises(InputError, match="sequences do not go over the bridge"):
        built(Dmd, "dmd", DMD, optics, link)


@PYCROMANAGER
def test_a_bridge_that_leads_nowhere(optics: Optics) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    began_s = time.monotonic()
    with pytest.raises(DeviceError, match=f"mm: no Micro-Manager answers on port {port}: is it open, with its ZMQ"):
        connection(optics, backend="java", port=port).open()
    assert time.monotonic() - began_s < 5


@PYCROMANAGER
def test_a_core_over_the_bridge(core: FakeCore, optics: Optics, monkeypatch: pytest.MonkeyPatch) -> None:
    """pycromanager is asked for it by its port; what was changed in it is put back."""
    asked: list[dict[str, Any]] = []

    def give(**options: Any) -> FakeBridge:
        asked.append(options)
        return FakeBridge(core)

    monkeypatch.setattr("pycromanager.Core", give)
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        link = connection(optics, backend="java", port=somebody.getsockname()[1])
        link.open()
        assert asked == [{"port": link.settings.port, "timeout": 2000}]
        assert not core.auto_shutter
        link.close()
    assert core.auto_shutter


@PYCROMANAGER
def test_calls_are_written_as_pycromanager_writes_them() -> None:
    from mmpycorex.launcher import _camel_to_snake

    for call in [name for name in dir(FakeCore) if not name.startswith("_")]:
        assert snake(call) == _camel_to_snake(call)


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("found", "wanted", "one"),
    [
        ("1.0000", "1", True),
        ("On", "On", True),
        ("on", "On", False),
        ("3.3333", "3.33333333", True),
        ("nan", "1", False),
    ],
)
def test_values_as_micro_manager_writes_them(found: str, wanted: str, one: bool) -> None:
    assert same(found, wanted) is one


def test_every_device_that_the_ports_know_but_a_meter() -> None:
    assert set(micromanager.__all__) == {
        "Camera",
        "Connection",
        "Dmd",
        "Filter",
        "Focus",
        "Light",
        "Shutter",
        "Stage",
        "lend",
    }
