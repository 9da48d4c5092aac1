"""Several lights and a shutter: one light at a time, every other one confirmed off, the shutter open only for a run."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dmu_hw.errors import DeviceError
from dmu_hw.guard import Guard
from dmu_hw.ports import MachineClock

LONG_MS = 60_000.0
GREEN, RED = "light", "light_561"


@dataclass
class Lamp:
    """A light; `fails` names what it does not do any more: raise there, or do nothing if it is to be refused."""

    name: str
    log: list[str]
    lit: bool = False
    closed: bool = True
    refuses_off: bool = False
    fails: tuple[str, ...] = ()

    def _told(self, what: str) -> None:
        self.log.append(f"{self.name} {what}")
        if what in self.fails:
            raise DeviceError(self.name, "was unplugged")

    def set_power(self, _power_mw: float) -> None:
        self._told("power")

    def on(self, _longest_ms: float) -> None:
        self._told("on")
        self.lit = True

    def off(self) -> None:
        self._told("off")
        self.lit = self.lit and self.refuses_off

    def is_on(self) -> bool:
        if "is_on" in self.fails:
            raise DeviceError(self.name, "was unplugged")
        return self.lit

    def interlock_closed(self) -> bool:
        return self.closed


@dataclass
class Gate:
    """A shutter that may be stuck, or unplugged."""

    log: list[str]
    wide: bool = False
    stuck: bool = False
    fails: bool = False
    switch_ms: float = 5.0

    def set_open(self, wanted: bool) -> None:
        self.log.append("open" if wanted else "close")
        if self.fails:
            raise DeviceError("shutter", "was unplugged")
        if not self.stuck:
            self.wide = wanted

    def is_open(self) -> bool:
        if self.fails:
            raise DeviceError("shutter", "was unplugged")
        return self.wide

    def block_light(self) -> None:
        self.set_open(False)


@dataclass
class Table:
    """Two lights, mirrors, and a shutter if there is one."""

    shuttered: bool = True
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.green, self.red, self.gate = Lamp(GREEN, self.log), Lamp(RED, self.log), Gate(self.log)

    @property
    def rig(self) -> Any:
        gates = {"shutter": self.gate} if self.shuttered else {}
        return SimpleNamespace(
            lights={GREEN: self.green, RED: self.red},
            shutter=self.gate if self.shuttered else None,
            dmd=SimpleNamespace(stop=lambda: self.log.append("mirrors dark")),
            blockers={**gates, "box": SimpleNamespace(block_light=lambda: self.log.append("gates low"))},
            clock=MachineClock(),
            setting_mw=lambda _light, power_mw: power_mw,
            settings=SimpleNamespace(limits=SimpleNamespace(on_time_ms=LONG_MS)),
        )

    def begun(self) -> Guard:
        """A guard; what it said at its start is forgotten."""
        guard = Guard(self.rig)
        self.log.clear()
        return guard

    @property
    def unlit(self) -> bool:
        return not (self.green.lit or self.red.lit)

    @property
    def dark(self) -> bool:
        """No light reaches the sample."""
        return self.unlit and not (self.shuttered and self.gate.wide)


@pytest.fixture
def table() -> Table:
    return Table()


def image(guard: Guard, light: str = GREEN) -> None:
    """One block of light."""
    with guard.light_on(1.0, LONG_MS, light):
        guard.check()


def said(table: Table, *whom: str) -> list[str]:
    return [what for what in table.log if what.startswith(whom)]


# ---------------------------------------------------------------- as it should be


def test_all_lights_are_put_off_and_the_shutter_closed_at_the_start(table: Table) -> None:
    table.green.lit = table.red.lit = table.gate.wide = True
    Guard(table.rig)
    assert table.dark
    assert sorted(table.log[:2]) == [f"{GREEN} off", f"{RED} off"]
    assert table.log[2:] == ["close"], "after the lights"


@pytest.mark.parametrize("name", [GREEN, RED])
def test_only_the_light_that_is_asked_for_goes_on(table: Table, name: str) -> None:
    guard = table.begun()
    with guard.light_on(1.0, LONG_MS, name):
        assert (table.green.lit, table.red.lit) == (name == GREEN, name == RED)
        assert table.gate.wide
        guard.check()
    assert table.unlit


def test_the_shutter_is_open_from_the_first_block_until_all_is_over(table: Table) -> None:
    guard = table.begun()
    for name in (GREEN, RED, GREEN):
        with guard.light_on(1.0, LONG_MS, name):
            pass
        assert table.gate.wide
    assert said(table, "open", "close") == ["open"]
    assert table.log.index("open") < table.log.index(f"{GREEN} on")
    guard.off()
    assert table.dark
    with guard.light_on(1.0, LONG_MS):
        assert table.gate.wide, "after a pause it is opened again"


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), DeviceError("camera", "x")])
def test_whatever_ends_a_block_closes_the_shutter(table: Table, error: BaseException) -> None:
    guard = table.begun()
    with pytest.raises(type(error)), guard.light_on(1.0, LONG_MS, RED):
        raise error
    assert table.dark
    assert not guard.fault


# ---------------------------------------------------------------- a light that should not be on


def test_another_light_that_is_on_is_put_off_and_told(table: Table) -> None:
    guard = table.begun()
    table.red.lit = True
    with pytest.raises(DeviceError, match="light_561: is on, and nobody has lit it: only light may be on"):
        image(guard)
    assert table.dark
    assert said(table, f"{GREEN} ") == [f"{GREEN} power", f"{GREEN} off"]


def test_another_light_that_goes_on_within_a_block_is_told(table: Table) -> None:
    guard = table.begun()
    with pytest.raises(DeviceError, match="light_561: is on, and nobody has lit it"), guard.light_on(1.0, LONG_MS):
        table.red.lit = True
    assert table.dark


def test_a_second_light_that_was_left_on_and_does_not_go_off_is_refused_at_the_start(
    table: Table, caplog: pytest.LogCaptureFixture
) -> None:
    table.red.lit = table.red.refuses_off = True
    with pytest.raises(DeviceError, match="light_561: did not go off in 3 tries: SWITCH IT OFF BY HAND") as caught:
        Guard(table.rig)
    assert caught.value.device == RED
    assert "no light now by mirrors, box, shutter" in str(caught.value)
    assert "LIGHT MAY BE ON: light_561" in caplog.text
    assert not table.gate.wide


@pytest.mark.parametrize("culprit", [GREEN, RED])
def test_a_light_that_does_not_obey_blocks_all_the_others(table: Table, culprit: str) -> None:
    guard = table.begun()

    def imaged() -> None:
        with guard.light_on(1.0, LONG_MS, culprit):
            guard._lights[culprit].refuses_off = True  # type: ignore[attr-defined]

    with pytest.raises(DeviceError, match=f"{culprit}: did not go off.* no light now by mirrors, box, shutter"):
        imaged()
    assert not table.gate.wide
    assert {"mirrors dark", "gates low"} <= set(table.log)
    guard._lights[culprit].refuses_off = False  # type: ignore[attr-defined]
    guard.off()
    table.log.clear()
    for name in (GREEN, RED):
        with pytest.raises(DeviceError, match=f"{culprit}: is in a fault state: it did not go off"):
            image(guard, name)
    assert table.log == []


def test_the_interlock_of_the_light_that_is_on_counts(table: Table) -> None:
    guard = table.begun()
    table.green.closed = False
    with guard.light_on(1.0, LONG_MS, RED):
        guard.check()
    with pytest.raises(DeviceError, match="light: interlock is open"):
        image(guard)
    with pytest.raises(DeviceError, match="light: is in a fault state: its interlock was open"):
        image(guard, RED)


@pytest.mark.parametrize("name", [GREEN, RED])
def test_each_light_is_called_off_when_its_time_is_over(table: Table, name: str) -> None:
    guard = table.begun()

    def imaged() -> None:
        with guard.light_on(1.0, 30.0, name):
            until_s = time.monotonic() + 10.0
            while not table.dark and time.monotonic() < until_s:
                time.sleep(0.002)

    with pytest.raises(DeviceError, match=f"{name}: is in a fault state: was on for longer than 30 ms"):
        imaged()
    assert table.dark


def test_lights_are_put_off_at_the_same_time(table: Table) -> None:
    """One that hangs keeps no other one lit."""
    guard = table.begun()
    go_on = threading.Event()

    def imaged() -> None:
        with guard.light_on(1.0, LONG_MS, RED):
            guard._sources[GREEN].put_off = lambda: go_on.wait(20.0)
            guard._sources[GREEN].is_on = lambda: go_on.wait(20.0)

    began_s = time.monotonic()
    try:
        with pytest.raises(DeviceError, match=r"^light: did not go off"):
            imaged()
        assert time.monotonic() - began_s < 5.0
    finally:
        go_on.set()
    assert table.dark


# ---------------------------------------------------------------- unplugged


@pytest.mark.parametrize("used", [GREEN, RED])
@pytest.mark.parametrize(
    ("unplugged", "what"), [*((name, what) for name in (GREEN, RED) for what in ("power", "on", "off", "is_on"))]
)
def test_a_light_that_is_unplugged_is_named(table: Table, used: str, unplugged: str, what: str) -> None:
    """Also the one that is not used: nobody can say that it is off."""
    guard = table.begun()
    lamps = {GREEN: table.green, RED: table.red}
    lamps[unplugged].fails = (what,)
    if used != unplugged and what != "is_on":
        image(guard, used)  # it was off before, and says that it still is
        return
    with pytest.raises(DeviceError) as caught:
        image(guard, used)
    assert caught.value.device == unplugged
    assert not table.gate.wide
    assert not any(lamp.lit for name, lamp in lamps.items() if name != unplugged)


# ---------------------------------------------------------------- the shutter


def test_a_shutter_that_does_not_open_is_a_refusal(table: Table) -> None:
    guard = table.begun()
    table.gate.stuck = True
    with pytest.raises(DeviceError, match="shutter: is not open: frames would be exposed in the dark"):
        image(guard)
    assert f"{GREEN} on" not in table.log
    assert table.dark
    assert not guard.fault


def test_a_shutter_that_somebody_closed_is_not_opened_again(table: Table) -> None:
    guard = table.begun()
    with guard.light_on(1.0, LONG_MS):
        pass
    table.gate.wide = False
    table.log.clear()
    with pytest.raises(DeviceError, match="shutter: is not open"):
        image(guard)
    assert said(table, "open", f"{GREEN} on") == []


def test_a_shutter_that_closes_within_a_block_is_told(table: Table) -> None:
    guard = table.begun()
    with pytest.raises(DeviceError, match="shutter: closed by itself"), guard.light_on(1.0, LONG_MS):
        table.gate.wide = False
    assert table.dark


@pytest.mark.parametrize("broken", ["stuck", "fails"])
def test_a_shutter_that_does_not_close_is_a_loud_fault(
    table: Table, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = table.begun()
    with guard.light_on(1.0, LONG_MS):
        pass
    setattr(table.gate, broken, True)
    with caplog.at_level(logging.CRITICAL), pytest.raises(DeviceError, match="CLOSE IT BY HAND") as caught:
        guard.off()
    assert caught.value.device == "shutter"
    assert "SHUTTER MAY BE OPEN" in caplog.text
    assert table.unlit
    with pytest.raises(DeviceError, match="shutter: is in a fault state: did not close in 3 tries"):
        image(guard)


def test_a_shutter_that_is_stuck_open_is_refused_at_the_start(table: Table) -> None:
    table.gate.wide = table.gate.stuck = True
    with pytest.raises(DeviceError, match="shutter: did not close in 3 tries: CLOSE IT BY HAND"):
        Guard(table.rig)


def test_neither_light_nor_shutter_obeys(table: Table, caplog: pytest.LogCaptureFixture) -> None:
    """The light is what people must see to first; both are told."""
    guard = table.begun()

    def imaged() -> None:
        with guard.light_on(1.0, LONG_MS):
            table.gate.stuck = table.green.refuses_off = True

    with pytest.raises(DeviceError, match=r"light: .*SWITCH IT OFF BY HAND; no light now by mirrors, box$"):
        imaged()
    assert "SHUTTER MAY BE OPEN" in caplog.text


def test_a_rig_without_a_shutter_needs_none() -> None:
    table = Table(shuttered=False)
    guard = table.begun()
    with guard.light_on(1.0, LONG_MS, RED):
        assert table.red.lit
    assert table.dark
    assert said(table, "open", "close") == []


@pytest.mark.parametrize("moment", range(6))
def test_ctrl_c_does_not_keep_the_shutter_open(table: Table, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """It comes at one of the moments when something is waited for: a thread, a light, the shutter."""
    guard = table.begun()
    image(guard)
    waits: list[object] = []
    real = threading.Event.wait

    def interrupted(event: threading.Event, timeout: float | None = None) -> bool:
        if threading.current_thread() is threading.main_thread():
            waits.append(event)
            if len(waits) == moment + 1:
                raise KeyboardInterrupt
        return real(event, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        guard.off()
    assert len(waits) > moment
    assert table.dark
    assert not guard.fault
