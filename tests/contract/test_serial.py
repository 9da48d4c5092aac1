"""All drivers that hang on a serial port: whatever comes back over it, an error names port and command in time, and no
byte crashes or hangs one."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_rig
from lasers import posix
from lines import line

from dmu_hw import plugin
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Document
from dmu_hw.lines import Port, Wire
from dmu_hw.ports import PORTS, Mount
from dmu_hw.twins.laser import YAML

TIMEOUT_MS = 20.0
LATE_S = 1.0
"""What an answer may take on a machine that is busy with other things."""
MOST_COMMANDS = 30
"""Of one call."""
LIGHT = {"max_power_mw": 10.0}
BOX = {"start_ms": 0.0, "settle_ms": 0.0, **LIGHT}
KEYS: dict[str, dict[str, Any]] = {
    "obis.Light": LIGHT,
    "cobolt.Light": LIGHT,
    "ibeam.Light": LIGHT,
    "lightbox.Light": BOX,
    "triggerscope.Light": {**BOX, "lines": [1, 9], "dac": 1},
    "triggerscope.Shutter": {"start_ms": 0.0, "lines": [2]},
    "mmarduino.Light": {**BOX, "pins": [8], "dac": 1, "interlock_input": 0},
    "mmarduino.Shutter": {"start_ms": 0.0, "pins": [9]},
    "generic.Light": {**LIGHT, **{key: value for key, value in YAML.items() if key != "driver"}},
    "generic.Filter": {
        "positions": {"GFP": {"select": "pos=1", "at": ["1"]}, "RFP": {"select": "pos=2", "at": ["2"]}},
        "ask": "pos?",
        "moving": ["0"],
    },
    "generic.Shutter": {
        "set_open": "ens=1",
        "set_closed": "ens=0",
        "state": {"ask": "ens?", "open": ["1"], "closed": ["0"]},
        "switch_ms": 1.0,
    },
    "generic.Meter": {"ask": "MEAS:POW?"},
}
"""What a rig says of each beside its port."""


NO_INTERLOCK = ("ibeam.Light", "triggerscope.Light")
"""They have none that can be asked for, and take it for closed without a word on the line."""


def serial_classes() -> Iterator[str]:
    for driver in plugin.names("dmu_hw.drivers"):
        module = importlib.import_module(f"dmu_hw.drivers.{driver}")
        for port in PORTS.values():
            settings = getattr(getattr(module, port.__name__, None), "Settings", None)
            if isinstance(settings, type) and issubclass(settings, Port):
                yield f"{driver}.{port.__name__}"


def test_every_driver_on_a_serial_port_is_tested() -> None:
    assert sorted(serial_classes()) == sorted(KEYS)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Any]:
    optics = bench_rig(tmp_path).optics

    def make(what: str, port: str, **changes: Any) -> Any:
        driver, _, role = what.partition(".")
        found = getattr(importlib.import_module(f"dmu_hw.drivers.{driver}"), role)
        keys = json.dumps({**KEYS[what], "port": port, "timeout_ms": TIMEOUT_MS, **changes})
        return found(found.Settings.model_validate_json(keys), Mount("device", optics, _DOCUMENT))

    return make


_DOCUMENT = Document({}, {}, Path("rig.yaml"))


def calls_of(device: Any) -> list[Callable[[], object]]:
    """All that can be asked of it over its line, whatever its port."""
    asked: dict[str, tuple[Any, ...]] = {
        "is_on": (),
        "off": (),
        "set_power": (2.0,),
        "interlock_closed": (),
        "on": (),
        "keep_alive": (),
        "select": ("GFP", 3 * TIMEOUT_MS),
        "selected": (),
        "set_open": (True,),
        "is_open": (),
        "block_light": (),
        "read_mw": (),
    }
    if type(device).__module__.partition("drivers.")[2] + "." + type(device).__name__ in NO_INTERLOCK:
        del asked["interlock_closed"]
    methods = [(getattr(device, name), given) for name, given in asked.items() if hasattr(device, name)]
    assert methods
    return [partial(call, *given) for call, given in methods]


def wire_of(device: Any) -> Any:
    """Its port, for what its own `open` would not get past."""
    box = getattr(device, "_box", None)
    return box.wire if box is not None else device._line


def told_in_time(call: Callable[[], object]) -> DeviceError | None:
    began_s = time.monotonic()
    try:
        call()
    except DeviceError as error:
        return error
    finally:
        assert time.monotonic() - began_s < LATE_S + MOST_COMMANDS * 3 * TIMEOUT_MS / 1e3
    return None


# ---------------------------------------------------------------- no answer, or none that means anything


@posix
@pytest.mark.parametrize("answer", [b"", b"\xff\x00\x1b?#\x80\r\n", b"~"], ids=["silence", "noise", "half"])
@pytest.mark.parametrize("what", KEYS)
def test_an_answer_that_is_none_is_told_in_time(made: Callable[..., Any], what: str, answer: bytes) -> None:
    with line(lambda _command: answer) as port:
        device = made(what, port)
        wire_of(device).open()
        if hasattr(device, "_dim"):
            device._dim = False
        for call in calls_of(device):
            error = told_in_time(call)
            assert error is not None
            assert error.device == "device"
            assert str(error).startswith(f"device: {port}: '"), "port, then command"
            if answer == b"":
                assert isinstance(error, DeviceTimeout)
                assert f"was not answered within {TIMEOUT_MS:g} ms: nothing came" in str(error)
        with suppress(DeviceError):
            device.close()


@posix
@pytest.mark.parametrize("what", KEYS)
def test_a_port_whose_other_end_is_gone_is_told(made: Callable[..., Any], what: str) -> None:
    import tty

    ours, theirs = os.openpty()
    tty.setraw(theirs)
    port = os.ttyname(theirs)
    device = made(what, port)
    wire_of(device).open()
    os.close(theirs)
    os.close(ours)
    for call in calls_of(device):
        error = told_in_time(call)
        assert error is not None
        assert port in str(error)
    with suppress(DeviceError):
        device.close()
    assert not wire_of(device).is_open


@posix
@pytest.mark.parametrize("what", KEYS)
def test_a_port_that_takes_nothing_is_told(made: Callable[..., Any], what: str) -> None:
    """Its buffer is full, as with a device that holds the line: a write does not end."""
    import tty

    ours, theirs = os.openpty()
    tty.setraw(theirs)
    device = made(what, os.ttyname(theirs))
    wire_of(device).open()
    wire_of(device)._serial.write_timeout = TIMEOUT_MS / 1e3
    with suppress(Exception):
        while True:
            wire_of(device)._serial.write(b"x" * 4096)
    for call in calls_of(device):
        error = told_in_time(call)
        assert error is not None
        assert os.ttyname(theirs) in str(error)
    wire_of(device).close()
    os.close(ours)
    os.close(theirs)


class Busy:
    """A port on a computer that does something else for longer than the time-out while an answer comes."""

    def __init__(self, answer: bytes) -> None:
        self.left = answer
        self.slept = False

    @property
    def in_waiting(self) -> int:
        return len(self.left) if self.slept else 0

    def read(self, count: int) -> bytes:
        if not self.slept:
            time.sleep(2 * TIMEOUT_MS / 1e3)
            self.slept, count = True, 1
        found, self.left = self.left[:count], self.left[count:]
        return found


@pytest.mark.parametrize(("answer", "said"), [(b"OK\r\n", b"OK\r\n"), (b"O", None), (b"", None), (b"x" * 5000, None)])
def test_an_answer_that_is_there_when_nobody_looks_is_one(answer: bytes, said: bytes | None) -> None:
    wire: Any = Wire("light", "COM99", 9600, TIMEOUT_MS)
    began_s = time.monotonic()
    assert wire._reply(Busy(answer), lambda reply: reply if reply.endswith(b"\n") else None)[1] == said
    assert time.monotonic() - began_s < LATE_S


# ---------------------------------------------------------------- random bytes

PIECES = (
    *(b"OK\r\n", b"\r\n", b"[OK]\r\n", b"ON\r\n", b"OFF", b"1\r\n", b"0\r\n", b"%SYS-", b"C8001002\r\n", b"2\r\n"),
    *(b"CH2, PWR: 1e9 mW\r\n", b"dmu-hw lightbox 1\r\n", b"MM-Ard\r\n", b"5\r\n", b"\x01", b"\x02\x01", b"\x09\x00"),
    *(b"\x15", b"\x22\x02", b"\x28\x00", b"\x03\x00", b"ARC TRIGGERSCOPE 16 MM\r\n", b"!SDO0-0\r\n", b"!SDO1-0\r\n"),
    *(b"!PDC0\r\n", b"TTL: 1=0,2=", b"TTL: " + b"1=1," * 16 + b"\r\n\r\n", b"1e999\r\n", b"nan\r\n", b"-0\r\n"),
)
"""What an answer might begin or end with."""


def babble(rng: np.random.Generator, length: int) -> bytes:
    """Random bytes, and pieces among them."""
    found = b""
    while len(found) < length:
        found += PIECES[rng.integers(len(PIECES))] if rng.random() < 0.3 else rng.bytes(int(rng.integers(1, 40)))
    return found


def listened(device_on: Callable[[str], Any], length: int) -> tuple[int, float]:
    """How many bytes came back before everything was asked often enough, and the longest that one call took. Only a
    DeviceError may come of it."""
    rng, spoken, longest_s = np.random.default_rng(0), [0], 0.0

    def answer(_command: bytes) -> bytes:
        said = babble(rng, int(rng.integers(1, 3000))) if rng.random() < 0.7 else PIECES[rng.integers(len(PIECES))]
        spoken[0] += len(said)
        return said

    with line(answer) as port:
        device = device_on(port)
        while spoken[0] < length:
            for call in (device.open, *calls_of(device), device.close, wire_of(device).open, *calls_of(device)):
                began_s = time.monotonic()
                told_in_time(call)
                longest_s = max(longest_s, time.monotonic() - began_s)
        wire_of(device).close()
    return spoken[0], longest_s


@posix
@pytest.mark.parametrize("what", KEYS)
def test_random_bytes_neither_crash_nor_hang_a_driver(made: Callable[..., Any], what: str) -> None:
    assert listened(lambda port: made(what, port), 20_000)[0] >= 20_000


@posix
@pytest.mark.campaign
@pytest.mark.parametrize("what", KEYS)
def test_a_million_random_bytes_neither_crash_nor_hang_a_driver(
    made: Callable[..., Any], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken, longest_s = listened(lambda port: made(what, port), 1_000_000)
    with capsys.disabled():
        print(f"\n{what}: {spoken} bytes, longest call {1e3 * longest_s:.0f} ms")  # noqa: T201
    assert spoken >= 1_000_000
