"""A disk that is slow, hangs, or fills up meanwhile: the run waits in the dark, or ends in it and can be resumed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import bench_of, bench_protocol, bench_rig, lines_of, plan_of, spooling
from program import Dmu

from dmu_hw import patience
from dmu_hw import saver as saver_module
from dmu_hw import spool as spool_module
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.errors import InputError, RunError
from dmu_hw.patience import patiently
from dmu_hw.room import RoomWatch, check_room
from dmu_hw.runfolder import RunFolder
from dmu_hw.spool import Spool
from dmu_hw.verify import verify


def stalling(spool: Spool, patch: pytest.MonkeyPatch, shot: int, seconds: float) -> None:
    """The disk stands still when this shot is to be written."""
    real = spool.put

    def put(burst: Burst) -> None:
        if burst.shot == shot:
            time.sleep(seconds)
        real(burst)

    patch.setattr(spool, "put", put)


def check_stalled(tmp_path: Path, patch: pytest.MonkeyPatch, seconds: float) -> None:
    rig = bench_rig(tmp_path, side=32)
    plan = plan_of(rig, side=32, time={"loops": 60})
    bench = bench_of(rig)
    lit: list[bool] = []
    with spooling(tmp_path / "run") as (run, spool):
        stalling(spool, patch, 10, seconds)
        timer = threading.Timer(0.7 * seconds, lambda: lit.append(bench.lit))
        timer.start()
        counts = Engine(plan, rig, spool).run()
        timer.join()
    assert (counts.saved, counts.missing) == (240, 0)
    assert lit == [False], "it waited in the dark"
    assert verify(run).damage == []
    assert verify(run).frames == 240


def test_a_writer_that_stalls_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_stalled(tmp_path, monkeypatch, 1.0)


@pytest.mark.campaign
def test_a_writer_that_stalls_for_ten_seconds_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Callable[..., None]
) -> None:
    check_stalled(tmp_path, monkeypatch, 10.0)
    figure("R8", "the writer stands still for 10 s", "240 of 240 frames saved, dark meanwhile", "0 lost, dark")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("loops", [60, 12], ids=["behind a full queue", "at the end"])
def test_a_writer_that_hangs_ends_the_run_in_the_dark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loops: int
) -> None:
    """Nobody waits for it: not the run, not the closing of the files. What it has in its hands is never sealed."""
    monkeypatch.setattr(patience, "STALLED_S", 0.4)
    rig = bench_rig(tmp_path, side=32)
    plan = plan_of(rig, side=32, time={"loops": loops})
    comes_back = threading.Event()
    with spooling(tmp_path / "run") as (run, spool):
        real = spool._write

        def write(pixels: Any) -> int:
            if spool._frames == 42:
                comes_back.wait(20)
            return real(pixels)

        monkeypatch.setattr(spool, "_write", write)
        began_s = time.monotonic()
        engine = Engine(plan, rig, spool)
        with pytest.raises(RunError, match=r"spool: nothing could be written for 0.4 s: the disk hangs"):
            engine.run()
    assert time.monotonic() - began_s < 10
    bench = bench_of(rig)
    assert not bench.lit
    assert bench.mirrors_at(bench.clock.now_ms()) is None
    before = [line["shots"] for line in lines_of(run, "sealed")]
    comes_back.set()
    engine.saver._writer.exception(timeout=10)
    for file in (spool._file, spool.journal._file):  # left to the end of the program
        file.close()
    assert [line["shots"] for line in lines_of(run, "sealed")] == before
    assert verify(run).damage == []


def test_what_is_waited_for_tells_its_own_failures(tmp_path: Path) -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        patiently(fail, tmp_path)
    done: list[int] = []
    patiently(lambda: done.append(1), tmp_path)
    assert done == [1]


CHILD = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import fakes
from fakes import bench_rig, plan_of, spooling
from dmu_hw import patience
from dmu_hw.engine import Engine
from dmu_hw.errors import RunError

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

patience.STALLED_S = 2.0
folder = Path(sys.argv[2])
fakes._POOL = 4
rig = bench_rig(folder, side=1024)
plan = plan_of(rig, side=1024, camera_pixel=2, time={"loops": 100}, exposure_ms=1.0)
with spooling(folder / "run") as (run, spool):
    spool.put = lambda burst: time.sleep(60)
    engine = Engine(plan, rig, spool, lambda shot, burst: None)
    fakes.picture(0, 0, plan.takes["patterns"].mode.shape)
    before_mb, most_mb = resident_mb(), 0.0
    real = engine.saver.put
    def put(burst):
        global most_mb
        most_mb = max(most_mb, resident_mb())
        real(burst)
    engine.saver.put = put
    try:
        engine.run()
    except RunError:
        most_mb = max(most_mb, resident_mb())
        print(engine.saver._queue.maxsize * 4 * 2 * 512**2 / 1e6, most_mb - before_mb, flush=True)
os._exit(0)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_behind_a_writer_that_hangs_is_bounded(tmp_path: Path) -> None:
    """The queue, and not more than 200 MiB beside it: bursts of 4 frames of 512²."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parents[1] / "acquisition"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    queue_mb, grown_mb = map(float, done.stdout.split())
    assert queue_mb <= saver_module.QUEUED_BYTES / 1e6
    assert 0.5 * queue_mb < grown_mb < queue_mb + 200


# ---------------------------------------------------------------- room


def test_room_is_looked_at_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, free, looks = 100.0, 10**12, []

    def usage(path: Path) -> Any:
        looks.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    monkeypatch.setattr("dmu_hw.room.time.monotonic", lambda: now_s)
    watch = RoomWatch(tmp_path, 10**9)
    for _ in range(50):
        watch.check(0)
    assert len(looks) == 1
    now_s, free = now_s + 1.0, 600_000_000
    watch.check(500_000_000)
    now_s += 1.0
    with pytest.raises(RunError, match=r"0.60 GB are left on the disk, the rest of the run needs 0.65 GB: stopped"):
        watch.check(400_000_000)


def test_a_run_without_a_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=100_000_000))
    check_room(tmp_path / "not" / "yet", 50_000_000)
    with pytest.raises(InputError, match=r"0.10 GB are free, the run needs 0.11 GB"):
        check_room(tmp_path, 60_000_000)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, where a folder is needed"):
        check_room(tmp_path / "file" / "runs", 0)


def test_a_disk_that_others_fill_ends_a_run_that_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dmu: Dmu
) -> None:
    """Before it is full; with room again the run comes to its end."""
    monkeypatch.setattr("dmu_hw.room._LOOK_S", 0.0)
    monkeypatch.setattr(spool_module, "_SYNC_S", 0.0)
    looks: list[int] = []
    real = shutil.disk_usage

    def filling(path: Path) -> Any:
        looks.append(1)
        return SimpleNamespace(free=10**12 if len(looks) < 8 else 1_000_000)

    protocol = bench_protocol(tmp_path, time={"loops": 20})
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", filling)
        said = dmu("run", protocol, "--out", tmp_path / "runs", "--json").told
    assert said["status"] == 1
    assert "are left on the disk, the rest of the run needs" in said["problems"][0]
    run = RunFolder(Path(said["run"]))
    findings = verify(run)
    assert (findings.cut, findings.damage) == (True, [])
    assert 0 < findings.frames < 80
    assert not run.manifest.exists()
    assert real(tmp_path).free > 10**9
    said = dmu("run", "--resume", run.path, "--json").told
    assert (said["status"], said["complete"], said["counts"]["saved"]) == (0, True, 80)
