"""Time points that come late say so, a run that is resumed keeps its intervals, and no calendar moves anything."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_of, bench_rig, lines_of, plan_of, run_plan, spooling

import dmu_hw
from dmu_hw.cli.imaging import _elapsed_ms, _offset_ms
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.past import Past, read_past
from dmu_hw.plan import Plan, Shot
from dmu_hw.ports import MachineClock
from dmu_hw.rig import Rig


def small(folder: Path, loops: int = 5, interval_s: float = 1.0, **changes: Any) -> tuple[Rig, Plan]:
    rig = bench_rig(folder, side=32)
    return rig, plan_of(rig, side=32, time={"loops": loops, "interval_s": interval_s}, **changes)


def test_time_points_that_come_late_say_how_late(tmp_path: Path) -> None:
    """A pause of 2.5 s in the first: the second is 1.5 s late and the third half a second, the fourth is in time."""
    rig, plan = small(tmp_path, references={"plain": True})

    def watch(shot: Shot, _burst: Burst) -> None:
        if shot.index == 1:
            bench_of(rig).clock.sleep_ms(2500.0)

    run, counts = run_plan(tmp_path / "run", rig, plan, watch)
    late = lines_of(run, "late")
    assert [line["shot"] for line in late] == [2, 4], "the first burst of a time point"
    assert [line["late_s"] for line in late] == pytest.approx([1.5, 0.5], abs=0.1)
    assert counts.late_bursts == 2
    assert counts.worst_late_s == late[0]["late_s"]
    past = read_past(run.journal)
    assert (past.counts.late_bursts, past.counts.worst_late_s) == (2, counts.worst_late_s)


def test_in_time_nothing_is_late(tmp_path: Path) -> None:
    for number, interval_s in enumerate([1.0, 0.0]):
        rig, plan = small(tmp_path, interval_s=interval_s)
        run, counts = run_plan(tmp_path / f"run{number}", rig, plan)
        assert (counts.late_bursts, lines_of(run, "late")) == (0, [])


# ---------------------------------------------------------------- a run that is resumed


class Machine(MachineClock):
    """The machine's own clock, moved by hand."""

    def __init__(self, now_ms: float) -> None:
        self.ms = now_ms

    def now_ms(self) -> float:
        return self.ms


def past_of(ago: timedelta, clock_ms: float, last_ms: float) -> Past:
    return Past(began={"at": (datetime.now().astimezone() - ago).isoformat(), "clock_ms": clock_ms}, last_ms=last_ms)


@pytest.mark.parametrize(
    ("ago_s", "began_ms", "last_ms", "now_ms", "goes_on_at_ms"),
    [
        pytest.param(100.0, 5_000.0, 50_000.0, 105_000.0, 105_000.0, id="the same clock"),
        pytest.param(101.5, 5_000.0, 50_000.0, 105_000.0, 105_000.0, id="the same, and the calendar a little off"),
        pytest.param(3600.0, 5_000.0, 50_000.0, 20_000.0, 3_605_000.0, id="the computer was started anew"),
        pytest.param(
            3600.0, 5_000.0, 50_000.0, 800_000.0, 3_605_000.0, id="started anew, and up for longer than before"
        ),
        pytest.param(-3600.0, 5_000.0, 50_000.0, 20_000.0, 50_000.0, id="the calendar jumped back: time never does"),
    ],
)
def test_times_go_on(ago_s: float, began_ms: float, last_ms: float, now_ms: float, goes_on_at_ms: float) -> None:
    past = past_of(timedelta(seconds=ago_s), began_ms, last_ms)
    found_ms = now_ms + _offset_ms(past, Machine(now_ms))
    assert found_ms == pytest.approx(goes_on_at_ms, abs=2000.0)
    assert found_ms >= last_ms


def test_a_run_that_has_not_begun_lacks_no_time(tmp_path: Path) -> None:
    _, plan = small(tmp_path)
    assert _offset_ms(Past(), Machine(77.0)) == 0.0
    assert _elapsed_ms(Past(), plan, 1e6) == 0.0


@pytest.mark.parametrize(("passed_s", "elapsed_s"), [(12.5, 12.5), (20.0, 20.0), (500.0, 20.0)])
def test_the_next_time_point_waits_for_its_time_or_comes_at_once(
    tmp_path: Path, passed_s: float, elapsed_s: float
) -> None:
    """Two of five are done, every 10 s: the third is due after 20 s."""
    _, plan = small(tmp_path, interval_s=10.0)
    past = Past(sealed={0, 1}, zero_ms=1_000.0)
    assert _elapsed_ms(past, plan, 1_000.0 + passed_s * 1e3) == pytest.approx(elapsed_s * 1e3)


def test_intervals_are_kept_over_a_cut(tmp_path: Path) -> None:
    """Cut after two of five time points and resumed 7 s after the second: the third comes at its time, 10 s after."""
    rig, plan = small(tmp_path, interval_s=10.0)
    starts: list[float] = []
    bench = bench_of(rig)
    bench.hooks["start"] = lambda: starts.append(bench.clock.now_ms())

    def stop(shot: Shot, _burst: Burst) -> None:
        if shot.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_plan(tmp_path / "run", rig, plan, stop)
    bench.clock.sleep_ms(7_000.0)
    past = read_past(tmp_path / "run" / "journal.jsonl")
    elapsed_ms = _elapsed_ms(past, plan, bench.clock.now_ms())
    with spooling(tmp_path / "run", resumed=True) as (run, spool):
        Engine(plan, rig, spool, past=past, elapsed_ms=elapsed_ms).run()
    assert np.diff(starts) == pytest.approx([10_000.0] * 4, abs=1.0)
    zeros = [line["zero_ms"] for line in lines_of(run, "started")]
    assert zeros[1] == pytest.approx(zeros[0], abs=20.0)


# ---------------------------------------------------------------- clocks


def test_a_calendar_that_jumps_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour forth and two back, at every look at it."""
    jumps = iter(range(10**9))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + (-7200.0 if next(jumps) % 2 else 3600.0))
    rig, plan = small(tmp_path, interval_s=1.0)
    starts: list[float] = []
    bench = bench_of(rig)
    bench.hooks["start"] = lambda: starts.append(bench.clock.now_ms())
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert np.diff(starts) == pytest.approx([1_000.0] * 4)
    assert (counts.saved, counts.late_bursts) == (20, 0)
    assert lines_of(run, "sealed")


def test_nobody_measures_by_the_calendar() -> None:
    """time.time may jump; it is for people's dates only, of which there are few."""
    folder = Path(dmu_hw.__file__).parent
    found = [path.name for path in folder.rglob("*.py") if re.search(r"\btime\.time\(|time_ns\(", path.read_text())]
    assert found == []
