"""A light held by its guardian: a light like any other, dark at once on every way out, and dark without its controller.

All times are those of the laser, which is a process of its own. On a machine that is busy a single one may be late;
the campaign in test_light_kills.py, run alone, demands them of every one.
"""

from __future__ import annotations

import logging
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_of, plan_of, spooling
from lasers import Laser, laser, laser_rig, posix

from dmu_hw.control import Control
from dmu_hw.engine import Engine
from dmu_hw.errors import DeviceError, DeviceTimeout, InputError
from dmu_hw.guard import Guard
from dmu_hw.guardian import GuardedLight, keeper
from dmu_hw.ports import Light
from dmu_hw.rig import Rig
from dmu_hw.twins.laser import YAML

pytestmark = posix
AT_ONCE_S = 0.02
FROZEN_S = 0.25
FIRMWARE_S = 0.3
LATE_S = 1.0
"""What a single one may take on a machine that is busy with other things."""
LONG_MS = 60_000.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    """One for all: a process takes its time to start."""
    with laser(tmp_path_factory.mktemp("laser")) as device:
        yield device


@pytest.fixture
def device(shared: Laser) -> Laser:
    """As good as new."""
    for well in ("refuse 0", "garble 0", "halve 0", "silence 0", "interlock closed"):
        shared.suffer(well)
    return shared


@pytest.fixture(scope="module")
def bench(shared: Laser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """One for all, like its laser."""
    made = laser_rig(tmp_path_factory.mktemp("bench"), shared.yaml())
    yield made
    made.close()


@pytest.fixture
def rig(device: Laser, bench: Rig) -> Rig:
    """The bench with that laser, opened; its log begins here."""
    bench_of(bench).__init__(bench_of(bench).settings, None)
    bench.open()
    assert not device.lit
    device.log.write_text("")
    return bench


def guardian_of(rig: Rig) -> int:
    """Its process."""
    light: Any = rig.light
    pid: int = light._link._process.pid
    return pid


# ---------------------------------------------------------------- a light like any other


def test_it_is_a_light_that_another_process_holds(device: Laser, rig: Rig) -> None:
    light = rig.light
    assert isinstance(light, Light)
    assert isinstance(light, GuardedLight)
    assert (light.max_power_mw, light.watchdog_ms) == (10.0, 250.0)
    assert light.interlock_closed()
    light.set_power(2.0)
    light.on(LONG_MS)
    assert light.is_on()
    assert guardian_of(rig) != os.getpid()
    light.off()
    assert not light.is_on()
    assert [(change.lit, change.power_w) for change in device.changes()] == [(True, 0.002), (False, 0.002)]
    rig.open()
    assert not light.is_on()


def test_errors_of_the_driver_come_through(device: Laser, rig: Rig) -> None:
    with pytest.raises(DeviceError, match="power must be 0 to 10 mW, given 11") as caught:
        rig.light.set_power(11.0)
    assert (type(caught.value), caught.value.device) == (DeviceError, "light")
    device.suffer("silence 1")
    with pytest.raises(DeviceTimeout, match=rf"{device.port}: 'SOUR:AM:STAT\?' was not answered within 100 ms"):
        rig.light.is_on()


def test_a_port_that_is_not_there_is_named_and_no_guardian_is_left(tmp_path: Path) -> None:
    rig = laser_rig(tmp_path, {**YAML, "port": "/dev/nowhere", "max_power_mw": 1.0})
    with pytest.raises(DeviceError, match="/dev/nowhere cannot be opened"):
        rig.open()
    light: Any = rig.light
    assert light._link is None
    with pytest.raises(DeviceError, match="light: is not open"):
        light.on()
    rig.close()


def test_a_guarded_light_shares_no_connection(device: Laser, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it cannot share a connection"):
        laser_rig(tmp_path, {**device.yaml(), "connection": "bench"})


def test_a_light_without_a_watchdog_must_be_accepted(device: Laser, tmp_path: Path) -> None:
    unwatched = device.yaml(watchdog_ms=None)
    rig = laser_rig(tmp_path, unwatched)
    with pytest.raises(
        InputError, match=r"bench.yaml:\d+: devices.light: it has no watchdog.* unwatched_light: accept"
    ):
        plan_of(rig, side=32)
    plan = plan_of(laser_rig(tmp_path, unwatched, unwatched_light="accept"), side=32)
    assert any("it has no watchdog: it stays on if this computer dies" in caution for caution in plan.cautions)
    assert plan_of(laser_rig(tmp_path, device.yaml()), side=32).cautions == ()


def test_the_longest_time_is_planned_with(device: Laser, tmp_path: Path) -> None:
    rig = laser_rig(tmp_path, device.yaml(), limits={"on_time_ms": 10.0})
    with pytest.raises(InputError, match=r"exposure_ms: the light is on for 14.\d+ ms, rig bench allows 10 ms"):
        plan_of(rig, side=32)


# ---------------------------------------------------------------- dark at once


class StopError(Exception):
    """What comes in between."""


def cut_run(
    rig: Rig, folder: Path, moments: list[float], cut: Callable[[], None], control: Control | None = None
) -> None:
    """A run that is cut in the middle of its second burst, with the light on; the moment is noted."""
    plan, bench = plan_of(rig, side=32, time={"loops": 50}), bench_of(rig)
    bench.exposures = 0

    def pop() -> None:
        time.sleep(0.003)
        if bench.exposures == 5:
            moments.append(time.monotonic())
            cut()

    bench.hooks["pop"] = pop
    with spooling(folder) as (_, spool):
        Engine(plan, rig, spool, control=control).run()


@pytest.mark.parametrize("disk", ["works", "hangs"])
@pytest.mark.parametrize("why", ["exception", "Ctrl-C", "abort"])
def test_dark_at_once_whatever_ends_a_burst(
    device: Laser, rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str, disk: str
) -> None:
    """Also while a write to the disk does not return."""
    late_s = [until_dark_s(device, rig, tmp_path / f"run{number}", monkeypatch, why, disk) for number in range(5)]
    assert statistics.median(late_s) <= AT_ONCE_S
    assert max(late_s) <= LATE_S


@pytest.mark.campaign
@pytest.mark.parametrize("disk", ["works", "hangs"])
@pytest.mark.parametrize("why", ["exception", "Ctrl-C", "abort"])
def test_dark_at_once_very_many_times(
    device: Laser,
    rig: Rig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    why: str,
    disk: str,
    figure: Callable[..., None],
) -> None:
    late_s = [until_dark_s(device, rig, tmp_path / f"run{number}", monkeypatch, why, disk) for number in range(50)]
    found = f"median {1e3 * statistics.median(late_s):.1f} ms, worst {1e3 * max(late_s):.1f} ms"
    figure("R5", f"50 bursts ended by {why}, the disk {disk}: until dark", found, f"{1e3 * AT_ONCE_S:.0f} ms")
    assert max(late_s) <= AT_ONCE_S


def until_dark_s(device: Laser, rig: Rig, folder: Path, monkeypatch: pytest.MonkeyPatch, why: str, disk: str) -> float:
    """From the moment at which a burst is ended to that at which the laser itself is off."""
    control, go_on = Control(), threading.Event()

    def cut() -> None:
        if why == "exception":
            raise StopError
        if why == "abort":
            control.abort("enough")
        else:
            signal.raise_signal(signal.SIGINT)

    moments: list[float] = []
    device.log.write_text("")
    if disk == "hangs":
        monkeypatch.setattr("dmu_hw.spool.Spool._put", lambda _spool, _burst, until=go_on: until.wait(20.0))
    release = threading.Timer(0.3, go_on.set)
    release.start()
    try:
        cut_run(rig, folder, moments, cut, control)
    except (StopError, KeyboardInterrupt):
        assert why != "abort"
    release.cancel()
    assert len(device.changes()) == 4, "two bursts"
    return device.dark_after_s(moments[-1])


def test_an_interlock_that_opens_ends_the_run(device: Laser, rig: Rig, tmp_path: Path) -> None:
    def cut() -> None:
        device.suffer("interlock open")
        time.sleep(0.06)

    with pytest.raises(DeviceError, match="interlock is open"):
        cut_run(rig, tmp_path / "run", [], cut)
    assert [change.why for change in device.changes()] == ["command", "command", "command", "interlock"]
    device.suffer("interlock closed")
    time.sleep(0.1)
    assert not device.lit


# ---------------------------------------------------------------- R6: it does not obey


@pytest.mark.parametrize("wrong", ["refuse 2", "garble 2"])
def test_a_light_that_obeys_at_the_third_time_is_dark(device: Laser, rig: Rig, wrong: str) -> None:
    guard = Guard(rig)

    def image() -> None:
        with guard.light_on(1.0, LONG_MS):
            device.suffer(wrong)
            raise StopError

    with pytest.raises(StopError):
        image()
    assert not device.lit
    assert not guard.fault


@pytest.mark.parametrize("wrong", ["refuse 100", "garble 100", "silence 100"])
def test_a_light_that_does_not_obey_is_a_fault_and_the_mirrors_are_dark(
    device: Laser, rig: Rig, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    """The watchdog of its hardware puts it off, since its guardian stops to speak with it."""
    guard, bench = Guard(rig), bench_of(rig)

    def image() -> None:
        with guard.light_on(1.0, LONG_MS):
            device.suffer(wrong)
            bench.log.clear()
            raise StopError

    began_s = time.monotonic()
    with caplog.at_level(logging.CRITICAL), pytest.raises(DeviceError, match=r"SWITCH IT OFF BY HAND.* by mirrors"):
        image()
    assert time.monotonic() - began_s < FIRMWARE_S + LATE_S
    assert bench.log == ["dark"]
    assert "LIGHT MAY BE ON" in caplog.text
    with pytest.raises(DeviceError, match="fault state"), guard.light_on(1.0, LONG_MS):
        pytest.fail("the block must not run")
    device.wait(lit=False, within_s=5.0)
    device.suffer("refuse 0")


# ---------------------------------------------------------------- without its controller


def test_nothing_happens_while_heartbeats_come(device: Laser, rig: Rig) -> None:
    """For longer than any watchdog, the laser's own included."""
    with Guard(rig).light_on(1.0, LONG_MS):
        time.sleep(3 * keeper.SILENCE_S)
        assert len(device.changes()) == 1


def test_no_heartbeat_is_wanted_while_it_is_dark(device: Laser, rig: Rig) -> None:
    """Loading a large library may keep every thread waiting for long."""
    guard, light = Guard(rig), rig.light
    assert isinstance(light, GuardedLight)
    for _ in range(2):
        with guard.light_on(1.0, LONG_MS):
            pass
        _hold_all_threads(2 * keeper.SILENCE_S)
    assert [change.lit for change in device.changes()] == [True, False] * 2


def test_an_interpreter_that_is_frozen_has_its_light_put_off(device: Laser, rig: Rig) -> None:
    moments: list[float] = []

    def image() -> None:
        with Guard(rig).light_on(1.0, LONG_MS):
            time.sleep(0.1)
            moments.append(time.monotonic())
            _hold_all_threads(1.5 * FROZEN_S)

    with pytest.raises(DeviceError, match=r"its guardian put it off: no heartbeat for 0.\d+ s"):
        image()
    assert 0.5 * keeper.SILENCE_S < device.dark_after_s(moments[0]) <= FROZEN_S + LATE_S


def _hold_all_threads(duration_s: float) -> None:
    """As code does that does not give the interpreter's lock back."""
    import ctypes

    ctypes.PyDLL(None).usleep(int(1e6 * duration_s))


def test_a_program_that_hangs_has_its_light_put_off_by_the_guardian(device: Laser, rig: Rig) -> None:
    """Heartbeats come, but its time is over; here nobody but the guardian counts it."""
    rig.light.set_power(1.0)
    rig.light.on(100.0)
    began_s = time.monotonic()
    device.wait(lit=True)
    device.wait(lit=False)
    assert 0.05 < device.dark_after_s(began_s) < 0.1 + LATE_S
    with pytest.raises(DeviceError, match="its guardian put it off: was on for the longest time allowed"):
        rig.light.on(100.0)
    assert not rig.light.is_on()


def test_an_off_that_nobody_checked_is_checked_by_the_guardian(device: Laser, rig: Rig) -> None:
    rig.light.on(LONG_MS)
    device.suffer("refuse 1")
    rig.light.off()
    assert device.lit
    device.wait(lit=False)
    with pytest.raises(DeviceError, match="its guardian put it off: it did not obey OFF"):
        rig.light.interlock_closed()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_without_its_guardian_the_run_ends_and_the_hardware_goes_off(
    device: Laser, rig: Rig, tmp_path: Path, caplog: pytest.LogCaptureFixture, number: signal.Signals
) -> None:
    """Killed, only the laser's own watchdog is left; asked to end, the guardian puts it off first."""
    moments: list[float] = []

    def cut() -> None:
        os.kill(guardian_of(rig), number)
        time.sleep(0.1)

    with pytest.raises(DeviceError, match=r"SWITCH IT OFF BY HAND.* by mirrors") as caught:
        cut_run(rig, tmp_path / "run", moments, cut)
    assert "its guardian is gone" in str(caught.value.__cause__)
    assert "its guardian is gone; LIGHT MAY BE ON" in caplog.text
    device.wait(lit=False)
    assert device.dark_after_s(moments[0]) <= FIRMWARE_S + LATE_S
    assert device.changes()[-1].why == ("watchdog" if number == signal.SIGKILL else "command")


def test_a_guardian_that_is_gone_is_started_anew(device: Laser, rig: Rig) -> None:
    os.kill(guardian_of(rig), signal.SIGKILL)
    time.sleep(0.05)
    with pytest.raises(DeviceError, match="its guardian is gone"):
        rig.light.off()
    rig.light.open()
    rig.light.on(LONG_MS)
    assert rig.light.is_on()


def test_ctrl_c_does_not_reach_the_guardian(device: Laser, rig: Rig) -> None:
    """A terminal sends it to all its processes."""
    assert os.getsid(guardian_of(rig)) != os.getsid(0)
    os.kill(guardian_of(rig), signal.SIGINT)
    rig.light.on(LONG_MS)
    assert rig.light.is_on()
