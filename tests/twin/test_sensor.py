"""The routine `sensor` finds the camera's numbers, on rigs drawn at random whose truth it does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.calibrate import Outcome, fit_again
from dmu_hw.physics.optics import Sensor
from dmu_hw.recipe import load_recipe
from dmu_hw.routines.sensor import rounding
from tests.twin.rigs import Drawn, converter, draw_rig, measured

SMALL = {"sensor_shape": [160, 160]}
SENSOR = {"routine": "sensor", "dark_frames": 24, "flat_frames": 8}


def small(seed: int, folder: Path, **changes: Any) -> Drawn:
    """A rig with a chip that is quickly looked at."""
    return draw_rig(seed, folder, **{**changes, "world": SMALL | changes.get("world", {})})


def looked_at(drawn: Drawn, **settings: Any) -> Outcome:
    (outcome,) = measured(drawn, {**SENSOR, **settings})
    return outcome


@dataclass(frozen=True)
class Errors:
    """Of what was found, as a part of the truth, but for the offset in ADU."""

    gain: float
    offset_adu: float
    read_noise: float
    saturation: float


def errors(drawn: Drawn, outcome: Outcome) -> Errors:
    assert outcome.result is not None
    assert outcome.finding is not None, outcome.result.record.why
    found, true = outcome.finding.figures, drawn.world.truth.sensor
    return Errors(
        found["gain_adu_per_e"] / true.gain_adu_per_e - 1,
        found["offset_adu"] - true.offset_adu,
        found["read_noise_e"] / true.read_noise_e - 1,
        found.get("saturation_e", full_e(true)) / full_e(true) - 1,
    )


def full_e(sensor: Sensor) -> float:
    """Where its numbers end."""
    return min(sensor.full_well_e, (sensor.largest_adu - sensor.offset_adu) / sensor.gain_adu_per_e)


def hard(seed: int) -> dict[str, Any]:
    """Cameras of all kinds, light that is never twice the same, and dye that bleaches meanwhile."""
    changes = converter(np.random.default_rng([seed, *b"converter"]))
    bleach_dose = float(10 ** np.random.default_rng([seed, *b"bleach"]).uniform(5.5, 7.5))
    changes["truth"]["dye"] = {"bleach_dose_mj_cm2": bleach_dose}
    return {**changes, "world": {"flicker": 0.01}}


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize("seed", [0, 1])
def test_the_numbers_of_a_camera_are_found(seed: int, tmp_path: Path) -> None:
    drawn = small(seed, tmp_path)
    outcome = looked_at(drawn)
    off = errors(drawn, outcome)
    assert abs(off.gain) < 0.02, "ten times fewer pixels than a real chip has"
    assert abs(off.offset_adu) < 0.3
    assert abs(off.read_noise) < 0.03
    assert abs(off.saturation) < 0.05
    assert outcome.finding is not None
    assert "saturation_e" in outcome.finding.figures
    assert outcome.result is not None
    assert outcome.result.record.verdict == "pass", outcome.result.record.checks
    _, again = fit_again(load_recipe(drawn.path.with_name("recipe.yaml")).measures[0], outcome.result)
    assert again.figures == outcome.result.record.figures, "the same evidence, the same finding"


@pytest.mark.parametrize("seed", [1, 2])
def test_neither_flicker_nor_bleaching_nor_few_bits_deceive_it(seed: int, tmp_path: Path) -> None:
    drawn = small(seed, tmp_path, **hard(seed))
    outcome = looked_at(drawn)
    off = errors(drawn, outcome)
    assert abs(off.gain) < 0.02
    assert abs(off.offset_adu) < 0.3
    assert abs(off.read_noise) < 0.04
    assert outcome.finding is not None
    assert outcome.finding.optics["sensor"]["binning"] == drawn.world.truth.sensor.binning
    assert outcome.result is not None
    assert outcome.result.record.verdict == "pass", outcome.result.record.checks


def test_maps_are_of_the_bare_chip_however_frames_are_turned(tmp_path: Path) -> None:
    spreads = {"offset_spread_adu": 2.0, "gain_spread": 0.02, "read_noise_spread": 0.3, "gain_adu_per_e": 0.8}
    changes = {"truth": {"sensor": spreads | {"full_well_e": 30_000.0, "dead_fraction": 0.002, "hot_fraction": 0.002}}}
    drawn = small(4, tmp_path, camera={"flip_x": True}, **changes)
    outcome = looked_at(drawn)
    assert outcome.result is not None
    maps, true = outcome.result.found(), drawn.world.renderer.maps
    fine = maps["bad"] == 0
    assert np.abs(maps["offset_adu"] - true.offset_adu.numpy())[fine].std() < 0.6
    wrong = maps["response"] - true.response.numpy()
    assert wrong[fine].std() < 0.01, "half of the spread, with eight frames"
    noise_e = true.read_noise.numpy() * drawn.world.truth.sensor.read_noise_e
    assert np.corrcoef(np.log(maps["read_noise_e"][fine]), np.log(noise_e[fine]))[0, 1] > 0.8
    hot, dead = true.dark_e_per_ms.numpy() > 0, true.response.numpy() == 0
    assert np.all(maps["bad"][hot] == 1)
    assert np.mean(maps["bad"][dead]) > 0.95, "but for some that no light reached"
    assert np.count_nonzero((maps["bad"] == 1) & ~hot & ~dead) <= 2


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("bits", [8, 12])
def test_bits_that_are_aligned_high_are_found(bits: int, tmp_path: Path) -> None:
    truth = {"sensor": {"bits": bits, "offset_adu": 20.0, "gain_adu_per_e": 0.5, "offset_spread_adu": 0.5}}
    drawn = small(2, tmp_path, optics={"sensor": {"bits": bits}}, truth=truth, camera={"true": {"alignment": "high"}})
    outcome = looked_at(drawn)
    assert not outcome.good
    assert outcome.result is not None
    why = outcome.result.record.why
    assert f"multiples of {2 ** (16 - bits)}: the camera fills the high bits of 16 with {bits} bits" in why
    assert f"`bits: {bits}`" in why


@pytest.mark.parametrize(("believed", "true"), [(16, 12), (8, 10)])
def test_bits_that_are_believed_wrongly_are_found(believed: int, true: int, tmp_path: Path) -> None:
    truth = {"sensor": {"bits": true, "offset_adu": 30.0, "gain_adu_per_e": 0.7, "offset_spread_adu": 0.5}}
    outcome = looked_at(small(2, tmp_path, optics={"sensor": {"bits": believed}}, truth=truth))
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict == "warn"
    assert record.optics["sensor"]["bits"] == true
    (check,) = (check for check in record.checks if check.said != "pass")
    assert check.name == "bits_off"
    assert f"the camera gives {true} bits" in check.advice


@pytest.mark.parametrize(("offset_adu", "said"), [(0.0, "refuse"), (1.0, "refuse"), (4.4, "warn")])
def test_an_offset_that_cuts_the_noise_off_is_found(offset_adu: float, said: str, tmp_path: Path) -> None:
    truth = {
        "sensor": {"offset_adu": offset_adu, "offset_spread_adu": 0.0, "gain_adu_per_e": 0.75, "read_noise_e": 2.0}
    }
    outcome = looked_at(small(2, tmp_path, truth=truth))
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict == said
    advice = [check.advice for check in record.checks if check.said != "pass"]
    assert any("raise the camera's offset" in told.lower() for told in (record.why, *advice))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the lamp is off": ({"truth": {"dye": {"photons_per_um2_mw_ms": 1e-9}}}, "no light reaches the camera"),
    "far too bright": ({"truth": {"dye": {"photons_per_um2_mw_ms": 1e9}}}, "neither dark nor clipped"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(case: str, tmp_path: Path) -> None:
    changes, message = REFUSED[case]
    changes = {"truth": {"dye": {**changes["truth"]["dye"], "background_photons_per_um2_mw_ms": 0.0}}}
    outcome = looked_at(small(3, tmp_path, **changes))
    assert not outcome.good
    assert outcome.result is not None
    assert message in outcome.result.record.why


@pytest.mark.parametrize("kind", ["nuclei", "beads"])
def test_a_sample_that_is_no_even_layer_is_refused(kind: str, tmp_path: Path) -> None:
    slides = {"dye": {"kind": kind, "seed": 3}, "dark": {"kind": "layer", "brightness": 0.0}}
    outcome = looked_at(small(3, tmp_path, world={"slides": slides}))
    assert not outcome.good
    assert outcome.result is not None
    assert "unevenness" in [check.name for check in outcome.result.record.checks if check.said == "refuse"]


# ---------------------------------------------------------------- rounding


@pytest.mark.parametrize("sigma", [0.12, 0.2, 0.3, 0.45, 0.6, 1.0, 4.0])
def test_noise_is_found_though_numbers_are_whole(sigma: float) -> None:
    """Of pixels whose offsets lie anywhere between two numbers; `var - 1/12` is wrong by up to a half here."""
    rng = np.random.default_rng(7)
    offset = 50 + 3 * rng.standard_normal(20_000)
    frames = np.rint(offset + sigma * rng.standard_normal((32, offset.size)))
    means = frames.mean(axis=0)
    variance = rounding.variance_of_noise(means, frames.var(axis=0, ddof=1), 32)
    assert variance is not None
    assert np.sqrt(variance) == pytest.approx(sigma, rel=0.02)
    assert rounding.mean_of_noise(means, variance).mean() == pytest.approx(offset.mean(), abs=0.02)


@pytest.mark.parametrize("place", [0.0, 0.2, 0.35, 0.5])
def test_of_pixels_that_are_all_alike_too(place: float) -> None:
    rng = np.random.default_rng(8)
    frames = np.rint(50 + place + 0.4 * rng.standard_normal((32, 20_000)))
    means = frames.mean(axis=0)
    variance = rounding.variance_of_noise(means, frames.var(axis=0, ddof=1), 32)
    assert variance is not None
    assert np.sqrt(variance) == pytest.approx(0.4, rel=0.02)
    assert rounding.mean_of_noise(means, variance).mean() == pytest.approx(50 + place, abs=0.02)


@pytest.mark.parametrize("place", [0.0, 0.2, 0.35, 0.5])
def test_noise_that_is_lost_in_rounding_is_not_guessed(place: float) -> None:
    rng = np.random.default_rng(9)
    frames = np.rint(50 + place + 0.12 * rng.standard_normal((32, 20_000)))
    assert rounding.variance_of_noise(frames.mean(axis=0), frames.var(axis=0, ddof=1), 32) is None


# ---------------------------------------------------------------- forty rigs


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["chip", "converter"])
def test_forty_cameras(kind: str, tmp_path: Path, figure: Callable[..., None]) -> None:
    off: list[Errors] = []
    lost = alarms = 0
    for seed in range(40):
        (tmp_path / str(seed)).mkdir()
        drawn = draw_rig(seed, tmp_path / str(seed), **(hard(seed) if kind == "converter" else {}))
        (outcome,) = measured(drawn, {"routine": "sensor"})
        off.append(errors(drawn, outcome))
        assert outcome.finding is not None
        lost += outcome.finding.figures["read_noise_lost"] > 0
        assert outcome.result is not None
        alarms += outcome.result.record.verdict != "pass"
    for name, unit, limit in (("gain", "%", 1.0), ("offset_adu", "ADU", 0.3), ("read_noise", "%", 3.0)):
        worst = np.max(np.abs([getattr(one, name) for one in off])) * (100 if unit == "%" else 1)
        figure("sensor", f"{name}, worst of 40 rigs ({kind})", f"{worst:.3f} {unit}", f"{limit} {unit}")
        assert worst < limit
    figure("sensor", f"rigs of 40 that were warned of without need ({kind})", str(alarms), "0")
    figure("sensor", f"rigs of 40 whose read noise is lost in rounding ({kind})", str(lost))
    assert alarms == 0
