"""A port that has vanished and come back as another device: nobody speaks with that, and a guardian whose controller is
gone, and which tries on, does not hold it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import serial
from lasers import laser, laser_rig, posix

from dmu_hw.errors import DeviceError
from dmu_hw.lines import Line
from dmu_hw.lines.identity import identity_of

pytestmark = posix


def pair() -> tuple[int, int, str]:
    import tty

    ours, theirs = os.openpty()
    tty.setraw(theirs)
    return ours, theirs, os.ttyname(theirs)


def pair_called(name: str) -> tuple[int, int]:
    """A pseudo-terminal of that name, once whoever had it has let go of it."""
    until_s = time.monotonic() + 5.0
    while time.monotonic() < until_s:
        others: list[int] = []
        try:
            for _ in range(50):
                ours, theirs, found = pair()
                if found == name:
                    return ours, theirs
                others += [ours, theirs]
        finally:
            for other in others:
                os.close(other)
        time.sleep(0.02)
    pytest.skip(f"{name} was given to somebody else")


def test_using_a_port_does_not_make_another_of_it() -> None:
    ours, theirs, port = pair()
    before = identity_of(port)
    assert before is not None
    line = Line("light", port, 9600, "\r\n", 50.0)
    for _ in range(3):
        line.open()
        line.send("x")
        os.read(ours, 10)
        os.write(ours, b"y")
    assert identity_of(port) == before
    line.close()
    os.close(ours)
    os.close(theirs)
    assert identity_of(port) is None or identity_of(port) != before


def test_a_port_that_is_another_device_now_is_not_opened_again() -> None:
    ours, theirs, port = pair()
    line = Line("light", port, 9600, "\r\n", 50.0)
    line.open()
    line._let_go()
    os.close(ours)
    os.close(theirs)
    time.sleep(0.02)  # the clock of files is coarse
    ours, theirs = pair_called(port)
    with pytest.raises(DeviceError, match=f"light: {port} is gone: another device has its name now"):
        line.open()
    assert not line.is_open
    line.close()  # somebody has seen it: from here on it is opened as any other
    line.open()
    line.close()
    os.close(ours)
    os.close(theirs)


def test_what_tells_its_serial_number_is_known_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cable is pulled and put back: a new file, the same device. Two of a kind without numbers are known by their
    sockets."""

    def plugged(**facts: Any) -> Callable[[], list[SimpleNamespace]]:
        known = {"device": "COM3", "vid": 0x0403, "pid": 0x6001, "serial_number": None, "location": None}
        return lambda: [SimpleNamespace(**{**known, **facts})]

    monkeypatch.setattr("dmu_hw.lines.identity._WINDOWS", True)

    def now(**facts: Any) -> object:
        monkeypatch.setattr("dmu_hw.lines.identity.list_ports.comports", plugged(**facts))
        return identity_of("com3")

    assert now(serial_number="A1") == now(serial_number="A1", location="1-2") != now(serial_number="B2")
    assert now(location="1-2") == now(location="1-2") != now(location="1-3")
    assert now(device="COM4") is None


def test_a_guardian_without_a_controller_leaves_the_port_of_others_alone(tmp_path: Path) -> None:
    """The laser, and the program that lit it, are gone at once, as when a session of tests is killed. Its guardian
    tries for a minute; the name of its port is given to somebody else at once."""
    with laser(tmp_path, None) as device:
        rig = laser_rig(tmp_path, device.yaml(), unwatched_light="accept")
        rig.open()
        rig.light.on(60_000.0)
        light: Any = rig.light
        device.suffer("unplug")
        port = device.port
    light._link._process.stdin.close()
    ours, theirs = pair_called(port)
    try:
        heard = select.select([ours], [], [], 1.5)[0]
        assert not heard, f"its guardian speaks to a stranger: {os.read(ours, 100)!r}"
        with serial.Serial(port, exclusive=True):
            """Nobody holds it."""
        assert light._link._process.poll() is None, "it still tries"
    finally:
        light._link._process.kill()
        light._link._process.wait(10.0)
        os.close(ours)
        os.close(theirs)
    with pytest.raises(DeviceError, match="its guardian is gone"):
        rig.light.off()
    with suppress(DeviceError):
        rig.close()
