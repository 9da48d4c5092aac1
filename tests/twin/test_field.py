"""The routine `field` finds how even the light is, on rigs drawn at random whose truth it does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dmu_hw.physics.optics import GaussianProfile, GridProfile, Optics
from dmu_hw.routine import Evidence, Finding, FitError
from dmu_hw.routines.field import FieldSettings, Routine, _shrunk
from tests.twin.rigs import PIXEL_UM, SENSOR_PX, Drawn, draw_rig, measured

_BORDER_PX = 3.0
"""Closer to the end of the array there is no light to be even."""


def uneven(seed: int) -> dict[str, Any]:
    """A Gaussian that is not in the middle, slow unevenness, and fringes."""
    rng = np.random.default_rng([seed, 0xF1E1D])
    half_um = SENSOR_PX / 2 * PIXEL_UM
    gaussian = GaussianProfile(
        sigma_um=float(half_um * rng.uniform(1.2, 3.0)), centre_um=tuple(rng.uniform(-0.3, 0.3, 2) * half_um)
    )
    pitch_um = 8 * PIXEL_UM
    place_um: NDArray[Any] = (np.arange(61) - 30) * pitch_um
    x_um, y_um = place_um[None, :], place_um[:, None]
    values = gaussian.at(x_um, y_um)
    for parts, waves, period in ((0.08, 3, rng.uniform(0.8, 1.6, 3)), (0.03, 1, rng.uniform(0.25, 0.4, 1))):
        for wave in range(waves):
            angle, phase = rng.uniform(0, 2 * np.pi, 2)
            along = (np.cos(angle) * x_um + np.sin(angle) * y_um) / (period[wave] * 2 * half_um)
            values = values * (1 + parts / waves * np.cos(2 * np.pi * along + phase))
    return {"kind": "grid", "pitch_um": pitch_um, "values": (values / values.max()).round(6).tolist()}


def error(drawn: Drawn, found: Optics) -> tuple[float, float]:
    """Of the profile where mirrors send light onto the chip, root mean square as a part of it; and of its peak."""
    place_um = (np.arange(SENSOR_PX) - (SENSOR_PX - 1) / 2) * PIXEL_UM
    x_um, y_um = np.broadcast_arrays(place_um[None, :], place_um[:, None])
    truth = drawn.world.truth
    column, row = truth.mirrors.to_sample.invert(x_um, y_um)
    rows, columns = truth.mirrors.shape
    border = _BORDER_PX * PIXEL_UM / np.sqrt(truth.mirrors.area_um2 / (rows * columns))
    lit = (np.abs(column) < columns / 2 - border) & (np.abs(row) < rows / 2 - border)
    true, seen = truth.profile.at(x_um, y_um)[lit], found.profile.at(x_um, y_um)[lit]
    ratio = seen / true
    return float(np.std(ratio) / np.mean(ratio)), float(seen.max() - 1)


def found(drawn: Drawn, **settings: Any) -> tuple[Finding, Optics]:
    (outcome,) = measured(drawn, {"routine": "field", **settings})
    assert outcome.result is not None
    assert outcome.good, (outcome.result.record.why, outcome.result.record.checks)
    assert outcome.finding is not None
    believed = drawn.rig.optics.model_dump() | json.loads(json.dumps(dict(outcome.finding.optics)))
    return outcome.finding, Optics.model_validate_json(json.dumps(believed))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_profile_is_found(seed: int, tmp_path: Path) -> None:
    drawn = draw_rig(seed, tmp_path, truth={"profile": uneven(seed)} if seed else {})
    finding, optics = found(drawn)
    off, peak = error(drawn, optics)
    assert off < 0.01
    assert abs(peak) < 0.02
    dye = drawn.world.truth.dye
    background = dye.background_photons_per_um2_mw_ms / (0.5 * dye.photons_per_um2_mw_ms)
    assert abs(finding.figures["background"] / background - 1) < 0.2


def test_it_holds_for_an_array_that_covers_a_part_of_the_chip(tmp_path: Path) -> None:
    drawn = draw_rig(7, tmp_path)
    finding, optics = found(drawn)
    assert finding.figures["lit_part"] < 0.5
    assert error(drawn, optics)[0] < 0.01


DARK = {"photons_per_um2_mw_ms": 1e-6, "background_photons_per_um2_mw_ms": 0.0}
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no light": (
        {"truth": {"dye": {"photons_per_um2_mw_ms": 1e-6, "background_photons_per_um2_mw_ms": 0}}},
        {},
        "lamp on",
    ),
    "no dye": ({"world": {"slides": {"dye": {"kind": "layer", "brightness": 0.0}}}}, {}, "even layer of dye"),
    "a specimen": ({"world": {"slides": {"dye": {"kind": "nuclei", "seed": 3}}}}, {}, "whole"),
    "saturated": ({}, {"exposure_ms": 400.0}, "saturated"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(case: str, tmp_path: Path) -> None:
    changes, settings, why = REFUSED[case]
    drawn = draw_rig(0, tmp_path, **changes)
    (outcome,) = measured(drawn, {"routine": "field", **settings})
    assert not outcome.good
    assert outcome.result is not None
    record = outcome.result.record
    said = record.why + " ".join(check.name for check in record.checks if check.said == "refuse")
    assert re.search(why, said), said


# ---------------------------------------------------------------- the fit alone

_OPTICS = Optics.model_validate(
    {
        "object_pixel_um": 0.3,
        "sensor_pixel_um": 0.3,
        "excitation": {"kind": "gaussian", "sigma_um": 0.3},
        "emission": {"kind": "gaussian", "sigma_um": 0.3},
        "dye": {"photons_per_um2_mw_ms": 1.0},
    }
)


def evidence(change: Callable[[np.ndarray], np.ndarray], background: float = 0.02) -> tuple[Evidence, np.ndarray]:
    """Of a camera without noise whose pixels answer by 2 % more or less."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:200, :260] - np.array([99.5, 129.5])[:, None, None]
    profile = np.exp(-((x - 20) ** 2 + (y + 30) ** 2) / (2 * 180.0**2))
    response = 1 + 0.02 * rng.standard_normal(profile.shape)
    arrays = {}
    for place, exposure_ms in enumerate((1.0, 2.0, 4.0, 64.0)):
        for name, part in (("on", 1.0), ("off", 0.01), ("dark", 0.0)):
            lit = (part * change(profile) + (background if part else 0.0)) * 5000.0
            arrays[f"{name}_{place}"] = (100 + exposure_ms * response * lit).astype(np.float32)
    return Evidence(arrays, {"exposures_ms": [1.0, 2.0, 4.0, 64.0], "sensor_shape": profile.shape}), profile


def values_of(finding: Finding, shape: tuple[int, ...]) -> np.ndarray:
    believed = _OPTICS.model_dump() | json.loads(json.dumps(dict(finding.optics)))
    profile = Optics.model_validate_json(json.dumps(believed)).profile
    places: list[NDArray[Any]] = [(np.arange(side) - (side - 1) / 2) * 0.3 for side in shape]
    return profile.at(places[1][None, :], places[0][:, None])


def test_dust_and_dead_pixels_make_no_difference() -> None:
    def dusty(profile: np.ndarray) -> np.ndarray:
        rng, spoiled = np.random.default_rng(2), profile.copy()
        for y, x in rng.integers(10, 190, (12, 2)):
            spoiled[y : y + 7, x : x + 7] *= 0.7
        spoiled[rng.random(profile.shape) < 0.001] = 0
        return spoiled

    given, profile = evidence(dusty)
    finding = Routine(FieldSettings()).fit(given, _OPTICS)
    ratio = values_of(finding, profile.shape) / profile
    assert np.std(ratio) / np.mean(ratio) < 0.005
    assert finding.figures["background"] == pytest.approx(0.02, rel=0.05)


def test_large_chips_need_no_large_frames() -> None:
    """A square of pixels of which a few are hot is one pixel, and what fills no square does not move the light."""
    given, profile = evidence(lambda light: light)
    fine = {name: array.repeat(3, axis=0).repeat(3, axis=1) for name, array in given.arrays.items()}
    for array in fine.values():
        array[10::50, 20::70] += 4000
    whole = {name: np.pad(array, ((0, 2), (0, 1)))[None] for name, array in fine.items()}
    shrunk = {name: _shrunk(array.astype(np.uint16), 3) for name, array in whole.items()}
    facts = given.facts | {"sensor_shape": [602, 781]}
    optics = _OPTICS.model_copy(update={"sensor_pixel_um": 0.1})
    finding = Routine(FieldSettings()).fit(Evidence(shrunk, facts), optics)
    found_there = GridProfile.model_validate_json(json.dumps(finding.optics["profile"]))
    # the squares begin at the corner of the chip
    x_um, y_um = (((np.arange(count) + 0.5) * 3 - side / 2) * 0.1 for count, side in ((260, 781), (200, 602)))
    ratio = found_there.at(x_um[None, :], y_um[:, None]) / profile
    assert np.std(ratio) / np.mean(ratio) < 0.005


def test_light_without_end_beyond_the_lit_part_is_not_made_up() -> None:
    def half(profile: np.ndarray) -> np.ndarray:
        lit = profile.copy()
        lit[:, :100] = 0
        return lit

    given, profile = evidence(half)
    seen = values_of(Routine(FieldSettings()).fit(given, _OPTICS), profile.shape)
    assert seen.max() <= 1.005
    ratio = seen[:, 100:] / profile[:, 100:]
    assert np.std(ratio) / np.mean(ratio) < 0.01
    assert np.abs(seen / profile / ratio.mean() - 1).max() < 0.2  # a Gaussian goes on as one


def test_a_chip_in_the_dark_is_refused() -> None:
    given, _ = evidence(np.zeros_like)
    with pytest.raises(FitError, match="even layer of dye"):
        Routine(FieldSettings()).fit(given, _OPTICS)


# ---------------------------------------------------------------- 40 rigs


@pytest.mark.campaign
@pytest.mark.timeout(1800)
def test_forty_rigs(tmp_path: Path, figure: Callable[..., None]) -> None:
    errors = []
    for seed in range(40):
        folder = tmp_path / str(seed)
        folder.mkdir()
        drawn = draw_rig(seed, folder, truth={"profile": uneven(seed)} if seed % 2 else {})
        errors.append(error(drawn, found(drawn)[1])[0])
    figure("field", "profile, rms error on 40 rigs: median", f"{np.median(errors):.2%}", "1 %")
    figure("field", "profile, rms error on 40 rigs: worst", f"{max(errors):.2%}", "1 %")
    assert max(errors) < 0.01
