"""Any driver's light can be held by a guardian: one in a file beside the rig YAML, which writes down what it is told.
Nothing here needs a serial line, so that it holds on every system."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dmu_hw.errors import DeviceError, DeviceTimeout, InputError
from dmu_hw.guard import Guard
from dmu_hw.guardian import Charge, GuardedLight
from dmu_hw.guardian.keeper import SILENCE_S, Keeper
from dmu_hw.ports import Mount
from dmu_hw.rig import Rig, load_rig

DRIVER = """
import time
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import FilePath, Settings as _Settings


class Settings(_Settings):
    log: FilePath
    levels: tuple[float, ...] = (0.5, 1.0)


class Light:
    Settings = Settings
    guarded = True
    max_power_mw, watchdog_ms = 10.0, 400.0

    def __init__(self, settings, mount):
        self.settings, self.mount, self.lit = settings, mount, False

    def note(self, what):
        print("a driver that talks")
        with open(self.settings.log, "a") as file:
            file.write(f"{what}\\n")

    def open(self): self.off()
    def close(self): self.off()

    def set_power(self, power_mw):
        if power_mw == 1.0: raise DeviceTimeout("light", "said nothing")
        if power_mw == 2.0: raise ZeroDivisionError("a bug")
        if power_mw == 3.0: raise SystemExit("a worse bug")
        self.note(f"power {power_mw} of {self.settings.levels} at {self.mount.optics.object_pixel_um} um")

    def on(self, longest_ms):
        self.lit = True
        self.note("on")

    def off(self):
        self.lit = False
        self.note("off")

    def is_on(self): return self.lit
    def interlock_closed(self): return True
    def keep_alive(self): self.note("alive")
"""


@pytest.fixture
def made(rig_yaml: Callable[..., Path], tmp_path: Path) -> Callable[..., Rig]:
    def make(source: str = DRIVER, **light: Any) -> Rig:
        (tmp_path / "lamp.py").write_text(source)
        return Rig(load_rig(rig_yaml({"devices.light": {"driver": "lamp.py", "log": "lamp.txt", **light}})))

    return make


@pytest.fixture
def rig(made: Callable[..., Rig]) -> Iterator[Rig]:
    built = made()
    with built.opened():
        yield built


def notes(rig: Rig) -> list[str]:
    return (rig.file.path.parent / "lamp.txt").read_text().splitlines()


def wait_for(rig: Rig, note: str) -> None:
    until_s = time.monotonic() + 20.0
    while notes(rig)[-1] != note:
        assert time.monotonic() < until_s, f"no {note!r} but {notes(rig)}"
        time.sleep(0.005)


def test_it_is_told_everything_and_nothing_else(rig: Rig) -> None:
    light = rig.light
    light.set_power(5.0)
    light.on(60_000.0)
    assert light.is_on()
    light.off()
    assert not light.is_on()
    told = [note for note in notes(rig) if note != "alive"]
    assert told == ["off", "power 5.0 of (0.5, 1.0) at 0.5 um", "on", "off"]


def test_what_a_driver_raises_comes_back_as_an_error_of_the_device(rig: Rig) -> None:
    with pytest.raises(DeviceTimeout, match="light: said nothing"):
        rig.light.set_power(1.0)
    with pytest.raises(DeviceError, match="light: ZeroDivisionError: a bug"):
        rig.light.set_power(2.0)
    rig.light.on(60_000.0)
    assert rig.light.is_on(), "the guardian lives on"


def test_a_driver_that_ends_its_process_has_put_its_light_off(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.light.on(60_000.0)
    with caplog.at_level(logging.CRITICAL), pytest.raises(DeviceError, match="its guardian is gone"):
        rig.light.set_power(3.0)
    assert notes(rig)[-1] == "off"
    assert "LIGHT MAY BE ON" in caplog.text
    rig.open()
    assert not rig.light.is_on()


def test_it_is_kept_alive_while_it_is_on_and_no_longer(rig: Rig) -> None:
    rig.light.on(60_000.0)
    wait_for(rig, "alive")
    rig.light.off()
    assert not rig.light.is_on()
    before = len(notes(rig))
    time.sleep(0.3)
    assert len(notes(rig)) == before


def test_the_end_of_the_pipe_puts_it_off(rig: Rig) -> None:
    """As when the controller is killed."""
    light: Any = rig.light
    light.on(60_000.0)
    light._link._process.stdin.close()
    wait_for(rig, "off")
    assert light._link._process.wait(10.0) == 0


def test_silence_puts_it_off(rig: Rig) -> None:
    """As when the controller is frozen."""
    light: Any = rig.light
    light.on(60_000.0)
    began_s = time.monotonic()
    light._link.beat(False)
    wait_for(rig, "off")
    assert time.monotonic() - began_s >= 0.8 * SILENCE_S
    assert not light.is_on()
    with pytest.raises(DeviceError, match="its guardian put it off: no heartbeat"):
        light.interlock_closed()
    assert light.interlock_closed(), "told once"


def test_the_longest_time_is_that_of_the_rig(rig_yaml: Callable[..., Path], made: Callable[..., Rig]) -> None:
    made()
    light = {"driver": "lamp.py", "log": "lamp.txt"}
    with Rig(load_rig(rig_yaml({"devices.light": light, "limits.on_time_ms": 50.0}))).opened() as rig:
        rig.light.on()
        wait_for(rig, "off")


def test_a_guarded_light_is_one_that_can_be_kept_alive(made: Callable[..., Rig]) -> None:
    with pytest.raises(InputError, match="only a Light can be guarded, and it needs keep_alive"):
        made(DRIVER.replace("keep_alive", "feed"))


def test_what_the_guardian_builds_has_the_same_settings(made: Callable[..., Rig]) -> None:
    """Also such as are no plain JSON: a path beside the YAML, a tuple."""
    rig = made(levels=[0.1, 0.2, 1e-9])
    light = rig.light
    assert isinstance(light, GuardedLight)
    built: Any = Charge.model_validate_json(light.charge.model_dump_json()).built()
    part = rig.file.parts["light"]
    assert built.settings == part.settings
    assert built.mount.optics == rig.optics
    assert light.charge == Charge.of("lamp.py", Mount("light", rig.optics, part.document))


BOX = """
from dmu_hw.files import Settings as _Settings


class Connection:
    class Settings(_Settings):
        pass

    def __init__(self, settings, mount): self.gate = "high"
    def open(self): pass
    def close(self): pass
    def block_light(self): self.gate = "low"
"""


def test_whatever_can_block_the_light_does_when_it_does_not_obey(
    rig_yaml: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "box.py").write_text(BOX)
    with Rig(load_rig(rig_yaml({"connections.box": {"driver": "box.py"}}))).opened() as rig:
        assert list(rig.blockers) == ["box"]
        box: Any = rig.connection("box")
        monkeypatch.setattr(rig.light, "off", lambda: None)
        guard = Guard(rig)
        rig.light.on()
        with pytest.raises(DeviceError, match="SWITCH IT OFF BY HAND; no light now by mirrors, box"):
            guard.off()
        assert box.gate == "low"
        monkeypatch.undo()


class Dead:
    """A light that nobody reaches any more."""

    watchdog_ms = None

    def off(self) -> None:
        raise DeviceError("light", "COM3 is gone")

    def is_on(self) -> bool:
        raise DeviceError("light", "COM3 cannot tell")


def test_a_light_that_is_out_of_reach_is_told_once_and_tried_often(caplog: pytest.LogCaptureFixture) -> None:
    dead: Any = Dead()
    keeper = Keeper(dead, "light", lambda _answer: None)
    with caplog.at_level(logging.WARNING):
        assert not any(keeper._put_off() for _ in range(20))
    assert caplog.messages == ["light: COM3 is gone", "light: COM3 cannot tell"]
    assert keeper._tries == 20
