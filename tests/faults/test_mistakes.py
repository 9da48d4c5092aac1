"""What frames tell by themselves: faults of which the marker says little, and no more than a doubt of odd specimens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from lightbench import MARKER, STALE, LightBench, Nuisances, marker_of, stack_of
from test_proof import LIGHT, faults, judged

from dmu_hw.covariance import MOST_PATTERNS, _kernels, _Seen, _swapped, mistakes
from dmu_hw.data import PatternStack
from dmu_hw.lone import fault
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.suspicion import Suspicion

Array = np.ndarray[Any, Any]
SMALL = st.integers(2, 6)


def bench_of(stack: PatternStack, pixels: int, specimen: str | None, seed: int = 1, **nuisances: float) -> LightBench:
    old = stack_of(stack.count, stack.camera_pixel**2 // stack.count, "random", 5)
    return LightBench(marker_of(stack, pixels), marker_of(old, pixels), specimen, seed, Nuisances(**nuisances))


def with_specimen(bench: LightBench, first: Array, last: Array | None = None) -> LightBench:
    """Another specimen in its place, as bright."""
    bench.first = torch.from_numpy(first / first.max()).float()
    bench.last = bench.first if last is None else torch.from_numpy(last / first.max()).float()
    bench._pictures.clear()
    bench.photons_of_full = float(np.quantile(bench._picture(0)[0], 0.95))
    return bench


# ---------------------------------------------------------------- how frames vary together


@given(SMALL, st.integers(0, 999))
def test_two_frames_change_places_as_rows_and_columns_do(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(2, 16, count, count + 3))
    spread = rng.normal(size=(2, count, count + 3))
    seen = _Seen(parts @ parts.swapaxes(2, 3), np.full((2, 16), 5.0), np.ones(2), 1.0)
    precision = spread @ spread.swapaxes(1, 2)
    found, spoken_for = _swapped(seen, precision)
    for one in range(count):
        for other in range(count):
            order = np.arange(count)
            order[[one, other]] = order[[other, one]]
            changed = seen.products[:, :, order][:, :, :, order] - seen.products
            better = -np.einsum("lij,lbij->b", precision, changed) / 2
            certain = better.sum() - 2.5 * np.sqrt(16 * better.var(ddof=1))
            assert found[one, other] == pytest.approx(certain, rel=1e-6, abs=1e-6)
            if abs(better.sum() - 3.0) > 1e-6:
                assert spoken_for[one, other] == (better.sum() > 3.0)


@pytest.mark.parametrize("side", [4, 20, 34])
@pytest.mark.parametrize("kind", ["hadamard", "blocks", "random"])
def test_what_may_be_seen_is_a_covariance(kind: str, side: int) -> None:
    """Of camera pixels of any side, also such that have no part in sixteen."""
    kernels = _kernels(PatternSet.model_validate({"set": kind, "count": 4, "camera_pixel": side}).make())
    assert np.trace(kernels, axis1=1, axis2=2) == pytest.approx(1.0)
    assert np.linalg.eigvalsh(kernels).min() > -1e-9


@given(arrays(np.float32, (4, 144), elements=st.floats(0, 60_000, width=32)))
def test_any_frames_at_all_give_numbers(light: Array) -> None:
    marker = marker_of(stack_of(4, 16), 12)
    found = mistakes(marker.stack, [0, 1, 2, 3], light, (12, 12), marker.readings)
    if found is not None:
        assert not np.isnan([*found.swapped.ravel(), *found.repeated.ravel(), found.dark[1], found.other]).any()


def test_patterns_that_cannot_be_compared_are_not_asked() -> None:
    wide = PatternSet.model_validate({"set": "random", "count": 4, "camera_pixel": 4, "tile": 4}).make()
    many = stack_of(4 * MOST_PATTERNS, 4, "hadamard")
    for stack in (wide, many):
        light = np.random.default_rng(1).random((stack.count, 400)).astype(np.float32) * 1000
        assert mistakes(stack, [*range(stack.count)], light, (20, 20), marker_of(stack, 20).readings) is None


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("stack", "pixels", "specimen", "shown"),
    [
        (stack_of(16, 64), 48, "nuclei", [*range(7), 14, *range(8, 14), 7, 15, MARKER]),
        (stack_of(16, 64), 48, "nuclei", [*range(7), 12, *range(8, 16), MARKER]),
        (stack_of(4, 16), 64, "nuclei", [0, 1, 2, 1, MARKER]),
        (stack_of(4, 16), 64, "nuclei", [*(STALE - 1 - pattern for pattern in range(4)), STALE]),
        (stack_of(16, 1024, "blocks"), 32, "beads", [*range(10), -1, *range(11, 16), MARKER]),
    ],
    ids=["swapped", "repeated", "repeated of four", "stale", "missing"],
)
def test_in_the_dim_frames_tell_what_the_marker_does_not(
    stack: PatternStack, pixels: int, specimen: str, shown: list[int]
) -> None:
    bench = bench_of(stack, pixels, specimen)
    said = {judged(bench, shown, LIGHT["dim"]) for _ in range(3)}
    assert said <= {"doubted", "refuted"}
    assert "doubted" in said, "else this shows nothing of doubts"
    good = {judged(bench, [*range(stack.count), MARKER], LIGHT["dim"]) for _ in range(3)}
    assert good <= {"proven", "undecided"}


@pytest.mark.parametrize("compression", [256, 1024])
@pytest.mark.parametrize("electrons", LIGHT.values())
def test_one_pattern_alone_on_a_few_beads(compression: int, electrons: float) -> None:
    bench = bench_of(stack_of(1, compression, "uniform"), 48, "beads", 3)
    for kind, shown in faults(1, np.random.default_rng(1)):
        assert judged(bench, shown, electrons) == "refuted", kind
    assert judged(bench, [0, MARKER], electrons) in ("proven", "undecided")


# ---------------------------------------------------------------- what is no fault


@given(st.integers(0, 999), st.floats(5.0, 3000.0), st.floats(0.0, 0.6), st.integers(0, 60))
def test_where_there_is_nothing_to_see_nothing_is_a_fault(seed: int, level: float, slope: float, hot: int) -> None:
    """Background that is brighter on one side, and hot pixels, which are the same in frame and marker."""
    rng = np.random.default_rng(seed)
    marker = marker_of(stack_of(1, 64, "uniform"), 32)
    mean = level * (1 + slope * np.linspace(-1, 1, 32))[:, None] * np.ones(32)
    mean.ravel()[rng.choice(32 * 32, hot, replace=False)] += 2 * marker.readings.hot_adu
    frame, shown = (rng.normal(mean, np.sqrt(0.5 * mean + 1)).astype(np.float32) for _ in range(2))
    assert fault(marker, frame, shown) == ""


def odd(name: str, shape: tuple[int, int], fine: int) -> Array:
    rng, (y, x) = np.random.default_rng(5), np.mgrid[: shape[0], : shape[1]].astype(float)
    if name == "stripes":
        return np.asarray(np.repeat(rng.random((1, shape[1])) ** 3, shape[0], axis=0))
    if name == "slanted stripes":
        return np.asarray((rng.random(shape[0] + shape[1]) ** 3)[(x + y).astype(int)])
    if name == "grating":
        return np.asarray(1 + np.sin(2 * np.pi * x / fine / 1.03))
    if name == "haze":
        return np.asarray(np.exp(-((x - shape[1] / 2) ** 2 + (y - shape[0] / 2) ** 2) / (shape[0] ** 2 / 8)))
    return np.asarray((y < shape[0] / 2) + 0.0)


@pytest.mark.parametrize("name", ["stripes", "slanted stripes", "grating", "haze", "half a field"])
def test_an_odd_specimen_is_doubted_at_most(name: str) -> None:
    """On which patterns give the same light, or none: no frame is lost by that."""
    bench = bench_of(stack_of(4, 64), 48, "nuclei")
    with_specimen(bench, odd(name, (bench.first.shape[0], bench.first.shape[1]), bench.fine))
    said = {judged(bench, [0, 1, 2, 3, MARKER], electrons) for electrons in LIGHT.values() for _ in range(2)}
    assert "refuted" not in said


def blurred(scene: torch.Tensor, sigma: float) -> Array:
    far = np.arange(-12, 13)
    bell = np.exp(-(far**2) / (2 * sigma**2))
    kernel = torch.from_numpy(np.outer(bell, bell) / bell.sum() ** 2).float()
    return np.asarray(torch.nn.functional.conv2d(scene[None, None], kernel[None, None], padding=12)[0, 0].numpy())


def changing(stack: PatternStack, pixels: int, specimen: str | None, seed: int, how: str) -> LightBench:
    if how == "bleaching":
        return bench_of(stack, pixels, specimen, seed, bleaching=0.12)
    bench = bench_of(stack, pixels, specimen, seed)
    if how == "focus" and specimen:
        sigma = 0.5 * (1 + seed % 6)
        sharp, bench.first = bench.first, torch.from_numpy(blurred(bench.first, sigma)).float()
        bench.last = torch.from_numpy(blurred(sharp, 1.05 * sigma)).float()
        bench._pictures.clear()
    return bench


def good_bursts(cases: list[tuple[int, int, int]], seeds: range, times: int) -> Iterator[tuple[str, str]]:
    """Of runs whose specimens change, and focus and dye with them: what was said, and of what."""
    for count, compression, pixels in cases:
        for seed in seeds:
            kind = "uniform" if count == 1 else ("hadamard", "random", "blocks")[seed % 3]
            stack = stack_of(count, compression, kind)
            for specimen, how in product(("nuclei", "beads", None), ("as it was", "bleaching", "focus")):
                bench = changing(stack, pixels, specimen, seed, how)
                for electrons in LIGHT.values() if specimen else (400.0,):
                    for _ in range(times):
                        said = judged(bench, [*range(count), MARKER], electrons)
                        yield said, f"{stack.name}, T = {count}, ×{compression}, {specimen}, {how}, {electrons:g}"


def test_a_run_that_changes_raises_no_doubt() -> None:
    said = [each for each in good_bursts([(4, 64, 32)], range(2), 1) if each[0] not in ("proven", "undecided")]
    assert not said


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_two_thousand_good_bursts_of_runs_that_change(figure: Callable[..., None]) -> None:
    """Each case is a run; a doubt is no more than a burst taken again, and few are."""
    cases = [(1, 64, 48), (4, 16, 48), (4, 64, 48), (4, 1024, 32), (16, 16, 48), (16, 64, 48), (16, 256, 32)]
    said: list[tuple[str, str]] = []
    again = 0
    for case in cases:
        suspicion = Suspicion()
        for each in good_bursts([case], range(6), 4):
            said.append(each)
            again += each[0] == "doubted" and suspicion.heeds
            suspicion.note([each[0], each[0]])
    wrong = [each for each in said if each[0] == "refuted"]
    doubted = [each for each in said if each[0] == "doubted"]
    what = "good bursts of runs that go from nuclei to beads to nothing, bleach, and lose focus"
    value = f"{len(wrong)} of {len(said)} found wrong; {len(doubted)} doubted, for which {again} were taken again"
    figure("R9", what, value, "0.1% found wrong")
    assert len(said) >= 2000
    assert len(wrong) <= 1e-3 * len(said), wrong
    assert len(doubted) <= 0.03 * len(said), doubted
    assert again <= len(cases) + 0.02 * len(said)


def test_the_marker_is_told_of_the_same_frames() -> None:
    """A frame that the camera lost: the others are compared by their own patterns."""
    stack = stack_of(16, 64)
    bench = bench_of(stack, 48, "nuclei")
    *frames, _ = bench.burst([*range(7), 14, *range(8, 14), 7, 15, MARKER], LIGHT["dim"])
    kept = [pattern for pattern in range(16) if pattern != 3]
    light = np.stack([frames[pattern].ravel() for pattern in kept]).astype(np.float32) - 100
    readings = marker_of(stack, 48, bench.power_mw(LIGHT["dim"])).readings
    found = mistakes(stack, kept, light, (48, 48), readings)
    assert found is not None
    one, other = np.unravel_index(int(found.swapped.argmax()), found.swapped.shape)
    assert {kept[one], kept[other]} == {7, 14}
