"""The simulated filter wheel and shutter: where they stand, how long they take, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from colours import TWO_COLOURS

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.ports import Filter, Shutter
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]


@pytest.fixture
def rig(small_rig: SmallRig) -> Rig:
    return small_rig({**TWO_COLOURS, "devices.filter.switch_ms": 40.0, "devices.shutter.switch_ms": 8.0})


@pytest.fixture
def wheel(rig: Rig) -> Filter:
    return rig.filters["filter"]


@pytest.fixture
def shutter(rig: Rig) -> Shutter:
    assert rig.shutter is not None
    return rig.shutter


def test_a_wheel_turns_and_says_where_it_stands(rig: Rig, wheel: Filter) -> None:
    assert (wheel.positions, wheel.selected()) == (("GFP", "RFP", "none"), "GFP")
    began_ms = rig.clock.now_ms()
    wheel.select("RFP", 1000.0)
    assert (wheel.selected(), rig.clock.now_ms() - began_ms) == ("RFP", 40.0)
    wheel.select("RFP", 0.0)
    assert rig.clock.now_ms() - began_ms == 40.0, "where it stands it needs not go"
    assert (wheel.switch_ms("RFP", "GFP"), wheel.switch_ms("RFP", "RFP")) == (40.0, 0.0)


def test_a_wheel_refuses_what_it_has_not(wheel: Filter) -> None:
    with pytest.raises(DeviceError, match="filter: has GFP, RFP, none, asked for 'CFP'"):
        wheel.select("CFP", 1000.0)
    assert wheel.selected() == "GFP"


def test_a_wheel_that_has_no_time_stands_between(rig: Rig, wheel: Filter) -> None:
    with pytest.raises(DeviceTimeout, match="filter: did not arrive at 'RFP' within 10 ms"):
        wheel.select("RFP", 10.0)
    with pytest.raises(DeviceError, match="filter: stands between two positions"):
        wheel.selected()
    wheel.select("GFP", 1000.0)
    assert wheel.selected() == "GFP"


def test_a_shutter_is_closed_until_it_is_opened(rig: Rig, shutter: Shutter) -> None:
    assert not shutter.is_open()
    began_ms = rig.clock.now_ms()
    shutter.set_open(True)
    assert (shutter.is_open(), rig.clock.now_ms() - began_ms, shutter.switch_ms) == (True, 8.0, 8.0)
    shutter.set_open(True)
    assert rig.clock.now_ms() - began_ms == 8.0
    shutter.block_light()
    assert not shutter.is_open()
    shutter.set_open(True)
    rig.close()
    assert not shutter.is_open()
