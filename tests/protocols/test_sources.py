"""Positions from files, and plans in the words of useq-schema: what carries over, and what is refused by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmu_hw.cli.session import open_session
from dmu_hw.errors import InputError
from dmu_hw.files import parse_yaml
from dmu_hw.listing import read_positions
from dmu_hw.plan import Plan
from dmu_hw.useqplan import read_useq

RUN = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
}


@pytest.fixture
def opened(rig_yaml: Callable[..., Path], tmp_path: Path) -> Callable[..., Plan]:
    """The plan of the small protocol with some more keys, read from the disk as people do."""

    def plan(**changes: Any) -> Plan:
        rig_yaml()
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(RUN | changes, sort_keys=False))
        return open_session(path).plan

    return plan


def said(error: pytest.ExceptionInfo[InputError], folder: Path) -> list[str]:
    return [str(problem).replace(f"{folder}/", "") for problem in error.value.problems]


# ---------------------------------------------------------------- positions


def test_positions_from_a_spreadsheet_and_from_yaml(opened: Callable[..., Plan], tmp_path: Path) -> None:
    (tmp_path / "places.csv").write_text("\ufeffname,x_um , y_um,focus_um\nA1,1.5,-2,3\n\n,4,5,6e0\r\n")
    (tmp_path / "places.yaml").write_text(
        "positions:\n- {x_um: 1.5, y_um: -2.0, focus_um: 3.0, name: A1}\n- {x_um: 4.0, y_um: 5.0, focus_um: 6.0}\n"
    )
    for name in ("places.csv", "places.yaml"):
        plan = opened(positions=name)
        places = [(shot.x_um, shot.y_um, shot.z_um) for shot in plan.shots]
        assert places == [(1.5, -2.0, 3.0), (4.0, 5.0, 6.0)]
        assert [plan.name_of(i) for i in range(2)] == ["A1", "field 1"]


def test_everything_wrong_with_a_spreadsheet_by_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "places.csv"
    with pytest.raises(InputError) as error:
        read_positions("x_um,y_um,nam\n1,2,a\nx,2,\n,3,\n", path)
    whats = said(error, tmp_path)
    assert [what.split(": ")[:2] for what in whats] == [
        ["places.csv:2", "positions.0.nam"],
        ["places.csv:3", "positions.1.x_um"],
        ["places.csv:4", "positions.2.x_um"],
    ]
    assert "did you mean 'name'?" in whats[0]
    assert "should be a number, given 'x'" in whats[1]
    assert "key 'x_um' is missing" in whats[2]
    with pytest.raises(InputError, match=r"places\.csv:3: has 3 columns, the first line has 2"):
        read_positions("x_um,y_um\n1,2\n1,2,3\n", path)
    for text in ("", "\n1,2\n", "x_um,x_um\n1,2\n"):
        with pytest.raises(InputError, match=r"places\.csv:1: the first line should name each column once"):
            read_positions(text, path)
    with pytest.raises(InputError, match="holds no positions"):
        read_positions("x_um,y_um\n", path)


def test_a_file_of_positions_that_is_not_there_is_told_with_the_rest(
    opened: Callable[..., Plan], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        opened(positions="no.csv", patterns={"bundle": "no.dmu"})
    whats = said(error, tmp_path)
    assert len(whats) == 2
    assert any(what.startswith("no.csv: cannot be read") for what in whats)


# ---------------------------------------------------------------- useq

USEQ: dict[str, dict[str, Any]] = {
    "positions": {"stage_positions": [{"x": 1, "y": 2, "z": 3, "name": "a"}, {"x": 4, "y": 5, "z": 6}]},
    "a stack": {"stage_positions": [{"x": 1, "y": 2, "z": 3}], "z_plan": {"range": 4, "step": 0.5}},
    "an absolute stack": {"stage_positions": [{"x": 1, "y": 2}], "z_plan": {"bottom": 4, "top": 9, "step": 2}},
    "planes one by one": {"stage_positions": [{"x": 1, "y": 2, "z": 3}], "z_plan": {"relative": [-1, 0.5, 7]}},
    "above and below": {"stage_positions": [{"x": 1, "y": 2, "z": 3}], "z_plan": {"above": 1, "below": 2, "step": 1}},
    "a grid at each position": {
        "stage_positions": [{"x": 100, "y": 0, "z": 1}, {"x": 500, "y": 50, "z": 2}],
        "grid_plan": {"rows": 2, "columns": 3, "overlap": 10, "mode": "spiral"},
        "z_plan": {"range": 2, "step": 1},
    },
    "a grid by columns": {
        "stage_positions": [{"x": 100, "y": 0}],
        "grid_plan": {"rows": 2, "columns": 3, "mode": "column_wise_snake", "relative_to": "top_left"},
    },
    "an area": {"grid_plan": {"top": 40, "left": 0, "bottom": 0, "right": 60}},
    "a width and a height": {"stage_positions": [{"x": 0, "y": 0}], "grid_plan": {"width": 60, "height": 20}},
    "a polygon": {"grid_plan": {"vertices": [[0, 0], [70, 0], [0, 70]]}},
    "time": {"stage_positions": [{"x": 1, "y": 2}], "time_plan": {"interval": 0.5, "loops": 4}},
    "a duration": {"time_plan": {"duration": 8, "loops": 5}, "stage_positions": [{"x": 1, "y": 2}]},
    "an interval in a duration": {"time_plan": {"interval": 2, "duration": 9}, "stage_positions": [{"x": 1, "y": 2}]},
    "phases": {
        "stage_positions": [{"x": 1, "y": 2}],
        "time_plan": [{"interval": 1, "loops": 4}, {"interval": 5, "loops": 3}, {"interval": 1, "loops": 2}],
    },
    "phases by name": {
        "stage_positions": [{"x": 1, "y": 2}],
        "time_plan": {"phases": [{"interval": {"seconds": 2}, "loops": 2}, {"interval": 5, "loops": 3}]},
    },
    "planes outside": {
        "stage_positions": [{"x": 1, "y": 2, "z": 3}, {"x": 5, "y": 2, "z": 8}],
        "z_plan": {"range": 2, "step": 1},
        "time_plan": {"interval": 3, "loops": 2},
        "axis_order": "tzp",
    },
    "an order with channels, of which there are none": {
        "stage_positions": [{"x": 1, "y": 2, "z": 3}],
        "z_plan": {"range": 2, "step": 1},
        "channels": [],
        "axis_order": "tpgzc",
        "metadata": {"who": "me"},
    },
}


@pytest.mark.parametrize("plan", USEQ.values(), ids=USEQ)
@pytest.mark.parametrize("inline", [True, False], ids=["inline", "file"])
def test_useq_carries_over(opened: Callable[..., Plan], tmp_path: Path, plan: dict[str, Any], inline: bool) -> None:
    """The same places at the same times in the same order as useq-schema itself makes of it."""
    useq = pytest.importorskip("useq")
    (tmp_path / "theirs.yaml").write_text(yaml.safe_dump(plan))
    ours = opened(useq=plan if inline else "theirs.yaml")
    fields = {"fov_width": 16.0, "fov_height": 16.0}
    theirs = plan | ({"grid_plan": plan["grid_plan"] | fields} if "grid_plan" in plan else {})
    events = list(useq.MDASequence.model_validate(theirs))
    assert len(ours.shots) == len(events)
    for shot, event in zip(ours.shots, events, strict=True):
        assert (shot.x_um, shot.y_um) == pytest.approx((event.x_pos, event.y_pos))
        assert shot.z_um == pytest.approx(event.z_pos)
        assert shot.due_s == pytest.approx(event.min_start_time or 0.0)


def test_time_series_at_each_position_begin_anew(opened: Callable[..., Plan]) -> None:
    positions = [{"x": 1, "y": 2}, {"x": 5, "y": 2}]
    plan = opened(
        useq={"stage_positions": positions, "time_plan": {"interval": 3, "loops": 2}, "axis_order": ["p", "t"]}
    )
    assert [(shot.position, shot.due_s, shot.series) for shot in plan.shots] == [
        (0, 0.0, 0),
        (0, 3.0, 0),
        (1, 0.0, 1),
        (1, 3.0, 1),
    ]


AT = {"stage_positions": [{"x": 0, "y": 0, "z": 0}]}
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "unknown keys, all at once": (
        {
            "stage_positions": [{"x": 0, "y": 0, "zz": 1}],
            "grid_plan": {"rows": 1, "columns": 1, "overlaps": 3},
            "z_plan": {"range": 1, "step": 1, "steps": 1},
            "time_plan": {"interval": 1, "loops": 1, "loop": 2},
            "gird_plan": {},
        },
        ["gird_plan", "loop", "overlaps", "steps", "zz"],
    ),
    "channels": (AT | {"channels": [{"config": "DAPI"}]}, ["channels is not supported"]),
    "an autofocus plan": (AT | {"autofocus_plan": {"axes": ["p"]}}, ["autofocus_plan is not supported"]),
    "a plan in a position": (
        {"stage_positions": [{"x": 0, "y": 0, "sequence": {"z_plan": {"range": 1, "step": 1}}}]},
        ["sequence is not supported"],
    ),
    "a plate": ({"stage_positions": {"plate": 96, "a1_center_xy": [0, 0]}}, ["plate plans are not supported"]),
    "an interval of nothing": (AT | {"time_plan": {"interval": 0, "loops": 3}}, ["greater than 0"]),
    "backwards in time": (AT | {"time_plan": {"interval": -1, "loops": 3}}, ["greater than 0"]),
    "a duration of nothing": (AT | {"time_plan": {"duration": 0, "loops": 3}}, ["greater than 0"]),
    "one loop for all the time": (AT | {"time_plan": {"duration": 9, "loops": 1}}, ["greater than 0"]),
    "a phase of nothing": (
        AT | {"time_plan": [{"interval": 1, "loops": 3}, {"interval": 0, "loops": 3}]},
        ["time_plan.1: the interval should be greater than 0"],
    ),
    "no end of time": (AT | {"time_plan": {"interval": 1, "loops": 10**7}}, ["more than 1000000 time points"]),
    "a step of nothing": (AT | {"z_plan": {"range": 4, "step": 0}}, ["z_plan.step: should be greater than 0"]),
    "a step down": (AT | {"z_plan": {"range": 4, "step": -1}}, ["z_plan.step: should be greater than 0"]),
    "from above": (AT | {"z_plan": {"range": 4, "step": 1, "go_up": False}}, ["go_up: is not supported"]),
    "planes without order": (AT | {"z_plan": {"relative": [1, 0]}}, ["planes should be given from below"]),
    "no end of planes": (AT | {"z_plan": {"range": 1e9, "step": 1e-3}}, ["more than 10001 planes"]),
    "a focus twice": (AT | {"z_plan": {"bottom": 0, "top": 1, "step": 1}}, ["leave out z"]),
    "a grid round nothing": ({"grid_plan": {"rows": 1, "columns": 2}}, ["needs stage_positions"]),
    "an area round a position": (AT | {"grid_plan": {"top": 1, "left": 0, "bottom": 0, "right": 1}}, ["leave out"]),
    "a field of another size": (AT | {"grid_plan": {"rows": 1, "columns": 2, "fov_width": 99}}, ["is 16 µm, given 99"]),
    "a grid that does not move on": (AT | {"grid_plan": {"rows": 1, "columns": 2, "overlap": 100}}, ["less than 100"]),
    "chance": (AT | {"grid_plan": {"num_points": 3, "max_width": 9, "max_height": 9}}, ["random_seed"]),
    "a grid of nothing": (AT | {"grid_plan": {"row": 2}}, ["should have these keys: rows, columns |"]),
    "an order without an axis": (AT | {"time_plan": {"interval": 1, "loops": 2}, "axis_order": "pz"}, ["axis_order"]),
    "an order of letters": (AT | {"axis_order": "xyz"}, ["axis_order"]),
    "a position without x": ({"stage_positions": [{"y": 0}, {"x": "a", "y": 0}, 7]}, [".0: x", ".1: x", ".2: should"]),
    "a loop too few": (AT | {"time_plan": {"interval": 1, "loops": 0}}, ["time_plan.loops"]),
    "no mapping": (AT | {"z_plan": 3}, ["should have these keys"]),
    "a time of no kind": (AT | {"time_plan": "PT1S"}, ["time_plan"]),
}


@pytest.mark.parametrize(("plan", "whats"), REFUSED.values(), ids=REFUSED)
def test_what_useq_would_let_pass_is_refused_by_line_and_key(
    tmp_path: Path, plan: dict[str, Any], whats: list[str]
) -> None:
    pytest.importorskip("useq")
    document = parse_yaml(json.dumps(plan, indent=1), tmp_path / "theirs.yaml")
    with pytest.raises(InputError) as error:
        read_useq(document, (16.0, 16.0))
    problems = said(error, tmp_path)
    assert len(problems) == len(whats)
    for what in whats:
        assert any(what in problem for problem in problems), (what, problems)
    assert all(problem.startswith("theirs.yaml:") for problem in problems)


def test_useq_stands_alone(opened: Callable[..., Plan]) -> None:
    with pytest.raises(InputError, match="useq says where and when: leave out time"):
        opened(useq=AT, time={"loops": 2})


def test_without_useq_schema_it_is_said_how_to_get_it(
    opened: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "useq", None)
    with pytest.raises(InputError, match=r"useq: needs useq-schema: pip install 'dmu-hw\[useq\]'"):
        opened(useq=AT)
