"""The light is on only inside its context, and every way out puts it off."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field

import pytest

from dmu_hw.errors import DeviceError
from dmu_hw.guard import Guard


@dataclass
class Lamp:
    """A light that remembers its commands and can refuse them."""

    lit: bool = True
    refuses_off: int = 0
    raises: BaseException | None = None
    closed: bool = True
    broken: str = ""
    """The command that fails."""
    log: list[str] = field(default_factory=list)
    max_power_mw = 10.0
    watchdog_ms = 300.0

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

    def _command(self, name: str) -> None:
        self.log.append(name)
        if name == self.broken:
            raise DeviceError("light", f"{name} fails")


def test_light_goes_off_at_the_start() -> None:
    lamp = Lamp(lit=True)
    Guard(lamp)
    assert not lamp.lit


def test_light_is_on_inside_and_off_after() -> None:
    lamp = Lamp()
    guard = Guard(lamp)
    with guard.light_on(1.0):
        assert lamp.lit
    assert not lamp.lit
    assert lamp.log == ["off", "power", "on", "off"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt(), SystemExit(1), DeviceError("camera", "x")])
def test_light_goes_off_after_any_exception(error: BaseException) -> None:
    lamp = Lamp()
    guard = Guard(lamp)
    with pytest.raises(type(error)), guard.light_on(1.0):
        raise error
    assert not lamp.lit


def test_light_goes_off_after_a_return() -> None:
    lamp = Lamp()
    guard = Guard(lamp)

    def leave() -> bool:
        with guard.light_on(1.0):
            return lamp.lit

    assert leave()
    assert not lamp.lit


@pytest.mark.parametrize("broken", ["power", "on"])
def test_light_that_cannot_be_set_or_lit_stays_off(broken: str) -> None:
    lamp = Lamp()
    guard = Guard(lamp)
    lamp.broken = broken
    with pytest.raises(DeviceError, match=f"{broken} fails"), guard.light_on(1.0):
        pytest.fail("the block must not run")
    assert not lamp.lit
    assert lamp.log[-1] == "off"


def test_open_interlock_is_refused_before_any_command() -> None:
    lamp = Lamp()
    guard = Guard(lamp)
    lamp.closed = False
    lamp.log.clear()
    with pytest.raises(DeviceError, match="interlock is open"), guard.light_on(1.0):
        pytest.fail("the block must not run")
    assert lamp.log == []


def test_light_that_goes_off_by_itself_is_told() -> None:
    lamp = Lamp()
    guard = Guard(lamp)
    with pytest.raises(DeviceError, match="went off by itself"), guard.light_on(1.0):
        lamp.lit = False


@pytest.mark.parametrize("raises", [None, DeviceError("light", "garbled"), OSError("cable"), KeyboardInterrupt()])
def test_off_is_told_again_until_it_works(raises: BaseException | None) -> None:
    lamp = Lamp()
    guard = Guard(lamp)
    lamp.raises = raises
    expected = KeyboardInterrupt if isinstance(raises, KeyboardInterrupt) else None
    try:
        with guard.light_on(1.0):
            lamp.refuses_off = 2
    except KeyboardInterrupt:
        assert expected is KeyboardInterrupt
    else:
        assert expected is None
    assert not lamp.lit
    assert not guard.fault
    assert lamp.log.count("off") == 1 + 3


@pytest.mark.parametrize("raises", [None, DeviceError("light", "garbled"), OSError("cable")])
def test_light_that_refuses_off_is_a_loud_fault_and_never_lit_again(
    raises: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    lamp = Lamp()
    guard = Guard(lamp)
    lamp.raises = raises
    with (
        caplog.at_level(logging.CRITICAL),
        pytest.raises(DeviceError, match="SWITCH IT OFF BY HAND"),
        guard.light_on(1.0),
    ):
        lamp.refuses_off = 3
    assert "LIGHT MAY BE ON" in caplog.text
    assert guard.fault
    guard.off()  # it works again, but nobody knows for how long
    assert not lamp.lit
    lamp.log.clear()
    with pytest.raises(DeviceError, match="fault state"), guard.light_on(1.0):
        pytest.fail("the block must not run")
    assert lamp.log == []


def test_fault_does_not_hide_what_went_wrong_first() -> None:
    lamp = Lamp()
    context = Guard(lamp).light_on(1.0)
    context.__enter__()
    lamp.refuses_off = 3
    with pytest.raises(DeviceError, match="BY HAND") as caught:
        context.__exit__(ValueError, ValueError("first"), None)
    assert isinstance(caught.value.__context__, ValueError)


def test_light_that_is_on_and_cannot_be_put_off_is_refused_at_the_start() -> None:
    with pytest.raises(DeviceError, match="BY HAND"):
        Guard(Lamp(lit=True, refuses_off=3))
