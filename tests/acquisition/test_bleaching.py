"""Bleaching references: when they are taken, what they cost, and whether the decay that they tell is the true one."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_rig, plan_of, run_plan

from dmu_hw.bleaching import bleaching_of, fitted
from dmu_hw.errors import InputError
from dmu_hw.omezarr import Store
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.planner import make_plan
from dmu_hw.rig import Rig
from dmu_hw.writer import write_stores


def test_a_reference_is_the_brightest_pattern_after_every_so_many_bursts(tmp_path: Path) -> None:
    rig = bench_rig(tmp_path, side=32)
    plan = plan_of(rig, side=32, time={"loops": 7}, references={"bleaching": 3, "plain": True})
    roles = [(shot.time, shot.role) for shot in plan.shots]
    assert [time for time, role in roles if role == "bleaching"] == [0, 3, 6]
    take, burst = plan.takes["bleaching"], plan.takes["patterns"]
    assert take.memory == (int(np.argmax(plan.stack.masks.mean(axis=(1, 2)))),)
    assert (take.mode, take.period_ms) == (burst.mode, burst.period_ms)
    assert take.dose_mj_cm2 < burst.dose_mj_cm2
    one_by_one = sum(plan.takes[role].dose_mj_cm2 for _, role in roles)
    assert plan.price.dose_per_field_mj_cm2 == pytest.approx(one_by_one)
    assert plan.price.frames == 7 * (4 + 1) + 3
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert (counts.saved, counts.missing) == (38, 0)
    write_stores(run, plan)
    times = np.asarray(Store(run.frames_of("bleaching")).times(0)[:, 0, 0])
    assert np.flatnonzero(np.isfinite(times)).tolist() == [0, 3, 6]


def test_one_reference_that_would_tell_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="two or more are needed: every 5 of the 4 bursts of a field"):
        plan_of(bench_rig(tmp_path, side=32), side=32, time={"loops": 4}, references={"bleaching": 5})


@pytest.mark.parametrize(("bleach", "loops"), [(4.0, 12), (20.0, 12), (None, 12)])
def test_the_decay_is_the_true_one(
    small_rig: Callable[..., Rig], tmp_path: Path, bleach: float | None, loops: int
) -> None:
    """On an even layer, with all mirrors on in every frame, so that the dose of the field is that of each place."""
    specimen = {"kind": "layer", "brightness": 1.0}
    changes = {"connections.world.specimen": specimen, "optics.dye.background_photons_per_um2_mw_ms": 20.0}
    rig = small_rig(changes)
    patterns = {"set": "uniform", "count": 1, "camera_pixel": 4}
    keys: dict[str, Any] = {"count": 1, "side": 32, "time": {"loops": loops}, "references": {"bleaching": 2}}
    plan = plan_of(rig, **keys, patterns=patterns, positions=({"x_um": 0.0, "y_um": 0.0}, {"x_um": 90.0, "y_um": 0.0}))
    true_dose = None if bleach is None else bleach * plan.price.dose_per_field_mj_cm2
    world: Any = rig.connection("world")
    world.truth = world.truth.model_copy(
        update={"dye": world.truth.dye.model_copy(update={"bleach_dose_mj_cm2": true_dose})}
    )
    run, _ = run_plan(tmp_path / "run", rig, plan)
    write_stores(run, plan)
    found = bleaching_of(run, plan)
    assert found is not None
    assert found.references == 2 * 6
    if true_dose is None:
        assert found.dose_mj_cm2 is None
        assert found.left == pytest.approx(1.0, abs=0.01)
    else:
        assert found.standard_error is not None
        assert abs(found.loss_per_mj_cm2 - 1 / true_dose) < max(4 * found.standard_error, 0.03 / true_dose)
        assert found.dose_mj_cm2 == pytest.approx(true_dose, rel=0.1)
        assert found.left == pytest.approx(math.exp(-1 / bleach), abs=0.01)


def test_a_missing_reference_is_left_out(tmp_path: Path) -> None:
    rig = bench_rig(tmp_path, side=32)
    plan = plan_of(rig, side=32, time={"loops": 3}, references={"bleaching": 1}, retries=0)
    bench: Any = rig.connection("bench")
    bench.faults.repeated = {9}
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert counts.missing == 1
    write_stores(run, plan)
    found = bleaching_of(run, plan)
    assert found is not None
    assert found.references == 2
    assert found.standard_error is None, "two frames fit any decay"
    assert found.dose_mj_cm2 is None


def test_fields_of_any_brightness_tell_one_decay() -> None:
    doses = np.arange(0.0, 50.0, 10.0)
    fields = [[(dose, bright * math.exp(-dose / 40.0)) for dose in doses] for bright in (3.0, 500.0)]
    found = fitted([*fields, [(0.0, -1.0), (1.0, 0.0)], [(5.0, 1.0)], []], 80.0)
    assert found is not None
    assert found.dose_mj_cm2 == pytest.approx(40.0)
    assert found.left == pytest.approx(math.exp(-2.0))
    assert fitted([[(0.0, 1.0)], []], 1.0) is None


def test_the_dose_counts_where_the_reference_looks(small_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Its pattern lights the same quarter of the field every time; in the mean of the field that would be lost."""
    true_dose = 2_000.0
    world = {"specimen": {"kind": "layer", "brightness": 1.0}, "truth": {"dye": {"bleach_dose_mj_cm2": true_dose}}}
    rig = small_rig({f"connections.world.{key}": value for key, value in world.items()})
    blocks = {"set": "blocks", "count": 4, "camera_pixel": 16}
    keys: dict[str, Any] = {"side": 64, "time": {"loops": 8}, "references": {"bleaching": 1}}
    plan = plan_of(rig, count=4, camera_pixel=16, **{**keys, "patterns": blocks})
    stack = PatternSet.model_validate(blocks).make()
    plan = make_plan(plan.protocol, rig.file.path, rig, rig.optics, stack)
    run, _ = run_plan(tmp_path / "run", rig, plan)
    write_stores(run, plan)
    found = bleaching_of(run, plan)
    assert found is not None
    assert found.loss_per_mj_cm2 == pytest.approx(1 / true_dose, rel=0.2)
