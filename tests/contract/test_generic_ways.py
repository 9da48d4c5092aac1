"""Filter wheel and shutter by text commands: they obey, and whatever comes back over the line, an error names port and
command in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_rig
from lasers import posix
from lines import line
from pydantic import ValidationError

from dmu_hw.drivers.generic import Filter, Shutter
from dmu_hw.drivers.generic.settings import FilterSettings, ShutterSettings
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.files import Document
from dmu_hw.ports import Filter as FilterPort
from dmu_hw.ports import Mount
from dmu_hw.ports import Shutter as ShutterPort

pytestmark = posix
TIMEOUT_MS = 60.0
LATE_S = 1.0
"""What an answer may take on a machine that is busy with other things."""
WHEEL: dict[str, Any] = {
    "line_end": "\n",
    "timeout_ms": TIMEOUT_MS,
    "acknowledged_by": "OK",
    "positions": {
        "GFP": {"select": "GO 1", "at": ("1",)},
        "RFP": {"select": "GO 2", "at": ("2", "02")},
        "none": {"select": "GO 3", "at": ("3",)},
    },
    "ask": "WHERE?",
    "moving": ("BUSY",),
    "switch_ms": 20.0,
}
GATE: dict[str, Any] = {
    "line_end": "\n",
    "timeout_ms": TIMEOUT_MS,
    "acknowledged_by": "OK",
    "set_open": "OPEN",
    "set_closed": "SHUT",
    "state": {"ask": "STATE?", "open": ("O",), "closed": ("C",), "moving": ("M",)},
    "switch_ms": 20.0,
}


@dataclass
class Twin:
    """A box that goes from one state to another when it is told; what it says on the way is `moving`."""

    questions: tuple[str, ...]
    states: dict[str, str]
    """Command → what it says of itself when it is done."""
    says: str
    moving: str
    takes_s: float = 0.01
    stuck: bool = False
    noise: bytes | None = None
    """Instead of every reply."""
    log: list[str] = field(default_factory=list)
    arrives_s: float = 0.0

    def answer(self, raw: bytes) -> bytes:
        command = raw.decode().strip()
        self.log.append(command)
        if self.noise is not None:
            return self.noise
        if command in self.questions:
            return f"{self.says if time.monotonic() >= self.arrives_s else self.moving}\n".encode()
        if command not in self.states:
            return b"ERR\n"
        if not self.stuck and self.says != self.states[command]:
            self.says, self.arrives_s = self.states[command], time.monotonic() + self.takes_s
        return b"OK\n"


def mount(name: str, folder: Path) -> Mount:
    return Mount(name, bench_rig(folder).optics, Document({}, {}, Path("rig.yaml")))


@pytest.fixture
def wheel(tmp_path: Path) -> Iterator[tuple[Twin, Callable[..., Filter]]]:
    """A wheel, and how to make the driver that speaks with it."""
    twin = Twin(("WHERE?",), {"GO 1": "1", "GO 2": "02", "GO 3": "3"}, "1", "BUSY")
    with line(twin.answer) as port:
        yield (
            twin,
            lambda **changes: Filter(
                FilterSettings.model_validate({**WHEEL, "port": port, **changes}), mount("filter", tmp_path)
            ),
        )


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[tuple[Twin, Callable[..., Shutter]]]:
    twin = Twin(("STATE?",), {"OPEN": "O", "SHUT": "C"}, "O", "M")
    with line(twin.answer) as port:
        yield (
            twin,
            lambda **changes: Shutter(
                ShutterSettings.model_validate({**GATE, "port": port, **changes}), mount("shutter", tmp_path)
            ),
        )


# ---------------------------------------------------------------- they obey


def test_it_is_a_filter(wheel: tuple[Twin, Callable[..., Filter]]) -> None:
    twin, made = wheel
    device = made(set_up=("GO 3",))
    assert isinstance(device, FilterPort)
    assert device.positions == ("GFP", "RFP", "none")
    assert (device.switch_ms("GFP", "RFP"), device.switch_ms("RFP", "RFP")) == (20.0, 0.0)
    device.open()
    assert twin.log[0] == "GO 3"
    for position, says in (("RFP", "02"), ("GFP", "1"), ("none", "3")):
        device.select(position, 2000.0)
        assert (device.selected(), twin.says) == (position, says)
    device.close()
    device.close()
    assert twin.says == "3", "it stays where it is"


def test_it_is_a_shutter(gate: tuple[Twin, Callable[..., Shutter]]) -> None:
    twin, made = gate
    device = made()
    assert isinstance(device, ShutterPort)
    device.open()
    assert twin.says == "C", "whoever was here before has left it open"
    device.set_open(True)
    assert device.is_open()
    device.block_light()
    assert not device.is_open()
    device.set_open(True)
    device.close()
    assert twin.says == "C"
    device.close()


def test_a_wheel_that_does_not_say_that_it_turns_is_given_its_time(wheel: tuple[Twin, Callable[..., Filter]]) -> None:
    """It says at once where it is only going to."""
    twin, made = wheel
    twin.takes_s = 0.0
    device = made(moving=(), switch_ms=120.0)
    device.open()
    began_s = time.monotonic()
    device.select("RFP", 1000.0)
    assert time.monotonic() - began_s >= 0.12
    device.close()


# ---------------------------------------------------------------- they are not obeyed


def test_a_wheel_that_is_stuck_is_told(wheel: tuple[Twin, Callable[..., Filter]]) -> None:
    twin, made = wheel
    device = made()
    device.open()
    twin.stuck = True
    with pytest.raises(DeviceTimeout, match=r"filter: /.*: did not arrive at 'RFP' within 50 ms: it says .* at 'GFP'"):
        device.select("RFP", 50.0)
    twin.stuck, twin.takes_s = False, 60.0
    with pytest.raises(DeviceTimeout, match="within 50 ms: it turns"):
        device.select("RFP", 50.0)
    with pytest.raises(DeviceError, match=r"filter: /.*: turns"):
        device.selected()
    with pytest.raises(DeviceError, match="filter: has GFP, RFP, none, asked for 'CFP'"):
        device.select("CFP", 50.0)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_shutter_that_is_stuck_is_told(gate: tuple[Twin, Callable[..., Shutter]], wanted: bool) -> None:
    twin, made = gate
    device = made()
    device.open()
    device.set_open(not wanted)
    twin.stuck = True
    state, command = ("open", "OPEN") if wanted else ("closed", "SHUT")
    with pytest.raises(DeviceTimeout, match=f"shutter: /.*: is not {state} 100 ms after '{command}'"):
        device.set_open(wanted)
    assert device.is_open() is not wanted
    if not wanted:
        with pytest.raises(DeviceTimeout, match="is not closed"):
            device.close()
        with pytest.raises(DeviceError, match="is not open, and 'STATE"):
            device.is_open()


def test_a_shutter_on_its_way_is_neither(gate: tuple[Twin, Callable[..., Shutter]]) -> None:
    twin, made = gate
    device = made()
    device.open()
    twin.arrives_s = time.monotonic() + 60.0
    with pytest.raises(DeviceError, match=r"shutter: /.*: is neither open nor closed"):
        device.is_open()


NOISES = {
    "silence": (b"", DeviceTimeout, "was not answered within 60 ms: nothing came"),
    "half": (b"O", DeviceTimeout, "was not answered within 60 ms: only"),
    "noise": (b"\xff\x00\n", DeviceError, "was answered by noise"),
    "something else": (b"7\n", DeviceError, "was answered by '7', not "),
}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("what", ["select", "selected", "set_open", "is_open"])
def test_a_reply_that_is_none_is_told_in_time(
    wheel: tuple[Twin, Callable[..., Filter]], gate: tuple[Twin, Callable[..., Shutter]], what: str, noise: str
) -> None:
    raw, error, says = NOISES[noise]
    (twin, made), given = (wheel if what.startswith("sel") else gate), {"select": ("RFP", 50.0), "set_open": (True,)}
    device: Any = made()
    device.open()
    twin.noise = raw
    began_s = time.monotonic()
    with pytest.raises(error, match=says) as caught:
        getattr(device, what)(*given.get(what, ()))
    assert time.monotonic() - began_s < TIMEOUT_MS / 1e3 + LATE_S
    assert caught.value.device == device.name
    assert device.settings.port in str(caught.value)


@pytest.mark.parametrize("driver", [Filter, Shutter])
def test_a_port_that_is_not_there_is_named(tmp_path: Path, driver: Any) -> None:
    keys = WHEEL if driver is Filter else GATE
    device = driver(driver.Settings.model_validate({**keys, "port": "/dev/nowhere"}), mount("it", tmp_path))
    with pytest.raises(DeviceError, match="it: /dev/nowhere cannot be opened"):
        device.open()
    device.close()


# ---------------------------------------------------------------- what a rig may say


@pytest.mark.parametrize(
    ("model", "changes", "says"),
    [
        (FilterSettings, {"positions": {}}, "at least 1 item"),
        (FilterSettings, {"positions": {"GFP": {"select": "A", "at": ()}}}, "at least 1 item"),
        (
            FilterSettings,
            {"positions": {"GFP": {"select": "A", "at": ("1",)}, "RFP": {"select": "B", "at": ("1",)}}},
            "the reply '1' cannot mean both",
        ),
        (FilterSettings, {"moving": ("3",)}, "the reply '3' cannot mean both"),
        (FilterSettings, {"ask": "A\nB"}, "String should match"),
        (ShutterSettings, {"state": {"ask": "?", "open": ("1",), "closed": ("1",)}}, "the reply '1' cannot mean both"),
        (
            ShutterSettings,
            {"state": {"ask": "?", "open": ("1",), "closed": ("0",), "moving": ("0",)}},
            "the reply '0' cannot mean both",
        ),
        (ShutterSettings, {"set_closed": ""}, "String should match"),
        (ShutterSettings, {"switch_ms": -1.0}, "greater than or equal to 0"),
    ],
)
def test_what_could_not_work_is_refused(model: Any, changes: dict[str, Any], says: str) -> None:
    keys = WHEEL if model is FilterSettings else GATE
    model.model_validate({**keys, "port": "COM9"})
    with pytest.raises(ValidationError, match=says):
        model.model_validate({**keys, "port": "COM9", **changes})
