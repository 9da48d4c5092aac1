"""A plan through the engine: order, dose, time, counts, and every way in which a run can end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_of, bench_rig, lines_of, plan_of, run_plan, seen_place, spooling

from dmu_hw import saver as saver_module
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.errors import DeviceError, RunError
from dmu_hw.journal import read_journal
from dmu_hw.ledger import as_lit
from dmu_hw.plan import Plan, Shot
from dmu_hw.rig import Rig
from dmu_hw.writer import bursts

MODES = ["dmd", "camera", "software"]


def small(folder: Path, stepping: str = "dmd", *, read_back: bool = True, **changes: Any) -> tuple[Rig, Plan, Any]:
    rig = bench_rig(folder, stepping, read_back=read_back, side=32)
    return rig, plan_of(rig, side=32, **changes), bench_of(rig)


def check_dark(bench: Any) -> None:
    assert not bench.lit
    assert bench.mirrors_at(bench.clock.now_ms()) is None


@pytest.mark.parametrize("stepping", MODES)
def test_a_run_in_order(tmp_path: Path, stepping: str) -> None:
    rig, plan, bench = small(tmp_path, stepping, time={"loops": 5}, references={"plain": True})
    seen: list[tuple[int, Burst]] = []

    def watch(shot: Shot, burst: Burst) -> None:
        assert not bench.lit, "nobody is called with the light on"
        seen.append((shot.index, burst))

    run, counts = run_plan(tmp_path / "run", rig, plan, watch)
    assert [index for index, _ in seen] == list(range(10))
    for index, burst in seen:
        memory = plan.takes[plan.shots[index].role].memory
        assert [seen_place(frame.pixels) for frame in burst.frames] == list(memory)
    assert (counts.expected, counts.received, counts.saved, counts.missing) == (25, 25, 25, 0)
    assert counts.retaken_bursts == 0
    assert [lines[0]["shot"] for lines in bursts(run.journal)] == list(range(10))
    assert bench.log.count("load") == 1
    assert bench.log.count("configure") == 10, "patterns and reference take turns"
    check_dark(bench)


@pytest.mark.parametrize("stepping", MODES)
def test_a_damaged_burst_is_taken_again(tmp_path: Path, stepping: str) -> None:
    rig, plan, bench = small(tmp_path, stepping, time={"loops": 3}, retries=2)
    bench.faults.repeated = {5, 9}
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert (counts.expected, counts.received, counts.saved, counts.missing) == (12, 18, 12, 0)
    assert counts.retaken_bursts == 2
    attempts = [(line["shot"], line["attempt"]) for line in as_lit(read_journal(run.journal))]
    assert attempts == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0)]
    dose = plan.takes["patterns"].dose_mj_cm2
    assert counts.dose_mj_cm2 == {0: pytest.approx(5 * dose)}
    assert counts.light_on_ms == pytest.approx(5 * plan.takes["patterns"].burst_ms)


def test_what_stays_damaged_is_missing_with_its_reason(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 3}, retries=1)
    bench.faults.repeated = {5, 9}
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert (counts.expected, counts.received, counts.saved, counts.missing) == (12, 14, 11, 1)
    (missing,) = lines_of(run, "missing")
    assert (missing["shot"], missing["pattern"]) == (1, 1)
    assert missing["reason"] == "the camera gave an earlier frame once more"
    assert counts.saved + counts.missing == counts.expected


@pytest.mark.skipif(sys.platform != "linux", reason="looks up open files in /proc")
def test_dose_is_on_the_disk_before_the_light_is_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 4}, retries=1)
    bench.faults.dropped = {5}
    journal_path = tmp_path / "run" / "journal.jsonl"
    synced: list[bytes] = [b""]
    real_sync = os.fdatasync

    def fdatasync(handle: int) -> None:
        real_sync(handle)
        if Path(f"/proc/self/fd/{handle}").resolve() == journal_path:
            synced[0] = journal_path.read_bytes()

    booked: list[int] = []
    bench.hooks["on"] = lambda: booked.append(synced[0].count(b'"kind":"light"'))
    monkeypatch.setattr(os, "fdatasync", fdatasync)
    run_plan(tmp_path / "run", rig, plan)
    assert booked == [1, 2, 4, 4, 5], "the third burst is booked ahead when the second is to be taken again"


def test_time_points_keep_their_intervals(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 4, "interval_s": 10.0})
    starts: list[float] = []
    bench.hooks["start"] = lambda: starts.append(bench.clock.now_ms())
    bench.clock.ms = 7_000.0
    run_plan(tmp_path / "run", rig, plan)
    assert starts[0] < 7_100.0
    assert np.diff(starts) == pytest.approx([10_000.0] * 3)
    assert bench.log.count("configure") == 1


def test_shots_that_are_late_are_taken_at_once(tmp_path: Path) -> None:
    """A pause that was too long is not made up for by later ones, and nothing is left out."""
    rig, plan, bench = small(tmp_path, time={"loops": 5, "interval_s": 1.0})
    starts: list[float] = []
    bench.hooks["start"] = lambda: starts.append(bench.clock.now_ms())

    def watch(shot: Shot, _burst: Burst) -> None:
        if shot.index == 0:
            bench.clock.sleep_ms(2500.0)

    _, counts = run_plan(tmp_path / "run", rig, plan, watch)
    after = np.subtract(starts, starts[0])
    burst_ms = plan.takes["patterns"].burst_ms
    assert after == pytest.approx([0.0, 2500.0 + burst_ms, 2500.0 + 2 * burst_ms, 3000.0, 4000.0], abs=5.0)
    assert counts.saved == 20


@pytest.mark.parametrize("stepping", MODES)
def test_bursts_without_proof_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture, stepping: str) -> None:
    """A DMD that cannot tell what it showed, stepped in hardware: said once to people, of every burst to programs."""
    rig, plan, _ = small(tmp_path, stepping, read_back=False, time={"loops": 3})
    with caplog.at_level(logging.WARNING):
        run, counts = run_plan(tmp_path / "run", rig, plan)
    unproven = 0 if stepping == "software" else 3
    assert counts.unproven_bursts == unproven
    assert [line["shot"] for line in lines_of(run, "unproven")] == list(range(unproven))
    assert len(caplog.records) == (unproven > 0)


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), RunError("stop")])
def test_a_watcher_that_raises_ends_the_run_in_the_dark(tmp_path: Path, error: BaseException) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 5})

    def watch(shot: Shot, _burst: Burst) -> None:
        if shot.index == 2:
            raise error

    with pytest.raises(type(error)):
        run_plan(tmp_path / "run", rig, plan, watch)
    check_dark(bench)
    assert [lines[0]["shot"] for lines in bursts(tmp_path / "run" / "journal.jsonl")] == [0, 1, 2]


def test_the_end_puts_off_whatever_lit_the_light(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path)

    def watch(_shot: Shot, _burst: Burst) -> None:
        bench.lit = True

    run_plan(tmp_path / "run", rig, plan, watch)
    check_dark(bench)


@pytest.mark.parametrize("stepping", MODES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), DeviceError("camera", "is gone")])
def test_interrupted_within_a_burst(tmp_path: Path, stepping: str, error: BaseException) -> None:
    """What was taken before is saved, what was not finished is not."""
    rig, plan, bench = small(tmp_path, stepping, time={"loops": 5})

    def pop() -> None:
        if bench.exposures == 10:
            assert bench.lit
            raise error

    bench.hooks["pop"] = pop
    with pytest.raises(type(error)):
        run_plan(tmp_path / "run", rig, plan)
    check_dark(bench)
    assert [lines[0]["shot"] for lines in bursts(tmp_path / "run" / "journal.jsonl")] == [0, 1]


def test_light_is_off_though_the_disk_stands_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the writer hangs: off at once; the run ends when the disk comes back, with all that it holds."""
    rig, plan, bench = small(tmp_path, time={"loops": 50})
    go_on, dark_meanwhile = threading.Event(), threading.Event()
    monkeypatch.setattr(saver_module, "QUEUED_BURSTS", 4)

    def pop() -> None:
        if bench.exposures == 15:
            threading.Timer(0.3, check).start()
            raise KeyboardInterrupt

    def check() -> None:
        if not bench.lit:
            dark_meanwhile.set()
        go_on.set()

    bench.hooks["pop"] = pop
    with spooling(tmp_path / "run") as (run, spool):
        real_put = spool.put
        monkeypatch.setattr(spool, "put", lambda burst: (go_on.wait(), real_put(burst)))
        with pytest.raises(KeyboardInterrupt):
            Engine(plan, rig, spool).run()
    assert dark_meanwhile.is_set()
    assert [lines[0]["shot"] for lines in bursts(run.journal)] == [0, 1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="signals reach no thread of choice")
@pytest.mark.parametrize("blocked", ["before", "within"])
def test_a_second_interrupt_does_not_wait_for_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blocked: str
) -> None:
    """The run ends at once; what the writer has in its hands is whole or not there, and nothing comes after it."""
    rig, plan, bench = small(tmp_path, time={"loops": 50})
    go_on = threading.Event()

    def pop() -> None:
        if bench.exposures == 15:
            threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
            threading.Timer(0.3, go_on.set).start()
            raise KeyboardInterrupt

    bench.hooks["pop"] = pop
    with spooling(tmp_path / "run") as (run, spool):
        name = {"before": "put", "within": "_put"}[blocked]
        real_put = getattr(spool, name)
        monkeypatch.setattr(spool, name, lambda burst: (go_on.wait(), real_put(burst)))
        engine = Engine(plan, rig, spool)
        with pytest.raises(KeyboardInterrupt):
            engine.run()
        assert not go_on.is_set()
        check_dark(bench)
    wait([engine.saver._writer], timeout=5.0)
    assert engine.saver._writer.done()
    saved = [lines[0]["shot"] for lines in bursts(run.journal)]
    assert saved == list(range(len(saved)))
    assert bool(saved) == (blocked == "within")
    assert not list(run.spool.glob("reserve"))


class _OddError(BaseException):
    """Nothing that anybody expects."""


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RunError("full"), KeyError("x"), MemoryError(), _OddError()]
)
def test_a_writer_that_fails_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 5000})
    with spooling(tmp_path / "run") as (_, spool):
        real_put = spool.put

        def put(burst: Burst) -> None:
            if burst.shot == 3:
                raise error
            real_put(burst)

        monkeypatch.setattr(spool, "put", put)
        with pytest.raises(RunError, match="frames can no longer be saved") as caught:
            Engine(plan, rig, spool).run()
    assert caught.value.__cause__ is error
    check_dark(bench)
    assert bench.exposures < 4 * 5000
    assert [lines[0]["shot"] for lines in bursts(tmp_path / "run" / "journal.jsonl")] == [0, 1, 2]


@pytest.mark.timeout(20)
def test_a_writer_that_fails_behind_a_full_queue_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 50})
    monkeypatch.setattr(saver_module, "QUEUED_BURSTS", 1)
    with spooling(tmp_path / "run") as (_, spool):

        def put(_burst: Burst) -> None:
            time.sleep(0.3)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(spool, "put", put)
        with pytest.raises(RunError, match="No space left"):
            Engine(plan, rig, spool).run()
    check_dark(bench)


def test_a_writer_that_fails_at_the_very_end_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, plan, bench = small(tmp_path)
    with spooling(tmp_path / "run") as (_, spool):
        real_sync = spool.sync

        def sync() -> None:
            monkeypatch.setattr(spool, "sync", real_sync)
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(spool, "sync", sync)
        with pytest.raises(RunError, match="Input/output error"):
            Engine(plan, rig, spool).run()
    check_dark(bench)


def test_a_slow_writer_makes_the_run_wait_in_the_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 30})
    monkeypatch.setattr(saver_module, "QUEUED_BURSTS", 3)
    ahead: list[int] = []
    with spooling(tmp_path / "run") as (_, spool):
        real_put = spool.put

        def put(burst: Burst) -> None:
            time.sleep(0.01)
            ahead.append(bench.exposures // 4 - burst.shot)
            real_put(burst)

        monkeypatch.setattr(spool, "put", put)
        counts = Engine(plan, rig, spool).run()
    assert counts.saved == 120
    # three in the queue, one being written, one taken and waiting
    assert max(ahead) <= 5
    check_dark(bench)


def test_the_queue_is_bounded_in_bytes_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, plan, _ = small(tmp_path)
    burst_bytes = 4 * 2 * 8 * 8
    for budget, bursts_held in [(1, 1), (2 * burst_bytes, 2), (10**9, 16)]:
        monkeypatch.setattr(saver_module, "QUEUED_BYTES", budget)
        with spooling(tmp_path / f"run{budget}") as (_, spool):
            assert Engine(plan, rig, spool).saver._queue.maxsize == bursts_held


def test_bursts_are_sealed_while_the_run_waits(tmp_path: Path) -> None:
    """A crash in the pause of a time lapse loses nothing."""
    rig, plan, _ = small(tmp_path, time={"loops": 2})
    sealed: list[int] = []

    def watch(shot: Shot, _burst: Burst) -> None:
        if shot.index == 0:
            time.sleep(0.6)
            sealed.extend(lines[0]["shot"] for lines in bursts(tmp_path / "run" / "journal.jsonl"))

    run_plan(tmp_path / "run", rig, plan, watch)
    assert sealed == [0]


def test_a_light_that_stays_on_is_a_fault_that_ends_the_run(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 5})

    def pop() -> None:
        if bench.exposures == 5:
            bench.faults.off_refused = 1000

    bench.hooks["pop"] = pop
    with pytest.raises(DeviceError, match="SWITCH IT OFF BY HAND"):
        run_plan(tmp_path / "run", rig, plan)
    assert bench.log.count("on") == 2


@pytest.mark.parametrize(
    ("prepare", "device"),
    [
        (lambda faults: setattr(faults, "interlock_open", True), "light"),
        (lambda faults: setattr(faults, "power_refused", True), "light"),
        (lambda faults: setattr(faults, "dead_at", 6), "camera"),
        (lambda faults: setattr(faults, "trips_at", 6), "light"),
    ],
)
def test_a_device_that_fails_is_named(tmp_path: Path, prepare: Callable[[Any], None], device: str) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 5})
    prepare(bench.faults)
    with pytest.raises(DeviceError) as caught:
        run_plan(tmp_path / "run", rig, plan)
    assert caught.value.device == device
    check_dark(bench)
