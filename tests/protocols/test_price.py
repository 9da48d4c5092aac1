"""The price is what the run then takes: on the rig's clock, in frames, in light and in dose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.engine import Counts, Engine
from dmu_hw.journal import Journal, read_journal
from dmu_hw.spool import Spool

Planned = Callable[..., Any]
RUNS: dict[str, dict[str, Any]] = {
    "one field": {},
    "references": {"references": {"plain": True, "full": True}},
    "a grid": {"grid": {"rows": 2, "columns": 3, "overlap": 0.5}},
    "far apart": {"positions": ({"x_um": 2000.0, "y_um": 0.0}, {"x_um": -2000.0, "y_um": 1500.0})},
    "planes": {"focus_um": 20.0, "z": {"range_um": 4.0, "step_um": 2.0}, "grid": {"rows": 1, "columns": 2}},
    "loops that wait": {"time": {"loops": 3, "interval_s": 0.5}, "grid": {"rows": 1, "columns": 2}},
    "time innermost": {
        "time": {"loops": 3, "interval_s": 0.5},
        "grid": {"rows": 1, "columns": 3},
        "focus_um": 5.0,
        "z": {"planes_um": (-1.0, 2.0)},
        "order": "field, z, time",
    },
    "planes outermost": {
        "time": ({"loops": 2, "interval_s": 0.3}, {"loops": 2, "interval_s": 1.0}),
        "positions": ({"x_um": 0.0, "y_um": 0.0, "focus_um": 3.0}, {"x_um": 90.0, "y_um": 0.0, "focus_um": 40.0}),
        "grid": {"rows": 2, "columns": 2, "walk": "spiral"},
        "z": {"planes_um": (-1.0, 2.0)},
        "order": "z, time, field",
    },
    "planes within fields": {
        "time": {"loops": 3},
        "positions": ({"x_um": 0.0, "y_um": 0.0, "focus_um": 3.0}, {"x_um": 90.0, "y_um": 0.0, "focus_um": 40.0}),
        "z": {"range_um": 30.0, "step_um": 10.0},
        "order": "field, time, z",
    },
    "planes between": {
        "time": {"loops": 3},
        "grid": {"rows": 1, "columns": 3},
        "focus_um": 5.0,
        "z": {"range_um": 30.0, "step_um": 10.0},
        "order": "time, z, field",
    },
    "bleaching": {"time": {"loops": 7}, "grid": {"rows": 1, "columns": 2}, "references": {"bleaching": 3}},
    "loops that come late": {"time": {"loops": 4, "interval_s": 0.001}},
}
TOGETHER: dict[str, Any] = {
    "grid": {"rows": 1, "columns": 2},
    "focus_um": 1.0,
    "z": {"range_um": 1.0, "step_um": 1.0},
    "time": {"loops": 2, "interval_s": 0.1},
    "references": {"plain": True},
}


@dataclass
class Watch:
    """When a light was on, on the world's clock."""

    since_ms: float | None = None
    total_ms: float = 0.0
    times: int = 0


@dataclass
class Ran:
    counts: Counts
    price: Any
    time_s: float
    light: Watch
    world: Any
    plan: Any
    booked: list[dict[str, Any]] = field(default_factory=list)


def watched(light: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch, on, off = Watch(), light.on, light.off

    def switch_on(*longest_ms: float) -> None:
        on(*longest_ms)
        watch.since_ms = clock.now_ms()
        watch.times += 1

    def switch_off() -> None:
        off()
        if watch.since_ms is not None:
            watch.total_ms += clock.now_ms() - watch.since_ms
        watch.since_ms = None

    monkeypatch.setattr(light, "on", switch_on)
    monkeypatch.setattr(light, "off", switch_off)
    return watch


@pytest.fixture
def ran(planned: Planned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Plans and takes all frames."""

    def run(rig_changes: dict[str, Any] | None = None, **changes: Any) -> Ran:
        bench = planned(rig_changes, **changes)
        rig, plan = bench.rig, bench.plan
        journal = Journal(tmp_path / "journal.jsonl")
        spool = Spool(tmp_path / "spool", journal)
        with rig.opened():
            watch = watched(rig.light, rig.clock, monkeypatch)
            began_ms = rig.clock.now_ms()
            counts = Engine(plan, rig, spool).run()
            time_s = (rig.clock.now_ms() - began_ms) / 1e3
            world = rig.connection("world")
            for light in world._light(world._seen_until_ms, rig.clock.now_ms()):
                world.renderer.bleach(light)
        spool.close()
        journal.close()
        lines = [line for line in read_journal(tmp_path / "journal.jsonl") if line["kind"] == "light"]
        return Ran(counts, plan.price, time_s, watch, world, plan, lines)

    return run


@pytest.mark.parametrize("changes", RUNS.values(), ids=RUNS)
def test_time_frames_light_and_dose_are_as_priced(ran: Callable[..., Ran], changes: dict[str, Any]) -> None:
    check(ran(**changes))


@pytest.mark.parametrize("stepping", ["dmd", "camera", "software"])
def test_they_are_however_the_patterns_are_stepped(ran: Callable[..., Ran], stepping: str) -> None:
    check(ran({"stepping": stepping}, **TOGETHER))


def check(run: Ran) -> None:
    price, counts = run.price, run.counts
    assert counts.missing == 0
    assert price.frames == counts.saved == counts.received
    assert price.time_s == pytest.approx(run.time_s, rel=0.05)
    assert price.light_on_s == pytest.approx(run.light.total_ms / 1e3, rel=0.01)
    assert run.light.times == len(run.plan.shots) == len(run.booked)
    booked: dict[int, float] = {}
    for line in run.booked:
        position = run.plan.shots[line["shot"]].position
        booked[position] = booked.get(position, 0.0) + line["dose_mj_cm2"]
    assert list(booked.values()) == pytest.approx([price.dose_per_field_mj_cm2] * run.plan.positions)
    assert counts.dose_mj_cm2 == pytest.approx(booked)


@pytest.mark.parametrize("stepping", ["dmd", "camera", "software"])
@pytest.mark.parametrize("exposure_ms", [0.2, 5.0])
def test_the_dose_is_what_the_specimen_takes_and_never_more(
    ran: Callable[..., Ran], exposure_ms: float, stepping: str
) -> None:
    """A slow camera, so that much of the light falls between exposures; the world books it by itself."""
    rig = {
        "stepping": stepping,
        "devices.camera.readout_ms": 2.0,
        "optics.dye.bleach_dose_mj_cm2": 1e9,
        "devices.dmd.dark_ms": 0.0,
    }
    run = ran(rig, exposure_ms=exposure_ms, references={"plain": True, "full": True})
    pixels = run.plan.protocol.field_px
    taken = run.world.doses[""].read((0.0, 0.0), pixels, run.plan.optics.object_pixel_um)
    assert float(np.mean(taken)) == pytest.approx(run.price.dose_per_field_mj_cm2, rel=0.02)
    assert float(np.mean(taken)) <= run.price.dose_per_field_mj_cm2 * 1.001


def test_the_disk_that_is_asked_for_is_enough(ran: Callable[..., Ran], tmp_path: Path) -> None:
    """Spool and journal together are less than half of it: the store comes on top."""
    run = ran(grid={"rows": 2, "columns": 2}, references={"plain": True, "full": True})
    written = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".yaml")
    image_bytes = 4 * 32 * 32 * run.price.bursts
    assert written <= (run.price.disk_bytes - image_bytes) / 2
    assert written > (run.price.disk_bytes - image_bytes) / 4, "and not far too much"
