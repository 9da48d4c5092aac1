"""`dmu run` itself, on a rig whose light is a serial laser and whose camera and mirrors are simulated: dark on every
way out, and every way out is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lasers import WATCHDOG_MS, Laser, laser, posix
from program import COMMAND

pytestmark = posix
LATE_S = 1.0
RUN: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "frame_timeout_ms": 500.0,
    "retries": 0,
}
Started = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    with laser(tmp_path_factory.mktemp("laser")) as made:
        yield made


@pytest.fixture
def started(device: Laser, tmp_path: Path, rig_yaml: Callable[..., Path]) -> Iterator[Started]:
    """`dmu run` in a process of its own; with a thousand loops it ends by nothing but what is done to it."""
    processes: list[subprocess.Popen[str]] = []

    def start(
        changes: dict[str, Any] | None = None,
        *,
        loops: int = 1000,
        exposure_ms: float = 20.0,
        watchdog_ms: float | None = WATCHDOG_MS,
    ) -> subprocess.Popen[str]:
        device.log.write_text("")
        device.suffer("interlock closed")
        light = device.yaml(watchdog_ms=watchdog_ms)
        rig_yaml({"connections.world.realtime": True, "devices.light": light, **(changes or {})})
        path = tmp_path / "run.yaml"
        time = {"loops": loops, "interval_s": 0.0}
        path.write_text(yaml.safe_dump({**RUN, "exposure_ms": exposure_ms, "time": time}))
        command = [*COMMAND, "run", str(path), "--out", str(tmp_path / "runs"), "--json"]
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def told(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """How it ended, what it said to programs and to people."""
    out, err = process.communicate(timeout=60.0)
    assert "Traceback" not in err
    return process.returncode, json.loads(out), err


def test_a_run_ends_in_the_dark_and_says_what_its_light_is(device: Laser, started: Started, tmp_path: Path) -> None:
    status, said, err = told(
        started({"unwatched_light": "accept"}, loops=2, watchdog_ms=None)  # the twin's watchdog is fed nevertheless
    )
    assert status == 0, err
    changes = device.changes()
    assert [change.lit for change in changes] == [True, False] * 2
    assert {change.power_w for change in changes} == {0.001}
    assert {change.why for change in changes} == {"command"}
    manifest = json.loads((Path(said["run"]) / "manifest.json").read_text())
    assert manifest["light"] == {"watchdog_ms": None, "unwatched_accepted": True}
    assert "it stays on if this computer dies" in " ".join(manifest["cautions"])
    journal = (Path(said["run"]) / "journal.jsonl").read_text()
    assert '"kind":"guarded","watchdog_ms":null,"unwatched_accepted":true' in journal


def test_a_light_without_a_watchdog_is_refused_before_anything_is_opened(device: Laser, started: Started) -> None:
    status, said, _ = told(started(watchdog_ms=None))
    assert status == 2
    assert "has no watchdog" in said["problems"][0]
    assert device.changes() == []


@pytest.mark.parametrize(("number", "name"), [("SIGINT", "Ctrl-C"), ("SIGTERM", "SIGTERM")])
def test_a_signal_puts_it_off(device: Laser, started: Started, number: str, name: str) -> None:
    process = started()
    device.wait(lit=True)
    moment_s = time.monotonic()
    for _ in range(2):
        process.send_signal(getattr(signal, number))
    status, said, _ = told(process)
    assert status == 1
    assert said["problems"] == [f"stopped by {name}; the light is off"]
    assert device.dark_after_s(moment_s) <= LATE_S


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"connections.world.faults": [{"kind": "camera_death", "at": 30}]}, "camera: does not answer any more"),
        ({"connections.world.faults": [{"kind": "refused_upload"}]}, "dmd: refused"),
    ],
    ids=["camera dies", "upload is refused"],
)
def test_a_device_that_fails_leaves_it_dark(
    device: Laser, started: Started, changes: dict[str, Any], says: str
) -> None:
    status, said, _ = told(started(changes))
    assert status == 1
    assert says in said["problems"][0]
    assert not device.lit


def test_an_interlock_that_opens_ends_the_run(device: Laser, started: Started) -> None:
    process = started()
    device.wait(lit=True)
    device.suffer("interlock open")
    status, said, _ = told(process)
    assert status == 1
    assert "light: interlock is open" in said["problems"][0] or "went off by itself" in said["problems"][0]
    device.suffer("interlock closed")
    assert not device.lit


def test_killed_it_is_dark(device: Laser, started: Started) -> None:
    process = started()
    device.wait(lit=True)
    moment_s = time.monotonic()
    process.kill()
    device.wait(lit=False)
    assert device.dark_after_s(moment_s) <= LATE_S


def test_frozen_it_is_dark_and_thawed_it_ends(device: Laser, started: Started) -> None:
    process = started(exposure_ms=1000.0)
    device.wait(lit=True)
    moment_s = time.monotonic()
    os.kill(process.pid, signal.SIGSTOP)
    device.wait(lit=False)
    assert device.dark_after_s(moment_s) <= LATE_S
    os.kill(process.pid, signal.SIGCONT)
    status, said, _ = told(process)
    assert status == 1
    assert "light: its guardian put it off: no heartbeat" in said["problems"][0]
    assert len(device.changes()) == 2
