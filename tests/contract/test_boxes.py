"""Boxes of others that gate a light, each on a twin that obeys as the firmware does: outputs, analogue levels, what is
left of a command that came only in part, and darkness after whatever goes wrong."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_rig
from hypothesis import given
from hypothesis import strategies as st
from lasers import Laser, laser, laser_rig, posix
from lines import line
from pydantic import ValidationError

from dmu_hw.drivers import mmarduino, triggerscope
from dmu_hw.errors import DeviceError
from dmu_hw.files import Document
from dmu_hw.guard import Guard
from dmu_hw.ports import Light as LightPort
from dmu_hw.ports import Mount
from dmu_hw.ports import Shutter as ShutterPort
from dmu_hw.twins.boxes import MmArduino, TriggerScope
from dmu_hw.twins.emitter import Emitter

TIMEOUT_MS = 150.0
LATE_S = 1.0
"""What an answer may take on a machine that is busy with other things."""
MODULES: dict[str, Any] = {"triggerscope": triggerscope, "mmarduino": mmarduino}
OUTPUT: dict[str, dict[str, Any]] = {"triggerscope": {"lines": [1]}, "mmarduino": {"pins": [8]}}
SECOND: dict[str, dict[str, Any]] = {"triggerscope": {"lines": [1, 12]}, "mmarduino": {"pins": [8, 11]}}
WELL = ("garble 0", "halve 0", "silence 0", "refuse 0", "fault off", "interlock closed")
_DOCUMENT = Document({}, {}, Path("rig.yaml"))


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Any]:
    optics = bench_rig(tmp_path).optics

    def make(dialect: str, port: str, role: str = "Light", **changes: Any) -> Any:
        own = {"max_power_mw": 10.0, "settle_ms": 0.0} if role == "Light" else {"switch_ms": 1.0}
        keys = {"port": port, "timeout_ms": TIMEOUT_MS, "start_ms": 0.0, **own, **OUTPUT[dialect], **changes}
        found = getattr(MODULES[dialect], role)
        return found(found.Settings.model_validate_json(json.dumps(keys)), Mount("light", optics, _DOCUMENT))

    return make


@pytest.fixture(scope="module", params=MODULES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    """One for all: a process takes its time to start."""
    with laser(tmp_path_factory.mktemp("box"), None, request.param) as device:
        yield device


@pytest.fixture
def device(shared: Laser) -> Laser:
    """As good as new."""
    for well in WELL:
        shared.suffer(well)
    shared.log.write_text("")
    return shared


@pytest.fixture
def both(device: Laser, made: Callable[..., Any]) -> Iterator[tuple[Laser, Any]]:
    """A box, and the light that it gates, opened."""
    light = made(device.dialect, device.port, dac=1)
    try:
        light.open()
        yield device, light
    finally:
        for well in WELL:
            device.suffer(well)
        light.close()  # also if it did not open: the port would be held for the tests after this one


# ---------------------------------------------------------------- they obey


@posix
def test_it_is_a_light(both: tuple[Laser, Any]) -> None:
    device, light = both
    assert isinstance(light, LightPort)
    assert light.guarded
    assert light.watchdog_ms is None
    assert not light.is_on()
    assert light.interlock_closed()
    light.set_power(2.5)
    light.on(1000.0)
    assert light.is_on()
    assert device.lit
    light.keep_alive()
    light.off()
    assert not light.is_on()
    changes = device.changes()
    assert [change.lit for change in changes] == [True, False]
    assert [change.power_w for change in changes] == pytest.approx([0.0025] * 2, rel=1e-3)


@posix
def test_what_was_left_on_is_off_when_opened_and_when_closed(both: tuple[Laser, Any]) -> None:
    device, light = both
    light.set_power(5.0)
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
def test_without_an_analogue_output_it_has_one_power(device: Laser, made: Callable[..., Any]) -> None:
    light = made(device.dialect, device.port)
    light.open()
    with pytest.raises(DeviceError, match=f"{device.port}: has no analogue output and would give all its power"):
        light.on()
    with pytest.raises(DeviceError, match="has no analogue output, and gives 10 mW or none, not 5 mW"):
        light.set_power(5.0)
    light.set_power(10.0)
    light.on()
    assert light.is_on()
    light.set_power(0.0)
    light.off()
    light.close()
    assert [change.lit for change in device.changes()] == [True, False]


@posix
def test_outputs_of_one_light_go_together(device: Laser, made: Callable[..., Any]) -> None:
    light = made(device.dialect, device.port, **SECOND[device.dialect])
    light.open()
    light.set_power(10.0)
    light.on()
    assert light.is_on()
    light.off()
    assert not light.is_on()
    light.close()


@posix
def test_it_is_a_shutter(device: Laser, made: Callable[..., Any]) -> None:
    shutter = made(device.dialect, device.port, "Shutter")
    assert isinstance(shutter, ShutterPort)
    shutter.open()
    assert not shutter.is_open()
    shutter.set_open(True)
    assert shutter.is_open()
    assert device.lit
    shutter.block_light()
    assert not device.lit
    shutter.set_open(True)
    shutter.close()
    shutter.close()
    assert not device.lit
    shutter.open()
    device.suffer("refuse 1")
    shutter.set_open(True)
    with pytest.raises(DeviceError, match="was told to be closed, and its output says that it is not"):
        shutter.block_light()
    shutter.close()
    assert not device.lit


@posix
def test_an_input_of_the_arduino_can_be_an_interlock(made: Callable[..., Any], tmp_path: Path) -> None:
    with laser(tmp_path, None, "mmarduino") as device:
        light = made("mmarduino", device.port, interlock_input=0)
        light.open()
        assert light.interlock_closed()
        device.suffer("interlock open")
        assert not light.interlock_closed()
        light.close()


@posix
@pytest.mark.parametrize(
    ("dialect", "switch", "says"),
    [
        ("triggerscope", "name ARC TRIGGERSCOPE 16 R3C v.604", "it has the firmware for Micro-Manager"),
        ("mmarduino", "name MM-Pico", "was not answered by 'MM-Ard': it has another firmware"),
        ("mmarduino", "version five", "'command 31' was answered by 'five', not by a number"),
        ("mmarduino", "dacs 0", "its firmware was built for 0 analogue outputs, asked for number 1"),
    ],
)
def test_another_firmware_is_refused(
    made: Callable[..., Any], tmp_path: Path, dialect: str, switch: str, says: str
) -> None:
    with laser(tmp_path, None, dialect) as device:
        device.suffer(f"switch {switch}")
        light = made(dialect, device.port, dac=1)
        with pytest.raises(DeviceError, match=f"{device.port}: .*{says}"):
            light.open()
        light.close()


@posix
def test_a_board_that_is_starting_is_waited_for(made: Callable[..., Any]) -> None:
    """For its first commands it is deaf."""
    board, heard = MmArduino(Emitter(io.StringIO())), [0]

    def answer(raw: bytes) -> bytes:
        heard[0] += 1
        commands = board.split(raw)[0] if heard[0] > 3 else []
        return b"".join(board.reply(command.decode("latin-1")).encode("latin-1") for command in commands)

    with line(answer) as port:
        light = made("mmarduino", port, timeout_ms=30.0, start_ms=20_000.0)
        light.open()
        light.close()
        heard[0] = -1000
        with pytest.raises(DeviceError, match=f"{port}: 'command 30' was not answered"):
            made("mmarduino", port, timeout_ms=30.0).open()


# ---------------------------------------------------------------- what came only in part


@posix
@pytest.mark.parametrize("cut", [b"\x01", b"\x03", b"\x03\x00", b"\x03\x00\x0f"])
def test_the_rest_of_a_command_that_was_cut_lights_nothing(device: Laser, made: Callable[..., Any], cut: bytes) -> None:
    """To the next command, which reads the pins, the firmware would listen as to the pins that are to be set."""
    if device.dialect != "mmarduino":
        pytest.skip("lines have ends")
    light = made("mmarduino", device.port, dac=1)
    light.open()
    light.set_power(5.0)
    light._wire._serial.write(cut)
    light._wire._doubtful = True
    assert not light.is_on()
    light.off()
    assert not light.is_on()
    light.set_power(5.0)
    light.on()
    assert light.is_on()
    light.close()
    assert [change.lit for change in device.changes()] == [True, False]


@posix
def test_what_answers_the_rest_of_a_line_is_no_answer_to_the_next(made: Callable[..., Any]) -> None:
    """It comes as late as it likes."""
    scope, late = TriggerScope(Emitter(io.StringIO())), [b""]

    def answer(raw: bytes) -> bytes:
        said = b""
        for command in scope.split(raw)[0]:
            if command:
                said += late[0] + scope.reply(command.decode()).encode()
                late[0] = b""
            else:
                late[0] = scope.reply("").encode()
        return said

    with line(answer) as port:
        light = made("triggerscope", port)
        light.open()
        light.set_power(10.0)
        light.on()
        light._wire._doubtful = True
        light.off()
        assert late[0] == b""
        assert not light.is_on()
        light.close()


@posix
@pytest.mark.parametrize("missing", [1, 2, 3])
def test_after_a_write_that_was_cut_off_is_off_at_once(
    both: tuple[Laser, Any], monkeypatch: pytest.MonkeyPatch, missing: int
) -> None:
    """The line takes only the beginning of a command, then fails; the next one is OFF."""
    import serial

    device, light = both
    light.set_power(5.0)
    light.on()
    port = light._wire._serial
    real = port.write

    def write(data: bytes) -> None:
        real(data[:-missing])
        monkeypatch.undo()
        raise serial.SerialTimeoutException("write timeout")

    monkeypatch.setattr(port, "write", write)
    with pytest.raises(DeviceError, match=f"{device.port}: '.*' could not be sent"):
        light.set_power(9.0)
    light.off()
    assert not light.is_on()
    assert not device.lit


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=12))
def test_zeros_end_whatever_an_arduino_was_told(told: list[bytes]) -> None:
    """And leave its pins low, if they were, or were being set."""
    emitter = Emitter(io.StringIO())
    board = MmArduino(emitter, lambda: 0.0)
    rest = b""
    for part in told:
        commands, rest = board.split(rest + part)
        for command in commands:
            board.reply(command.decode("latin-1"))
    before = emitter.lit
    commands, rest = board.split(rest + bytes(4))
    for command in commands:
        board.reply(command.decode("latin-1"))
    assert rest == b""
    assert emitter.lit <= before


def test_a_missing_byte_is_waited_for_for_a_second() -> None:
    now_s = [0.0]
    board = MmArduino(Emitter(io.StringIO()), lambda: now_s[0])
    assert board.split(b"\x01") == ([], b"\x01")
    now_s[0] = 0.9
    assert board.split(b"\x01\x02") == ([b"\x01\x02"], b"")
    board.split(b"\x01")
    now_s[0] = 2.0
    assert board.split(b"\x01\x02") == ([b"\x02"], b"")


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20))
def test_a_triggerscope_lights_by_nothing_but_its_command(text: str) -> None:
    emitter = Emitter(io.StringIO())
    TriggerScope(emitter).reply(text)
    assert emitter.lit is (text.startswith(("SDO0-", "SDO00-")) and int(text.partition("-")[2]) % 2 == 1)


# ---------------------------------------------------------------- the line


COMMANDS = {
    "triggerscope": {"on": "SDO0-1", "off": "SDO0-0", "is_on": "STAT", "set_power": "SAO1-13107"},
    "mmarduino": {"on": "command 1 1", "off": "command 1 0", "is_on": "command 2", "set_power": "command 3 0 3 51"},
}


@posix
@pytest.mark.parametrize("wrong", ["garble 1", "halve 1", "silence 1"])
@pytest.mark.parametrize("what", ["on", "off", "is_on", "set_power"])
def test_a_reply_that_is_none_is_told_in_time(both: tuple[Laser, Any], what: str, wrong: str) -> None:
    """And the next command is answered by its own reply."""
    device, light = both
    light.set_power(5.0)
    light.on()
    device.suffer(wrong)
    began_s = time.monotonic()
    with pytest.raises(DeviceError) as caught:
        getattr(light, what)(*([2.0] if what == "set_power" else []))
    assert time.monotonic() - began_s < TIMEOUT_MS / 1e3 + LATE_S
    assert caught.value.device == "light"
    assert device.port in str(caught.value)
    assert COMMANDS[device.dialect][what] in str(caught.value)
    light.off()
    assert not light.is_on()
    assert not device.lit


@posix
def test_an_unplugged_cable_is_told(tmp_path: Path, made: Callable[..., Any]) -> None:
    for dialect in MODULES:
        (tmp_path / dialect).mkdir()
        with laser(tmp_path / dialect, None, dialect) as device:
            light = made(dialect, device.port)
            light.open()
            light.set_power(10.0)
            light.on()
            device.suffer("unplug")
            for call in (light.is_on, light.off, light.on):
                began_s = time.monotonic()
                with pytest.raises(DeviceError, match=f"{device.port} is gone|{device.port}: .* was not answered"):
                    call()
                assert time.monotonic() - began_s < TIMEOUT_MS / 1e3 + LATE_S
            with pytest.raises(DeviceError):
                light.close()
            light.close()


# ---------------------------------------------------------------- held by a guardian


class StopError(Exception):
    """What comes in between."""


@posix
def test_it_is_dark_after_whatever_goes_wrong(device: Laser, tmp_path: Path) -> None:
    keys = device.yaml(**OUTPUT[device.dialect], dac=1, settle_ms=0.0, start_ms=0.0)
    rig = laser_rig(tmp_path, keys, unwatched_light="accept")
    with rig.opened():
        assert rig.unwatched_light
        for wrong in ("nothing", "refuse 2", "garble 1", "halve 1", "silence 1"):
            guard = Guard(rig)

            def image(guard: Guard = guard, wrong: str = wrong) -> None:
                with guard.light_on(2.0, 60_000.0):
                    assert device.lit
                    if wrong != "nothing":
                        device.suffer(wrong)
                    raise StopError

            with pytest.raises(StopError):
                image()
            assert not device.lit, wrong
            assert not guard.fault, wrong
        rig.light.set_power(2.0)
        rig.light.on(60_000.0)
        assert device.lit
        light: Any = rig.light
        light._link._process.stdin.close()  # as when the program is killed
        device.wait(lit=False)
        light._link._process.wait(10.0)
        light.open()
        assert not light.is_on()


# ---------------------------------------------------------------- what a rig may say


@pytest.mark.parametrize(
    ("dialect", "changes", "says"),
    [
        ("triggerscope", {"lines": []}, "at least 1 item"),
        ("triggerscope", {"lines": [17]}, "less than or equal to 16"),
        ("triggerscope", {"lines": [1, 1]}, "names an output twice"),
        ("triggerscope", {"dac": 17}, "less than or equal to 16"),
        ("triggerscope", {"dac_range": "-5-5V"}, "'0-5V' or '0-10V'"),
        ("mmarduino", {"pins": [7]}, "greater than or equal to 8"),
        ("mmarduino", {"pins": [8, 8]}, "names an output twice"),
        ("mmarduino", {"dac": 0}, "greater than or equal to 1"),
        ("mmarduino", {"interlock_input": 6}, "less than or equal to 5"),
        ("mmarduino", {"lines": [1]}, "Extra inputs are not permitted"),
    ],
)
def test_what_could_not_work_is_refused(dialect: str, changes: dict[str, Any], says: str) -> None:
    keys = {"port": "COM1", "max_power_mw": 1.0, **OUTPUT[dialect], **changes}
    with pytest.raises(ValidationError, match=says):
        MODULES[dialect].LightSettings.model_validate_json(json.dumps(keys))
