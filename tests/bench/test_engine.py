"""What the engine itself costs beside exposures, settling and readout. Nothing is rendered, so that nothing of that
counts.

Work is counted in the time that the engine's thread computes, which other programs do not lengthen. What a burst takes
on the clock also holds the sync of its dose, which is the disk's, and whatever else the machine does: that one is to be
measured on a machine that does nothing else.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "acquisition"))
from fakes import bench_of, bench_rig, plan_of, spooling
from figures import load

from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.plan import Shot

BURST_MS, FRAME_MS = 2.0, 0.1
"""Allowed for each burst, and for each frame of it."""
LOOPS = 60


class RealClock:
    """The bench's time at the pace of the world's. What a simulated device sets it forward by is waited for."""

    def __init__(self) -> None:
        self.began_s = time.perf_counter()

    def now_ms(self) -> float:
        return (time.perf_counter() - self.began_s) * 1e3

    def sleep_ms(self, duration_ms: float) -> None:
        """To the moment itself: what a machine oversleeps is no work of the engine."""
        until_ms = self.now_ms() + duration_ms
        while (left_ms := until_ms - self.now_ms()) > 0:
            if left_ms > 2.0:
                time.sleep((left_ms - 1.0) / 1e3)

    @property
    def ms(self) -> float:
        return self.now_ms()

    @ms.setter
    def ms(self, value: float) -> None:
        self.sleep_ms(value - self.now_ms())


def overhead_ms(folder: Path, stepping: str, count: int, side: int) -> list[float]:
    """Of each burst: from one to the next, less what the rig itself takes for it."""
    rig = bench_rig(folder, stepping, side=side)
    bench_of(rig).clock = rig.clock = RealClock()
    plan = plan_of(rig, side=side, count=count, camera_pixel=8, time={"loops": LOOPS}, exposure_ms=2.0)
    ends_ms: list[float] = []

    def watch(_shot: Shot, _burst: Burst) -> None:
        ends_ms.append(rig.clock.now_ms())

    with spooling(folder / "run") as (_, spool):
        counts = Engine(plan, rig, spool, watch).run()
    assert (counts.missing, counts.retaken_bursts) == (0, 0)
    own_ms = plan.takes["patterns"].burst_ms
    return [after - before - own_ms for before, after in pairwise(ends_ms)]


def work_ms(folder: Path, stepping: str, count: int, side: int) -> list[float]:
    """Of each burst: computing of the thread that takes it, where nothing is waited for; the bench's own included."""
    rig = bench_rig(folder, stepping, side=side)
    plan = plan_of(rig, side=side, count=count, camera_pixel=8, time={"loops": LOOPS}, exposure_ms=2.0)
    ends_ms: list[float] = []
    with spooling(folder / "run") as (_, spool):
        Engine(plan, rig, spool, lambda _shot, _burst: ends_ms.append(1e3 * time.thread_time())).run()
    return [after - before for before, after in pairwise(ends_ms)]


CASES = [(stepping, count) for stepping in ("dmd", "camera", "software") for count in (4, 16, 64)]


@pytest.mark.bench
@pytest.mark.parametrize(("stepping", "count"), CASES)
def test_a_burst_is_little_work(tmp_path: Path, figure: Callable[..., None], stepping: str, count: int) -> None:
    times_ms = work_ms(tmp_path, stepping, count, side=128)
    check(times_ms, figure, f"a burst of {count} frames stepped by {stepping}: work of the engine", count)


@pytest.mark.campaign  # of the wall clock and of the disk: a figure of this machine, which is at the limit
@pytest.mark.parametrize(("stepping", "count"), CASES)
def test_a_burst_costs_little_more_than_its_light(
    tmp_path: Path, figure: Callable[..., None], stepping: str, count: int
) -> None:
    if load() > 1.5:
        pytest.skip(f"the machine does other things: {load():.1f} processes want a core")
    times_ms = overhead_ms(tmp_path, stepping, count, side=128)
    check(times_ms, figure, f"a burst of {count} frames stepped by {stepping}: time beside its light", count)


def check(times_ms: list[float], figure: Callable[..., None], what: str, count: int) -> None:
    allowed_ms = BURST_MS + FRAME_MS * count
    middle_ms, slow_ms = statistics.median(times_ms), statistics.quantiles(times_ms, n=20)[-1]
    figure("speed", what, f"{middle_ms:.2f} ms (19 of 20: {slow_ms:.2f} ms)", f"{allowed_ms:.1f} ms")
    assert middle_ms <= allowed_ms
