"""What stands against a protocol: every refusal names file and key, what is given and what is allowed, all at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import parse_yaml
from dmu_hw.physics.warp import Warp
from dmu_hw.planner import make_plan
from dmu_hw.protocol import MAX_SHOTS, Protocol
from dmu_hw.rig import Rig, load_rig

Planned = Callable[..., Any]


def refused(planned: Planned, rig: dict[str, Any] | None = None, **changes: Any) -> dict[str, str]:
    """What is said of each key."""
    with pytest.raises(InputError) as error:
        planned(rig, **changes)
    said: dict[str, str] = {}
    for problem in error.value.problems:
        place, _, key = problem.where.rpartition(": ")
        assert place.endswith("run.yaml")
        said[key] = problem.what
    return said


OUTSIDE = ({"x_um": 0.0, "y_um": 0.0}, {"x_um": 60_000.0, "y_um": 0.0}, {"x_um": 0.0, "y_um": -36_000.0})
GOOD = ({"x_um": 0.0, "y_um": 0.0},)
REFUSED: dict[str, tuple[dict[str, Any] | None, dict[str, Any], dict[str, str]]] = {
    "positions outside the stage's limits": (
        None,
        {"positions": OUTSIDE},
        {
            "positions.1": "(60000, 0) µm is outside the stage's limits: x -50000 to 50000, y -35000 to 35000 µm",
            "positions.2": "(0, -36000) µm is outside the stage's limits: x -50000 to 50000, y -35000 to 35000 µm",
        },
    ),
    "a corner of a grid": (
        {"devices.stage.x_um": [-10.0, 10.0]},
        {"grid": {"rows": 1, "columns": 3}},
        {
            "grid.0": "(-16, 0) µm is outside the stage's limits: x -10 to 10, y -35000 to 35000 µm",
            "grid.2": "(16, 0) µm is outside the stage's limits: x -10 to 10, y -35000 to 35000 µm",
        },
    ),
    "places without a stage": ({"devices.stage": ...}, {"positions": GOOD}, {"positions": "rig small has no stage"}),
    "a focus without a drive": ({"devices.focus": ...}, {"focus_um": 1.0}, {"focus_um": "rig small has no focus"}),
    "a focus out of reach": (
        None,
        {"focus_um": 501.0},
        {"focus_um": "501 µm is outside the focus limits: -500 to 500 µm"},
    ),
    "a stack out of reach": (
        None,
        {"focus_um": 499.0, "z": {"range_um": 4.0, "step_um": 1.0}},
        {"z.range_um": "501 µm is outside the focus limits: -500 to 500 µm"},
    ),
    "power above the rig's limit": (
        {"limits": {"power_mw": 2.0}},
        {"light": {"power_mw": 2.5}},
        {"light.power_mw": "rig small allows 2 mW, given 2.5"},
    ),
    "power above the light's": (
        {"devices.light.max_power_mw": 2.0},
        {"light": {"power_mw": 2.5}},
        {"light.power_mw": "rig small allows 2 mW, given 2.5"},
    ),
    "exposure above the rig's limit": (
        {"limits": {"exposure_ms": 1.0}},
        {"exposure_ms": 1.5},
        {"exposure_ms": "rig small allows 1 ms, given 1.5"},
    ),
    "a reference exposed longer than the rig allows": (
        {"limits": {"exposure_ms": 3.0}},
        {"references": {"full": True}},
        {"references.full": "one frame of the same dose is exposed too long: rig small allows 3 ms, given 5.5148"},
    ),
    "a reference that has its dose before it is exposed": (
        {"devices.camera.readout_ms": 100.0},
        {
            "patterns": {"set": "random", "count": 1, "camera_pixel": 4, "tile": 2, "seed": 2},
            "references": {"full": True},
            "exposure_ms": 0.1,
        },
        {"references.full": "the patterns give so little light that one frame has it in 50.1 ms, unexposed"},
    ),
    "a field that is no multiple of the tile": (
        None,
        {"field_px": (32, 30)},
        {"field_px": "must be a multiple of the patterns' tile, 4 object pixels, given 30"},
    ),
    "a field that is no multiple of the sensor's pixel": (
        {"optics.sensor_pixel_um": 1.5},
        {"patterns": {"set": "uniform", "count": 1, "camera_pixel": 1}, "field_px": (32, 33)},
        {
            "field_px": "must be a multiple of the sensor's pixel, 3 object pixels, given 32",
            "patterns.camera_pixel": "needs camera pixels of 1 object pixels along a side; the camera can give 3, 6",
        },
    ),
    "a field larger than the sensor": (
        None,
        {"field_px": (32, 68)},
        {"field_px": "the sensor has 64x64 object pixels, given 32x68"},
    ),
    "a field larger than the mirrors": (
        {"optics.mirrors.shape": [96, 60]},
        {"field_px": (64, 64)},
        {"field_px": "the field of 32x32 µm reaches beyond the 60x96 mirrors of rig small"},
    ),
    "mirrors beside the field": (
        {"optics.mirrors.to_sample.shift": [50.0, 0.0]},
        {},
        {"field_px": "the field of 16x16 µm reaches beyond the 128x96 mirrors of rig small"},
    ),
    "a binning that the camera lacks": (
        {"devices.camera.binnings": [1, 2]},
        {},
        {"patterns.camera_pixel": "needs camera pixels of 4 object pixels along a side; the camera can give 1, 2"},
    ),
    "a plain camera of no whole pixels": (
        None,
        {
            "patterns": {"set": "random", "count": 8, "camera_pixel": 4},
            "references": {"plain": True},
        },
        {"references.plain": "needs camera pixels of 1.41421 object pixels along a side; the camera can give 1, 2"},
    ),
    "more patterns than the DMD holds": (
        {"devices.dmd.memory_frames": 4},
        {"references": {"plain": True}},
        {"patterns.count": "the DMD holds 4 frames, needed are 5"},
    ),
    "more patterns than the camera buffers": (
        {"devices.camera.buffer_frames": 3},
        {},
        {"patterns.count": "the camera buffers 3 frames, needed are 4"},
    ),
    "nothing but darkness": (
        None,
        {"patterns": {"set": "random", "count": 1, "camera_pixel": 4, "superpixel": 4, "seed": 3}},
        {"patterns": "all patterns are dark"},
    ),
    "more dose than the protocol allows": (
        None,
        {"budget": {"dose_mj_cm2": 100.0}},
        {"budget.dose_mj_cm2": "the run takes 189.935 mJ/cm² per field, the protocol allows 100"},
    ),
    "more dose than the rig allows": (
        {"limits": {"dose_mj_cm2": 150.0}},
        {},
        {"budget.dose_mj_cm2": "the run takes 189.935 mJ/cm² per field, rig small allows 150"},
    ),
    "a budget above the rig's does not help": (
        {"limits": {"dose_mj_cm2": 150.0}},
        {"budget": {"dose_mj_cm2": 1e9}},
        {"budget.dose_mj_cm2": "the run takes 189.935 mJ/cm² per field, rig small allows 150"},
    ),
    "more time than allowed": (
        None,
        {"time": {"loops": 3, "interval_s": 60.0}, "budget": {"time_min": 1.0}},
        {"budget.time_min": "the run takes 2.00"},
    ),
    "more disk than allowed": (
        None,
        {"time": {"loops": 1000}, "budget": {"disk_gb": 0.001}},
        {"budget.disk_gb": "the run takes 0.010"},
    ),
    "a run without an end": (
        None,
        {"time": {"loops": 3, "interval_s": 1e308}},
        {"budget.time_min": "the run takes inf min, rig small allows 1.79769e+308"},
    ),
}


@pytest.mark.parametrize(("rig", "changes", "says"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_by_key(
    planned: Planned, rig: dict[str, Any] | None, changes: dict[str, Any], says: dict[str, str]
) -> None:
    said = refused(planned, rig, **changes)
    assert said.keys() == says.keys()
    for key, what in says.items():
        assert said[key].startswith(what), key


def test_all_is_said_at_once(planned: Planned) -> None:
    said = refused(
        {"devices.camera.buffer_frames": 3, "devices.dmd.memory_frames": 2, "limits": {"dose_mj_cm2": 1.0}} and planned,
        {
            "devices.camera.buffer_frames": 3,
            "limits": {"dose_mj_cm2": 1.0, "power_mw": 0.5, "exposure_ms": 1.0},
            "devices.focus": ...,
        },
        positions=OUTSIDE,
        focus_um=3.0,
        field_px=(30, 70),
        references={"full": True},
        time={"loops": 3, "interval_s": 60.0},
        budget={"time_min": 0.5, "disk_gb": 1e-9},
    )
    assert set(said) == {
        "light.power_mw",
        "exposure_ms",
        "references.full",
        "positions.1",
        "positions.2",
        "focus_um",
        "field_px",
        "patterns.count",
        "budget.dose_mj_cm2",
        "budget.time_min",
        "budget.disk_gb",
    }


def test_mirrors_without_a_finite_area_give_no_dose(planned: Planned, tmp_path: Path) -> None:
    bench, matrix = planned(), ((1e153, 0.0), (0.0, 1e153))
    optics = bench.rig.optics
    mirrors = optics.mirrors.model_copy(update={"to_sample": Warp(matrix=matrix)})
    with pytest.raises(InputError, match=r"rig\.yaml: optics\.mirrors\.to_sample: maps the mirrors to an area of inf"):
        make_plan(
            bench.plan.protocol,
            tmp_path / "run.yaml",
            bench.rig,
            optics.model_copy(update={"mirrors": mirrors}),
            bench.plan.stack,
        )


def test_many_places_outside_are_counted(planned: Planned) -> None:
    said = refused(planned, {"devices.stage.x_um": [-1.0, 1.0]}, grid={"rows": 50, "columns": 50})
    assert len(said) == 11
    assert said["grid"].startswith("2,490 more fields are outside the stage's limits")


def test_refusals_name_the_line(rig_yaml: Callable[..., Path], tmp_path: Path) -> None:
    text = """kind: run
name: lines
rig: rig.yaml
field_px: [32, 32]
patterns: {set: hadamard, count: 4, camera_pixel: 4}
light:
  power_mw: 1000.0
exposure_ms: 2.0
positions:
  - {x_um: 0.0, y_um: 0.0}
  - x_um: 0.0
    y_um: 99000.0
budget:
  disk_gb: 0.000001
"""
    rig = Rig(load_rig(rig_yaml({"limits": {"dose_mj_cm2": 1.0}})))
    document = parse_yaml(text, tmp_path / "run.yaml")
    protocol = Protocol.model_validate(document.value, context={"folder": tmp_path})
    with pytest.raises(InputError) as error:
        make_plan(protocol, document, rig, rig.optics, protocol.patterns.make())  # type: ignore[union-attr]
    problems: tuple[Problem, ...] = error.value.problems
    assert [problem.where.removeprefix(str(tmp_path / "run.yaml")) for problem in problems] == [
        ":7: light.power_mw",
        ":11: positions.1",
        ":13: budget.dose_mj_cm2",
        ":14: budget.disk_gb",
    ]


# ---------------------------------------------------------------- what no rig could do

IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "grids at positions and elsewhere": (
        {"positions": GOOD, "grid": {"rows": 1, "columns": 1, "centre_um": (1.0, 0.0)}},
        "each of the positions is the centre of a grid: leave out grid.centre_um",
    ),
    "a focus for some": (
        {"positions": ({**GOOD[0], "focus_um": 1.0}, *GOOD)},
        "positions.1 has no focus_um and others have, and there is none for all",
    ),
    "a stack at a position without focus": (
        {"positions": GOOD, "z": {"planes_um": (0.0, 1.0)}},
        "z needs focus_um",
    ),
    "planes from above": ({"focus_um": 0.0, "z": {"planes_um": (1.0, 0.0)}}, "planes should be given from below"),
    "two things at once": (
        {"patterns": {"bundle": "a.dmu"}, "inverse": {"model": "ridge"}, "z": {"planes_um": (0.0, 1.0)}},
        "a bundle brings its own inverse: leave out inverse; z needs focus_um",
    ),
    "a bundle and an inverse": (
        {"patterns": {"bundle": "a.dmu"}, "inverse": {"model": "ridge"}},
        "a bundle brings its own inverse",
    ),
    "a grid without an end": ({"grid": {"rows": 10**9, "columns": 10**9}}, "a grid of more than 100000 fields"),
    "planes without an end": ({"focus_um": 0.0, "z": {"range_um": 1e308, "step_um": 1e-308}}, "more than 10000 planes"),
    "planes round nothing": ({"z": {"range_um": 1.0, "step_um": 1.0}}, "z needs focus_um"),
    "shots without an end": ({"time": {"loops": MAX_SHOTS + 1}}, "more than 1000000 bursts, given 1000001"),
    "a grid that does not move on": ({"grid": {"rows": 1, "columns": 2, "overlap": 1.0}}, "less than 1"),
    "backwards in time": ({"time": {"loops": 1, "interval_s": -1.0}}, "greater than or equal to 0"),
    "a name that leaves its folder": ({"name": "../../etc/passwd"}, "should be a name"),
    "a name that Windows keeps": ({"name": "nul"}, "Windows keeps this one"),
    "more light than none": ({"light": {"power_mw": 0.0}}, "greater than 0"),
    "no number": ({"exposure_ms": float("nan")}, "finite number"),
    "too many retries": ({"retries": 11}, "less than or equal to 10"),
    "a budget of nothing": ({"budget": {"time_min": 0.0}}, "greater than 0"),
}


@pytest.mark.parametrize(("changes", "says"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_no_rig_could_do_is_refused(planned: Planned, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        planned(**changes)
