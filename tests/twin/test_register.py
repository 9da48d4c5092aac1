"""The routine `register` finds where the mirrors lie, on rigs drawn at random whose truth it does not know."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.calibrate import Outcome, fit_again
from dmu_hw.data import BoolArray
from dmu_hw.physics.warp import Warp
from dmu_hw.recipe import load_recipe
from dmu_hw.routine import Evidence, FitError, verdict
from dmu_hw.routines.register import Routine
from dmu_hw.routines.register.stripes import CELL, STEPS, coarse, fine, gray_decoded
from tests.twin.rigs import MIRRORS, PIXEL_UM, SENSOR_PX, Drawn, draw_rig, measured

DARK = {"slides": {"dye": {"kind": "layer", "brightness": 0.0}}}
HALF_UM = SENSOR_PX / 2 * PIXEL_UM


def registered(drawn: Drawn, **settings: Any) -> Outcome:
    (outcome,) = measured(drawn, {"routine": "register", **settings})
    return outcome


def found(outcome: Outcome) -> Warp:
    assert outcome.finding is not None, outcome.result and outcome.result.record.why
    return Warp.model_validate(outcome.finding.optics["mirrors"]["to_sample"])


def mirrors_on_the_chip(drawn: Drawn) -> tuple[np.ndarray, np.ndarray]:
    """Column and row, counted from the centre of the array, of mirrors that the chip sees: a net over the chip with its
    corners, and the border of the array where it lies on the chip."""
    truth, (rows, columns) = drawn.world.truth, MIRRORS
    x, y = (side.ravel() for side in np.meshgrid(*[np.linspace(-HALF_UM, HALF_UM, 17)] * 2))
    column, row = truth.mirrors.to_sample.invert(*truth.sample_to_sensor.invert(x, y))
    along = np.linspace(-0.5, 0.5, 17)
    border = [(u, v) for u in along for v in along if 0.5 in (abs(u), abs(v))]
    column = np.concatenate([column, columns * np.array([u for u, _ in border])])
    row = np.concatenate([row, rows * np.array([v for _, v in border])])
    x, y = seen(drawn, column, row)
    kept = (np.abs(column) <= columns / 2) & (np.abs(row) <= rows / 2)
    kept &= (np.abs(x) <= HALF_UM + 1e-6) & (np.abs(y) <= HALF_UM + 1e-6)
    return column[kept], row[kept]


def seen(drawn: Drawn, column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where on the chip, in truth."""
    truth = drawn.world.truth
    return truth.sample_to_sensor.apply(*truth.mirrors.to_sample.apply(column, row))


def errors_px(drawn: Drawn, warp: Warp) -> np.ndarray:
    column, row = mirrors_on_the_chip(drawn)
    assert len(column) > 16
    true_x, true_y = seen(drawn, column, row)
    x, y = warp.apply(column, row)
    return np.hypot(x - true_x, y - true_y) / PIXEL_UM


def bent_lens(seed: int) -> dict[str, Any]:
    """Up to 1 % of distortion on the way to the camera as well."""
    terms = np.random.default_rng([seed, 7]).normal(size=(2, 7))
    terms *= 0.01 * HALF_UM / np.abs(terms).sum(axis=1, keepdims=True)
    return {"sample_to_sensor": {"distortion": terms.tolist(), "radius": HALF_UM}}


# ---------------------------------------------------------------- rigs at random


@pytest.mark.parametrize("seed", [1, 24, 29])
def test_the_map_is_found(seed: int, tmp_path: Path) -> None:
    """Mirrors of 0.74, 0.31 and 3.5 camera pixels, turned, mirrored, sheared and bent; the second lights a fifth of the
    chip."""
    drawn = draw_rig(seed, tmp_path)
    outcome = registered(drawn)
    errors = errors_px(drawn, found(outcome))
    assert np.median(errors) < 0.02
    assert errors.max() < 0.05
    assert outcome.result is not None
    assert outcome.result.record.verdict == "pass"


def test_large_mirrors_under_a_sharp_lens(tmp_path: Path) -> None:
    """Of 4 camera pixels: inside of one nothing tells where a pixel lies, and the border of the chip cuts many."""
    sharp = {"kind": "gaussian", "sigma_um": 0.8 * PIXEL_UM}
    turned = {"matrix": [[1.0, -0.84], [0.84, 1.0]], "radius": 48.0}
    drawn = draw_rig(11, tmp_path, truth={"mirrors": {"to_sample": turned}, "excitation": sharp, "emission": sharp})
    outcome = registered(drawn)
    assert errors_px(drawn, found(outcome)).max() < 0.03
    assert outcome.good


def test_a_bent_lens_before_the_camera_is_part_of_the_map(tmp_path: Path) -> None:
    drawn = draw_rig(10, tmp_path, truth=bent_lens(10))
    errors = errors_px(drawn, found(registered(drawn)))
    assert np.median(errors) < 0.02
    assert errors.max() < 0.1


@pytest.mark.parametrize("binning", [2, 4])
def test_binned_frames_of_a_chip_that_they_do_not_fill(binning: int, tmp_path: Path) -> None:
    drawn = draw_rig(0, tmp_path, world={"sensor_shape": [SENSOR_PX + 1, SENSOR_PX - 1]})
    assert errors_px(drawn, found(registered(drawn, binning=binning))).max() < 0.05


def test_dust_stuck_mirrors_hot_pixels_and_texture(tmp_path: Path) -> None:
    """Cells instead of an even layer: most of the chip is dark."""
    slide = {"slides": {"dye": {"kind": "nuclei", "seed": 3, "haze": 0.1}}}
    spoiled = {"hot_fraction": 0.03, "dead_fraction": 0.02, "hot_e_per_ms": 50.0}
    drawn = draw_rig(
        6,
        tmp_path,
        world=slide,
        truth={"sensor": spoiled},
        dmd={"stuck_on_fraction": 0.01, "stuck_off_fraction": 0.01},
    )
    outcome = registered(drawn)
    assert errors_px(drawn, found(outcome)).max() < 0.1
    assert outcome.finding is not None
    assert outcome.finding.figures["following"] < 1


def test_a_part_of_the_chip_is_enough_and_is_said(tmp_path: Path) -> None:
    drawn = draw_rig(3, tmp_path, truth={"mirrors": {"to_sample": {"shift": [1.2 * HALF_UM, 0.0]}}})
    outcome = registered(drawn)
    assert errors_px(drawn, found(outcome)).max() < 0.05
    assert outcome.finding is not None
    true_x, true_y = np.meshgrid(*[(np.arange(SENSOR_PX) + 0.5 - SENSOR_PX / 2) * PIXEL_UM] * 2)
    column, row = drawn.world.truth.mirrors.to_sample.invert(true_x, true_y)
    covered = np.mean((np.abs(column) <= MIRRORS[1] / 2) & (np.abs(row) <= MIRRORS[0] / 2))
    assert outcome.finding.figures["covered"] == pytest.approx(covered, abs=0.002)
    assert 0 < outcome.finding.figures["extrapolated_px"] < 30


# ---------------------------------------------------------------- refused, never fitted wrong

REFUSED = {
    "no dye": ({"world": DARK, "truth": {"dye": {"background_photons_per_um2_mw_ms": 0.0}}}, {}, "no light reaches"),
    "no dye, but other light": ({"world": DARK}, {}, "no light of the mirrors is seen"),
    "beside the chip": (
        {"truth": {"mirrors": {"to_sample": {"shift": [4 * HALF_UM, 0.0]}}}},
        {"exposure_ms": 50.0},
        "no light of the mirrors is seen",
    ),
    "out of focus": ({"world": {"specimen_z_um": 30.0}}, {}, "focus"),
    "saturated": ({}, {"exposure_ms": 400.0}, "bent"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_registered_is_refused(what: str, tmp_path: Path) -> None:
    changes, settings, match = REFUSED[what]
    outcome = registered(draw_rig(3, tmp_path, **changes), **settings)
    assert outcome.result is not None
    record = outcome.result.record
    assert record.verdict == "refuse"
    assert not outcome.good
    assert match in record.why + " ".join(check.name for check in record.checks if check.said == "refuse")


def test_a_corner_of_the_chip_is_too_little(tmp_path: Path) -> None:
    shift = {"mirrors": {"to_sample": {"shift": [1.8 * HALF_UM, 0.0]}}}
    assert not registered(draw_rig(3, tmp_path, truth=shift)).good


@dataclass(frozen=True)
class Measured:
    drawn: Drawn
    outcome: Outcome
    evidence: Evidence


@pytest.fixture(scope="module", name="once")
def _once(tmp_path_factory: pytest.TempPathFactory) -> Measured:
    drawn = draw_rig(3, tmp_path_factory.mktemp("once"))
    outcome = registered(drawn)
    assert outcome.result is not None
    return Measured(drawn, outcome, outcome.result.evidence())


def rolled(name: str, by: int, first: int = 0, last: int | None = None) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][first:last] = np.roll(arrays[name][first:last], by, axis=0)

    return change


def put(name: str, place: int, other: int) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][place] = arrays[name][other]

    return change


def swapped(name: str, place: int, other: int) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][[place, other]] = arrays[name][[other, place]]

    return change


def backwards(name: str, first: int, last: int) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays[name][first:last] = arrays[name][first:last][::-1].copy()

    return change


def aside(pixels: int) -> Callable[[dict[str, Any]], None]:
    def change(arrays: dict[str, Any]) -> None:
        arrays["fine"] = np.roll(arrays["fine"], pixels, axis=2)

    return change


X, Y, END = 2, 2 + STEPS, 2 + 2 * STEPS
"""First fine frames that tell columns, and rows, and where they end."""
WRONG = {
    "coarse frames one late": rolled("coarse", 1),
    "coarse frames one early": rolled("coarse", -1),
    "fine frames one late": rolled("fine", 1),
    "fine frames one early": rolled("fine", -1),
    "steps of columns one late": rolled("fine", 1, X, Y),
    "steps of rows half a period late": rolled("fine", STEPS // 2, Y, END),
    "columns for rows": rolled("fine", STEPS, X, END),
    "steps backwards": backwards("fine", X, Y),
    "two fine frames swapped": swapped("fine", X + 1, X + 2),
    "a fine frame shown twice": put("fine", X + 3, X + 2),
    "a dark fine frame": put("fine", Y + 3, 1),
    "a coarse frame shown twice": put("coarse", 5, 4),
    "two coarse frames swapped": swapped("coarse", 2, 4),
    "moved by a pixel between them": aside(1),
}


@pytest.mark.parametrize("what", WRONG)
def test_frames_of_other_patterns_are_refused(what: str, once: Measured) -> None:
    arrays = {name: array.copy() for name, array in once.evidence.arrays.items()}
    WRONG[what](arrays)
    routine = Routine(Routine.Settings())
    assert once.outcome.result is not None
    try:
        finding = routine.fit(Evidence(arrays, once.evidence.facts), once.outcome.result.record.believed)
    except FitError:
        return
    assert verdict(routine.judge(finding)) == "refuse"


def test_the_evidence_can_be_fitted_again(once: Measured) -> None:
    assert once.outcome.result is not None
    measure = load_recipe(once.drawn.path.with_name("recipe.yaml")).measures[0]
    finding, record = fit_again(measure, once.outcome.result)
    assert finding is not None
    assert record.verdict == "pass"
    assert record.figures == once.outcome.result.record.figures


def test_figures_and_pictures_are_told(once: Measured) -> None:
    finding, truth = once.outcome.finding, once.drawn.world.truth
    assert finding is not None
    (a, b), (c, d) = truth.mirrors.to_sample.matrix
    assert finding.figures["scale_px_per_mirror"] == pytest.approx(abs(a * d - b * c) ** 0.5 / PIXEL_UM, rel=0.03)
    assert finding.figures["turn_deg"] == pytest.approx(np.degrees(np.arctan2(c, a)), abs=2.0)
    assert bool(finding.figures["mirrored"]) == (a * d - b * c < 0)
    assert finding.figures["slip_px"] < 0.05
    for caption, marks in finding.marks.items():
        rows, columns = finding.pictures[caption].shape
        assert marks.shape[1] == 4
        assert (marks[:, :2] >= 0).all()
        assert (marks[:, 0] < columns).all()
        assert (marks[:, 1] < rows).all()


def test_uploads_that_mirror_some_of_the_patterns_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_rig(1, tmp_path)
    load, loads = drawn.rig.dmd.load, 0

    def mirrors_the_others(frames: BoolArray) -> None:
        nonlocal loads
        loads += 1
        load(frames if frames.shape[0] < 2 + 2 * STEPS or loads < 3 else np.ascontiguousarray(frames[:, :, ::-1]))

    monkeypatch.setattr(drawn.rig.dmd, "load", mirrors_the_others)
    assert not registered(drawn).good


def test_a_display_that_lags_by_one_pattern_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = draw_rig(1, tmp_path)
    show = drawn.rig.dmd.show
    last: int | None = None

    def lagging(index: int | None) -> None:
        nonlocal last
        last, now = index, last
        show(now)

    def dark_at_load(frames: BoolArray) -> None:
        nonlocal last
        last = None
        load(frames)

    load = drawn.rig.dmd.load
    monkeypatch.setattr(drawn.rig.dmd, "show", lagging)
    monkeypatch.setattr(drawn.rig.dmd, "load", dark_at_load)
    outcome = registered(drawn, exposure_ms=50.0)
    assert not outcome.good


@pytest.mark.parametrize("speed_um_s", [0.1, 2.0])
def test_a_sample_that_moves_is_refused_or_does_no_harm(speed_um_s: float, tmp_path: Path) -> None:
    moving = {"slides": {"dye": {"kind": "nuclei", "seed": 3}}, "drift_um_s": [speed_um_s, 0.0]}
    drawn = draw_rig(5, tmp_path, world=moving)
    outcome = registered(drawn)
    if outcome.good:
        assert errors_px(drawn, found(outcome)).max() < 0.1
    else:
        assert speed_um_s > 1


# ---------------------------------------------------------------- stripes


def test_stripes_count_every_cell_and_every_place_of_a_period() -> None:
    shape = (75, 129)
    stripes = coarse(shape)
    for axis, length in enumerate(shape):
        mine = [each.mirrors(shape) for each in stripes if each.axis == axis]
        line = np.stack([mirrors[:, 0] if axis == 0 else mirrors[0] for mirrors in mine])
        assert np.array_equal(gray_decoded(line), np.arange(length) // CELL)
        assert all((mirrors == mirrors[:, :1] if axis else mirrors == mirrors[:1]).any() for mirrors in mine)
    steps = [each.mirrors(shape)[0] for each in fine(16) if each.axis == 1]
    assert len(steps) == STEPS
    for before, after in itertools.pairwise(steps):
        assert np.array_equal(np.roll(before, 2)[2:], after[2:])
    assert np.mean(steps, axis=0)[:128] == pytest.approx(0.5)


def test_edges_are_told_where_stripes_change() -> None:
    for each in coarse((64, 64)):
        position = np.linspace(0.01, 63.99, 997)
        beyond, sign = each.edge(position)
        changes = np.flatnonzero(np.diff(each.is_on(position)))
        assert (np.abs(beyond[changes]) < 0.1).all()
        assert np.array_equal(sign[changes] > 0, each.is_on(position)[changes + 1])


# ---------------------------------------------------------------- campaigns


@pytest.mark.campaign
@pytest.mark.parametrize("lens", ["straight", "bent"])
def test_forty_rigs(lens: str, tmp_path: Path, figure: Callable[..., None]) -> None:
    medians, worst, seconds, refused = [], [], [], 0
    for seed in range(40):
        drawn = draw_rig(seed, tmp_path, truth=bent_lens(seed) if lens == "bent" else {})
        began_s = time.process_time()
        outcome = registered(drawn)
        seconds.append(time.process_time() - began_s)
        if not outcome.good:
            refused += 1
            continue
        errors = errors_px(drawn, found(outcome))
        medians.append(float(np.median(errors)))
        worst.append(float(errors.max()))
    with_lens = "" if lens == "straight" else ", lens bent by 1 % as well"
    figure("register", f"median error over 40 rigs{with_lens}", f"{np.median(medians):.4f} px", "0.02 px")
    figure("register", f"worst error of all rigs{with_lens}", f"{max(worst):.4f} px", "0.1 px")
    figure("register", f"time of a processor{with_lens}", f"{max(seconds):.1f} s at most", "10 s")
    figure("register", f"refused{with_lens}", str(refused), "0")
    assert np.median(medians) < 0.02
    assert max(worst) < 0.1
    assert refused == 0
