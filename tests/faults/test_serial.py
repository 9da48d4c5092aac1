"""Every light on a serial port, held by its guardian, and every way in which its line goes wrong for good while it is
on: an error that names port and command, in time, and no light on the sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_of
from lasers import Laser, laser, laser_rig, posix

from dmu_hw.errors import DeviceError
from dmu_hw.guard import Guard
from dmu_hw.rig import Rig

pytestmark = posix
TIMEOUT_MS = 60.0
SLOWEST_S = 3.0
"""Three tries of an OFF, each read back, on a machine that is busy with other things."""
OWN_KEYS: dict[str, dict[str, Any]] = {
    "generic": {},
    "obis": {},
    "cobolt": {},
    "ibeam": {},
    "lightbox": {"settle_ms": 0.0},
    "triggerscope": {"lines": [1], "dac": 1, "settle_ms": 0.0},
    "mmarduino": {"pins": [8], "dac": 1, "settle_ms": 0.0},
}
WELL = ("garble 0", "halve 0", "silence 0", "refuse 0", "fault off", "interlock closed")
WRONG = ("garble 1000", "halve 1000", "silence 1000", "refuse 1000")


@pytest.fixture(scope="module", params=OWN_KEYS)
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    """One for all: a process takes its time to start."""
    with laser(tmp_path_factory.mktemp("laser"), None, request.param) as made:
        yield made


@pytest.fixture(scope="module")
def bench(device: Laser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    made = rig_of(device, tmp_path_factory.mktemp("bench"))
    yield made
    for well in WELL:
        device.suffer(well)
    made.close()


def rig_of(device: Laser, folder: Path) -> Rig:
    keys = device.yaml(timeout_ms=TIMEOUT_MS, **OWN_KEYS[device.dialect])
    return laser_rig(folder, keys, unwatched_light="accept")


def struck(rig: Rig, strike: Callable[[], object]) -> tuple[DeviceError, float]:
    """What comes of a fault while the light is on, and after how long."""
    guard, moments = Guard(rig), []

    def image() -> None:
        with guard.light_on(2.0, 60_000.0):
            bench_of(rig).log.clear()
            strike()
            moments.append(time.monotonic())

    with pytest.raises(DeviceError) as caught:
        image()
    assert guard.fault
    return caught.value, time.monotonic() - moments[0]


def told(error: BaseException | None) -> str:
    """All that is said, with what it came of."""
    found = ""
    while error is not None:
        found, error = f"{found}{error}\n", error.__cause__ or error.__context__
    return found


@pytest.mark.parametrize("wrong", WRONG)
def test_a_line_that_goes_wrong_for_good_is_told_and_the_sample_is_dark(device: Laser, bench: Rig, wrong: str) -> None:
    for well in WELL:
        device.suffer(well)
    bench.open()
    error, took_s = struck(bench, lambda: device.suffer(wrong))
    assert error.device == "light"
    assert "SWITCH IT OFF BY HAND" in str(error)
    assert "no light now by mirrors" in str(error)
    assert "dark" in bench_of(bench).log
    assert took_s < SLOWEST_S
    if wrong.startswith("refuse"):
        return  # acknowledged, and read back as on: nothing was wrong with the line
    said = told(error)
    assert f"{device.port}: '" in said, "the port, then the command"
    assert "was answered by" in said or f"was not answered within {TIMEOUT_MS:g} ms" in said
    device.wait(lit=False)


@pytest.mark.parametrize("dialect", OWN_KEYS)
def test_a_cable_that_is_pulled_is_told_and_the_mirrors_are_dark(tmp_path: Path, dialect: str) -> None:
    """The light itself stays as it was, unless its hardware has a watchdog: only a person can see to that."""
    with laser(tmp_path, None, dialect) as device:
        rig = rig_of(device, tmp_path)
        rig.open()
        error, took_s = struck(rig, lambda: device.suffer("unplug"))
        assert error.device == "light"
        assert "SWITCH IT OFF BY HAND; no light now by mirrors" in str(error)
        assert device.port in told(error)
        assert took_s < SLOWEST_S
        assert bench_of(rig).log == ["dark"]
        if dialect == "lightbox":
            device.wait(lit=False)
        light: Any = rig.light
        light._link._process.kill()
        light._link._process.wait(10.0)  # it would try for a minute
        rig.close()
