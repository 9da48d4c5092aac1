"""What the engine itself costs beside exposures, settling and readout. Nothing is rendered, so that nothing of that
counts.

Work is counted in the time that the engine's thread computes, which other programs do not lengthen. What a burst takes
on the clock also holds the sync of its dose, which is the disk's, and whatever else the machine does: that one is to be
measured on a machine that does nothing else.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "acquisition"))
from fakes import bench_of, bench_rig, plan_of, spooling
from figures import load

from dmu_hw import burst as burst_module
from dmu_hw.burst import BurstTaker
from dmu_hw.engine import Engine
from dmu_hw.guard import Guard
from dmu_hw.ledger import Ledger
from dmu_hw.saver import Saver

BURST_MS, FRAME_MS = 2.0, 0.1
"""Allowed for each burst, and for each frame of it."""
LOOPS, ATTEMPTS = 60, 3


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


class Parts:
    """Where the time of the engine's thread goes: each moment belongs to the innermost part that is open.

    What the simulated devices compute is no work of the engine: it is told by the processor's time of the thread in
    their calls, less that of waiting for the clock. All else in those calls is the engine's after all, above all the
    interpreter's lock, which its other threads may hold: it is `late`.
    """

    def __init__(self) -> None:
        self.ms: defaultdict[str, float] = defaultdict(float)
        self._thread = threading.get_ident()
        self._open = ["loop"]
        self._since = self._now()

    def watch(self, holder: Any, name: str, part: str) -> None:
        """From now on a call of it is a part."""
        call = getattr(holder, name)

        def watched(*given: Any, **more: Any) -> Any:
            with self.within(part):
                return call(*given, **more)

        setattr(holder, name, watched)

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        if threading.get_ident() != self._thread:
            yield
            return
        self._turn()
        self._open.append(part)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def taken(self) -> defaultdict[str, float]:
        """What came together since it was asked last."""
        self._turn()
        taken, self.ms = self.ms, defaultdict(float)
        return taken

    def _turn(self) -> None:
        (wall_s, cpu_s), now = self._since, self._now()
        passed_ms, computed_ms = 1e3 * (now[0] - wall_s), 1e3 * (now[1] - cpu_s)
        if self._open[-1] == "devices":
            self.ms["devices"] += computed_ms
            self.ms["late"] += passed_ms - computed_ms
        else:
            self.ms[self._open[-1]] += passed_ms
        self._since = now

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.thread_time()


PARTS = ("ledger", "guard", "frames", "judging", "saving", "loop", "late")
COMMANDS = {
    "dmd": ("show", "start", "stop", "shown"),
    "camera": ("configure", "arm", "pop", "disarm"),
    "light": ("set_power", "on", "off", "is_on", "interlock_closed"),
}


def timed(folder: Path, stepping: str, count: int, side: int) -> tuple[list[float], dict[str, float]]:
    """Of each burst: from one to the next, less what the rig itself takes for it and what its devices compute. And what
    each part takes of a burst, in the middle of all; frames and loop also count what is done while light is on."""
    rig = bench_rig(folder, stepping, side=side)
    bench_of(rig).clock = rig.clock = RealClock()
    plan = plan_of(rig, side=side, count=count, camera_pixel=8, time={"loops": LOOPS}, exposure_ms=2.0)
    ends: list[tuple[float, dict[str, float]]] = []
    with spooling(folder / "run") as (_, spool):
        engine = Engine(plan, rig, spool, lambda _shot, _burst: ends.append((rig.clock.now_ms(), parts.taken())))
        parts = Parts()
        with pytest.MonkeyPatch.context() as patch:
            for holder, name, part in (
                (Ledger, "book", "ledger"),
                (Guard, "_darken", "guard"),
                (BurstTaker, "_by_software", "frames"),
                (BurstTaker, "_by_hardware", "frames"),
                (BurstTaker, "_judged", "judging"),
                (burst_module, "_doubt", "judging"),
                (burst_module, "crc32c", "judging"),
                (Saver, "put", "saving"),
                (Engine, "_note_taken", "saving"),
            ):
                patch.setattr(holder, name, getattr(holder, name))  # back when this ends
                parts.watch(holder, name, part)
            for device, names in COMMANDS.items():
                for name in names:
                    parts.watch(getattr(rig, device), name, "devices")
            parts.watch(rig.clock, "sleep_ms", "waiting")
            counts = engine.run()
    assert (counts.missing, counts.retaken_bursts) == (0, 0)
    own_ms = plan.takes["patterns"].burst_ms
    spent = [told for _, told in ends[1:]]
    times_ms = [
        after - before - own_ms - told["devices"]
        for (before, _), (after, _), told in zip(ends, ends[1:], spent, strict=False)
    ]
    return times_ms, {part: statistics.median(told[part] for told in spent) for part in (*PARTS, "devices")}


def work_ms(folder: Path, stepping: str, count: int, side: int) -> list[float]:
    """Of each burst: computing of the thread that takes it, where nothing is waited for; the bench's own included."""
    rig = bench_rig(folder, stepping, side=side)
    plan = plan_of(rig, side=side, count=count, camera_pixel=8, time={"loops": LOOPS}, exposure_ms=2.0)
    ends_ms: list[float] = []
    with spooling(folder / "run") as (_, spool):
        Engine(plan, rig, spool, lambda _shot, _burst: ends_ms.append(1e3 * time.thread_time())).run()
    return [after - before for before, after in pairwise(ends_ms)]


CASES = [(stepping, count) for stepping in ("dmd", "camera", "software") for count in (4, 16, 64)]


def test_a_device_that_keeps_the_engine_waiting_is_not_taken_for_work() -> None:
    """Only what it computes is its own; the wait is told, and counts."""
    parts = Parts()
    with parts.within("devices"):
        time.sleep(0.02)
        with parts.within("waiting"):
            time.sleep(0.02)
    taken = parts.taken()
    assert taken["late"] >= 15.0
    assert taken["waiting"] >= 15.0
    assert taken["devices"] < 5.0


@pytest.mark.bench
@pytest.mark.parametrize(("stepping", "count"), CASES)
def test_a_burst_is_little_work(tmp_path: Path, figure: Callable[..., None], stepping: str, count: int) -> None:
    times_ms = work_ms(tmp_path, stepping, count, side=128)
    check(times_ms, figure, f"a burst of {count} frames stepped by {stepping}: work of the engine", count)


@pytest.mark.bench  # of the wall clock, of the disk too: of three attempts the best, since others may come in between
@pytest.mark.parametrize(("stepping", "count"), CASES)
def test_a_burst_costs_little_more_than_its_light(
    tmp_path: Path, figure: Callable[..., None], stepping: str, count: int
) -> None:
    if load() > 1.5:
        pytest.skip(f"the machine does other things: {load():.1f} processes want a core")
    attempts = []
    for number in range(ATTEMPTS):
        (folder := tmp_path / str(number)).mkdir()
        attempts.append(timed(folder, stepping, count, side=128))
    times_ms, parts_ms = min(attempts, key=lambda attempt: statistics.median(attempt[0]))
    what = f"a burst of {count} frames stepped by {stepping}"
    told = ", ".join(f"{part} {parts_ms[part]:.2f}" for part in PARTS)
    figure("speed", f"{what}: its parts", f"{told}; the bench's devices {parts_ms['devices']:.2f} (ms, not counted)")
    check(times_ms, figure, f"{what}: time beside its light", count)


def check(times_ms: list[float], figure: Callable[..., None], what: str, count: int) -> None:
    allowed_ms = BURST_MS + FRAME_MS * count
    middle_ms, slow_ms = statistics.median(times_ms), statistics.quantiles(times_ms, n=20)[-1]
    figure("speed", what, f"{middle_ms:.2f} ms (19 of 20: {slow_ms:.2f} ms)", f"{allowed_ms:.1f} ms")
    assert middle_ms <= allowed_ms
