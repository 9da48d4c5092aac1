"""Ctrl-C, SIGTERM and a closed terminal in the middle of a run: light off, status 1, a message, no manifest."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmu_hw.cli.output import Output
from dmu_hw.cli.stop import Stopped, poll, stoppable
from dmu_hw.drivers.simulated.light import Light

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
REALTIME = {"connections.world.realtime": True, "devices.camera.readout_ms": 5.0}
LONG = {"positions": ..., "exposure_ms": 20.0, "time": {"loops": 1000, "interval_s": 0.0}}
SPY = """
import time

from dmu_hw.drivers.simulated import Light as _Light


def note(what):
    with open({path!r}, "a") as file:
        file.write(f"{{what}} {{time.monotonic()}}\\n")


class Light(_Light):
    def on(self, *longest_ms):
        super().on(*longest_ms)
        note("on")

    def off(self):
        super().off()
        note("off")
"""


@pytest.fixture
def spied(run_yaml: Yaml, tmp_path: Path) -> tuple[Path, Path]:
    """A run without an end in real time, and the file that its light writes down what it does in."""
    notes = tmp_path / "light.txt"
    (tmp_path / "spy.py").write_text(SPY.format(path=str(notes)))
    return run_yaml(LONG, REALTIME | {"devices.light.driver": "spy.py"}), notes


def wait_for_light(notes: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not (notes.exists() and notes.read_text().rstrip().rpartition("\n")[2].startswith("on")):
        assert process.poll() is None, "the run ended by itself"
        assert time.monotonic() < deadline, "no light within a minute"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "the end of its terminal")],
)
def test_a_signal_puts_the_light_off_and_ends_the_run(
    spied: tuple[Path, Path], tmp_path: Path, number: signal.Signals, name: str
) -> None:
    path, notes = spied
    command = [sys.executable, "-m", "dmu_hw.cli.main", "run", str(path), "--out", str(tmp_path / "runs"), "--json"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        wait_for_light(notes, process)
        sent_s = time.monotonic()
        for _ in range(3):  # later ones change nothing
            process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Traceback" not in err
    told = json.loads(out)
    assert told["status"] == 1
    assert told["problems"] == [f"stopped by {name}; the light is off"]
    (folder,) = (tmp_path / "runs").iterdir()
    assert told["run"] == str(folder)
    assert f"{folder} holds what there is" in err
    assert not (folder / "manifest.json").exists()
    done = [line.split() for line in notes.read_text().splitlines()]
    last_on = max(place for place, (what, _) in enumerate(done) if what == "on")
    assert done[last_on + 1][0] == "off"
    assert float(done[last_on + 1][1]) - sent_s < 0.5, "0.02 s on an idle machine"


def test_a_signal_that_was_ignored_before_stays_ignored(spied: tuple[Path, Path], tmp_path: Path) -> None:
    """As under nohup: the terminal may close."""
    path, notes = spied
    code = (
        "import signal, sys, dmu_hw.cli.main as m\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nm.main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "run", str(path), "--out", str(tmp_path / "runs")]
    with subprocess.Popen(command, text=True, stderr=subprocess.PIPE) as process:
        wait_for_light(notes, process)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert "stopped by SIGTERM" in err


def stopped_at(delay_s: float, dmu: Dmu, path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> list[Light]:
    """A run that is stopped so long after its first light; the lights that were on."""
    lights: list[Light] = []
    switch_on = Light.on
    timer = threading.Timer(delay_s, os.kill, (os.getpid(), signal.SIGINT))

    def watched(light: Light, *longest_ms: float) -> None:
        lights.append(light)
        if len(lights) == 1:
            timer.start()
        switch_on(light, *longest_ms)

    with monkeypatch.context() as patch:
        patch.setattr(Light, "on", watched)
        said = dmu("run", path, "--out", out)
        timer.cancel()
    assert said.status == 1
    assert "stopped by Ctrl-C; the light is off" in said.err
    return lights


def check_moments(count: int, dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module("torch")  # half of it, were it stopped while it is loaded, would spoil the next run
    path = run_yaml({**LONG, "exposure_ms": 3.0}, {"connections.world.realtime": True})
    chance = random.Random(0)
    for trial in range(count):
        out = tmp_path / f"runs-{trial}"
        lights = stopped_at(chance.uniform(0, 0.1), dmu, path, out, monkeypatch)
        assert lights
        assert not any(light.is_on() for light in lights)
        (folder,) = out.iterdir()
        assert not (folder / "manifest.json").exists()
        assert dmu("verify", folder).status == 3, "what was sealed before is sound"


def test_at_any_moment_of_a_run(dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_moments(15, dmu, run_yaml, tmp_path, monkeypatch)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_at_very_many_moments_of_a_run(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[..., None]
) -> None:
    check_moments(300, dmu, run_yaml, tmp_path, monkeypatch)
    figure("R5", "Ctrl-C at 300 random moments of a run", "dark, told, and sound 300 times", "always")


# ---------------------------------------------------------------- the one way out


def test_a_second_signal_does_not_disturb_who_puts_the_light_off() -> None:
    finished: list[bool] = []

    def work() -> None:
        with stoppable():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGINT)
                finished.append(True)

    with pytest.raises(Stopped, match="SIGTERM"):
        work()
    assert finished


def swallow(number: signal.Signals) -> None:
    """As a bare `except` does, or a destructor that is running when the signal comes."""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(number)


def test_a_stop_that_somebody_swallowed_comes_through_at_the_next_step() -> None:
    done: list[int] = []

    def work() -> None:
        with stoppable(), Output(as_json=False).progress("working") as progress:
            for step in range(5):
                if step == 2:
                    swallow(signal.SIGTERM)
                done.append(step)
                progress(step, 5)

    with pytest.raises(Stopped, match="SIGTERM"):
        work()
    assert done == [0, 1, 2]


def test_after_a_swallowed_signal_another_one_counts() -> None:
    def work() -> None:
        with stoppable():
            swallow(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match="Ctrl-C"):
        work()


def test_nobody_is_stopped_who_was_not_asked_to() -> None:
    poll()
    with stoppable(), Output(as_json=False).progress("working") as progress:
        progress(1, 1)
    with contextlib.suppress(Stopped), stoppable():
        signal.raise_signal(signal.SIGTERM)
    poll()


def test_handlers_are_as_before_afterwards() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_nobody_takes_a_stop_for_a_failure() -> None:
    """The guard of the light knows a KeyboardInterrupt; nobody catches it with the failures."""
    assert issubclass(Stopped, KeyboardInterrupt)
    assert not issubclass(Stopped, Exception)


def test_in_another_thread_signals_are_left_alone() -> None:
    seen: list[Any] = []

    def look() -> None:
        with stoppable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
