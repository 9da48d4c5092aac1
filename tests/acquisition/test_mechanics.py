"""What was measured of mirrors, camera and stage is heeded: waits, ways and the axes of grids."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import plan_of, run_plan
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.errors import InputError
from dmu_hw.mechanics import AS_TOLD, Mechanics
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig
from dmu_hw.writer import field_corners

SmallRig = Callable[..., Rig]
FULL = Roi(0, 0, 64, 64)
places = st.tuples(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))


@given(places, places, st.tuples(st.floats(0, 50), st.floats(0, 50)))
def test_a_stage_arrives_from_below_where_it_has_backlash(here: Any, there: Any, backlash_um: Any) -> None:
    ways = Mechanics(backlash_um=backlash_um).ways(here, there)
    assert ways[-1] == there
    *_, before, last = [here, *ways]
    for slack, old, new in zip(backlash_um, before, last, strict=True):
        assert slack <= 0.02 or new >= old
    assert len(ways) <= 2


def test_a_stage_does_not_leave_its_limits_to_come_from_below() -> None:
    mechanics = Mechanics(backlash_um=(4.0, 0.0))
    assert mechanics.ways((10.0, 0.0), (1.0, 0.0), lowest=(-2.0, -2.0)) == [(-2.0, 0.0), (1.0, 0.0)]
    assert mechanics.ways((0.0, 9.0), (1.0, 0.0)) == [(1.0, 0.0)]


@given(places, places, st.floats(-45, 45))
def test_camera_and_stage_see_the_same_places(centre: Any, place: Any, angle_deg: float) -> None:
    mechanics = Mechanics(angle_deg=angle_deg)
    assert mechanics.seen(centre, mechanics.turned(centre, place)) == pytest.approx(place, abs=1e-6)
    assert math.dist(centre, mechanics.turned(centre, place)) == pytest.approx(math.dist(centre, place), abs=1e-6)


def test_what_was_measured_is_read() -> None:
    timing = {"settle_ms": 0.4, "early_ms": 0.1, "readout_ms": 1.0, "told_readout_ms": 0.5, "overhead_ms": 1.1}
    stage = {"angle_deg": 2.0, "backlash_x_um": 1.0, "backlash_y_um": 0.0}
    found = Mechanics.of({"timing": timing, "stage": stage, "field": {}})
    assert found == Mechanics(settle_ms=0.4, early_ms=0.1, readout_part=2.2, angle_deg=2.0, backlash_um=(1.0, 0.0))
    assert Mechanics.of({}) == AS_TOLD
    with pytest.raises(KeyError, match="angle_deg"):
        Mechanics.of({"stage": {}})


# ---------------------------------------------------------------- mirrors and camera


def test_a_run_waits_for_mirrors_as_long_as_they_were_seen_to_need(small_rig: SmallRig) -> None:
    """The mirrors need 2 ms and are told to need 0.07: without the measurement frames see two patterns."""
    changes = {"devices.dmd.true": {"settle_ms": 2.0, "dark_ms": 0.0}, "connections.world.specimen": {"kind": "layer"}}
    rig = small_rig(changes)
    told = plan_of(rig, side=32).takes["patterns"]
    assert _mixed(rig, told.period_ms) > 0.3
    rig.moves(Mechanics(settle_ms=2.0))
    waiting = plan_of(rig, side=32).takes["patterns"]
    assert waiting.period_ms == pytest.approx(told.period_ms + 2.0 - 0.07)
    assert _mixed(rig, waiting.period_ms) < 0.02


def _mixed(rig: Rig, period_ms: float) -> float:
    """How much the frame of a bright pattern that follows a dark one lacks."""
    rig.dmd.load(np.broadcast_to(np.array([False, True])[:, None, None], (2, *rig.dmd.shape)).copy())
    mode = CameraMode(0.5, 1, FULL, "external")
    rig.camera.configure(mode)
    rig.light.set_power(10.0)
    rig.light.on()
    rig.camera.arm(3)
    rig.dmd.start((0, 1, 1), max(period_ms, 1.5))
    _, first, second = (rig.camera.pop(1e3).pixels.astype(float).mean() - 100 for _ in range(3))
    rig.light.off()
    rig.dmd.stop()
    return float(1 - first / second)


def test_a_dmd_that_cannot_wait_is_refused(small_rig: SmallRig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = small_rig({})
    monkeypatch.setitem(rig._parts, "dmd", SimpleNamespace(settle_ms=0.07))
    rig.moves(Mechanics(settle_ms=1.0, early_ms=0.0))
    with pytest.raises(InputError, match=r"devices.dmd.*: exposures begin 0.5 ms before patterns stand"):
        rig.moves(Mechanics(settle_ms=1.0, early_ms=0.5))


def test_a_camera_that_needs_longer_is_given_the_time(small_rig: SmallRig) -> None:
    rig = small_rig({"stepping": "camera"})
    told = plan_of(rig, side=32).takes["patterns"]
    rig.moves(Mechanics(readout_part=3.0))
    longer = plan_of(rig, side=32).takes["patterns"]
    readout_ms = rig.camera.readout_ms(told.mode)
    assert longer.period_ms == pytest.approx(told.period_ms + 2 * readout_ms)
    assert longer.mode.interval_ms == pytest.approx(told.mode.interval_ms + 2 * readout_ms)


# ---------------------------------------------------------------- stage

GRID = {"rows": 2, "columns": 2, "walk": "spiral"}


@pytest.mark.parametrize("known", [False, True])
def test_a_run_comes_to_its_fields_from_below(small_rig: SmallRig, tmp_path: Path, known: bool) -> None:
    rig = small_rig({"devices.stage.backlash_um": 3.0})
    if known:
        rig.moves(Mechanics(backlash_um=(3.0, 3.0)))
    plan = plan_of(rig, side=32, grid=GRID)
    world: Any = rig.connection("world")
    stood: list[tuple[float, ...]] = []
    run_plan(tmp_path / "run", rig, plan, lambda _shot, _burst: stood.append(world.place_um[:2]))
    asked = [(shot.x_um, shot.y_um) for shot in plan.shots]
    assert len(asked) == 4
    assert (stood == asked) is known


def test_a_grid_lies_along_the_axes_of_the_camera(small_rig: SmallRig) -> None:
    """The stage stands askew: it goes along the camera's axes, and the fields meet."""
    rig = small_rig({"devices.stage.true": {"angle_deg": 10.0}})
    straight = plan_of(rig, side=32, grid=GRID)
    rig.moves(Mechanics(angle_deg=10.0))
    turned = plan_of(rig, side=32, grid=GRID)
    world: Any = rig.connection("world")
    assert rig.stage is not None
    for plain, place in zip(straight.shots.places, turned.shots.places, strict=True):
        rig.stage.move_um(place.x_um or 0.0, place.y_um or 0.0, 1e4)
        assert world.place_um[:2] == pytest.approx((plain.x_um, plain.y_um))
    corners = [[corner for _, corner in field_corners(plan, 0.5)] for plan in (straight, turned)]
    steps = [np.diff(np.array(found), axis=0) for found in corners]
    assert steps[0] == pytest.approx(steps[1])
