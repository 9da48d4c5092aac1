"""The box that gates a light: its driver on its twin, and the twin against its firmware, compiled for this computer."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_rig
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from lasers import Laser, laser, laser_rig, posix
from lines import line

from dmu_hw.drivers.lightbox import NAME, Light, LightboxSettings
from dmu_hw.errors import DeviceError
from dmu_hw.files import Document
from dmu_hw.guard import Guard
from dmu_hw.ports import Light as LightPort
from dmu_hw.ports import Mount
from dmu_hw.twins.dialects import Lightbox
from dmu_hw.twins.emitter import Emitter

FIRMWARE = Path(__file__).parents[2] / "devices" / "firmware" / "lightbox"
TIMEOUT_MS = 150.0
LATE_S = 1.0
"""What an answer may take on a machine that is busy with other things."""


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Light]:
    optics = bench_rig(tmp_path).optics

    def make(port: str, **changes: Any) -> Light:
        keys = {"port": port, "max_power_mw": 10.0, "timeout_ms": TIMEOUT_MS, "settle_ms": 0.0, **changes}
        return Light(LightboxSettings.model_validate(keys), Mount("light", optics, Document({}, {}, Path("rig.yaml"))))

    return make


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    """One for all: a process takes its time to start."""
    with laser(tmp_path_factory.mktemp("lightbox"), None, "lightbox") as device:
        yield device


@pytest.fixture
def both(shared: Laser, made: Callable[..., Light]) -> Iterator[tuple[Laser, Light]]:
    """A box, and the light that speaks with it, opened."""
    light = made(shared.port)
    try:
        light.open()
        shared.log.write_text("")
        yield shared, light
    finally:
        for well in ("garble 0", "halve 0", "silence 0", "refuse 0", "interlock closed"):
            shared.suffer(well)
        light.close()  # also if it did not open: the port would be held for the tests after this one


@posix
def test_it_is_a_light(both: tuple[Laser, Light]) -> None:
    device, light = both
    assert isinstance(light, LightPort)
    assert light.watchdog_ms == 250.0
    assert light.interlock_closed()
    light.set_power(2.5)
    light.on(1000.0)
    light.off()
    assert not light.is_on()
    assert [(change.lit, change.power_w) for change in device.changes()] == [(True, 0.0025), (False, 0.0025)]


@posix
def test_without_a_command_it_goes_off_and_with_one_it_does_not(both: tuple[Laser, Light]) -> None:
    device, light = both
    light.on()
    for _ in range(8):
        time.sleep(0.05)
        light.keep_alive()
    assert light.is_on()
    device.wait(lit=False)
    assert device.changes()[-1].why == "watchdog"


@posix
def test_it_counts_the_longest_time_itself(both: tuple[Laser, Light]) -> None:
    device, light = both
    light.on(20.0)
    device.wait(lit=False)
    assert device.changes()[-1].why == "time"
    assert not light.is_on()


@posix
def test_an_open_interlock_is_told_and_nothing_goes_on(both: tuple[Laser, Light]) -> None:
    device, light = both
    device.suffer("interlock open")
    assert not light.interlock_closed()
    with pytest.raises(DeviceError, match=f"{device.port}: 'ON 60000' was answered by 'OPEN', not 'OK'"):
        light.on()
    assert not device.changes()


@posix
@pytest.mark.parametrize("wrong", ["garble 1", "halve 1", "silence 1"])
@pytest.mark.parametrize(("what", "command"), [("on", "ON"), ("off", "OFF"), ("is_on", "LIT"), ("keep_alive", "BEAT")])
def test_a_reply_that_is_none_is_told_in_time(both: tuple[Laser, Light], what: str, command: str, wrong: str) -> None:
    device, light = both
    device.suffer(wrong)
    began_s = time.monotonic()
    with pytest.raises(DeviceError, match=f"{device.port}: '{command}"):
        getattr(light, what)()
    assert time.monotonic() - began_s < TIMEOUT_MS / 1e3 + LATE_S
    light.off()
    assert not device.lit


@posix
def test_a_board_that_restarts_when_the_port_is_opened_is_waited_for(made: Callable[..., Light]) -> None:
    """For its first commands it is deaf."""
    box, heard = Lightbox(Emitter(io.StringIO())), [0]

    def answer(raw: bytes) -> bytes:
        heard[0] += 1
        return box.reply(raw.decode().strip()).encode() if heard[0] > 3 else b""

    with line(answer) as port:
        light = made(port, timeout_ms=30.0, start_ms=20_000.0)
        light.open()
        light.close()
        heard[0] = 0
        with pytest.raises(DeviceError, match=rf"{port}: 'ID\?' was not answered"):
            made(port, timeout_ms=30.0, start_ms=0.0).open()


@posix
def test_another_firmware_is_refused(made: Callable[..., Light]) -> None:
    with line(lambda _command: b"dmu-hw lightbox 2\r\n") as port:
        light = made(port)
        with pytest.raises(DeviceError, match=rf"'ID\?' was answered by 'dmu-hw lightbox 2', not '{NAME}'"):
            light.open()


@posix
def test_held_by_its_guardian_it_is_fed_and_needs_no_leave(tmp_path: Path) -> None:
    """The rig does not have to accept a light without a watchdog."""
    with laser(tmp_path, None, "lightbox") as device:
        rig = laser_rig(tmp_path, device.yaml())
        with rig.opened(), Guard(rig).light_on(2.0, 60_000.0):
            time.sleep(0.6)
            assert [change.lit for change in device.changes()] == [True]
        assert not rig.unwatched_light
        assert [change.why for change in device.changes()] == ["command", "command"]


# ---------------------------------------------------------------- the firmware itself

HOST = """
#include "box.h"
#include <iostream>
#include <string>
int main() {
  Box box;
  uint32_t now_ms;
  int closed;
  std::string line;
  while (std::cin >> now_ms >> closed && std::getline(std::cin, line)) {
    if (line == " new") {
      box = Box();
      std::cout << std::endl;
    } else {
      std::cout << box.hear(line.c_str() + 1, now_ms, closed != 0) << std::endl;
    }
  }
}
"""


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """Its logic as a program: at what time, interlock closed or not, command."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("there is no compiler")
    folder = tmp_path_factory.mktemp("firmware")
    (folder / "host.cpp").write_text(HOST)
    strict = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-fsanitize=undefined"]
    subprocess.run(
        [compiler, *strict, f"-I{FIRMWARE}", str(folder / "host.cpp"), "-o", str(folder / "host")], check=True
    )
    with subprocess.Popen([str(folder / "host")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


class Board:
    """The firmware, for the length of one conversation."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.hear(0, True, "new")

    def hear(self, now_ms: int, closed: bool, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{now_ms} {closed:d} {command}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


def test_the_firmware_needs_a_sign_of_life(firmware: subprocess.Popen[str]) -> None:
    board = Board(firmware)
    assert board.hear(1000, True, "ON 60000") == "OK"
    assert board.hear(1249, True, "LIT?") == "1"
    assert board.hear(1400, True, "NOISE") == "ERR"
    assert board.hear(1499, True, "LIT?") == "0", "noise is none"
    assert board.hear(1600, True, "BEAT") == "OK"
    assert board.hear(1601, True, "LIT?") == "0", "it does not come on by itself"


def test_the_firmware_ends_what_was_lit_for_a_time(firmware: subprocess.Popen[str]) -> None:
    board = Board(firmware)
    start_ms = 2**32 - 100
    assert board.hear(start_ms, True, "ON 200") == "OK"
    assert board.hear(start_ms + 99, True, "LIT?") == "1"
    assert board.hear(99, True, "LIT?") == "1", "the clock of the board has begun anew"
    assert board.hear(100, True, "LIT?") == "0"
    assert board.hear(101, True, "ON 60001") == "ERR"
    assert board.hear(102, True, "ON") == "ERR"


def test_the_firmware_goes_off_with_its_interlock(firmware: subprocess.Popen[str]) -> None:
    board = Board(firmware)
    assert board.hear(0, True, "ON 60000") == "OK"
    assert board.hear(10, False, "LOCK?") == "0"
    assert board.hear(20, True, "LIT?") == "0"
    assert board.hear(30, False, "ON 60000") == "OPEN"


WORDS = st.one_of(
    st.sampled_from(["ON 60000", "ON 301", "ON 99", "LIT?", "LIT?", "BEAT"]),
    st.sampled_from(["OFF", "LOCK?", "POWER?", "ID?", "POWER 1000", "POWER 007"]),
    st.sampled_from(
        ["", "ON", "ON ", "ON -1", "ON 1e3", "ON 60001", "ON 000099", "ON 4294967297", "POWER 1001", "off"]
    ),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=31),
)
WAITS_MS = st.sampled_from([0, 96, 100, 244, 248, 252, 256, 300, 304]) | st.integers(0, 80).map(lambda n: 4 * n)
"""Steps of 4 ms meet none of the limits exactly: what is counted in seconds is rounded."""
CLOSED = st.sampled_from([True] * 9 + [False])
STEPS = st.lists(st.tuples(WAITS_MS, CLOSED, WORDS), min_size=5, max_size=40)


@examples(max_examples=60, deadline=None)
@given(steps=STEPS.filter(lambda steps: all(command != "new" for _, _, command in steps)))
def test_twin_and_firmware_answer_alike(firmware: subprocess.Popen[str], steps: list[tuple[int, bool, str]]) -> None:
    now_ms = 0
    emitter = Emitter(io.StringIO(), clock_s=lambda: now_ms / 1e3)
    twin, board = Lightbox(emitter), Board(firmware)
    for wait_ms, closed, command in steps:
        now_ms += wait_ms
        emitter.lock(closed)
        emitter.look()
        said = twin.reply(command).strip()
        if said != "ERR":
            emitter.hear()
        assert board.hear(now_ms, closed, command) == said
