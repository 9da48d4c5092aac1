"""Whatever a protocol says, a plan keeps within what the rig allows, and a protocol can only tighten that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dmu_hw.errors import InputError
from dmu_hw.plan import Plan
from dmu_hw.planner import make_plan
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig, load_rig

RIG = {
    "limits": {"power_mw": 5.0, "exposure_ms": 10.0, "dose_mj_cm2": 2000.0},
    "devices.light.max_power_mw": 4.0,
    "devices.stage.x_um": [-100.0, 50.0],
    "devices.stage.y_um": [-20.0, 80.0],
    "devices.focus.z_um": [-10.0, 30.0],
    "devices.dmd.memory_frames": 20,
    "devices.camera.buffer_frames": 17,
    "devices.camera.binnings": [1, 2, 4, 8],
}


def mostly(low: float, high: float) -> st.SearchStrategy[float]:
    """Within what the rig allows, or a little beyond it now and then."""
    beyond = 0.1 * (high - low)
    within = st.floats(low, high)
    return st.one_of(within, within, within, within, within, within, st.floats(low - beyond, high + beyond))


PATTERNS = [
    ("hadamard", 1, 4),
    ("hadamard", 4, 4),
    ("hadamard", 16, 4),
    ("hadamard", 4, 2),
    ("blocks", 4, 4),
    ("blocks", 16, 8),
    ("random", 4, 8),
    ("random", 16, 4),
    ("uniform", 1, 2),
    # beyond binning, buffer, memory, or what a plain camera could match
    ("blocks", 9, 3),
    ("random", 4, 16),
    ("random", 18, 4),
    ("random", 25, 8),
    ("random", 2, 2),
]
places = st.builds(lambda x, y: {"x_um": x, "y_um": y}, mostly(-100, 50), mostly(-20, 80))
sides = st.sampled_from([8, 16, 32, 48, 64, 64, 72])
protocols = st.fixed_dictionaries(
    {
        "field_px": st.tuples(sides, sides),
        "patterns": st.sampled_from(PATTERNS).map(lambda x: {"set": x[0], "count": x[1], "camera_pixel": x[2]}),
        "light": mostly(0.05, 4).map(lambda power: {"power_mw": max(0.01, power)}),
        "exposure_ms": st.one_of(st.floats(0.1, 3), mostly(0.1, 10)).map(lambda value: max(0.01, value)),
        "references": st.fixed_dictionaries({"plain": st.booleans(), "full": st.booleans()}),
    },
    optional={
        "focus_um": mostly(-8, 28),
        "time": st.fixed_dictionaries({"loops": st.integers(1, 5), "interval_s": st.floats(0, 30)}),
        "budget": st.fixed_dictionaries(
            {},
            optional={
                "dose_mj_cm2": st.floats(100, 10_000),
                "time_min": st.floats(0.1, 2),
                "disk_gb": st.floats(1e-4, 1e-2),
            },
        ),
    },
).flatmap(lambda content: st.sampled_from(["positions", "grid", "z", ""]).flatmap(lambda what: extended(content, what)))


def extended(content: dict[str, Any], what: str) -> st.SearchStrategy[dict[str, Any]]:
    """Where to image, in one of the ways that there are."""
    if what == "positions":
        return st.lists(places, max_size=4).map(lambda found: content | {"positions": tuple(found)})
    if what == "grid":
        grid = {"rows": st.integers(1, 4), "columns": st.integers(1, 4), "overlap": st.floats(0, 0.9)}
        centre = {"centre_um": st.tuples(mostly(-60, 10), mostly(20, 40))}
        return st.fixed_dictionaries(grid, optional=centre).map(lambda found: content | {"grid": found})
    if what == "z":
        stack = st.fixed_dictionaries({"range_um": st.floats(0, 8), "step_um": st.floats(0.5, 10)})
        return st.builds(lambda focus, found: content | {"focus_um": focus, "z": found}, mostly(-6, 26), stack)
    return st.just(content)


@pytest.fixture
def rig(rig_yaml: Callable[..., Any]) -> Rig:
    return Rig(load_rig(rig_yaml(RIG)))


def check(rig: Rig, content: dict[str, Any]) -> Plan | None:
    """A plan that keeps within every limit, or a refusal."""
    fixed = {"kind": "run", "name": "any", "rig": "rig.yaml"}
    try:
        protocol = Protocol.model_validate(fixed | content, context={"folder": rig.file.path.parent})
        plan = make_plan(protocol, rig.file.path, rig, rig.optics, protocol.patterns.make())  # type: ignore[union-attr]
    except (ValidationError, InputError):
        return None
    for take in plan.takes.values():
        assert take.power_mw <= 4.0
        assert 0 < take.mode.exposure_ms <= 10.0
        assert take.stack.count <= 17
        assert max(take.memory) < 20
        assert take.mode.binning in (1, 2, 4, 8)
        roi = take.mode.roi
        assert roi.x >= 0
        assert roi.y >= 0
        assert roi.x + roi.width <= 64
        assert roi.y + roi.height <= 64
        assert roi.width % take.mode.binning == 0
        assert roi.height % take.mode.binning == 0
    for shot in plan.shots:
        assert shot.x_um is None or -100 <= shot.x_um <= 50
        assert shot.y_um is None or -20 <= shot.y_um <= 80
        assert shot.z_um is None or -10 <= shot.z_um <= 30
    budget = protocol.budget
    assert plan.price.dose_per_field_mj_cm2 <= min(2000.0, budget.dose_mj_cm2 or 2000.0)
    assert plan.price.time_s / 60 <= (budget.time_min or plan.price.time_s)
    assert plan.price.disk_bytes / 1e9 <= (budget.disk_gb or plan.price.disk_bytes)
    return plan


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(protocols)
def test_no_plan_leaves_the_limits(rig: Rig, content: dict[str, Any]) -> None:
    event("planned" if check(rig, content) is not None else "refused")


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_no_plan_of_a_hundred_thousand_leaves_the_limits(rig: Rig, figure: Callable[..., None]) -> None:
    ends = {True: 0, False: 0}

    @settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck))
    @given(protocols)
    def plans(content: dict[str, Any]) -> None:
        ends[check(rig, content) is not None] += 1

    plans()
    figure("R18", "generated protocols", f"{ends[True]} planned, {ends[False]} refused, 0 beyond the limits", "0")


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(protocols, st.sampled_from(["dose_mj_cm2", "time_min", "disk_gb"]), st.floats(1.01, 1e6))
def test_a_budget_only_tightens(rig: Rig, content: dict[str, Any], key: str, factor: float) -> None:
    """What is allowed without a budget is refused under one that is smaller than its price; none makes more allowed."""
    free = {inner: value for inner, value in content.items() if inner != "budget"}
    plan = check(rig, free)
    if plan is None:
        assert check(rig, free | {"budget": {key: 1e12}}) is None
        return
    costs = {
        "dose_mj_cm2": plan.price.dose_per_field_mj_cm2,
        "time_min": plan.price.time_s / 60,
        "disk_gb": plan.price.disk_bytes / 1e9,
    }
    assert check(rig, free | {"budget": {key: costs[key] * factor}}) is not None
    assert check(rig, free | {"budget": {key: costs[key] / factor}}) is None
