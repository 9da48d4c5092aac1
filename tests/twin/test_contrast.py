"""The routine `contrast` finds what mirrors that are off let through, and which do not obey, on rigs that are drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.drivers.simulated.dmd import Dmd
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Finding, FitError, verdict
from dmu_hw.routines.contrast import ContrastSettings, Routine
from dmu_hw.routines.contrast.lattice import stuck_mirrors
from dmu_hw.stray import stray_light
from tests.twin.by_truth import mapped_rig, mirror_px_of, taken
from tests.twin.rigs import Drawn, draw_rig, measured

FEW = ContrastSettings(most_frames=0)
SPOILED = {"stuck_on_fraction": 0.002, "stuck_off_fraction": 0.002}


def found(drawn: Drawn, settings: ContrastSettings) -> tuple[Routine, Finding]:
    routine = Routine(settings)
    return routine, routine.fit(*taken(drawn, routine))


def error(drawn: Drawn, finding: Finding) -> float:
    """Of the leakage, as a part of it."""
    return abs(float(finding.optics["mirrors"]["leakage"]) / drawn.world.truth.mirrors.leakage - 1)


def recalled(drawn: Drawn, finding: Finding) -> tuple[int, int, int, int]:
    """Mirrors that are seen, those stuck among them, those found as what they are, and those found wrongly."""
    assert isinstance(drawn.rig.dmd, Dmd)
    assert drawn.rig.dmd._stuck is not None
    on, off = drawn.rig.dmd._stuck
    seen, found_on, found_off = (finding.arrays[name].astype(bool) for name in ("seen", "stuck_on", "stuck_off"))
    right = (on & found_on) | (off & found_off)
    wrong = (found_on | found_off) & ~(on | off)
    return int(seen.sum()), int(((on | off) & seen).sum()), int((right & seen).sum()), int(wrong.sum())


def test_leakage_and_stuck_mirrors_are_found_after_registration(tmp_path: Path) -> None:
    drawn = draw_rig(9, tmp_path, dmd=SPOILED)
    _, outcome = measured(drawn, {"routine": "register"}, {"routine": "contrast", "repeats": 2})
    assert outcome.good
    assert outcome.finding is not None
    assert error(drawn, outcome.finding) < 0.05
    seen, stuck, right, wrong = recalled(drawn, outcome.finding)
    assert seen > 10_000
    assert stuck > 20
    assert right >= 0.99 * stuck
    assert wrong <= 0.001 * seen


@pytest.mark.parametrize("seed", [7, 8])
def test_leakage_is_told_from_background(seed: int, tmp_path: Path) -> None:
    """With an array that covers the chip and one that does not; leakages of 0.0007 and 0.003 under a background of
    0.01."""
    drawn = mapped_rig(seed, tmp_path)
    routine, finding = found(drawn, FEW)
    assert error(drawn, finding) < 0.05
    assert finding.figures["background"] == pytest.approx(0.01, rel=0.05)
    assert abs(finding.figures["scatter"]) < 0.001
    assert verdict(routine.judge(finding)) == "pass"


def test_even_light_on_a_covered_chip_tells_nothing_and_is_refused(tmp_path: Path) -> None:
    drawn = mapped_rig(9, tmp_path, truth={"profile": {"kind": "flat"}})
    routine, finding = found(drawn, FEW)
    (refused,) = (check for check in routine.judge(finding) if check.said == "refuse")
    assert refused.name == "leakage_uncertainty"
    assert "cannot tell leakage from background" in str(refused)


def test_the_border_of_the_array_tells_leakage_from_background_under_even_light(tmp_path: Path) -> None:
    drawn = mapped_rig(7, tmp_path, truth={"profile": {"kind": "flat"}})
    assert error(drawn, found(drawn, FEW)[1]) < 0.05


def test_mirrors_that_cannot_be_told_apart_are_not_judged(tmp_path: Path) -> None:
    drawn = mapped_rig(7, tmp_path, dmd=SPOILED)
    routine, finding = found(drawn, ContrastSettings(most_frames=36, repeats=2))
    assert not finding.arrays
    (warned,) = (check for check in routine.judge(finding) if check.said == "warn")
    assert "allow more frames" in str(warned)


DARK = {"photons_per_um2_mw_ms": 1e-6, "background_photons_per_um2_mw_ms": 0.0}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"truth": {"dye": DARK}}, "is the lamp on"),
        ({"world": {"slides": {"dye": {"kind": "layer", "brightness": 0.0}}}}, "no more light"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(FitError, match=why):
        found(mapped_rig(9, tmp_path, **changes), FEW)


# ---------------------------------------------------------------- the fits alone


def frames(unevenness: float, leakage: float = 0.004, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All on, all off and good pixels of a camera whose pixels answer by 2 % more or less."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-1, 1, 256)
    light = 1 - unevenness * (x[None, :] ** 2 + x[:, None] ** 2)
    response = 1 + 0.02 * rng.standard_normal(light.shape)
    on, off = (response * (part * light + 0.02) for part in (1.0, leakage))
    good = rng.random(light.shape) > 0.01
    return np.where(good, on, 9.0), np.where(good, off, 3.0), good


@pytest.mark.parametrize("leakage", [0.0, 0.0005, 0.04])
def test_stray_light_falls_apart_in_two(leakage: float) -> None:
    stray = stray_light(*frames(0.3, leakage))
    assert stray.leakage == pytest.approx(leakage, abs=3e-5)
    assert stray.background == pytest.approx(0.02, rel=0.01)
    assert abs(stray.leakage - leakage) < 3 * stray.leakage_error < 3e-4


def test_stray_light_of_even_light_is_uncertain() -> None:
    """Although frames on and off are alike in their grain, which looks like leakage."""
    stray = stray_light(*frames(0.0))
    assert stray.leakage_error > 0.01


def test_stray_light_needs_pixels() -> None:
    on, off, good = frames(0.3)
    with pytest.raises(ValueError, match="good pixels"):
        stray_light(on, off, good & False)


_OPTICS = Optics.model_validate(
    {
        "object_pixel_um": 1.0,
        "sensor_pixel_um": 1.0,
        "excitation": {"kind": "gaussian", "sigma_um": 1.0},
        "emission": {"kind": "gaussian", "sigma_um": 1.0},
        "mirrors": {"shape": (60, 80)},
        "dye": {"photons_per_um2_mw_ms": 1.0},
    }
)


def readings(missing: list[tuple[int, int]], period: int = 5, width_px: float = 1.6) -> tuple[np.ndarray, np.ndarray]:
    """At each mirror's place in its own lattice and with all on, without noise."""
    row, column = np.mgrid[:60, :80].astype(float)
    alone, together = np.full((60, 80), 0.0), np.ones((60, 80))
    for r, c in np.argwhere(np.ones((60, 80))):
        members = (slice(r % period, None, period), slice(c % period, None, period))
        give = np.ones((60, 80))
        for gone in missing:
            give[gone] = 0
        far2 = (row[members] - r) ** 2 + (column[members] - c) ** 2
        alone[r, c] = (give[members] * np.exp(-far2 / (4 * width_px**2))).sum() / (4 * np.pi * width_px**2)
    return alone, together


def test_missing_mirrors_are_stuck_unless_something_shades_them() -> None:
    stuck_on, stuck_off = [(20, 30), (40, 41)], [(21, 30), (10, 10)]
    shade = [(r, c) for r in range(50, 54) for c in range(60, 64)]
    alone, together = readings(stuck_on + stuck_off + shade)
    row, column = np.mgrid[:60, :80]
    part = 1 / (4 * np.pi * 1.6**2)
    rest = sum(part * np.exp(-((row - r) ** 2 + (column - c) ** 2) / (4 * 1.6**2)) for r, c in stuck_on)
    found_there = stuck_mirrors(alone, together, np.asarray(rest), 5, 1.6, _OPTICS)
    assert {tuple(place) for place in np.argwhere(found_there.on).tolist()} == set(stuck_on)
    assert {tuple(place) for place in np.argwhere(found_there.off).tolist()} == set(stuck_off)
    assert {tuple(place) for place in np.argwhere(found_there.shaded).tolist()} == set(shade)
    assert not found_there.seen[51, 61]


# ---------------------------------------------------------------- 40 rigs


def stuck_of(seed: int) -> dict[str, float]:
    rng = np.random.default_rng([seed, 0x57])
    on, off = np.exp(rng.uniform(np.log(1e-5), np.log(1e-3), 2)).tolist()
    return {"stuck_on_fraction": on, "stuck_off_fraction": off}


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_forty_rigs(tmp_path: Path, figure: Callable[..., None]) -> None:
    errors, apart, sums = [], [], np.zeros((2, 4), dtype=int)
    for seed in range(40):
        drawn = mapped_rig(seed, tmp_path / str(seed), dmd=stuck_of(seed))
        _, finding = found(drawn, ContrastSettings())
        errors.append(error(drawn, finding))
        large = mirror_px_of(drawn) >= 1
        apart.append((large, "seen" in finding.arrays))
        if "seen" in finding.arrays:
            sums[int(large)] += recalled(drawn, finding)
    figure("contrast", "leakage 0.0005 to 0.04, error on 40 rigs: median", f"{np.median(errors):.2%}", "10 %")
    figure("contrast", "leakage 0.0005 to 0.04, error on 40 rigs: worst", f"{max(errors):.2%}", "10 %")
    for name, large in (("mirrors of 1 px or more", True), ("smaller mirrors", False)):
        seen, stuck, right, wrong = sums[int(large)]
        told = [there for is_large, there in apart if is_large == large]
        figure("contrast", f"{name}: rigs where they are told apart", f"{sum(told)} of {len(told)}")
        figure("contrast", f"{name}: stuck ones found as what they are", f"{right} of {stuck}", "99 %")
        figure("contrast", f"{name}: others taken for stuck", f"{wrong} of {seen}", "0.1 %")
    assert max(errors) < 0.1
    assert all(there for is_large, there in apart if is_large)
    assert (sums[:, 2] >= 0.99 * sums[:, 1]).all()
    assert (sums[:, 3] <= 0.001 * sums[:, 0]).all()
