"""Pause, go on and abort: dark while a run stands still, true intervals afterwards, an end that says what is left."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_of, bench_rig, lines_of, plan_of, run_plan

from dmu_hw.control import Aborted, Control, listening, send
from dmu_hw.data import Burst
from dmu_hw.plan import Plan, Shot
from dmu_hw.rig import Rig
from dmu_hw.writer import bursts

MODES = ["dmd", "camera", "software"]


def small(folder: Path, stepping: str = "dmd", **changes: Any) -> tuple[Rig, Plan, Any]:
    rig = bench_rig(folder, stepping, side=32)
    return rig, plan_of(rig, side=32, **changes), bench_of(rig)


def later(work: Any, after_s: float = 0.15) -> threading.Timer:
    timer = threading.Timer(after_s, work)
    timer.start()
    return timer


# ---------------------------------------------------------------- pause


def test_a_paused_run_is_dark_and_takes_nothing_until_it_goes_on(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 5})
    control, seen = Control(), []

    def look_and_go_on() -> None:
        seen.append((bench.lit, bench.mirrors_at(bench.clock.now_ms()), bench.exposures, control.state))
        control.resume()

    def watch(shot: Shot, _burst: Burst) -> None:
        if shot.index == 1:
            bench.lit = True  # whatever lit it
            rig.dmd.show(0)
            control.pause()
            later(look_and_go_on)

    run, counts = run_plan(tmp_path / "run", rig, plan, watch, control)
    assert seen == [(False, None, 8, "paused")]
    assert (counts.saved, counts.missing, counts.aborted) == (20, 0, "")
    assert (len(lines_of(run, "paused")), len(lines_of(run, "went_on"))) == (1, 1)


def test_intervals_are_true_again_after_a_pause(tmp_path: Path) -> None:
    """The schedule stands still too: what was not due before the pause is not late after it."""
    rig, plan, bench = small(tmp_path, time={"loops": 4, "interval_s": 10.0})
    control, starts = Control(), []
    bench.hooks["start"] = lambda: starts.append(bench.clock.now_ms())

    def watch(shot: Shot, _burst: Burst) -> None:
        if shot.index == 1:
            control.pause()
            later(lambda: (bench.clock.sleep_ms(3_600_000.0), control.resume()))

    run, _ = run_plan(tmp_path / "run", rig, plan, watch, control)
    assert np.diff(starts) == pytest.approx([10_000.0, 3_610_000.0, 10_000.0], abs=1e-3)
    (line,) = lines_of(run, "went_on")
    assert line["paused_ms"] == pytest.approx(3_600_000.0)


def test_a_pause_is_heeded_while_the_next_time_point_is_waited_for(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 2, "interval_s": 60.0})
    control = Control()
    asked_ms: list[float] = []
    real_sleep = bench.clock.sleep_ms

    def sleep_ms(duration_ms: float) -> None:
        real_sleep(duration_ms)
        if bench.clock.ms > 30_000.0 and not asked_ms:
            asked_ms.append(bench.clock.ms)
            control.pause()
            later(control.resume)

    bench.clock.sleep_ms = sleep_ms
    run, _ = run_plan(tmp_path / "run", rig, plan, None, control)
    (line,) = lines_of(run, "paused")
    assert 0 <= line["time_ms"] - asked_ms[0] <= 100.0


# ---------------------------------------------------------------- abort


def test_an_abort_between_bursts_keeps_what_there_is_and_says_what_is_not(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 5})
    control = Control()

    def watch(shot: Shot, _burst: Burst) -> None:
        if shot.index == 2:
            control.abort("the sample moved")

    run, counts = run_plan(tmp_path / "run", rig, plan, watch, control)
    assert (counts.expected, counts.saved, counts.missing) == (20, 12, 8)
    assert counts.aborted == "the sample moved"
    assert not bench.lit
    assert bench.mirrors_at(bench.clock.now_ms()) is None
    assert [lines[0]["shot"] for lines in bursts(run.journal)] == [0, 1, 2]
    assert [line["reason"] for line in lines_of(run, "aborted")] == ["the sample moved"]
    assert bench.exposures == 12


@pytest.mark.parametrize("stepping", MODES)
def test_an_abort_within_a_long_exposure_does_not_wait_for_its_end(tmp_path: Path, stepping: str) -> None:
    rig, plan, bench = small(tmp_path, stepping, exposure_ms=5_000.0)
    control = Control()
    asked_ms: list[float] = []

    def pop() -> None:
        if bench.clock.ms > 7_000.0 and not asked_ms:
            asked_ms.append(bench.clock.ms)
            control.abort("enough")

    off_ms: list[float] = []
    bench.hooks["pop"] = pop
    bench.hooks["off"] = lambda: off_ms.append(bench.clock.ms)
    run, counts = run_plan(tmp_path / "run", rig, plan, None, control)
    assert bench.lit is False
    assert min(at for at in off_ms if at >= asked_ms[0]) - asked_ms[0] <= 20.0
    assert (counts.saved, counts.missing) == (0, 4)
    assert list(bursts(run.journal)) == []
    assert len(lines_of(run, "light")) == 1, "its dose stays booked"


def test_an_abort_ends_a_pause_and_a_wait(tmp_path: Path) -> None:
    for number, waiting in enumerate((True, False)):
        rig, plan, bench = small(tmp_path, time={"loops": 3, "interval_s": 3600.0})
        control = Control()

        def watch(_shot: Shot, _burst: Burst, control: Control = control, waiting: bool = waiting) -> None:
            if not waiting:
                control.pause()
            later(lambda: control.abort("x"), 0.05)

        if waiting:
            real_sleep = bench.clock.sleep_ms
            bench.clock.sleep_ms = lambda ms, real_sleep=real_sleep: (time.sleep(1e-3), real_sleep(ms))
        _, counts = run_plan(tmp_path / f"run{number}", rig, plan, watch, control)
        assert (counts.aborted, counts.saved) == ("x", 4)
        assert bench.clock.ms < 3_600_000.0


def test_an_abort_is_not_taken_back(tmp_path: Path) -> None:
    control = Control()
    control.abort("first")
    control.resume()
    control.pause()
    control.abort("second")
    assert control.state == "aborting"
    with pytest.raises(Aborted, match="first"):
        control.check()


# ---------------------------------------------------------------- through a file


def test_orders_come_through_a_file_that_is_gone_when_it_was_read(tmp_path: Path) -> None:
    control, path = Control(), tmp_path / "control"
    with listening(path, control):
        assert send(path, "pause", timeout_s=30.0)
        assert control.state == "paused"
        assert send(path, "go", timeout_s=30.0)
        assert control.state == "running"
        assert send(path, "abort", "too warm", timeout_s=30.0)
        with pytest.raises(Aborted, match="too warm"):
            control.check()
    assert list(tmp_path.iterdir()) == []


def test_an_order_that_nobody_reads_is_taken_back(tmp_path: Path) -> None:
    assert not send(tmp_path / "control", "abort", timeout_s=0.1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"stop\n", b"PAUSE", b"\xff\xfe" * 10_000, b"pause" * 1000])
def test_what_is_no_order_changes_nothing(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    control, path = Control(), tmp_path / "control"
    with listening(path, control):
        path.write_bytes(content)
        deadline_s = time.monotonic() + 5.0
        while (path.exists() or not caplog.records) and time.monotonic() < deadline_s:
            time.sleep(0.01)
    assert control.state == "running"
    assert "it may say: pause, go, abort" in caplog.text
    assert len(caplog.text) < 400


def test_a_file_that_cannot_be_taken_is_not_obeyed_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows keeps a file that somebody still has open; it is looked at again."""
    control, path = Control(), tmp_path / "control"
    real_replace, refusals = Path.replace, [3]

    def replace_file(self: Path, target: Path) -> Path:
        if self == path and refusals[0]:
            refusals[0] -= 1
            raise PermissionError(13, "is in use")
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_file)
    with listening(path, control):
        assert send(path, "pause", timeout_s=30.0)
    assert control.state == "paused"
    assert refusals == [0]


# ---------------------------------------------------------------- series


def test_intervals_begin_anew_for_each_turn_of_the_loops_outside(tmp_path: Path) -> None:
    """Two time series one after the other: the second is not late because of the first."""
    rig, plan, bench = small(
        tmp_path, references={"plain": True}, time={"loops": 3, "interval_s": 10.0}, order="z, time, field"
    )
    twice = replace(plan, shots=replace(plan.shots, loops=replace(plan.shots.loops, planes=2), offsets_um=(0.0, 1.0)))
    starts: list[float] = []
    bench.hooks["start"] = lambda: starts.append(bench.clock.now_ms())
    run, _ = run_plan(tmp_path / "run", rig, twice)
    first, second = np.array(starts[::2][:3]), np.array(starts[::2][3:])
    assert np.diff(first) == pytest.approx([10_000.0] * 2)
    assert np.diff(second) == pytest.approx([10_000.0] * 2)
    assert second[0] - first[-1] < 1_000.0
    assert lines_of(run, "late") == []
