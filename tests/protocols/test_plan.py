"""What a plan decides: order, places, planes, times, doses; and that it stays quick and small."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from itertools import pairwise, product
from time import process_time
from typing import Any

import numpy as np
import pytest

from dmu_hw.plan import Shot

Planned = Callable[..., Any]
EVERYWHERE = {
    "grid": {"rows": 2, "columns": 3},
    "focus_um": 10.0,
    "z": {"range_um": 2.0, "step_um": 1.0},
    "time": {"loops": 2, "interval_s": 5.0},
    "references": {"plain": True, "full": True},
}


# ---------------------------------------------------------------- when and where


def test_shots_come_by_time_then_place_then_plane_then_role(planned: Planned) -> None:
    plan = planned(**EVERYWHERE).plan
    expected = list(product(range(2), range(6), range(3), ("patterns", "plain", "full")))
    assert [(shot.time, shot.position, shot.z, shot.role) for shot in plan.shots] == expected
    assert [shot.index for shot in plan.shots] == list(range(len(expected)))
    assert (plan.times, plan.positions, plan.planes) == (2, 6, 3)
    assert {shot.due_s for shot in plan.shots if shot.time == 1} == {5.0}
    assert {shot.z_um for shot in plan.shots if shot.z == 0} == {9.0}
    assert {shot.z_um for shot in plan.shots if shot.z == 2} == {11.0}


def test_shots_are_a_sequence(planned: Planned) -> None:
    shots = planned(**EVERYWHERE).plan.shots
    listed = list(shots)
    assert len(shots) == len(listed) == 2 * 6 * 3 * 3
    assert all(isinstance(shot, Shot) for shot in listed)
    assert shots[-1] == listed[-1]
    assert shots[3:20:4] == tuple(listed[3:20:4])
    assert listed[7] in shots
    for outside in (len(shots), -len(shots) - 1):
        with pytest.raises(IndexError):
            shots[outside]


def test_a_grid_is_walked_like_an_ox_ploughs(planned: Planned) -> None:
    grid = {"rows": 3, "columns": 4, "overlap": 0.25, "centre_um": (100.0, -50.0)}
    plan = planned(grid=grid).plan
    places = [(shot.x_um, shot.y_um) for shot in plan.shots]
    step_um = 32 * 0.5 * 0.75
    assert len(set(places)) == 12
    assert np.allclose(np.mean(places, axis=0), (100.0, -50.0))
    for before, after in pairwise(places):
        assert np.isclose(np.hypot(*np.subtract(after, before)), step_um), "each step goes to a neighbour"
    assert [y for _, y in places] == sorted(y for _, y in places)


def test_positions_are_taken_in_their_order(planned: Planned) -> None:
    positions = ({"x_um": 5.0, "y_um": 1.0}, {"x_um": -5.0, "y_um": 2.0, "name": "edge"})
    plan = planned(positions=positions).plan
    assert [(shot.x_um, shot.y_um) for shot in plan.shots] == [(5.0, 1.0), (-5.0, 2.0)]


def test_without_places_nothing_moves(planned: Planned) -> None:
    bench = planned({"devices.stage": ..., "devices.focus": ...})
    assert [(shot.x_um, shot.y_um, shot.z_um) for shot in bench.plan.shots] == [(None, None, None)]


@pytest.mark.parametrize(
    ("range_um", "step_um", "planes"),
    [(0.0, 1.0, [0.0]), (1.0, 0.4, [-0.4, 0.0, 0.4]), (0.3, 0.1, [-0.15, -0.05, 0.05, 0.15]), (2.0, 3.0, [0.0])],
)
def test_planes_lie_round_the_focus(planned: Planned, range_um: float, step_um: float, planes: list[float]) -> None:
    plan = planned(focus_um=7.0, z={"range_um": range_um, "step_um": step_um}).plan
    assert np.allclose([shot.z_um for shot in plan.shots], np.add(7.0, planes))


def test_the_field_lies_in_the_middle_of_the_sensor(planned: Planned) -> None:
    plan = planned(field_px=(32, 16)).plan
    assert (plan.roi.x, plan.roi.y, plan.roi.width, plan.roi.height) == (24, 16, 16, 32)
    assert plan.corner_um == (-4.0, -8.0)
    assert plan.centre_um == (0.0, 0.0)


# ---------------------------------------------------------------- how


@pytest.mark.parametrize("stepping", ["dmd", "camera", "software"])
@pytest.mark.parametrize(
    "patterns",
    [
        {"set": "hadamard", "count": 4, "camera_pixel": 4},
        {"set": "blocks", "count": 16, "camera_pixel": 4},
        {"set": "random", "count": 4, "camera_pixel": 4, "tile": 2},
        {"set": "uniform", "count": 1, "camera_pixel": 2},
    ],
    ids=lambda patterns: patterns["set"],
)
def test_references_take_as_much_light_as_the_patterns(
    planned: Planned, patterns: dict[str, Any], stepping: str
) -> None:
    bench = planned({"stepping": stepping}, patterns=patterns, references={"plain": True, "full": True})
    takes, optics = bench.plan.takes, bench.rig.optics
    on = takes["patterns"].stack.masks.mean(axis=(1, 2))
    lit = (on + (1 - on) * optics.mirrors.leakage).sum()
    assert np.isclose(takes["patterns"].dose_mj_cm2, optics.dose_mj_cm2(1.0, takes["patterns"].period_ms) * lit)
    for role in ("plain", "full"):
        assert np.isclose(takes[role].dose_mj_cm2, takes["patterns"].dose_mj_cm2)
        assert np.isclose(takes[role].dose_mj_cm2, optics.dose_mj_cm2(1.0, takes[role].period_ms))
        assert takes[role].stack.masks.all()
    for take in takes.values():
        overhead_ms = bench.rig.dmd.settle_ms + bench.rig.camera.readout_ms(take.mode)
        assert np.isclose(take.period_ms, take.mode.exposure_ms + overhead_ms)
        assert take.mode.trigger == ("external" if stepping == "dmd" else "internal")


def test_the_plain_camera_has_the_same_compression(planned: Planned) -> None:
    plan = planned(
        patterns={"set": "hadamard", "count": 4, "camera_pixel": 8}, references={"plain": True, "full": True}
    ).plan
    assert plan.price.compression == 16
    pixels = {role: np.prod(take.mode.shape) * take.stack.count for role, take in plan.takes.items()}
    assert pixels["plain"] == pixels["patterns"] == 32 * 32 / 16
    assert pixels["full"] == 32 * 32


def test_uniform_light_lies_behind_the_patterns_in_the_memory(planned: Planned) -> None:
    plan = planned(references={"plain": True, "full": True}).plan
    assert plan.takes["patterns"].memory == (0, 1, 2, 3)
    assert plan.takes["plain"].memory == plan.takes["full"].memory == (4,)


# ---------------------------------------------------------------- late, large


def test_loops_that_come_late_are_noticed(planned: Planned) -> None:
    late = planned(time={"loops": 5, "interval_s": 0.001}).plan
    assert late.price.late_s > 0
    (caution,) = late.cautions
    assert "time.interval_s" in caution
    in_time = planned(time={"loops": 5, "interval_s": 10.0}).plan
    assert in_time.price.late_s == 0
    assert in_time.cautions == ()
    assert planned(time={"loops": 5}).plan.cautions == ()


def test_a_large_run_plans_in_little_time_and_memory(planned: Planned) -> None:
    """10⁵ fields, 10 times, with references: 3·10⁶ shots."""
    rig = {"devices.stage.x_um": [-1e6, 1e6], "devices.stage.y_um": [-1e6, 1e6]}
    tracemalloc.start()
    began_s = process_time()
    plan = planned(
        rig,
        grid={"rows": 250, "columns": 400},
        time={"loops": 10},
        references={"plain": True, "full": True},
    ).plan
    spent_s = process_time() - began_s
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.shots) == 3_000_000
    assert plan.price.frames == 6_000_000
    assert plan.shots[-1].position == 99_999
    assert spent_s < 10, "about 1 s"
    assert peak < 100e6
