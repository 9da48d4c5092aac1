"""The routine `stage`: pixel, angle and backlash, while the stage counts its own micrometres along its own axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.belief import believe
from dmu_hw.calibrate import Outcome
from dmu_hw.rig import Rig, load_rig
from dmu_hw.routines.stage.shifts import Pictures
from tests.twin.rigs import PIXEL_UM, Drawn, draw_rig, measured

Figure = Callable[[str, str, str, str], None]


def mechanics(seed: int) -> dict[str, Any]:
    """A stage that counts wrongly, stands askew and has play."""
    rng = np.random.default_rng([seed, *b"mechanics"])
    return {
        "scale": float(1 + rng.uniform(-0.04, 0.04)),
        "angle_deg": float(rng.uniform(-5, 5)),
        "backlash_um": rng.uniform(0, 2, 2).tolist(),
    }


def moved(seed: int, folder: Path, true: dict[str, Any], **changes: Any) -> tuple[Drawn, Outcome]:
    drawn = draw_rig(seed, folder, stage={"true": true}, **changes)
    (outcome,) = measured(drawn, {"routine": "stage"})
    return drawn, outcome


def errors_of(outcome: Outcome, true: dict[str, Any]) -> dict[str, float]:
    """Beyond what is promised of them: 1 is as much as may be."""
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict != "refuse", record.why or [check for check in record.checks if check.said == "refuse"]
    figures, pixel_um = record.figures, PIXEL_UM / true["scale"]
    backlash = [
        abs(figures[f"backlash_{axis}_um"] - wanted) / max(0.05 * wanted, 0.02 * pixel_um)
        for axis, wanted in zip("xy", true["backlash_um"], strict=True)
    ]
    return {
        "pixel": abs(figures["pixel_um"] / pixel_um - 1) / 0.002,
        "angle": abs(figures["angle_deg"] - true["angle_deg"]) / 0.05,
        "backlash": max(backlash),
    }


@pytest.mark.parametrize("seed", [1, 3])
def test_pixel_angle_and_backlash_are_found(seed: int, tmp_path: Path) -> None:
    true = mechanics(seed)
    drawn, outcome = moved(seed, tmp_path, true, world={"sensor_shape": [192, 192]}, calibration={"results": "results"})
    assert all(error <= 1 for error in errors_of(outcome, true).values())
    rig = Rig(load_rig(drawn.path))
    believe(rig)
    assert rig.optics.sensor_pixel_um == pytest.approx(PIXEL_UM / true["scale"], rel=0.002)
    assert rig.optics.sensor_ratio == 1
    assert rig.mechanics.angle_deg == pytest.approx(true["angle_deg"], abs=0.05)
    assert rig.mechanics.backlash_um == pytest.approx(true["backlash_um"], rel=0.05, abs=0.01)
    assert drawn.rig.stage is not None
    assert drawn.rig.stage.position_um() == (0.0, 0.0)


def test_a_camera_that_turns_its_frames_is_not_taken_for_mirrored(tmp_path: Path) -> None:
    true = mechanics(3)
    _, outcome = moved(3, tmp_path, true, world={"sensor_shape": [192, 192]}, camera={"flip_x": True})
    assert all(error <= 1 for error in errors_of(outcome, true).values())


def test_an_ideal_stage_passes(tmp_path: Path) -> None:
    true = {"scale": 1.0, "angle_deg": 0.0, "backlash_um": [0.0, 0.0]}
    _, outcome = moved(2, tmp_path, true, world={"sensor_shape": [192, 192]})
    assert errors_of(outcome, true)["pixel"] < 1
    assert outcome.result is not None
    assert outcome.result.record.verdict == "pass"


@pytest.mark.parametrize(
    ("true", "changes", "why"),
    [
        ({}, {"world": {"specimen": {"kind": "layer", "brightness": 0.5}}}, "is there structure in focus"),
        ({}, {"world": {"specimen": {"kind": "layer", "brightness": 0.0}}}, "specimen|structure"),
        ({"scale": 1e-3}, {}, "does the stage move"),
        ({"scale": 3.0}, {}, "is the objective in place"),
        ({"backlash_um": [30.0, 0.0]}, {}, "residual_px"),
        ({"angle_deg": 90.0}, {}, "turn the camera"),
    ],
    ids=["even layer", "dark", "stuck", "another objective", "loose", "turned"],
)
def test_what_cannot_be_measured_is_refused(
    true: dict[str, Any], changes: dict[str, Any], why: str, tmp_path: Path
) -> None:
    import re

    small = {"world": {"sensor_shape": [192, 192], **changes.get("world", {})}}
    _, outcome = moved(3, tmp_path, true, **small)
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict == "refuse"
    said = record.why + "; ".join(f"{check.name} {check.advice}" for check in record.checks if check.said == "refuse")
    assert re.search(why, said), said


# ---------------------------------------------------------------- the fit by itself


@pytest.mark.parametrize("shift_px", [(3.0, -2.0), (0.4, 7.25), (-11.5, 4.1)])
def test_a_shift_is_found_in_uneven_light_with_dust(shift_px: tuple[float, float]) -> None:
    """Light and dust stay where they are; what moves is the specimen."""
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(np.arange(128.0), np.arange(128.0))
    spots = rng.uniform(-20, 148, (60, 2))
    light = np.exp(-((x - 50) ** 2 + (y - 80) ** 2) / (2 * 90.0**2)) * (1 - 0.3 * (np.hypot(x - 70, y - 60) < 3))

    def seen(right: float, down: float) -> np.ndarray:
        places = np.exp(-((x - spots[:, 0, None, None] - right) ** 2 + (y - spots[:, 1, None, None] - down) ** 2) / 18)
        return np.asarray(500 * light * places.sum(axis=0) + rng.normal(0, 3, x.shape))

    found, alike = Pictures(np.stack([seen(0, 0), seen(*shift_px)])).shift(0, 1, np.zeros(2))
    assert found == pytest.approx(shift_px, abs=0.1)
    assert alike > 0.9


# ---------------------------------------------------------------- a campaign


@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_stages_of_forty_rigs(tmp_path: Path, figure: Figure) -> None:
    """What is promised: 0.2 % of the pixel, 0.05°, and 5 % or 0.02 px of backlash."""
    errors: dict[str, list[float]] = {"pixel": [], "angle": [], "backlash": []}
    for seed in range(40):
        (tmp_path / str(seed)).mkdir()
        true = mechanics(seed)
        _, outcome = moved(seed, tmp_path / str(seed), true)
        for name, error in errors_of(outcome, true).items():
            errors[name].append(error)
    for name, unit, allowed in (("pixel", "%", 0.2), ("angle", "°", 0.05)):
        text = f"median {np.median(errors[name]) * allowed:.4f} {unit}, worst {max(errors[name]) * allowed:.4f} {unit}"
        figure("stage", f"{name} of 40 rigs", text, f"{allowed} {unit}")
    text = f"median {np.median(errors['backlash']):.2f}, worst {max(errors['backlash']):.2f}"
    figure("stage", "backlash of 40 rigs, in units of 5 % or 0.02 px", text, "1")
    assert max(map(max, errors.values())) <= 1, errors
