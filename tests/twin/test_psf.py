"""The routine `psf` finds how much light is blurred on its way to the sample and back, on rigs drawn at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.physics import psf
from dmu_hw.physics.optics import AiryPsf, GaussianPsf, Optics
from dmu_hw.routine import Evidence, Finding, FitError, verdict
from dmu_hw.routines.psf import PsfSettings, Routine
from dmu_hw.routines.psf.shapes import AiryShape, GaussianShape
from tests.twin.by_truth import mapped_rig, taken
from tests.twin.rigs import Drawn, draw_rig, measured

HILL_UM = 0.2
BALL_UM = HILL_UM * math.sqrt(0.1163 / 0.05)
"""A simulated bead is no ball but a hill; this ball has the same second moment."""
WORLD: dict[str, Any] = {
    "sensor_shape": [192, 192],
    # a blur of less than a pixel is only rendered right on a finer grid
    "oversampling": 4,
    "slides": {
        "dye": {"kind": "layer", "brightness": 0.5},
        "beads": {
            "kind": "beads",
            "seed": 5,
            "per_mm2": 6000.0,
            "diameter_um": HILL_UM,
            "diameter_spread": 0.0,
            "brightness": 0.6,
        },
    },
}
SMALL = WORLD | {"sensor_shape": [128, 128], "oversampling": 3}
SMALL["slides"] = {"dye": WORLD["slides"]["dye"], "beads": WORLD["slides"]["beads"] | {"per_mm2": 9000.0}}
BEADS = PsfSettings(bead_um=BALL_UM)


def found(drawn: Drawn, settings: PsfSettings = BEADS) -> tuple[Routine, Finding]:
    routine = Routine(settings)
    return routine, routine.fit(*taken(drawn, routine))


def errors(drawn: Drawn, finding: Finding) -> tuple[float, float]:
    """Of the widths of excitation and emission, as parts of them."""
    truth, optics = drawn.world.truth, finding.optics
    if isinstance(truth.excitation, AiryPsf) and isinstance(truth.emission, AiryPsf):
        return optics["excitation"]["na"] / truth.excitation.na - 1, optics["emission"]["na"] / truth.emission.na - 1
    assert isinstance(truth.excitation, GaussianPsf)
    assert isinstance(truth.emission, GaussianPsf)
    return (
        optics["excitation"]["sigma_um"] / truth.excitation.sigma_um - 1,
        optics["emission"]["sigma_um"] / truth.emission.sigma_um - 1,
    )


@pytest.mark.parametrize("seed", [3, 5])
def test_both_widths_are_found(seed: int, tmp_path: Path) -> None:
    """Of mirrors half as large as a pixel and twice as large, and of blurs narrower than a pixel."""
    drawn = mapped_rig(seed, tmp_path, world=SMALL)
    routine, finding = found(drawn)
    assert np.abs(errors(drawn, finding)).max() < 0.03
    assert verdict(routine.judge(finding)) == "pass"


def test_the_kind_of_blur_stays_as_it_is_believed(tmp_path: Path) -> None:
    lens = {"kind": "airy", "wavelength_nm": 560}
    believed = {name: lens | {"na": 0.3} for name in ("excitation", "emission")}
    true = {"excitation": lens | {"na": 0.2}, "emission": lens | {"na": 0.25}}
    drawn = mapped_rig(5, tmp_path, world=SMALL | {"oversampling": 2}, optics=believed, truth=true)
    _, finding = found(drawn, PsfSettings(bead_um=BALL_UM, reach_px=14))
    assert finding.optics["excitation"]["kind"] == "airy"
    assert np.abs(errors(drawn, finding)).max() < 0.05


def test_it_builds_upon_registration(tmp_path: Path) -> None:
    drawn = draw_rig(5, tmp_path, world=SMALL | {"oversampling": 2, "sensor_shape": [256, 256]})
    skipped, _, outcome = measured(
        drawn, {"routine": "psf"}, {"routine": "register"}, {"routine": "psf", "bead_um": BALL_UM}
    )
    assert "register" in skipped.skipped
    assert outcome.good
    assert outcome.finding is not None
    assert np.abs(errors(drawn, outcome.finding)).max() < 0.06
    assert outcome.finding.figures["edge_shift_px"] < 0.1


REFUSED: dict[str, tuple[dict[str, Any], PsfSettings, str]] = {
    "no light": (
        {"truth": {"dye": {"photons_per_um2_mw_ms": 1e-6, "background_photons_per_um2_mw_ms": 0.0}}},
        BEADS,
        "is the lamp on",
    ),
    "a dye layer": (
        {"world": WORLD | {"slides": {"beads": {"kind": "layer", "brightness": 0.5}}, "oversampling": 1}},
        BEADS,
        "beads under the lens",
    ),
    "a crowd": (
        {"world": WORLD | {"slides": {"beads": {"kind": "beads", "seed": 5, "per_mm2": 150_000.0}}, "oversampling": 1}},
        BEADS,
        "sparse beads in focus",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(case: str, tmp_path: Path) -> None:
    changes, settings, why = REFUSED[case]
    drawn = mapped_rig(5, tmp_path, **({"world": WORLD | {"oversampling": 1}} | changes))
    with pytest.raises(FitError, match=why):
        found(drawn, settings)


# ---------------------------------------------------------------- the fit alone

_OPTICS = Optics.model_validate(
    {
        "object_pixel_um": 0.3,
        "sensor_pixel_um": 0.3,
        "excitation": {"kind": "gaussian", "sigma_um": 0.4},
        "emission": {"kind": "gaussian", "sigma_um": 0.4},
        "mirrors": {"shape": (60, 80), "to_sample": {"matrix": ((0.9, 0.1), (-0.1, 0.9))}},
        "dye": {"photons_per_um2_mw_ms": 1.0},
    }
)


def evidence(
    excitation_px: float, emission_px: float, shift_px: float = 0.0, growth: float = 1.0, fading: float = 0.0
) -> Evidence:
    """Twelve beads under stripes of four mirrors at all eight places, without noise; each frame takes some of their
    light for ever."""
    rng = np.random.default_rng(3)
    emission, excitation = (GaussianShape(GaussianPsf(sigma_um=0.3 * px), 0.3) for px in (emission_px, excitation_px))
    places = rng.integers(30, 170, (12, 2))
    off = rng.uniform(-0.5, 0.5, (12, 2))
    span = np.arange(-12, 13, dtype=float)
    stacks = np.zeros((12, 19, 25, 25))
    middle = np.array([199, 199]) / 2
    for bead, (place, (down, across)) in enumerate(zip(places, off, strict=True)):
        spot = emission.point(span[None, :] - across, span[:, None] - down, emission_px, 0.0)
        y_um, x_um = (place + off[bead] - middle + shift_px) * 0.3
        column, row = _OPTICS.mirrors.to_sample.invert(x_um, y_um)
        share = [1.0, growth]
        for along in (column + 40, row + 30):
            for first in range(8):
                near = (along - first - 2 + 4) % 8 - 4
                pitch = 0.3 / math.hypot(0.9, 0.1)
                edges = [((near + turn + 2) / pitch, (near + turn - 2) / pitch) for turn in (-8, 0, 8)]
                lit = [excitation.edge(np.array(edge), excitation_px, 0.0) for edge in edges]
                share.append(float(sum(values[0] - values[1] for values in lit)))
        dose = np.cumsum([4.0, 2.0, *share[2:], 4.0]) - np.array([2.0, 1.0, *(each / 2 for each in share[2:]), 2.0])
        share = np.array([*share, 1.0]) * np.exp(-fading * dose)
        stacks[bead] = np.array(share)[:, None, None] * 3000 * spot + 4
    arrays = {"beads": stacks.astype(np.float32), "good": np.ones((12, 25, 25), dtype=bool), "places": places}
    return Evidence(arrays, {"sensor_shape": [200, 200], "half": 4, "firsts": list(range(8)), "repeats": 4})


@pytest.mark.parametrize("excitation_px", [0.8, 2.0])
@pytest.mark.parametrize("emission_px", [0.8, 2.0])
def test_either_width_is_found_whatever_the_other(excitation_px: float, emission_px: float) -> None:
    finding = Routine(PsfSettings(bead_um=0.0)).fit(evidence(excitation_px, emission_px, shift_px=0.1), _OPTICS)
    assert finding.figures["excitation_width_px"] == pytest.approx(excitation_px, rel=0.002)
    assert finding.figures["emission_width_px"] == pytest.approx(emission_px, rel=0.002)
    assert finding.figures["edge_shift_px"] == pytest.approx(0.1 * math.sqrt(2), abs=0.01)


@pytest.mark.parametrize("fading", [0.01, 0.04])
def test_beads_may_fade(fading: float) -> None:
    finding = Routine(PsfSettings(bead_um=0.0)).fit(evidence(0.8, 1.2, fading=fading), _OPTICS)
    assert finding.figures["excitation_width_px"] == pytest.approx(0.8, rel=0.01)
    assert finding.figures["emission_width_px"] == pytest.approx(1.2, rel=0.002)


@pytest.mark.parametrize("change", [{"growth": 1.2}, {"fading": 0.15}])
def test_beads_that_are_clipped_or_vanish_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(FitError, match="less exposure"):
        Routine(PsfSettings(bead_um=0.0)).fit(evidence(1.0, 1.0, **change), _OPTICS)


def test_beads_that_do_not_lie_where_the_map_has_them_are_refused() -> None:
    routine = Routine(PsfSettings(bead_um=0.0))
    finding = routine.fit(evidence(0.8, 1.2, shift_px=4.0), _OPTICS)
    assert verdict(routine.judge(finding)) == "refuse"


def test_a_bead_of_some_size_is_reckoned_with() -> None:
    routine = Routine(PsfSettings(bead_um=0.6))
    widened = math.sqrt(1.5**2 + (0.6 / 0.3) ** 2 / 20)
    finding = routine.fit(evidence(widened, widened), _OPTICS)
    assert finding.figures["emission_width_px"] == pytest.approx(1.5, rel=0.003)
    assert finding.figures["excitation_width_px"] == pytest.approx(1.5, rel=0.003)


@pytest.mark.parametrize("na", [0.25, 0.6])
def test_an_airy_pattern_is_that_of_the_model(na: float) -> None:
    believed = AiryPsf(na=na, wavelength_nm=560)
    shape = AiryShape(believed, 0.3)
    kernel = psf.kernel(believed, 0.3).numpy()
    reach = min(8, kernel.shape[0] // 2)
    span, middle = np.arange(-reach, reach + 1, dtype=float), kernel.shape[0] // 2
    inner = slice(middle - reach, middle + reach + 1)
    mine = shape.point(span[None, :], span[:, None], shape.width_px, 0.0)
    assert np.abs(mine - kernel[inner, inner]).max() < 0.02 * kernel.max()
    far = np.arange(-8, 9) + 0.5
    lines = np.concatenate([[0.0], np.cumsum(psf.kernel(believed, 0.3).numpy().sum(axis=0))])
    edge = np.interp(far, np.arange(len(lines)) - len(lines) / 2 + 0.5, lines)
    assert shape.edge(far, shape.width_px, 0.0) == pytest.approx(edge, abs=0.01)
    assert shape.psf(shape.width_px).na == pytest.approx(na)  # type: ignore[union-attr]


def test_a_lens_that_there_cannot_be_is_refused() -> None:
    shape = AiryShape(AiryPsf(na=0.6, wavelength_nm=560), 0.3)
    with pytest.raises(FitError, match="none in a medium of 1"):
        shape.psf(shape.width_px / 2)


# ---------------------------------------------------------------- 40 rigs


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_forty_rigs(tmp_path: Path, figure: Callable[..., None]) -> None:
    off = []
    for seed in range(40):
        drawn = mapped_rig(seed, tmp_path / str(seed), world=WORLD)
        off.append(np.abs(errors(drawn, found(drawn)[1])))
    for name, each in zip(("excitation", "emission"), np.array(off).T, strict=True):
        figure("psf", f"width of {name}, error on 40 rigs: median", f"{np.median(each):.2%}", "3 %")
        figure("psf", f"width of {name}, error on 40 rigs: worst", f"{each.max():.2%}", "3 %")
    assert np.max(off) < 0.03
