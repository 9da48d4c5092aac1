"""The routine `bleach`: after which dose 1/e of the dye is left, where map and light are believed as they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.calibrate import Outcome
from dmu_hw.physics.optics import Dye, GaussianPsf, Optics
from dmu_hw.routine import Evidence, FitError
from dmu_hw.routines.bleach import BleachSettings, Routine
from tests.twin.rigs import DRAWN, draw_rig, measured

Figure = Callable[[str, str, str, str], None]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is measured is told instead."""
    monkeypatch.setattr(Routine, "needs", ())


def told(seed: int) -> dict[str, Any]:
    """What `register`, `field` and `sensor` would find."""
    drawn: dict[str, Any] = {"mirrors": {}}
    for name in ("geometry", "light", "chip"):
        found = DRAWN[name](np.random.default_rng([seed, *name.encode()]))
        drawn["mirrors"] |= found.pop("mirrors", {})
        drawn |= found
    return drawn


def faded(seed: int, folder: Path, true_mj_cm2: float | None, *, world: Any = None, **step: Any) -> Outcome:
    changes = {"truth": {"dye": {"bleach_dose_mj_cm2": true_mj_cm2}}, "optics": told(seed), "world": world or {}}
    (outcome,) = measured(draw_rig(seed, folder, **changes), {"routine": "bleach", **step})
    return outcome


def drawn_dose(seed: int) -> float:
    return math.exp(np.random.default_rng([seed, *b"bleaching"]).uniform(math.log(3e3), math.log(2e5)))


@pytest.mark.parametrize("seed", [1, 3])
def test_the_dose_is_found(seed: int, tmp_path: Path) -> None:
    dose = drawn_dose(seed)
    outcome = faded(seed, tmp_path, dose, world={"sensor_shape": [192, 192]})
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict == "pass", record
    assert record.optics["dye"]["bleach_dose_mj_cm2"] == pytest.approx(dose, rel=0.05)
    assert abs(record.figures["depends_on_power"]) < 0.15
    assert record.dose_mj_cm2 < 200_000 * 1.1


@pytest.mark.parametrize("dose", [None, 1e9])
def test_what_does_not_fade_is_said_to_be_slower(dose: float | None, tmp_path: Path) -> None:
    outcome = faded(2, tmp_path, dose, world={"sensor_shape": [128, 128]}, dose_mj_cm2=50_000)
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict == "warn"
    assert record.optics == {"dye": {"bleach_dose_mj_cm2": None}}
    assert 50_000 < record.figures["slower_than_mj_cm2"] < 1e9
    assert any("slower than" in check.advice for check in record.checks)


@pytest.mark.parametrize("brightness", [0.0])
def test_a_place_without_dye_is_refused(brightness: float, tmp_path: Path) -> None:
    world = {"specimen": {"kind": "layer", "brightness": brightness}, "sensor_shape": [128, 128]}
    outcome = faded(2, tmp_path, 1e4, world=world, dose_mj_cm2=5_000)
    assert outcome.result is None or outcome.result.record.verdict == "refuse"


def made_up(rate: float, high_part: float = 1.0, noise: float = 0.001, drift: float = 0.0) -> Evidence:
    """Looks at a bright square: `rate` a mJ/cm² at the low power, and a part of it at the high one."""
    rng = np.random.default_rng(7)
    energy = np.cumsum([[1.0, 0.0], [0.0, 1.0]] * 8, axis=0)
    looks = [
        (500 * math.exp(-rate * (high_part * high + low)) + drift * i) * (1 + noise * rng.normal()) * np.ones((8, 8))
        + 100
        for i, (high, low) in enumerate(energy)
    ]
    facts = {"before_mw_ms": energy.tolist(), "look_mw": 1e-9, "exposure_ms": 1.0, "block_px": 8}
    return Evidence({"looks": np.array(looks), "dark": np.full((8, 8), 100.0)}, facts)


OPTICS = Optics(
    object_pixel_um=0.5,
    sensor_pixel_um=0.5,
    excitation=GaussianPsf(sigma_um=0.3),
    emission=GaussianPsf(sigma_um=0.3),
    dye=Dye(photons_per_um2_mw_ms=100.0),
)
PER_MW_MS = OPTICS.dose_mj_cm2(1.0, 1.0)


def test_the_rate_is_read_off() -> None:
    found = Routine(BleachSettings()).fit(made_up(0.05), OPTICS)
    assert found.optics["dye"]["bleach_dose_mj_cm2"] == pytest.approx(PER_MW_MS / 0.05, rel=0.01)
    assert abs(found.figures["depends_on_power"]) < 0.05


def test_a_dye_that_fades_otherwise_in_bright_light_is_found() -> None:
    routine = Routine(BleachSettings())
    found = routine.fit(made_up(0.05, high_part=2.0), OPTICS)
    assert found.figures["depends_on_power"] == pytest.approx(-0.5, abs=0.05)
    assert next(check for check in routine.judge(found) if check.name == "depends_on_power").said == "warn"


def test_light_that_grows_is_refused() -> None:
    with pytest.raises(FitError, match="brighter"):
        Routine(BleachSettings()).fit(made_up(0.0, drift=10.0), OPTICS)


@pytest.mark.campaign
@pytest.mark.timeout(3000)
def test_doses_of_forty_rigs(tmp_path: Path, figure: Figure) -> None:
    errors = []
    for seed in range(40):
        (tmp_path / str(seed)).mkdir()
        dose = drawn_dose(seed)
        outcome = faded(seed, tmp_path / str(seed), dose)
        assert outcome.result is not None
        assert outcome.result.record.verdict != "refuse", outcome.result.record
        errors.append(abs(outcome.result.record.figures["bleach_dose_mj_cm2"] / dose - 1))
    text = f"median {np.median(errors):.2%}, worst {max(errors):.2%}"
    figure("bleach", "dose of 40 rigs", text, "10 %")
    assert max(errors) <= 0.1
