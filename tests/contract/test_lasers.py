"""Lasers that can be bought, each on a twin that answers as its driver believes: they obey, and whatever comes back,
an error names port and command in time, and the light is off.

Here the drivers run in the test's own process but for the last tests, where their guardians hold them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_rig
from lasers import Laser, laser, laser_rig, posix
from lines import line
from pydantic import ValidationError

from dmu_hw.drivers import cobolt, ibeam, obis
from dmu_hw.errors import DeviceError, InputError
from dmu_hw.files import Document
from dmu_hw.guard import Guard
from dmu_hw.lines import LineLight
from dmu_hw.ports import Light as LightPort
from dmu_hw.ports import Mount

pytestmark = posix
TIMEOUT_MS = 150.0
LATE_S = 1.0
"""What an answer may take on a machine that is busy with other things."""
MODULES: dict[str, Any] = {"obis": obis, "cobolt": cobolt, "ibeam": ibeam}
WELL = ("garble 0", "halve 0", "silence 0", "refuse 0", "fault off", "interlock closed")


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., LineLight]:
    optics = bench_rig(tmp_path).optics

    def make(dialect: str, port: str, **changes: Any) -> LineLight:
        keys = json.dumps({"port": port, "max_power_mw": 10.0, "timeout_ms": TIMEOUT_MS, **changes})
        driver = MODULES[dialect].Light
        built: LineLight = driver(driver.Settings.model_validate_json(keys), Mount("light", optics, _DOCUMENT))
        return built

    return make


_DOCUMENT = Document({}, {}, Path("rig.yaml"))


@pytest.fixture(scope="module", params=MODULES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    """One for all: a process takes its time to start."""
    with laser(tmp_path_factory.mktemp("laser"), None, request.param) as device:
        yield device


@pytest.fixture
def device(shared: Laser) -> Laser:
    """As good as new."""
    for well in WELL:
        shared.suffer(well)
    shared.log.write_text("")
    return shared


@pytest.fixture
def both(device: Laser, made: Callable[..., LineLight]) -> Iterator[tuple[Laser, LineLight]]:
    """A laser, and the light that speaks with it, opened."""
    light = made(device.dialect, device.port)
    try:
        light.open()
        yield device, light
    finally:
        for well in WELL:
            device.suffer(well)
        light.close()  # also if it did not open: the port would be held for the tests after this one


# ---------------------------------------------------------------- they obey


def test_it_is_a_light(both: tuple[Laser, LineLight]) -> None:
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
    assert [(change.lit, change.power_w) for change in device.changes()] == [(True, 0.0025), (False, 0.0025)]


def test_what_was_left_on_is_off_when_opened_and_when_closed(both: tuple[Laser, LineLight]) -> None:
    device, light = both
    light.on()
    light.open()
    assert not device.lit
    light.on()
    light.close()
    assert not device.lit
    light.close()
    light.open()


def test_what_is_lost_on_the_way_is_given_by_the_laser(device: Laser, made: Callable[..., LineLight]) -> None:
    light = made(device.dialect, device.port, transmission=0.5)
    light.open()
    light.set_power(5.0)
    light.on()
    light.close()
    assert device.changes()[0].power_w == pytest.approx(0.01)


def test_power_beyond_its_own_is_refused(device: Laser, made: Callable[..., LineLight]) -> None:
    light = made(device.dialect, device.port, max_power_mw=200.0)

    def overdo() -> None:
        light.open()
        light.set_power(150.0)

    with pytest.raises(DeviceError, match=r"light: /.*(gives 100 mW|out of range|SYS-E)"):
        overdo()
    for power_mw in (-0.1, 200.1):
        with pytest.raises(DeviceError, match="power must be 0 to 200 mW"):
            light.set_power(power_mw)
    light.close()
    assert not device.lit


def test_an_interlock_that_opens_is_told(both: tuple[Laser, LineLight]) -> None:
    device, light = both
    light.on()
    device.suffer("interlock open")
    assert not light.is_on()
    if device.dialect == "ibeam":
        with pytest.raises(DeviceError, match=f"{device.port}: 'la on' was refused: %SYS-E"):
            light.on()
        return
    assert not light.interlock_closed()
    device.suffer("interlock closed")
    if device.dialect == "cobolt":
        with pytest.raises(DeviceError, match="is in a fault state: its interlock was opened"):
            light.interlock_closed()
        light._line.tell("cf", "OK")
    assert light.interlock_closed()
    assert not light.is_on()


def test_a_fault_of_the_laser_is_told(both: tuple[Laser, LineLight]) -> None:
    device, light = both
    light.on()
    device.suffer("fault on")
    assert not light.is_on()
    use = light.on if device.dialect == "ibeam" else light.interlock_closed
    with pytest.raises(DeviceError, match=f"{device.port}: (is in a fault state: .*temperature|'la on' was refused)"):
        use()
    light.off()
    assert not device.lit


# ---------------------------------------------------------------- what is their own


def test_an_obis_that_waits_after_on_is_refused(made: Callable[..., LineLight], tmp_path: Path) -> None:
    with laser(tmp_path, None, "obis") as device:
        device.suffer("switch SYST:CDRH ON")
        light = made("obis", device.port)
        with pytest.raises(DeviceError, match="gives light only 5 s after ON: its CDRH delay is on"):
            light.open()
        device.suffer("switch SYST:CDRH OFF")
        light.open()
        with pytest.raises(DeviceError, match=r"'SOUR:POW:LEV:IMM:AMPL 0.000500' was answered by 'ERR-100'"):
            light.set_power(0.5)
        light.close()


def test_a_cobolt_that_only_its_key_lights_is_refused(made: Callable[..., LineLight], tmp_path: Path) -> None:
    with laser(tmp_path, None, "cobolt") as device:
        device.suffer("switch @cobas 1")
        light = made("cobolt", device.port)
        with pytest.raises(DeviceError, match="its autostart is on, and only its key lights it"):
            light.open()
        with pytest.raises(DeviceError, match="'l1' was answered by 'Syntax error: not allowed in autostart"):
            light.on()
        light.close()


@pytest.mark.parametrize("channel", [1, 2])
def test_an_ibeam_uses_one_of_its_levels(made: Callable[..., LineLight], tmp_path: Path, channel: int) -> None:
    """Whatever stood in the other one before does not add to it."""
    with laser(tmp_path, None, "ibeam") as device:
        light = made("ibeam", device.port, channel=channel)
        light.open()
        light.set_power(3.0)
        light.on()
        light.close()
        assert [change.power_w for change in device.changes()] == [0.003, 0.003]


def test_an_obis_that_gives_light_is_on_whatever_it_was_told(made: Callable[..., LineLight]) -> None:
    said = {"SOUR:AM:STAT?": "OFF", "SYST:STAT?": "C8001002"}
    with line(lambda command: f"{said.get(command.decode().strip(), 'OK')}\r\nOK\r\n".encode()) as port:
        light = made("obis", port)
        light._line.open()
        assert light.is_on()
        said["SYST:STAT?"] = "C8000008"
        assert not light.is_on()
        said["SOUR:AM:STAT?"] = "ON"
        assert light.is_on()


SAID = {
    "obis": {"SOUR:POW:LEV:IMM:AMPL?": "0.00700\r\nOK"},
    "cobolt": {"p?": "0.0070"},
    "ibeam": {"sh level pow": "\r\nCH1, PWR: 5.000 mW\r\nCH2, PWR: 7.000 mW\r\n[OK]"},
}


@pytest.mark.parametrize("dialect", MODULES)
def test_a_power_that_was_not_taken_is_told(made: Callable[..., LineLight], dialect: str) -> None:
    """It says OK, and reads back another one."""
    done = "\r\n[OK]" if dialect == "ibeam" else "OK"
    with line(lambda command: f"{SAID[dialect].get(command.decode().strip(), done)}\r\n".encode()) as port:
        light = made(dialect, port)
        light._line.open()
        light.set_power(7.0)
        with pytest.raises(DeviceError, match=f"{port}: was told to give 5 mW itself, and says .* set to 7 mW"):
            light.set_power(5.0)


ODD = {
    "obis": {
        "SOUR:AM:STAT?": ("OFF", "LOCK\r\nOK", "ERR-100"),
        "SYST:STAT?": ("C8\r\nOK", "OK"),
    },
    "cobolt": {"l?": ("2", ""), "ilk?": ("open",), "f?": ("2",)},
    "ibeam": {"sta la": ("\r\n[OK]", "\r\nON\r\nOFF\r\n[OK]", "\r\n%SYS-F-001, broken\r\n[OK]")},
}


@pytest.mark.parametrize(
    ("dialect", "question", "reply"),
    [(dialect, question, reply) for dialect, said in ODD.items() for question in said for reply in said[question]],
)
def test_a_reply_that_nobody_has_told_of_is_an_error(
    made: Callable[..., LineLight], dialect: str, question: str, reply: str
) -> None:
    """All other questions are answered as by a laser that is off and well."""
    well = {"SOUR:AM:STAT?": "OFF\r\nOK", "SYST:STAT?": "C8000008\r\nOK", "l?": "0", "ilk?": "0", "f?": "0"}
    said = {**well, question: reply}
    with line(lambda command: f"{said.get(command.decode().strip(), 'OK')}\r\n".encode()) as port:
        light = made(dialect, port)
        light._line.open()

        def look() -> None:
            light.is_on()
            light.interlock_closed()

        with pytest.raises(DeviceError) as caught:
            look()
        assert port in str(caught.value)
        assert question in str(caught.value)


# ---------------------------------------------------------------- the line


COMMANDS = {
    "obis": {"on": "SOUR:AM:STAT ON", "off": "SOUR:AM:STAT OFF", "is_on": "SOUR:AM:STAT", "set_power": "SOUR:POW:LEV"},
    "cobolt": {"on": "'l1'", "off": "'l0'", "is_on": "'l?'", "set_power": "'p 0.002"},
    "ibeam": {"on": "'la on'", "off": "'la off'", "is_on": "'sta la'", "set_power": "'ch 2 pow 2000 mic'"},
}


@pytest.mark.parametrize("wrong", ["garble 1", "halve 1", "silence 1"])
@pytest.mark.parametrize("what", ["on", "off", "is_on", "set_power"])
def test_a_reply_that_is_none_is_told_in_time(both: tuple[Laser, LineLight], what: str, wrong: str) -> None:
    """And the next command is answered by its own reply."""
    device, light = both
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


@pytest.mark.parametrize("wrong", ["garble 100", "halve 100", "silence 100"])
def test_a_laser_that_cannot_be_understood_does_not_open(
    device: Laser, made: Callable[..., LineLight], wrong: str
) -> None:
    light = made(device.dialect, device.port)
    device.suffer(wrong)
    with pytest.raises(DeviceError, match=f"light: {device.port}: .* was"):
        light.open()
    assert not device.lit
    for well in WELL:
        device.suffer(well)
    light.close()


@pytest.mark.parametrize("dialect", MODULES)
def test_an_unplugged_cable_is_told(tmp_path: Path, made: Callable[..., LineLight], dialect: str) -> None:
    with laser(tmp_path, None, dialect) as device:
        light = made(dialect, device.port)
        light.open()
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


@pytest.fixture(scope="module", params=MODULES)
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Laser, Any]]:
    """A laser, and a rig whose light it is."""
    folder = tmp_path_factory.mktemp("bench")
    with laser(folder, None, request.param) as device:
        rig = laser_rig(folder, device.yaml(), unwatched_light="accept")
        with rig.opened():
            yield device, rig


@pytest.mark.parametrize("wrong", ["nothing", "refuse 2", "garble 1", "halve 1", "silence 1"])
def test_it_is_dark_after_whatever_goes_wrong(bench: tuple[Laser, Any], wrong: str) -> None:
    device, rig = bench
    guard = Guard(rig)

    def image() -> None:
        with guard.light_on(2.0, 60_000.0):
            assert device.lit
            if wrong != "nothing":
                device.suffer(wrong)
            raise StopError

    with pytest.raises(StopError):
        image()
    assert not device.lit
    assert not guard.fault


def test_a_laser_that_does_not_obey_is_a_fault_and_told_again_until_it_does(bench: tuple[Laser, Any]) -> None:
    device, rig = bench
    guard = Guard(rig)

    def image() -> None:
        with guard.light_on(2.0, 60_000.0):
            device.suffer("refuse 20")

    with pytest.raises(DeviceError, match="SWITCH IT OFF BY HAND"):
        image()
    assert guard.fault
    device.wait(lit=False)


def test_without_its_controller_it_is_dark(bench: tuple[Laser, Any]) -> None:
    """As when the program is killed: the pipe to the guardian closes. The laser itself would stay on."""
    device, rig = bench
    rig.light.set_power(2.0)
    rig.light.on(60_000.0)
    assert device.lit
    rig.light._link._process.stdin.close()
    device.wait(lit=False)
    rig.light._link._process.wait(10.0)
    rig.light.open()
    assert not rig.light.is_on()


def test_one_without_a_watchdog_must_be_accepted(bench: tuple[Laser, Any]) -> None:
    _, rig = bench
    assert rig.light.watchdog_ms is None
    assert rig.unwatched_light


# ---------------------------------------------------------------- what a rig may say


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"channel": 3}, "should be 1 or 2"),
        ({"transmission": 0.0}, "greater than 0"),
        ({"timeout_ms": 60_000.0}, "less than or equal to 2000"),
        ({"max_power_mw": 0.0}, "greater than 0"),
        ({"set_on": "FIRE"}, "Extra inputs are not permitted"),
    ],
)
def test_what_could_not_work_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ibeam.IbeamSettings.model_validate({"port": "COM1", "max_power_mw": 1.0, **changes})


@pytest.mark.parametrize("dialect", MODULES)
def test_a_key_of_another_driver_is_named(tmp_path: Path, dialect: str) -> None:
    keys = {"driver": dialect, "port": "COM1", "max_power_mw": 1.0, "watchdog_ms": 250.0}
    with pytest.raises(InputError, match=r"bench.yaml:\d+: devices.light.watchdog_ms"):
        laser_rig(tmp_path, keys, unwatched_light="accept")
