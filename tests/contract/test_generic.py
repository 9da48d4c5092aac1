"""The light by text commands: it obeys, and whatever comes back over the line, an error names port and command in time.

Here the driver runs in the test's own process; tests/faults has it held by its guardian.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_rig
from lasers import Laser, laser, posix
from lines import line
from pydantic import ValidationError

from dmu_hw.drivers.generic import Light
from dmu_hw.drivers.generic.settings import LightSettings
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Document
from dmu_hw.ports import Light as LightPort
from dmu_hw.ports import Mount
from dmu_hw.twins.laser import YAML

TIMEOUT_MS = 100.0
LATE_S = 1.0
"""What an answer may take on a machine that is busy with other things."""


def settings(**changes: Any) -> LightSettings:
    keys = {**YAML, "port": "COM99", "max_power_mw": 10.0, "timeout_ms": TIMEOUT_MS, **changes}
    del keys["driver"]
    return LightSettings.model_validate(_tuples(keys))


def _tuples(value: Any) -> Any:
    """As the YAML reader gives it."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(value) if isinstance(value, list) else value


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Light]:
    optics = bench_rig(tmp_path).optics

    def make(port: str, **changes: Any) -> Light:
        mount = Mount("light", optics, Document({}, {}, Path("rig.yaml")))
        return Light(settings(port=port, **changes), mount)

    return make


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    """One for all: a process takes its time to start."""
    with laser(tmp_path_factory.mktemp("laser"), None) as device:
        yield device


@pytest.fixture
def both(shared: Laser, made: Callable[..., Light]) -> Iterator[tuple[Laser, Light]]:
    """A laser as good as new, and the light that speaks with it, opened."""
    shared.log.write_text("")
    light = made(shared.port)
    try:
        light.open()
        yield shared, light
    finally:
        shared.suffer("interlock closed")
        light.close()  # also if it did not open: the port would be held for the tests after this one


# ---------------------------------------------------------------- it obeys


@posix
def test_it_is_a_light(both: tuple[Laser, Light]) -> None:
    device, light = both
    assert isinstance(light, LightPort)
    assert not light.is_on()
    assert light.interlock_closed()
    light.set_power(2.5)
    light.on(1000.0)
    assert light.is_on()
    assert device.lit
    light.off()
    assert not light.is_on()
    assert [(change.lit, change.power_w) for change in device.changes()] == [(True, 0.0025), (False, 0.0025)]
    device.suffer("interlock open")
    assert not light.interlock_closed()


@posix
def test_what_was_left_on_is_off_when_opened_and_when_closed(both: tuple[Laser, Light]) -> None:
    device, light = both
    light.on()
    light.open()
    assert not device.lit
    light.on()
    light.close()
    assert not device.lit
    light.close()
    light.open()
    assert not light.is_on()


@posix
@pytest.mark.parametrize(
    ("command", "transmission", "sent"),
    [
        ("SOUR:POW:LEV {power_w:.6f}", 1.0, 0.005),
        ("SOUR:POW:LEV {power_w:.6f}", 0.5, 0.010),
        ("SOUR:POW:LEV {power_mw:.1f}", 0.25, 20.0),
        ("SOUR:POW:LEV {percent:.0f}", 0.5, 50.0),
    ],
)
def test_power_is_told_in_the_devices_own_words(
    both: tuple[Laser, Light], made: Callable[..., Light], command: str, transmission: float, sent: float
) -> None:
    """5 of 10 mW at the sample."""
    device, usual = both
    usual.close()
    light = made(device.port, set_power=command, transmission=transmission)
    light.open()
    light.set_power(5.0)
    light.on()
    light.close()
    assert device.changes()[0].power_w == pytest.approx(sent)


@posix
def test_power_beyond_its_own_is_refused(both: tuple[Laser, Light]) -> None:
    for power_mw in (-0.1, 10.1):
        with pytest.raises(DeviceError, match="power must be 0 to 10 mW"):
            both[1].set_power(power_mw)


@posix
def test_two_cannot_hold_one_port(both: tuple[Laser, Light], made: Callable[..., Light]) -> None:
    device, _ = both
    with pytest.raises(DeviceError, match=f"light: {device.port} cannot be opened"):
        made(device.port).open()


def test_a_port_that_is_not_there_is_named(made: Callable[..., Light], tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="no-such-port cannot be opened"):
        made(str(tmp_path / "no-such-port")).open()


def test_what_is_not_open_is_told(made: Callable[..., Light]) -> None:
    light = made("COM99")
    for call in (light.off, light.on, light.is_on, light.interlock_closed, lambda: light.set_power(1.0)):
        with pytest.raises(DeviceError, match="COM99 is not open"):
            call()
    light.close()


# ---------------------------------------------------------------- it is not obeyed


@posix
@pytest.mark.parametrize(
    ("wrong", "error", "says"),
    [
        ("garble 1", DeviceError, "was answered by noise"),
        ("halve 1", DeviceTimeout, "was not answered within 100 ms: only"),
        ("silence 1", DeviceTimeout, "was not answered within 100 ms: nothing came"),
    ],
)
@pytest.mark.parametrize("what", ["on", "off", "is_on", "interlock_closed", "keep_alive"])
def test_a_reply_that_is_none_is_told_in_time(
    both: tuple[Laser, Light], what: str, wrong: str, error: type[DeviceError], says: str
) -> None:
    """And the next command is answered by its own reply."""
    device, light = both
    device.suffer(wrong)
    command = {"on": "STAT ON", "off": "STAT OFF", "interlock_closed": "LOCK"}.get(what, "STAT?")
    began_s = time.monotonic()
    with pytest.raises(error, match=says) as caught:
        getattr(light, what)()
    assert time.monotonic() - began_s < TIMEOUT_MS / 1e3 + LATE_S
    assert caught.value.device == "light"
    assert device.port in str(caught.value)
    assert command in str(caught.value)
    assert light.interlock_closed()
    light.off()
    assert not light.is_on()


@posix
def test_a_refused_command_is_told(both: tuple[Laser, Light], made: Callable[..., Light]) -> None:
    device, light = both
    light.close()
    odd = made(device.port, set_on="FIRE")
    odd.open()
    with pytest.raises(DeviceError, match=r"'FIRE' was answered by 'ERR', not 'OK'"):
        odd.on()
    odd.close()
    assert not device.lit


@posix
def test_an_unplugged_cable_is_told(tmp_path: Path, made: Callable[..., Light]) -> None:
    with laser(tmp_path) as device:
        light = made(device.port)
        light.open()
        light.on()
        device.suffer("unplug")
        for call in (light.is_on, light.off, light.interlock_closed):
            began_s = time.monotonic()
            with pytest.raises(DeviceError, match=f"{device.port} is gone|{device.port}: .* was not answered"):
                call()
            assert time.monotonic() - began_s < TIMEOUT_MS / 1e3 + LATE_S
        with pytest.raises(DeviceError):
            light.close()
        light.close()


# ---------------------------------------------------------------- other ends of a line


@posix
@pytest.mark.parametrize(
    "answer",
    [b"x" * 3000, b"\r" * 3000, b"OK\nOK\n", b"\r\n" * 50, b"\x00" * 500],
    ids=["text", "carriage returns", "another end of line", "ends of lines", "zeros"],
)
def test_babble_is_no_answer(made: Callable[..., Light], answer: bytes) -> None:
    with line(lambda _command: answer) as port:
        light = made(port)
        began_s = time.monotonic()
        with pytest.raises(DeviceError, match=port):
            light.open()
        assert time.monotonic() - began_s < TIMEOUT_MS / 1e3 + LATE_S
        with pytest.raises(DeviceError):
            light.close()


@posix
def test_a_late_reply_is_not_taken_for_that_to_the_next_question(made: Callable[..., Light]) -> None:
    """The first question is answered when the second is about to be asked: ON, which it is not any more."""
    late: list[bytes] = []

    def answer(command: bytes) -> bytes:
        if command.startswith(b"SOUR:AM:STAT?"):
            late.append(b"")
            if len(late) == 2:
                threading.Timer(1.1 * TIMEOUT_MS / 1e3, lambda: os.write(sink[0], b"ON\r\n")).start()
                return b""
            return b"OFF\r\n"
        return b"OK\r\n"

    sink: list[int] = []
    real = os.openpty

    def openpty() -> tuple[int, int]:
        ours, theirs = real()
        sink.append(ours)
        return ours, theirs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "openpty", openpty)
        with line(answer) as port:
            light = made(port)
            light.open()
            with pytest.raises(DeviceTimeout):
                light.is_on()
            assert not light.is_on()
            light.close()


# ---------------------------------------------------------------- what a rig may say


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"set_power": "POW"}, "should hold {power_w}"),
        ({"set_power": "POW {power}"}, "should hold {power_w}"),
        ({"set_power": "POW {power_w.__class__}"}, "should hold {power_w}"),
        ({"set_power": "POW {power_w:999999999f}"}, "should hold {power_w}"),
        ({"set_power": "POW {power_w} {"}, "should hold {power_w}"),
        ({"set_on": "ON\r\nFIRE"}, "String should match"),
        ({"set_on": ""}, "String should match"),
        ({"line_end": "; "}, "String should match"),
        ({"state": {"ask": "?", "lit": ["1"], "dark": ["0", "1"]}}, "the reply '1' cannot mean both"),
        ({"interlock": {"ask": "?", "closed": ["1"], "open": ["1"]}}, "the reply '1' cannot mean both"),
        ({"state": {"ask": "?", "lit": [], "dark": ["0"]}}, "at least 1 item"),
        ({"timeout_ms": 60_000.0}, "less than or equal to 2000"),
        ({"transmission": 1.2}, "less than or equal to 1"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        settings(**changes)


@pytest.mark.skipif(sys.platform != "win32", reason="said of Windows")
def test_there_is_no_twin_on_windows() -> None:
    from dmu_hw.twins.laser import main

    with pytest.raises(SystemExit):
        main(["--log", "nowhere"])
