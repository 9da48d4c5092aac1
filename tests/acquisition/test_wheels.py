"""Filters are turned to where a channel wants them, and it is they who say that they stand there."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dmu_hw.channels import Channel
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.wheels import Wheels


@dataclass
class Wheel:
    """Writes down what it is asked; `lands` is where it turns to instead, `fails` what it does not do any more."""

    name: str
    stands: str = "GFP"
    lands: str = ""
    fails: tuple[str, ...] = ()
    positions: tuple[str, ...] = ("GFP", "RFP", "none")
    log: list[tuple[str, float]] = field(default_factory=list)

    def switch_ms(self, before: str, after: str) -> float:
        return 10.0 * abs(self.positions.index(before) - self.positions.index(after))

    def select(self, position: str, timeout_ms: float) -> None:
        self.log.append((position, timeout_ms))
        if "select" in self.fails:
            raise DeviceTimeout(self.name, "did not arrive")
        self.stands = self.lands or position

    def selected(self) -> str:
        if "selected" in self.fails or not self.stands:
            raise DeviceError(self.name, "does not say where it stands")
        return self.stands


@pytest.fixture
def wheels() -> tuple[Wheel, Wheel]:
    return Wheel("filter"), Wheel("filter_side")


def rig(wheels: tuple[Wheel, Wheel]) -> Any:
    return SimpleNamespace(filters={wheel.name: wheel for wheel in wheels})


def channel(position: str, side: str = "GFP") -> Channel:
    optics: Any = None
    return Channel("any", "light", {"filter": position, "filter_side": side}, optics)


def test_only_what_stands_elsewhere_is_turned(wheels: tuple[Wheel, Wheel]) -> None:
    main, side = wheels
    Wheels(rig(wheels)).select(channel("RFP"))
    assert (main.stands, side.stands) == ("RFP", "GFP")
    assert main.log == [("RFP", 2 * 10.0 + 5000.0)]
    assert side.log == []
    Wheels(rig(wheels)).select(channel("RFP"))
    assert len(main.log) == 1


def test_one_that_was_left_between_two_positions_is_turned(wheels: tuple[Wheel, Wheel]) -> None:
    wheels[0].stands = ""
    Wheels(rig(wheels)).select(channel("none"))
    assert wheels[0].log == [("none", 2 * 20.0 + 5000.0)]


@pytest.mark.parametrize("place", [0, 1])
def test_one_that_stands_elsewhere_than_it_was_told_is_refused(wheels: tuple[Wheel, Wheel], place: int) -> None:
    wheel = wheels[place]
    wheel.lands = "none"
    what = f"{wheel.name}: should stand at 'RFP' and says that it stands at 'none'"
    with pytest.raises(DeviceError, match=what) as caught:
        Wheels(rig(wheels)).select(channel("RFP", "RFP"))
    assert caught.value.device == wheel.name


@pytest.mark.parametrize("what", ["select", "selected"])
@pytest.mark.parametrize("place", [0, 1])
def test_one_that_is_unplugged_is_named(wheels: tuple[Wheel, Wheel], place: int, what: str) -> None:
    wheels[place].fails = (what,)
    with pytest.raises(DeviceError) as caught:
        Wheels(rig(wheels)).select(channel("RFP", "RFP"))
    assert caught.value.device == wheels[place].name


def test_one_that_was_turned_by_hand_is_found(wheels: tuple[Wheel, Wheel]) -> None:
    found = Wheels(rig(wheels))
    found.select(channel("RFP"))
    found.confirm(channel("RFP"))
    wheels[1].stands = "none"
    with pytest.raises(DeviceError, match="filter_side: should stand at 'GFP'"):
        found.confirm(channel("RFP"))
    assert wheels[1].log == []


def test_time_is_the_sum_of_what_must_turn(wheels: tuple[Wheel, Wheel]) -> None:
    found = Wheels(rig(wheels))
    assert found.switch_ms(channel("GFP"), channel("GFP")) == 0.0
    assert found.switch_ms(channel("GFP"), channel("none", "RFP")) == 20.0 + 10.0
    assert found.switch_ms(None, channel("GFP", "RFP")) == 20.0 + 10.0, "from wherever they stand"
