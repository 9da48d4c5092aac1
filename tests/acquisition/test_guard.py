"""The light is on only inside its context, and every way out puts it off."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from dmu_hw.errors import DeviceError
from dmu_hw.guard import Guard
from dmu_hw.ports import MachineClock

LONG_MS = 60_000.0


@dataclass
class Lamp:
    """A light that remembers its commands and can refuse them, and the rig round it."""

    lit: bool = True
    refuses_off: int = 0
    raises: BaseException | None = None
    closed: bool = True
    broken: str = ""
    """The command that fails."""
    hooks: dict[str, Callable[[], object]] = field(default_factory=dict)
    """Called when the command of that name comes."""
    log: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    """What else was told to keep the light away."""
    max_power_mw = 10.0
    watchdog_ms = 300.0

    @property
    def rig(self) -> Any:
        return SimpleNamespace(
            lights={"light": self},
            shutter=None,
            dmd=SimpleNamespace(stop=lambda: self._block("mirrors")),
            blockers={"shutter": SimpleNamespace(block_light=lambda: self._block("shutter"))},
            clock=MachineClock(),
            setting_mw=lambda _light, power_mw: power_mw,
            settings=SimpleNamespace(limits=SimpleNamespace(on_time_ms=LONG_MS)),
        )

    def wait_until_dark(self) -> None:
        """As a block that hangs does."""
        began_s = time.monotonic()
        while self.lit and time.monotonic() < began_s + 10.0:
            time.sleep(0.002)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def set_power(self, _power_mw: float) -> None:
        self._command("power")

    def on(self, _longest_ms: float = math.inf) -> None:
        self._command("on")
        self.lit = True

    def off(self) -> None:
        self._command("off")
        if self.refuses_off > 0:
            self.refuses_off -= 1
            if self.raises is not None:
                raise self.raises
            return
        self.lit = False

    def is_on(self) -> bool:
        return self.lit

    def interlock_closed(self) -> bool:
        return self.closed

    def _block(self, name: str) -> None:
        self.blocked.append(name)
        self.hooks.get(name, lambda: None)()

    def _command(self, name: str) -> None:
        self.log.append(name)
        self.hooks.get(name, lambda: None)()
        if name == self.broken:
            raise DeviceError("light", f"{name} fails")


def test_light_goes_off_at_the_start() -> None:
    lamp = Lamp(lit=True)
    Guard(lamp.rig)
    assert not lamp.lit


def test_light_is_on_inside_and_off_after() -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    with guard.light_on(1.0, LONG_MS):
        assert lamp.lit
    assert not lamp.lit
    assert lamp.log == ["off", "power", "on", "off"]
    assert lamp.blocked == []


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1), DeviceError("camera", "x")])
def test_light_goes_off_after_any_exception(error: BaseException) -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    with pytest.raises(type(error)), guard.light_on(1.0, LONG_MS):
        raise error
    assert not lamp.lit


def test_light_goes_off_after_a_return() -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)

    def leave() -> bool:
        with guard.light_on(1.0, LONG_MS):
            return lamp.lit

    assert leave()
    assert not lamp.lit


@pytest.mark.parametrize("broken", ["power", "on"])
def test_light_that_cannot_be_set_or_lit_stays_off(broken: str) -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    lamp.broken = broken
    with pytest.raises(DeviceError, match=f"{broken} fails"), guard.light_on(1.0, LONG_MS):
        pytest.fail("the block must not run")
    assert not lamp.lit
    assert lamp.log[-1] == "off"


def test_light_that_goes_off_by_itself_is_told() -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    with pytest.raises(DeviceError, match="went off by itself"), guard.light_on(1.0, LONG_MS):
        lamp.lit = False


def test_no_thread_is_left_behind() -> None:
    guard = Guard(Lamp().rig)
    before = threading.active_count()
    for _ in range(50):
        with guard.light_on(1.0, LONG_MS):
            guard.check()
    deadline_s = time.monotonic() + 5.0
    while threading.active_count() > before and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert threading.active_count() <= before


# ---------------------------------------------------------------- the interlock


def test_open_interlock_is_refused_before_any_command() -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    lamp.closed = False
    lamp.log.clear()
    with pytest.raises(DeviceError, match="interlock is open"), guard.light_on(1.0, LONG_MS):
        pytest.fail("the block must not run")
    assert lamp.log == []


def test_an_interlock_that_opens_puts_the_light_off_and_closed_again_does_not_light_it() -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)

    def image() -> None:
        with guard.light_on(1.0, LONG_MS):
            lamp.closed = False
            for _ in range(1000):
                guard.check()
                time.sleep(0.001)

    with pytest.raises(DeviceError, match="interlock is open"):
        image()
    assert not lamp.lit
    lamp.closed = True
    lamp.log.clear()
    with pytest.raises(DeviceError, match="fault state: its interlock was open"), guard.light_on(1.0, LONG_MS):
        pytest.fail("the block must not run")
    assert lamp.log == []
    with Guard(lamp.rig).light_on(1.0, LONG_MS):
        assert lamp.lit, "a new run begins anew"


def test_the_interlock_is_not_asked_more_often_than_needed() -> None:
    lamp = Lamp()
    asked: list[float] = []
    guard = Guard(lamp.rig)
    lamp.interlock_closed = lambda: bool(asked.append(time.monotonic())) or True  # type: ignore[method-assign]
    with guard.light_on(1.0, LONG_MS):
        until_s = time.monotonic() + 0.2
        while time.monotonic() < until_s:
            guard.check()
    assert 2 <= len(asked) <= 5


# ---------------------------------------------------------------- a light that does not obey


@pytest.mark.parametrize("raises", [None, DeviceError("light", "garbled"), OSError("cable"), SystemExit()])
def test_off_is_told_again_until_it_works(raises: BaseException | None) -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    lamp.raises = raises
    with guard.light_on(1.0, LONG_MS):
        lamp.refuses_off = 2
    assert not lamp.lit
    assert not guard.fault
    assert lamp.log.count("off") == 1 + 3


def test_what_is_read_back_counts_and_not_what_became_of_the_command() -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)

    def obey_and_fail() -> None:
        lamp.lit = False
        raise DeviceError("light", "reply was garbled")

    with guard.light_on(1.0, LONG_MS):
        lamp.hooks["off"] = obey_and_fail
    assert not guard.fault
    assert lamp.log.count("off") == 1 + 1


@pytest.mark.parametrize("raises", [None, DeviceError("light", "garbled"), OSError("cable")])
def test_light_that_refuses_off_is_a_loud_fault_and_never_lit_again(
    raises: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    lamp.raises = raises
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(DeviceError, match="SWITCH IT OFF BY HAND; no light now by mirrors, shutter") as caught,
        guard.light_on(1.0, LONG_MS),
    ):
        lamp.refuses_off = 3
    assert caught.value.__cause__ is raises
    assert "LIGHT MAY BE ON" in caplog.text
    assert lamp.blocked == ["mirrors", "shutter"]
    assert guard.fault
    guard.off()  # it works again, but nobody knows for how long
    assert not lamp.lit
    lamp.log.clear()
    with pytest.raises(DeviceError, match="fault state"), guard.light_on(1.0, LONG_MS):
        pytest.fail("the block must not run")
    assert lamp.log == []


def test_the_other_ways_to_darkness_do_not_wait_for_one_another(caplog: pytest.LogCaptureFixture) -> None:
    """A light whose driver hangs, mirrors that hang too, and a shutter that works."""
    lamp = Lamp()
    guard = Guard(lamp.rig)
    for_ever = threading.Event()
    began_s = time.monotonic()
    try:
        with pytest.raises(DeviceError, match="no light now by shutter"), guard.light_on(1.0, LONG_MS):
            lamp.hooks |= {"off": for_ever.wait, "mirrors": for_ever.wait}
        took_s = time.monotonic() - began_s
    finally:
        for_ever.set()
    assert lamp.blocked == ["mirrors", "shutter"]
    assert took_s < 2.0, "0.3 s for the light and 0.3 s for the mirrors on an idle machine"
    assert "mirrors cannot keep the light away either: no answer" in caplog.text


def test_the_mirrors_do_not_wait_for_a_light_that_hangs() -> None:
    """After an error the burst is lost anyway. A burst that went well is still to be asked of the DMD."""
    lamp = Lamp()
    guard = Guard(lamp.rig)
    for_ever = threading.Event()
    faults: list[str] = []

    def image() -> None:
        with guard.light_on(1.0, LONG_MS):
            lamp.hooks |= {"off": for_ever.wait, "mirrors": lambda: faults.append(guard.fault)}
            raise DeviceError("camera", "is gone")

    try:
        with pytest.raises(DeviceError, match="no light now by mirrors"):
            image()
    finally:
        for_ever.set()
    assert faults == [""], "before it is known that the light does not obey"
    lamp = Lamp()
    with Guard(lamp.rig).light_on(1.0, LONG_MS):
        pass
    assert lamp.blocked == []


def test_the_first_off_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was lit; a run is not refused because the computer is busy with starting it."""
    monkeypatch.setattr("dmu_hw.darkness.OFF_S", 0.02)
    lamp = Lamp()
    lamp.hooks["off"] = lambda: time.sleep(0.1)
    assert not Guard(lamp.rig).fault


def test_a_way_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)

    def fail() -> None:
        raise OSError("no such device")

    lamp.hooks["mirrors"] = fail
    with pytest.raises(DeviceError, match="no light now by shutter"), guard.light_on(1.0, LONG_MS):
        lamp.refuses_off = 3
    assert "mirrors cannot keep the light away either: no such device" in caplog.text


def test_fault_does_not_hide_what_went_wrong_first() -> None:
    lamp = Lamp()
    context = Guard(lamp.rig).light_on(1.0, LONG_MS)
    context.__enter__()
    lamp.refuses_off = 3
    with pytest.raises(DeviceError, match="BY HAND") as caught:
        context.__exit__(ValueError, ValueError("first"), None)
    assert isinstance(caught.value.__context__, ValueError)


def test_light_that_is_on_and_cannot_be_put_off_is_refused_at_the_start() -> None:
    with pytest.raises(DeviceError, match="BY HAND"):
        Guard(Lamp(lit=True, refuses_off=3).rig)


# ---------------------------------------------------------------- the longest time


def test_a_block_that_hangs_is_called_off(caplog: pytest.LogCaptureFixture) -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    began_s = time.monotonic()
    with pytest.raises(DeviceError, match="fault state: was on for longer than 50 ms"), guard.light_on(1.0, 50.0):
        lamp.wait_until_dark()
    assert 0.05 <= time.monotonic() - began_s < 10.0
    assert "called off" in caplog.text
    with pytest.raises(DeviceError, match="fault state"), guard.light_on(1.0, 50.0):
        pytest.fail("the block must not run")


def test_a_light_that_goes_on_after_it_was_called_off_goes_off_again() -> None:
    """The driver hangs within `on`."""
    lamp = Lamp()
    guard = Guard(lamp.rig)
    lamp.hooks["on"] = lambda: time.sleep(0.2)
    with pytest.raises(DeviceError, match="fault state: was on for longer"), guard.light_on(1.0, 20.0):
        pytest.fail("the block must not run")
    assert not lamp.lit
    assert lamp.log.count("off") >= 3


def test_the_time_is_counted_on_the_rigs_clock() -> None:
    """A simulated world may take longer to be computed than it lasts."""
    lamp = Lamp()
    rig = lamp.rig
    rig.clock = SimpleNamespace(now_ms=lambda: 0.0)
    with Guard(rig).light_on(1.0, 5.0):
        time.sleep(0.1)
        assert lamp.lit


def test_no_block_may_be_longer_than_the_rig_allows() -> None:
    lamp = Lamp()
    rig = lamp.rig
    rig.settings.limits.on_time_ms = 30.0
    with pytest.raises(DeviceError, match="longer than 30 ms"), Guard(rig).light_on(1.0, LONG_MS):
        lamp.wait_until_dark()


# ---------------------------------------------------------------- many at once


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
def test_ctrl_c_twice_does_not_stop_who_puts_the_light_off() -> None:
    """The second comes while OFF is on its way, and once more while that is waited for."""
    lamp = Lamp()
    guard = Guard(lamp.rig)
    interrupts = iter(range(2))

    def interrupt() -> None:
        if next(interrupts, None) is not None:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)  # type: ignore[arg-type]
            time.sleep(0.02)

    def image() -> None:
        with guard.light_on(1.0, LONG_MS):
            lamp.hooks["off"] = interrupt
            lamp.refuses_off = 2
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        image()
    assert not lamp.lit
    assert not guard.fault
    assert next(interrupts, None) is None
    assert lamp.log == ["off", "power", "on", "off", "off", "off"], "and it is not told more often for that"


def test_off_may_be_called_by_many_threads() -> None:
    lamp = Lamp()
    guard = Guard(lamp.rig)
    at_once: list[int] = []
    inside = threading.Semaphore(1)

    def alone() -> None:
        at_once.append(inside.acquire(blocking=False))
        time.sleep(0.001)
        inside.release()

    def darken() -> None:
        lamp.hooks["off"] = alone
        threads = [threading.Thread(target=guard.off) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with pytest.raises(DeviceError, match="went off by itself"), guard.light_on(1.0, LONG_MS):
        darken()
    assert not lamp.lit
    assert all(at_once), "the device hears one at a time"
    assert len(at_once) == 9
