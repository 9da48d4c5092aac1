"""In which order places are visited: walks of a grid, orders of loops, numbers of bursts, phases of time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, permutations, product
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.errors import RunError
from dmu_hw.loops import Loops, Stop
from dmu_hw.routes import Grid
from dmu_hw.timing import TimePoints, Timing, phases_of

Planned = Callable[..., Any]
sizes = st.integers(1, 12)


# ---------------------------------------------------------------- grids


@given(sizes, sizes, st.sampled_from(["snake", "rows", "spiral"]))
def test_every_walk_visits_every_field_once(rows: int, columns: int, walk: Any) -> None:
    places = Grid(rows=rows, columns=columns, walk=walk, overlap=0.5).places((2.0, 4.0))
    every = {(x - (columns - 1) / 2, (y - (rows - 1) / 2) * 2) for x, y in product(range(columns), range(rows))}
    assert len(places) == rows * columns
    assert set(places) == every


def test_a_spiral_begins_in_the_centre_and_goes_outwards() -> None:
    places = Grid(rows=5, columns=5, walk="spiral").places((1.0, 1.0))
    rings = [max(abs(x), abs(y)) for x, y in places]
    assert rings == [0.0] + [1.0] * 8 + [2.0] * 16
    assert all(np.hypot(x - to_x, y - to_y) == 1.0 for (x, y), (to_x, to_y) in pairwise(places))


def test_a_row_begins_where_the_one_before_began() -> None:
    places = Grid(rows=2, columns=3, walk="rows").places((1.0, 1.0))
    assert [x for x, _ in places] == [-1.0, 0.0, 1.0, -1.0, 0.0, 1.0]


def test_a_long_thin_spiral_takes_no_time() -> None:
    began_s = process_time()
    assert len(Grid(rows=1, columns=100_000, walk="spiral").places((1.0, 1.0))) == 100_000
    assert process_time() - began_s < 5, "about .3 s"


def test_a_grid_at_every_position(planned: Planned) -> None:
    positions = ({"x_um": 100.0, "y_um": 0.0, "name": "left"}, {"x_um": 500.0, "y_um": 40.0})
    plan = planned(positions=positions, grid={"rows": 1, "columns": 2}).plan
    places = plan.shots.places
    assert [(place.x_um, place.y_um) for place in places] == [(92.0, 0.0), (108.0, 0.0), (492.0, 40.0), (508.0, 40.0)]
    assert [plan.name_of(i) for i in range(4)] == [
        "left field 0",
        "left field 1",
        "position 1 field 0",
        "position 1 field 1",
    ]


def test_positions_have_a_focus_of_their_own(planned: Planned) -> None:
    positions = ({"x_um": 0.0, "y_um": 0.0, "focus_um": 12.0}, {"x_um": 0.0, "y_um": 9.0})
    plan = planned(positions=positions, focus_um=3.0, z={"planes_um": (-1.0, 0.5)}).plan
    assert [shot.z_um for shot in plan.shots] == [11.0, 12.5, 2.0, 3.5]


# ---------------------------------------------------------------- loops

orders = st.sampled_from(list(permutations(("time", "field", "z"))))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), orders, st.integers(0, 7), st.booleans())
def test_loops_number_their_bursts_as_nested_loops_do(
    times: int, fields: int, planes: int, order: Any, bleaching: int, plain: bool
) -> None:
    roles: tuple[Any, ...] = ("patterns", "plain") if plain else ("patterns",)
    loops = Loops(times, fields, planes, roles, order, bleaching)
    expected: list[Stop] = []
    taken = dict.fromkeys(range(fields), 0)
    counts = {"time": times, "field": fields, "z": planes}
    for turns in product(*(range(counts[axis]) for axis in order)):
        turn = dict(zip(order, turns, strict=True))
        expected += [Stop(turn["time"], turn["field"], turn["z"], role) for role in roles]
        if bleaching and taken[turn["field"]] % bleaching == 0:
            expected.append(Stop(turn["time"], turn["field"], turn["z"], "bleaching"))
        taken[turn["field"]] += 1
    assert [loops.at(index) for index in range(len(loops))] == expected
    assert [loops.index(stop) for stop in expected] == list(range(len(loops)))
    if bleaching:
        assert sum(stop.role == "bleaching" for stop in expected) == fields * loops.bleaching_of_a_field()
    outside = order[: order.index("time")]
    series = [tuple({"field": stop.field, "z": stop.plane}[axis] for axis in outside) for stop in expected]
    numbers = {turns: number for number, turns in enumerate(dict.fromkeys(series))}
    assert [loops.series(stop) for stop in expected] == [numbers[turns] for turns in series]
    assert Loops.of(loops.as_json()) == loops


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_a_second_round_comes_when_the_first_is_done(times: int, fields: int, planes: int, plain: bool) -> None:
    roles: tuple[Any, ...] = ("patterns", "plain") if plain else ("patterns",)
    loops = Loops(times, fields, planes, roles, then=("chosen",))
    expected = [
        Stop(time, field, plane, role)
        for time in range(times)
        for round_ in (roles, ("chosen",))
        for field, plane, role in product(range(fields), range(planes), round_)
    ]
    assert [loops.at(index) for index in range(len(loops))] == expected
    assert [loops.index(stop) for stop in expected] == list(range(len(loops)))


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {"times": 1},
        {"times": 0, "fields": 1, "planes": 1, "roles": ["patterns"]},
        {"times": 1, "fields": 1, "planes": "x", "roles": ["patterns"]},
        {"times": 1, "fields": 1, "planes": 1, "roles": ["pattern"]},
        {"times": 1, "fields": 1, "planes": 1, "roles": ["patterns"], "order": ["z"]},
    ],
)
def test_damaged_loops_are_an_error(broken: Any) -> None:
    with pytest.raises(RunError, match="no loops"):
        Loops.of(broken)


@pytest.mark.parametrize("order", ["time, z, field", "field, z, time", "z, field, time"])
def test_the_protocol_says_which_loop_is_outermost(planned: Planned, order: str) -> None:
    plan = planned(
        grid={"rows": 1, "columns": 2},
        focus_um=0.0,
        z={"planes_um": (0.0, 1.0)},
        time={"loops": 2, "interval_s": 4.0},
        order=order,
    ).plan
    axes = {"time": "time", "field": "position", "z": "z"}
    walked = [tuple(getattr(shot, axes[axis]) for axis in order.split(", ")) for shot in plan.shots]
    assert walked == sorted(walked)
    assert {shot.due_s for shot in plan.shots} == {0.0, 4.0}


# ---------------------------------------------------------------- time


def test_each_time_point_is_followed_by_the_interval_of_its_phase(planned: Planned) -> None:
    plan = planned(time=({"loops": 3, "interval_s": 1.0}, {"loops": 2, "interval_s": 60.0})).plan
    assert [shot.due_s for shot in plan.shots] == [0.0, 1.0, 2.0, 3.0, 63.0]
    assert plan.times == 5


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 20)), min_size=1, max_size=5))
def test_phases_are_found_in_their_time_points(phases: list[tuple[int, int]]) -> None:
    timing = Timing(tuple(TimePoints(loops=loops, interval_s=float(s)) for loops, s in phases))
    due_s = [timing.due_s(time) for time in range(timing.count)]
    found = Timing(phases_of(due_s))
    assert [found.due_s(time) for time in range(found.count)] == pytest.approx(due_s)
    assert len(found.phases) <= len(timing.phases) + 1
