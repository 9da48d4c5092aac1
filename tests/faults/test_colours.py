"""Two lasers with a guardian each, and a simulated rig in two colours whose filter or shutter goes wrong: dark, the
device named, and no frame kept that another filter, another light or no light may have made."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fakes
import pytest
import serial
from colours import TWO_COLOURS
from fakes import bench_of, colour_plan_of, lines_of, plan_of, spooling
from lasers import Laser, laser, laser_rig, posix

from dmu_hw.control import Control
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.errors import DeviceError, InputError
from dmu_hw.guard import Guard
from dmu_hw.guardian import GuardedLight
from dmu_hw.plan import Shot
from dmu_hw.rig import Rig

LONG_MS = 60_000.0
GREEN, RED = "light", "light_561"
NAMES = (GREEN, RED)
BENCH = {role: {"driver": fakes.__file__, "connection": "bench"} for role in ("dmd", "camera")}

# ---------------------------------------------------------------- two lasers


@pytest.fixture(scope="module")
def lasers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Laser]]:
    with laser(tmp_path_factory.mktemp("green")) as green, laser(tmp_path_factory.mktemp("red")) as red:
        yield {GREEN: green, RED: red}


def rig_of(folder: Path, lasers: dict[str, Laser], **changes: Any) -> Rig:
    """The bench with both lasers, not opened."""
    lights = {name: device.yaml(**changes.pop(name, {})) for name, device in lasers.items()}
    devices = {name: copy.deepcopy(device) for name, device in {**BENCH, **lights}.items()}  # YAML would write aliases
    return laser_rig(folder, devices[GREEN], devices=devices, **changes)


@pytest.fixture
def rig(tmp_path: Path, lasers: dict[str, Laser]) -> Iterator[Rig]:
    for device in lasers.values():
        for well in ("refuse 0", "silence 0", "interlock closed"):
            device.suffer(well)
        device.log.write_text("")
    with rig_of(tmp_path, lasers).opened() as made:
        yield made


def guardian_of(light: Any) -> int:
    pid: int = light._link._process.pid
    return pid


@posix
def test_each_light_has_a_guardian_of_its_own(rig: Rig, lasers: dict[str, Laser]) -> None:
    assert all(isinstance(light, GuardedLight) for light in rig.lights.values())
    assert len({guardian_of(light) for light in rig.lights.values()} | {os.getpid()}) == 3
    guard = Guard(rig)
    for name in (RED, GREEN):
        with guard.light_on(2.0, LONG_MS, name):
            assert {other: device.lit for other, device in lasers.items()} == {GREEN: name == GREEN, RED: name == RED}
    assert not any(device.lit for device in lasers.values())
    assert bench_of(rig).log == []


def leave_on(device: Laser) -> None:
    """As another program would that ended without a word."""
    device.suffer("watchdog never")
    with serial.Serial(device.port, timeout=1.0) as line:
        line.write(b"SOUR:AM:STAT ON\r\n")
        assert line.read_until(b"\r\n") == b"OK\r\n"
    assert device.lit


@posix
@pytest.mark.parametrize("left_on", NAMES)
def test_a_light_that_somebody_left_on_is_put_off_before_anything_else(
    tmp_path: Path, lasers: dict[str, Laser], left_on: str
) -> None:
    device = lasers[left_on]
    leave_on(device)
    rig = rig_of(tmp_path, lasers)
    with rig.opened():
        assert not device.lit
    device.suffer("watchdog 250")


@posix
@pytest.mark.parametrize("left_on", NAMES)
def test_one_that_was_left_on_and_does_not_go_off_is_refused(
    tmp_path: Path, lasers: dict[str, Laser], left_on: str
) -> None:
    device = lasers[left_on]
    leave_on(device)
    device.suffer("refuse 2")
    with pytest.raises(DeviceError, match=f"{left_on}: .* is on though it was told") as caught:
        rig_of(tmp_path, lasers).open()
    assert left_on in caught.value.device
    device.wait(lit=False)
    device.suffer("refuse 0")
    device.suffer("watchdog 250")


@posix
@pytest.mark.parametrize("used", NAMES)
def test_without_the_guardian_of_any_light_nothing_is_lit(rig: Rig, lasers: dict[str, Laser], used: str) -> None:
    guard = Guard(rig)
    os.kill(guardian_of(rig.lights[RED]), signal.SIGKILL)

    def image() -> None:
        with guard.light_on(1.0, LONG_MS, used):
            pytest.fail("the block must not run")

    with pytest.raises(DeviceError, match=r"SWITCH IT OFF BY HAND|its guardian is gone") as caught:
        image()
    assert caught.value.device == RED
    with pytest.raises(DeviceError, match=f"{RED}: .*SWITCH IT OFF BY HAND"):
        guard.off()
    assert guard.fault
    for device in lasers.values():
        device.wait(lit=False)


@posix
def test_every_light_must_have_a_watchdog_or_be_accepted(tmp_path: Path, lasers: dict[str, Laser]) -> None:
    """Also one that a run does not light: it may have been left on."""
    unwatched = {"watchdog_ms": None}
    with pytest.raises(InputError, match=r"devices.light_561: it has no watchdog.* unwatched_light: accept"):
        plan_of(rig_of(tmp_path, lasers, light_561=unwatched), side=32)
    accepted = rig_of(tmp_path, lasers, light_561=unwatched, unwatched_light="accept")
    assert accepted.unwatched_light
    assert any("devices.light_561: it has no watchdog" in caution for caution in plan_of(accepted, side=32).cautions)


# ---------------------------------------------------------------- filter and shutter of the simulated rig

WRONG = {
    # how often each moves well before: the wheel turns to red and back, the shutter opens and closes once in a run
    "the wheel stops at another position": (
        "wrong_filter",
        0,
        "filter: should stand at 'RFP' and says .* at 'none'",
        {0},
    ),
    "the wheel does not arrive": ("stuck_filter", 0, "filter: did not arrive at 'RFP'", {0}),
    "the wheel does not come back": ("wrong_filter", 1, "filter: should stand at 'GFP' and says .* at 'RFP'", {0, 1}),
    "the shutter does not open": ("stuck_shutter", 0, "shutter: is not open", set()),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_goes_wrong_in_the_way_of_the_light_ends_the_run(
    small_rig: Callable[..., Rig], tmp_path: Path, case: str
) -> None:
    kind, at, says, kept = WRONG[case]
    rig = small_rig({**TWO_COLOURS, "connections.world.faults": [{"kind": kind, "at": at}]})
    plan, world = colour_plan_of(rig, side=64, time={"loops": 2}), check_dark_after(rig)
    with spooling(tmp_path / "run") as (run, spool), pytest.raises(DeviceError, match=says) as caught:
        Engine(plan, rig, spool).run()
    assert caught.value.device == ("shutter" if "shutter" in case else "filter")
    assert {line["shot"] for line in lines_of(run, "frame")} == kept
    world()


def test_a_shutter_that_needs_to_be_told_twice_is_closed(small_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = small_rig({**TWO_COLOURS, "connections.world.faults": [{"kind": "stuck_shutter", "at": 1}]})
    with spooling(tmp_path / "run") as (_, spool):
        assert Engine(colour_plan_of(rig, side=64), rig, spool).run().missing == 0
    check_dark_after(rig)()


def test_the_shutter_is_closed_while_a_run_pauses(small_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = small_rig(TWO_COLOURS)
    during: list[bool] = []
    after: list[bool] = []

    def is_open() -> bool:
        assert rig.shutter is not None
        return rig.shutter.is_open()

    class Pausing(Control):
        def wait_while_paused(self) -> None:
            during.append(is_open())
            self.resume()

    control = Pausing()

    def watch(_shot: Shot, _burst: Burst) -> None:
        after.append(is_open())
        if len(after) == 2:
            control.pause()

    with spooling(tmp_path / "run") as (_, spool):
        counts = Engine(colour_plan_of(rig, side=64, time={"loops": 2}), rig, spool, watch, control).run()
    assert (counts.missing, during, after) == (0, [False], [True] * 4)
    check_dark_after(rig)()


def check_dark_after(rig: Rig) -> Callable[[], None]:
    """Asks what truly reached the sample from then on: nothing."""
    world: Any = rig.connection("world")

    def check() -> None:
        now_ms = world.clock.now_ms()
        assert world.history.light(now_ms, now_ms + 1e6) == []
        assert not world.history.shutter.at(now_ms)
        assert all(line.at(now_ms) == 0.0 for line in world.history.power_mw.values())

    return check
