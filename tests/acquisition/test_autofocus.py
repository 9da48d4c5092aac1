"""The focus is found from compressed frames, kept where it cannot be told, and paid for like any other light."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import lines_of, plan_of, run_plan
from pydantic import ValidationError

from dmu_hw.autofocus import Autofocus, Sharpness, peak, plane_through, sharpness
from dmu_hw.errors import InputError
from dmu_hw.physics.optics import Sensor
from dmu_hw.plan import Plan
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]
AIRY = {
    "optics.excitation": {"kind": "airy", "na": 0.75, "wavelength_nm": 488.0},
    "optics.emission": {"kind": "airy", "na": 0.75, "wavelength_nm": 525.0},
}
FOCUS: dict[str, Any] = {"autofocus": {"range_um": 6.0, "step_um": 1.0}, "focus_um": 0.0}


def planned(small_rig: SmallRig, changes: dict[str, Any], **keys: Any) -> tuple[Rig, Plan]:
    rig = small_rig({**AIRY, **changes})
    return rig, plan_of(rig, side=64, light={"power_mw": 2.0}, **{**FOCUS, **keys})


# ---------------------------------------------------------------- on the simulated microscope


@pytest.mark.parametrize("patterns", ["one", "all"])
@pytest.mark.parametrize("kind", ["nuclei", "beads", "filaments"])
def test_the_focus_is_found(small_rig: SmallRig, tmp_path: Path, kind: str, patterns: str) -> None:
    """Compressed by 16, 1.7 µm from where it was thought to be: to a third of the depth of field, .9 µm."""
    world = {"connections.world.specimen": {"kind": kind, "seed": 3}, "connections.world.specimen_z_um": 1.7}
    autofocus = {**FOCUS["autofocus"], "patterns": patterns}
    rig, plan = planned(small_rig, world, camera_pixel=8, autofocus=autofocus)
    run, counts = run_plan(tmp_path / "run", rig, plan)
    (line,) = lines_of(run, "focus")
    assert line["planes_um"] == [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]
    assert line["z_um"] == pytest.approx(1.7, abs=0.3)
    assert line["shift_um"] == line["z_um"]
    assert rig.focus is not None
    assert rig.focus.position_um() == line["z_um"], "the burst is taken there"
    assert (counts.saved, counts.missing) == (4, 0)


def test_a_focus_that_drifts_is_followed(small_rig: SmallRig, tmp_path: Path) -> None:
    world = {"connections.world.focus_drift_um_s": 0.05, "connections.world.specimen_z_um": 0.5}
    rig, plan = planned(small_rig, world, time={"loops": 4, "interval_s": 30.0}, autofocus={**FOCUS["autofocus"]})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    found = [line["z_um"] for line in lines_of(run, "focus")]
    assert found == pytest.approx([0.5, 2.0, 3.5, 5.0], abs=0.35), "each search begins where the last one ended"


def test_stacks_lie_round_the_focus_that_was_found(small_rig: SmallRig, tmp_path: Path) -> None:
    rig, plan = planned(small_rig, {"connections.world.specimen_z_um": 1.0}, z={"planes_um": (-1.0, 1.0)})
    assert rig.focus is not None
    heights: list[float] = []
    run, _ = run_plan(tmp_path / "run", rig, plan, lambda _shot, _burst: heights.append(rig.focus.position_um()))
    (line,) = lines_of(run, "focus")
    assert heights == pytest.approx([line["z_um"] - 1.0, line["z_um"] + 1.0])


@pytest.mark.parametrize(
    ("world", "why"),
    [
        ({"connections.world.specimen_z_um": 7.0}, "is at the border of the range"),
        ({"connections.world.specimen": {"kind": "layer", "brightness": 0.3}}, "no plane is surely sharper"),
    ],
    ids=["out of range", "nothing to see"],
)
def test_a_focus_that_cannot_be_told_is_kept(
    small_rig: SmallRig, tmp_path: Path, world: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig, plan = planned(small_rig, world)
    assert rig.focus is not None
    with caplog.at_level(logging.WARNING):
        run, counts = run_plan(tmp_path / "run", rig, plan)
    (line,) = lines_of(run, "focus")
    assert (line["z_um"], line["shift_um"]) == (None, 0.0)
    assert why in line["why"]
    assert why in caplog.text
    assert rig.focus.position_um() == 0.0
    assert counts.saved == 4


def test_planes_beyond_the_drive_are_left_out(small_rig: SmallRig, tmp_path: Path) -> None:
    """A focus that drifts on to the limit of the drive ends nothing."""
    world = {"connections.world.specimen_z_um": 3.5, "devices.focus.z_um": [-10.0, 3.0]}
    rig, plan = planned(small_rig, world, time={"loops": 2})
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert counts.missing == 0
    assert all(max(line["planes_um"]) <= 3.0 for line in lines_of(run, "focus"))


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    ("autofocus", "keys", "searches"),
    [
        ({}, {"positions": ({"x_um": 0.0, "y_um": 0.0}, {"x_um": 40.0, "y_um": 0.0})}, 2),
        ({"every": 2}, {"grid": {"rows": 1, "columns": 3}, "time": {"loops": 2}}, 3),
        ({"every": 3}, {"grid": {"rows": 1, "columns": 3}, "time": {"loops": 2}}, 2),
        ({"patterns": "all"}, {"z": {"planes_um": (0.0, 1.0)}, "time": {"loops": 2, "interval_s": 3.0}}, 2),
        ({"every_min": 0.2}, {"time": {"loops": 5, "interval_s": 6.0}}, 3),
    ],
)
def test_it_is_priced_and_booked(
    small_rig: SmallRig, tmp_path: Path, autofocus: dict[str, Any], keys: dict[str, Any], searches: int
) -> None:
    rig, plan = planned(small_rig, {}, autofocus={"range_um": 2.0, "step_um": 1.0, **autofocus}, **keys)
    began_ms = rig.clock.now_ms()
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert len(lines_of(run, "focus")) == searches
    lights = lines_of(run, "light")
    exact = "every_min" not in autofocus
    planned_looks = plan.price.focus_bursts
    looks = len(lights) - len(plan.shots)
    assert looks == 3 * searches
    assert looks == planned_looks if exact else looks <= planned_looks
    doses: dict[int, float] = {}
    for line in lights:
        doses[line["field"]] = doses.get(line["field"], 0.0) + line["dose_mj_cm2"]
    assert counts.dose_mj_cm2 == pytest.approx(doses)
    most = max(doses.values())
    assert most == pytest.approx(plan.price.dose_per_field_mj_cm2) if exact else most < plan.price.dose_per_field_mj_cm2
    if exact:
        assert counts.light_on_ms / 1e3 == pytest.approx(plan.price.light_on_s)
        assert (rig.clock.now_ms() - began_ms) / 1e3 == pytest.approx(plan.price.time_s, rel=0.05)
    assert counts.saved == plan.price.frames


def test_a_search_that_may_have_no_more_light_is_not_made(small_rig: SmallRig, tmp_path: Path) -> None:
    rig, plan = planned(small_rig, {})
    assert plan.focus_take is not None
    cap = 2.5 * plan.focus_take.dose_mj_cm2
    capped = plan.protocol.model_copy(update={"budget": plan.protocol.budget.model_copy(update={"dose_mj_cm2": cap})})
    run, counts = run_plan(tmp_path / "run", rig, replace(plan, protocol=capped))
    (line,) = lines_of(run, "focus")
    assert line["why"] == "its light would exceed what the field may have"
    assert counts.dose_mj_cm2[0] <= cap


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"range_um": 1.0, "step_um": 1.0}, "compares 3 to 101 planes, given 2"),
        ({"range_um": 1e308, "step_um": 1e-308}, "compares 3 to 101 planes"),
        ({"range_um": 4.0, "step_um": 1.0, "every": 2, "every_min": 1.0}, "not both"),
    ],
)
def test_settings_without_sense_are_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Autofocus.model_validate(keys)


def test_a_search_without_a_focus_or_beyond_it_is_refused(small_rig: SmallRig) -> None:
    with pytest.raises(ValidationError, match="autofocus needs focus_um, where the search begins"):
        planned(small_rig, {}, focus_um=None)
    with pytest.raises(InputError, match=r"autofocus\.range_um: round 499 µm it leaves the focus limits: -500 to 500"):
        planned(small_rig, {}, focus_um=499.0)


# ---------------------------------------------------------------- arithmetic


def sharp(*values: float, error: float = 0.01) -> list[Sharpness | None]:
    return [None if math.isnan(value) else Sharpness(value, error) for value in values]


def test_the_top_lies_between_the_planes() -> None:
    z = [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert peak(z, sharp(*(10 - (x - 0.3) ** 2 for x in z))).z_um == pytest.approx(0.3)
    assert peak(z, sharp(1.0, 2.0, math.nan, 2.5, 1.0)).z_um is not None
    assert "border" in peak(z, sharp(1.0, 2.0, 3.0, 4.0, 5.0)).why
    assert "surely" in peak(z, sharp(1.0, 1.01, 1.02, 1.01, 1.0)).why
    assert "only 2 of 5" in peak(z, sharp(1.0, math.nan, math.nan, math.nan, 2.0)).why


def test_noise_alone_is_not_sharp() -> None:
    """Its mean is taken off, and its spread is what the error says."""
    rng, sensor = np.random.default_rng(0), Sensor(gain_adu_per_e=0.5, read_noise_e=2.0)
    values = []
    for _ in range(100):
        electrons = rng.poisson(400.0, (2, 16, 16)) + rng.normal(0, 2.0, (2, 16, 16))
        frames = np.round(electrons * 0.5 + 100.0).astype(np.uint16)
        values.append(sharpness(frames, np.array([1.0, 1.0]), sensor, 4))
    spread = float(np.std([found.value for found in values]))
    assert abs(np.mean([found.value for found in values])) < 4 * spread / 10
    assert 0.5 < values[0].error / spread < 1.5


def test_brightness_is_no_sharpness() -> None:
    rng, sensor = np.random.default_rng(0), Sensor(gain_adu_per_e=1.0, read_noise_e=0.0, offset_adu=0.0)
    scene = rng.uniform(1e4, 2e4, (1, 16, 16))
    full, half = (sharpness((scene * part).astype(np.uint16), np.array([1.0]), sensor, 1) for part in (1.0, 0.5))
    assert full.value == pytest.approx(half.value, rel=0.02)


def test_a_plane_needs_points_that_do_not_lie_in_a_row() -> None:
    points = [(x, y, 3.0 + 0.01 * x - 0.02 * y) for x, y in ((0.0, 0.0), (100.0, 0.0), (0.0, 50.0), (80.0, 90.0))]
    plane = plane_through(points)
    assert plane is not None
    assert plane.at(1000.0, -200.0) == pytest.approx(17.0)
    assert plane_through(points[:2]) is None
    assert plane_through([(x, 2 * x, 0.0) for x in (0.0, 10.0, 50.0)]) is None


def test_a_tilted_specimen_is_followed_between_searches(small_rig: SmallRig, tmp_path: Path) -> None:
    """Focused at every second field, in focus at all of them."""
    rig, plan = planned(
        small_rig,
        {},
        grid={"rows": 3, "columns": 3},
        autofocus={"range_um": 6.0, "step_um": 1.0, "every": 2, "tilt": True},
    )
    assert rig.focus is not None
    world: Any = rig.connection("world")
    straight = world.point_um

    def tilted(place_um: Any, time_ms: float) -> Any:
        x, y, z = straight(place_um, time_ms)
        return x, y, z - (0.03 * place_um[0] + 0.02 * place_um[1])

    world.point_um = tilted
    off: list[float] = []

    def watch(_shot: Any, _burst: Any) -> None:
        x, y = rig.stage.position_um()  # type: ignore[union-attr]
        off.append(rig.focus.position_um() - (0.03 * x + 0.02 * y))  # type: ignore[union-attr]

    run_plan(tmp_path / "run", rig, plan, watch)
    assert max(map(abs, off[5:])) < 0.6
    assert np.ptp([0.03 * place.x_um + 0.02 * place.y_um for place in plan.shots.places]) > 3.0  # type: ignore[operator]
