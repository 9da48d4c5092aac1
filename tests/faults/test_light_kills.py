"""The controller killed or frozen, or its guardian killed, at random moments of a run: dark, and how soon.

The reduced form demands the times of the middle one, since a machine that does other things too may keep any process
waiting. The campaign, to be run alone, demands them of every one, idle and with four processes that do nothing but
compute: `pytest -m campaign tests/faults/test_light_kills.py --figures`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from lasers import Laser, laser, laser_rig

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="one clock for all processes, and /proc")
LATE_S = 1.0
ON_ITS_WAY_S = 0.1
"""Frozen that long before it went off, a controller cannot have told it to."""
RUNS = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fakes import bench_of, plan_of, spooling
from dmu_hw.engine import Engine
from dmu_hw.errors import DeviceError
from dmu_hw.rig import Rig, load_rig

def run(folder):
    rig = Rig(load_rig(folder / "bench.yaml"))
    bench_of(rig).hooks["pop"] = lambda: time.sleep(0.004)
    plan = plan_of(rig, side=32, time={"loops": 1_000_000})
    with rig.opened(), spooling(folder / "run") as (_, spool):
        print(os.getpid(), rig.light._link._process.pid, flush=True)
        Engine(plan, rig, spool).run()

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    folder = Path(line.strip())
    if os.fork() == 0:
        try:
            run(folder)
        except DeviceError as error:
            said, before = str(error), error.__context__
            while before is not None:
                said, before = f"{before}; {said}", before.__context__
            (folder / "said.txt").write_text(said)
        os._exit(1)
"""
"""A process that has loaded all that a run needs, and makes one of itself for every line."""


@dataclass(frozen=True)
class Blow:
    """What is done to whom, and how soon it is to be dark."""

    row: str
    name: str
    number: int
    guardian: bool
    within_s: float


BLOWS = (
    []
    if sys.platform == "win32"
    else [
        Blow("R2", "controller killed", signal.SIGKILL, guardian=False, within_s=0.05),
        Blow("R3", "controller frozen", signal.SIGSTOP, guardian=False, within_s=0.25),
        Blow("R4", "guardian killed", signal.SIGKILL, guardian=True, within_s=0.3),
    ]
)
CAMPAIGN = {"controller killed": 100, "controller frozen": 30, "guardian killed": 30}


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laser]:
    with laser(tmp_path_factory.mktemp("laser")) as made:
        yield made


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """As many that do nothing but compute."""
    with ExitStack() as stack:
        for _ in range(processes):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


@pytest.fixture(scope="module")
def runs() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", RUNS, str(Path(__file__).parents[1] / "acquisition")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        process.kill()


def struck(runs: subprocess.Popen[str], device: Laser, folder: Path, blow: Blow, after_s: float) -> float:
    """Start a run, strike so long after its first light; how long it was lit after that."""
    folder.mkdir()
    device.log.write_text("")
    laser_rig(folder, device.yaml(timeout_ms=1000.0))  # a busy machine keeps the laser waiting too
    assert runs.stdin is not None
    assert runs.stdout is not None
    runs.stdin.write(f"{folder}\n")
    controller, guardian = map(int, runs.stdout.readline().split())
    try:
        device.wait(lit=True)
        time.sleep(after_s)
        moment_s = time.monotonic()
        os.kill(guardian if blow.guardian else controller, blow.number)
        time.sleep(1.5 * blow.within_s)
        device.wait(lit=False, within_s=LATE_S)
        late_s = device.dark_after_s(moment_s)
        if blow.number == signal.SIGSTOP and late_s > ON_ITS_WAY_S:
            _check_thawed(device, controller, folder / "said.txt")
    finally:
        _end(controller)
        _wait_for_the_end(guardian)
    return max(0.0, late_s)


def _check_thawed(device: Laser, controller: int, said: Path) -> None:
    """Who was frozen in the light finds it off, does not light it again, and ends the run."""
    seen = device.changes()
    os.kill(controller, signal.SIGCONT)
    _wait_for_the_end(controller)
    assert "its guardian put it off: no heartbeat" in said.read_text()
    assert device.changes() == seen


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    _wait_for_the_end(pid)


def _wait_for_the_end(pid: int) -> None:
    until_s = time.monotonic() + 30.0
    while Path(f"/proc/{pid}/stat").exists():
        assert time.monotonic() < until_s, f"process {pid} does not end"
        time.sleep(0.002)


def times_s(runs: subprocess.Popen[str], device: Laser, folder: Path, blow: Blow, count: int, seed: int) -> list[float]:
    chance = random.Random(seed)
    return [
        struck(runs, device, folder / f"{seed}-{number}", blow, chance.uniform(0.0, 0.1)) for number in range(count)
    ]


@pytest.mark.parametrize("blow", BLOWS, ids=lambda blow: blow.name)
def test_dark_soon_after_a_blow(runs: subprocess.Popen[str], device: Laser, tmp_path: Path, blow: Blow) -> None:
    late_s = times_s(runs, device, tmp_path, blow, 3, seed=1)
    assert statistics.median(late_s) <= blow.within_s
    assert max(late_s) <= LATE_S


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("blow", BLOWS, ids=lambda blow: blow.name)
@pytest.mark.parametrize("processes", [0, 4], ids=["idle", "busy"])
def test_dark_soon_after_very_many_blows(
    runs: subprocess.Popen[str],
    device: Laser,
    tmp_path: Path,
    figure: Callable[..., None],
    blow: Blow,
    processes: int,
) -> None:
    count = CAMPAIGN[blow.name]
    with busy(processes):
        late_s = times_s(runs, device, tmp_path, blow, count, seed=2 + processes)
    median_ms, worst_ms = 1e3 * statistics.median(late_s), 1e3 * max(late_s)
    what = f"{blow.name} at {count} random moments, {processes} busy processes: until dark"
    figure(blow.row, what, f"median {median_ms:.1f} ms, worst {worst_ms:.1f} ms", f"{1e3 * blow.within_s:.0f} ms")
    assert max(late_s) <= blow.within_s
