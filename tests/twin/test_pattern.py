"""The routine `pattern`: what patterns deliver, against what the simulated microscope says that they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.calibrate import Outcome
from dmu_hw.errors import InputError
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.routines.pattern import Routine
from tests.twin.rigs import DRAWN, PIXEL_UM, Drawn, draw_rig, measured

RANDOM: dict[str, Any] = {"set": "random", "count": 3, "camera_pixel": 8, "tile": 2, "superpixel": 4}
STEP: dict[str, Any] = {"routine": "pattern", "patterns": RANDOM, "field_px": 96}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is measured is told instead."""
    monkeypatch.setattr(Routine, "needs", ())


def told(seed: int) -> dict[str, Any]:
    """All of the truth."""
    drawn: dict[str, Any] = {"mirrors": {}}
    for name in ("geometry", "light", "chip", "lenses"):
        found = DRAWN[name](np.random.default_rng([seed, *name.encode()]))
        drawn["mirrors"] |= found.pop("mirrors", {})
        drawn |= found
    return drawn


def delivered(seed: int, folder: Path, *, optics: Any = None, **changes: Any) -> tuple[Drawn, Outcome]:
    changes["world"] = {"sensor_shape": [128, 128], **changes.get("world", {})}
    drawn = draw_rig(seed, folder, optics=told(seed) if optics is None else optics, **changes)
    (outcome,) = measured(drawn, STEP)
    return drawn, outcome


@pytest.mark.parametrize("seed", [1, 3])
def test_the_light_of_patterns_is_measured(seed: int, tmp_path: Path) -> None:
    """On the object grid, closer to what the mirrors truly give than to what was asked for."""
    import torch

    from dmu_hw.physics.blur import blur
    from dmu_hw.physics.forward import Forward
    from dmu_hw.physics.mirrors import leak

    drawn, outcome = delivered(seed, tmp_path)
    assert outcome.result is not None
    record, found = outcome.result.record, outcome.result.found()
    assert record.verdict == "pass", record.checks
    assert record.figures["unlike"] < 0.02
    assert record.figures["shift_worst_px"] < 0.1
    truth = drawn.world.truth
    shape = found["illumination_of_field"].shape[1:]
    forward = Forward(truth, shape, 1)
    mirrors = torch.from_numpy(outcome.result.evidence().arrays["mirrors"].astype(np.float32))
    true = blur(forward.from_mirrors(leak(mirrors, truth.mirrors.leakage)), forward.excitation).numpy()
    asked = forward.deliver(torch.from_numpy(PatternSet(**RANDOM).make().over(shape).astype(np.float32))).numpy()
    inside = (slice(None), slice(16, -16), slice(16, -16))
    measured_error = np.sqrt(np.mean((found["illumination_of_field"] - true)[inside] ** 2))
    asked_error = np.sqrt(np.mean((asked - true)[inside] ** 2))
    assert measured_error < max(0.03, 0.8 * asked_error)
    assert found["illumination"].shape == (3, 16, 16)
    tile = true[inside].reshape(3, -1, 16, (shape[1] - 32) // 16, 16).mean(axis=(1, 3))
    assert np.sqrt(np.mean((found["illumination"] - tile) ** 2)) < 0.03


def test_a_map_that_is_wrong_is_told(tmp_path: Path) -> None:
    """By two pixels it is refused, and the shift is what it is wrong by."""
    optics = told(1)
    right = optics["mirrors"]["to_sample"]["shift"]
    optics["mirrors"]["to_sample"]["shift"] = [right[0] - 1.5 * PIXEL_UM, right[1]]
    _, outcome = delivered(1, tmp_path, optics=optics)
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict == "refuse"
    assert record.figures["shift_px"] == pytest.approx(1.5, rel=0.25)
    assert [check.name for check in record.checks if check.said == "refuse"] == ["shift_px"]


def test_no_dye_is_refused(tmp_path: Path) -> None:
    _, outcome = delivered(1, tmp_path, world={"slides": {"dye": {"kind": "layer", "brightness": 0.0}}})
    assert outcome.result is not None
    assert outcome.result.record.verdict == "refuse"


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"routine": "pattern"}, "should name a bundle, or patterns"),
        ({"routine": "pattern", "bundle": "gone.dmu"}, "gone.dmu: cannot be read"),
    ],
)
def test_patterns_must_be_said(step: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        measured(draw_rig(1, tmp_path), step)
