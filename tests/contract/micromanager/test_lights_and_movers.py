"""Lights, shutters, wheels and stages: told, asked, and waited for no longer than was said."""

from __future__ import annotations

import threading
import time

import pytest
from fakecore import FakeCore
from told import BLUE, CAMERA, LASER, MODE, Make

from dmu_hw.drivers.micromanager import Camera, Filter, Focus, Light, Shutter, Stage
from dmu_hw.errors import DeviceError, DeviceTimeout, InputError

# ---------------------------------------------------------------- lights


def test_a_light_is_off_when_opened_and_when_closed(make: Make, core: FakeCore) -> None:
    core.devices["Laser"].is_open = True
    light = make(Light, "light", LASER)
    assert not core.devices["Laser"].is_open
    light.set_power(10.0)
    assert core.devices["Laser"].properties["Power"] == "20", "half of it gets lost on the way"
    light.on()
    assert light.is_on()
    assert core.devices["Laser"].is_open
    core.devices["Laser"].is_open = False
    assert not light.is_on(), "read back, not remembered"
    light.on()
    light.close()
    assert not core.devices["Laser"].is_open
    assert light.watchdog_ms is None


@pytest.mark.parametrize(("unit", "text"), [("mW", "20"), ("W", "0.02"), ("percent", "50"), ("fraction", "0.5")])
def test_units_of_power(make: Make, core: FakeCore, unit: str, text: str) -> None:
    make(Light, "light", LASER, power={"property": "Power", "unit": unit}).set_power(10.0)
    assert core.devices["Laser"].properties["Power"] == text


def test_a_light_that_does_not_obey(make: Make, core: FakeCore) -> None:
    light = make(Light, "light", LASER)
    light.on()
    core.devices["Laser"].stuck = True
    with pytest.raises(DeviceError, match="light: Micro-Manager's 'Laser': is still on: SWITCH IT OFF BY HAND"):
        light.close()
    with pytest.raises(DeviceError, match="property 'Power' was set to 20 and is 0"):
        light.set_power(10.0)
    with pytest.raises(DeviceError, match="is on though it was told to be off"):
        light.open()


def test_a_lamp_of_several_behind_one_state_device(make: Make, core: FakeCore) -> None:
    """The other one is on: this one is not. Nobody has told of a third: who knows."""
    lamp = make(Light, "light_blue", BLUE)
    assert not lamp.is_on()
    lamp.on()
    assert core.devices["Lamps"].properties["State"] == "1"
    assert lamp.is_on()
    core.devices["Lamps"].properties["State"] = "2"
    assert not lamp.is_on()
    core.devices["Lamps"].properties["State"] = "3"
    with pytest.raises(DeviceError, match="light_blue: Micro-Manager's 'Lamps': property 'State' is '3', not '1' or"):
        lamp.is_on()
    lamp.off()
    assert core.devices["Lamps"].properties["State"] == "0"


def test_a_lamp_with_one_power(make: Make) -> None:
    lamp = make(Light, "light_blue", BLUE)
    lamp.set_power(5.0)
    with pytest.raises(DeviceError, match=r"has one power, 5 mW: say power if a property sets it; given 2.5 mW"):
        lamp.set_power(2.5)


def test_an_interlock_by_its_property(make: Make, core: FakeCore) -> None:
    lock = {"property": "Lock", "closed": ("closed",), "open": ("open",)}
    light = make(Light, "light", LASER, interlock=lock)
    assert light.interlock_closed()
    core.devices["Laser"].properties["Lock"] = "open"
    assert not light.interlock_closed()
    core.devices["Laser"].properties["Lock"] = "fault"
    with pytest.raises(DeviceError, match="property 'Lock' is 'fault', not 'closed' or 'open'"):
        light.interlock_closed()
    assert make(Light, "light", LASER).interlock_closed(), "nobody knows"
    with pytest.raises(InputError, match="the value 'a' cannot mean both"):
        make(Light, "light", LASER, interlock={"property": "Lock", "closed": ("a",), "open": ("a",)})


def test_a_light_goes_off_while_a_camera_is_waited_for(make: Make, core: FakeCore) -> None:
    light, camera = make(Light, "light", LASER), make(Camera, "camera", CAMERA)
    light.on()
    camera.configure(MODE)
    camera.arm(1)
    ended: list[DeviceError] = []

    def wait() -> None:
        try:
            camera.pop(400.0)
        except DeviceTimeout as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    began_s = time.monotonic()
    light.off()
    assert not light.is_on()
    assert time.monotonic() - began_s < 0.3
    waiting.join()
    assert ended


# ---------------------------------------------------------------- what moves


def test_a_shutter_opens_closes_and_blocks(make: Make, core: FakeCore) -> None:
    core.devices["Gate"].is_open = True
    shutter = make(Shutter, "shutter", {"label": "Gate"}, switch_ms=1.0)
    assert not shutter.is_open()
    core.devices["Gate"].busy = 3
    shutter.set_open(True)
    assert shutter.is_open()
    assert core.devices["Gate"].busy == 0
    shutter.block_light()
    assert not core.devices["Gate"].is_open
    core.devices["Gate"].stuck = True
    with pytest.raises(DeviceTimeout, match="shutter: Micro-Manager's 'Gate': is not open after 62 ms"):
        shutter.set_open(True)


def test_a_wheel_turns_to_its_labels(make: Make, core: FakeCore) -> None:
    told = {"label": "Wheel", "positions": {"green": "GFP", "red": "RFP"}}
    wheel = make(Filter, "filter", told)
    assert wheel.positions == ("green", "red")
    core.devices["Wheel"].busy = 3
    wheel.select("red", 1000.0)
    assert (wheel.selected(), core.devices["Wheel"].state) == ("red", 1)
    core.devices["Wheel"].state = 2
    with pytest.raises(DeviceError, match="stands at 'none', which has no name in the rig"):
        wheel.selected()
    core.devices["Wheel"].busy = -1
    with pytest.raises(DeviceError, match="turns"):
        wheel.selected()
    with pytest.raises(DeviceTimeout, match="did not arrive at 'GFP' within 20 ms"):
        wheel.select("green", 20.0)
    with pytest.raises(DeviceError, match="has no state 'GPF'; it has: 'GFP', 'RFP', 'none'"):
        make(Filter, "filter", {"label": "Wheel", "positions": {"green": "GPF"}})


STAGE = {"label": "XY", "x_um": (-100.0, 100.0), "y_um": (-50.0, 50.0), "settle_ms": 0.0}


def test_a_stage_arrives_or_says_so(make: Make, core: FakeCore) -> None:
    stage = make(Stage, "stage", STAGE, flip_y=True, speed_um_ms=1000.0)
    assert stage.position_um() == (0.0, 0.0)
    core.devices["XY"].busy = 2
    stage.move_um(30.0, 20.0, 1000.0)
    assert core.devices["XY"].place == [30.0, -20.0]
    assert stage.position_um() == (30.0, 20.0)
    with pytest.raises(DeviceError, match="moves from -50 to 50 um, sent to 51 um"):
        stage.move_um(0.0, 51.0, 1000.0)
    with pytest.raises(DeviceTimeout, match=r"needs 0.0\d+ ms for this move, and was given 0.001 ms"):
        stage.move_um(0.0, 0.0, 0.001)
    core.devices["XY"].stuck = True
    with pytest.raises(DeviceTimeout, match="did not arrive at 0 0 um within 30 ms: it is at 30 20 um"):
        stage.move_um(0.0, 0.0, 30.0)


def test_a_focus_arrives_or_says_so(make: Make, core: FakeCore) -> None:
    focus = make(Focus, "focus", {"label": "Z", "z_um": (-10.0, 10.0), "settle_ms": 0.0, "flip_z": True})
    focus.move_um(2.5, 1000.0)
    assert (core.devices["Z"].place[0], focus.position_um()) == (-2.5, 2.5)
    assert focus.travel_ms(10.0) == pytest.approx(20.0)
    core.devices["Z"].busy = -1
    with pytest.raises(DeviceTimeout, match="did not arrive"):
        focus.move_um(3.0, 30.0)


def test_a_device_that_stays_busy_with_a_property(make: Make, core: FakeCore) -> None:
    light = make(Light, "light", LASER)
    core.devices["Laser"].busy = -1
    with pytest.raises(DeviceTimeout, match="light: Micro-Manager's 'Laser': is busy after 60 ms"):
        light.set_power(1.0)
    light.off()
