"""Every fault of the simulated microscope, in every way of stepping: no frame under a wrong pattern, and dark after.

The mirrors' own history says what each exposure saw; what a run records is compared with that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import lines_of, plan_of, run_plan

from dmu_hw.engine import Counts
from dmu_hw.errors import DeviceError
from dmu_hw.journal import crc32c
from dmu_hw.omezarr import Store
from dmu_hw.plan import Plan
from dmu_hw.rig import Rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.writer import write_stores

MODES = ["dmd", "camera", "software"]
POSITIONS = ({"x_um": 0.0, "y_um": 0.0}, {"x_um": 30.0, "y_um": 0.0}, {"x_um": 60.0, "y_um": 0.0})
TAKEN_AGAIN = [
    *((stepping, "dropped_frame", at) for stepping in MODES for at in (4, 5, 7)),
    *((stepping, "repeated_frame", at) for stepping in MODES for at in (0, 4, 5, 7)),
    *((stepping, "shifted_sequence", at) for stepping in ("dmd", "camera") for at in (0, 1)),
    *((stepping, "lost_trigger", at) for stepping in ("dmd", "camera") for at in (0, 3, 4, 6)),
]
ENDS = [
    *((stepping, "camera_death", at, "camera") for stepping in MODES for at in (0, 6)),
    *((stepping, "buffer_overflow", at, "camera") for stepping in MODES for at in (0, 6)),
    *((stepping, "refused_upload", 0, "dmd") for stepping in MODES),
    *((stepping, "stuck_busy", at, "stage") for stepping in MODES for at in (0, 1)),
    *((stepping, "interlock_open", at, "light") for stepping in MODES for at in (0, 1)),
]


@dataclass
class Bench:
    """A simulated rig and what its exposures truly saw."""

    rig: Rig
    world: Any
    saw: dict[str, list[int]]
    """Places in the mirrors' memory that hold what most of the light came from, by the checksum of the pixels."""

    def check_dark(self) -> None:
        now_ms = self.world.clock.now_ms() + 1.0
        assert self.world.history.power_mw["light"].at(now_ms) == 0.0
        ((frame, part),) = self.world.history.mirrors.at(now_ms)
        assert frame is None or not frame.on.any()
        assert part == 1.0

    def check_frames(self, run: RunFolder, plan: Plan) -> None:
        for line in lines_of(run, "frame"):
            take = plan.takes[plan.shots[line["shot"]].role]
            assert take.memory[line["pattern"]] in self.saw[line["crc32c_pixels"]]
            assert line["pattern_hash"] == take.stack.hashes[line["pattern"]]


def watched(rig: Rig, world: Any, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """From now on it is noted what each exposure of the world sees, and which frame of the rig's mirrors that is."""
    saw: dict[str, list[int]] = {}
    loaded: list[np.ndarray[Any, Any]] = []
    real_expose, real_load = world.expose, rig.dmd.load

    def load(frames: Any) -> None:
        loaded[:] = list(frames)
        real_load(frames)

    def expose(start_ms: float, stop_ms: float, mode: Any) -> Any:
        parts = world.history.light(start_ms, stop_ms)
        most = max(parts, key=lambda part: part.duration_ms).frame if parts else None
        pixels = real_expose(start_ms, stop_ms, mode)
        saw[crc32c(pixels.tobytes())] = [
            place for place, frame in enumerate(loaded) if most is not None and (frame == most.on).all()
        ]
        return pixels

    monkeypatch.setattr(rig.dmd, "load", load)
    monkeypatch.setattr(world, "expose", expose)
    return Bench(rig, world, saw)


@pytest.fixture
def bench(small_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    def make(stepping: str, kind: str | None = None, at: int = 0) -> Bench:
        faults = [] if kind is None else [{"kind": kind, "at": at}]
        rig = small_rig({"stepping": stepping, "connections.world.faults": faults})
        return watched(rig, rig.connection("world"), monkeypatch)

    return make


def plan_for(rig: Rig, **changes: Any) -> Plan:
    keys = {"positions": POSITIONS, "references": {"plain": False}, **changes}
    return plan_of(rig, side=64, **keys)


@pytest.mark.parametrize("stepping", MODES)
def test_without_faults_all_is_there(bench: Callable[..., Bench], tmp_path: Path, stepping: str) -> None:
    made = bench(stepping)
    plan = plan_for(made.rig, references={"plain": True, "full": True})
    run, counts = run_plan(tmp_path / "run", made.rig, plan)
    assert (counts.expected, counts.saved, counts.missing, counts.retaken_bursts) == (18, 18, 0, 0)
    made.check_frames(run, plan)
    made.check_dark()


def test_all_ways_of_stepping_give_the_same_frames(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """Up to noise, and in the same order."""
    images: dict[str, np.ndarray[Any, Any]] = {}
    for stepping in MODES:
        made = bench(stepping)
        plan = plan_for(made.rig)
        run, _ = run_plan(tmp_path / stepping, made.rig, plan)
        write_stores(run, plan)
        store = Store(run.frames)
        images[stepping] = np.stack([store.burst(field, 0, 0) for field in range(3)]).astype(float)
    one = images["dmd"]
    for other in (images["camera"], images["software"]):
        # variance of a difference is twice that of a frame, which the light itself tells: gain 0.5, read noise 1 e
        sigma = np.sqrt(2 * (0.5 * np.maximum(one - 100.0, 0.0) + 16 * 0.25 + 1.0))
        assert np.abs(np.mean((other - one) / sigma)) < 0.1
        assert np.mean(np.abs(other - one) / sigma) < 1.5
        for pattern in range(4):
            distances = [float(np.mean((other[:, pattern] - one[:, p]) ** 2)) for p in range(4)]
            assert int(np.argmin(distances)) == pattern


@pytest.mark.parametrize(("stepping", "kind", "at"), TAKEN_AGAIN)
def test_a_burst_that_came_back_damaged_is_taken_again(
    bench: Callable[..., Bench], tmp_path: Path, stepping: str, kind: str, at: int
) -> None:
    made = bench(stepping, kind, at)
    plan = plan_for(made.rig, retries=1)
    run, counts = run_plan(tmp_path / "run", made.rig, plan)
    assert (counts.expected, counts.saved, counts.missing, counts.retaken_bursts) == (12, 12, 0, 1)
    made.check_frames(run, plan)
    made.check_dark()


@pytest.mark.parametrize(("stepping", "kind", "at"), TAKEN_AGAIN)
def test_what_is_not_taken_again_is_missing(
    bench: Callable[..., Bench], tmp_path: Path, stepping: str, kind: str, at: int
) -> None:
    made = bench(stepping, kind, at)
    plan = plan_for(made.rig, retries=0)
    run, counts = run_plan(tmp_path / "run", made.rig, plan)
    made.check_frames(run, plan)
    made.check_dark()
    check_missing(run, plan, counts)


def check_missing(run: RunFolder, plan: Plan, counts: Counts) -> None:
    """Counts, journal and store tell the same; a missing frame is black and has no time."""
    missing = lines_of(run, "missing")
    assert 1 <= len(missing) <= 4
    assert all(line["reason"] for line in missing)
    assert (counts.saved, counts.missing) == (12 - len(missing), len(missing))
    gone = {(plan.shots[line["shot"]].position, line["pattern"]) for line in missing}
    write_stores(run, plan)
    store = Store(run.frames)
    for field in range(3):
        pixels, times = store.burst(field, 0, 0), np.asarray(store.times(field)[0, :, 0])
        for pattern in range(4):
            assert np.isnan(times[pattern]) == ((field, pattern) in gone)
            assert (pixels[pattern].max() == 0) == ((field, pattern) in gone)


@pytest.mark.parametrize(("stepping", "kind", "at", "device"), ENDS)
def test_a_device_that_fails_ends_the_run_and_is_named(
    bench: Callable[..., Bench], tmp_path: Path, stepping: str, kind: str, at: int, device: str
) -> None:
    made = bench(stepping, kind, at)
    plan = plan_for(made.rig, retries=3)
    with pytest.raises(DeviceError) as caught:
        run_plan(tmp_path / "run", made.rig, plan)
    assert caught.value.device == device
    made.check_frames(RunFolder(tmp_path / "run"), plan)
    made.check_dark()


def test_the_same_seed_gives_the_same_frames(bench: Callable[..., Bench], tmp_path: Path) -> None:
    """Bit for bit, times and order included."""
    runs = []
    for number in range(2):
        made = bench("dmd")
        run, _ = run_plan(tmp_path / str(number), made.rig, plan_for(made.rig, references={"full": True}))
        keys = ("shot", "pattern", "number", "time_ms", "crc32c_pixels")
        runs.append([[line[key] for key in keys] for line in lines_of(run, "frame")])
    assert runs[0] == runs[1]
    assert len(runs[0]) == 15
