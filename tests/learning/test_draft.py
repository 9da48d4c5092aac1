"""Drafts: ahead of every set that they began from, as a linear decoder reads them, and within what was allowed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dmu_hw import lmmse
from dmu_hw.beginning import first_patterns, statistics_for
from dmu_hw.draft import Draft, draft
from dmu_hw.exposure import Exposure
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.physics.mirrors import LearnedPatterns
from dmu_hw.physics.patterns import PatternSet, SetName

D = 8


def exposure(small: Any, patterns: dict[str, Any] | None = None, **more: Any) -> Exposure:
    what = {"count": 4, "camera_pixel": D, "start": "draft"} | (patterns or {})
    light = {} if "exposure_ms" in more else {"dose_ms": 4.0}
    return Exposure(small.lesson(what, {"crop_px": 32}, **light, **more), small.optics)


def statistics(small: Any, exposed: Exposure) -> Statistics:
    ones = torch.ones(exposed.layout.count, *exposed.layout.tile_px)
    return statistics_for(exposed.design(ones, 1), small.images())


def fixed(count: int) -> dict[str, Tensor]:
    names: tuple[SetName, ...] = ("uniform",) if count == 1 else ("blocks", "hadamard", "random")
    sets = {name: PatternSet(set=name, count=count, camera_pixel=D).make().masks for name in names}
    return {name: torch.from_numpy(masks).float() for name, masks in sets.items()}


def drafted(small: Any, exposed: Exposure, seed: int = 0) -> LearnedPatterns:
    return first_patterns(exposed.lesson.patterns, exposed, small.images(), torch.Generator().manual_seed(seed))


def error_of(exposed: Exposure, masks: Tensor, found: Statistics) -> float:
    return float(lmmse.compute(exposed.design(masks.double(), 1), found).error)


def shown(patterns: LearnedPatterns) -> Tensor:
    return torch.from_numpy(patterns.masks()).float()


@pytest.mark.parametrize("light", ["dose", "time"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_draft_is_ahead_of_every_fixed_set(small: Any, count: int, light: str) -> None:
    more = {"exposure_ms": 1.0} if light == "time" else {}
    exposed = exposure(small, {"count": count}, **more)
    found = statistics(small, exposed)
    reached = error_of(exposed, shown(drafted(small, exposed)), found)
    rivals = {name: error_of(exposed, masks, found) for name, masks in fixed(count).items()}
    if count == 1:  # full light is hard to better with one frame
        assert reached <= min(rivals.values())
    else:
        assert reached < 0.99 * min(rivals.values())


def test_it_tells_the_error_of_the_masks_that_it_found(small: Any) -> None:
    exposed = exposure(small)
    found = statistics(small, exposed)
    starts = {name: LearnedPatterns(0.3 * (2 * masks - 1)) for name, masks in fixed(4).items()}
    result = draft(starts, lambda patterns: exposed.design(patterns, 1), found)
    assert result.start in starts
    assert result.error == pytest.approx(error_of(exposed, (result.logits > 0).float(), found), rel=1e-9)
    assert float(result.logits.abs().mean()) == pytest.approx(0.3)
    for name, start in starts.items():
        alone = draft({name: start}, lambda patterns: exposed.design(patterns, 1), found)
        assert alone.error < error_of(exposed, fixed(4)[name], found)


def test_starts_stay_as_they_are(small: Any) -> None:
    exposed = exposure(small)
    start = LearnedPatterns(0.3 * (2 * fixed(4)["blocks"] - 1))
    before = start.weights.clone()
    draft({"blocks": start}, lambda patterns: exposed.design(patterns, 1), statistics(small, exposed))
    assert torch.equal(start.weights, before)


@pytest.mark.parametrize("d", [4, 8])
def test_signed_drafts_are_never_behind_binary_ones(small: Any, d: int) -> None:
    """What mirrors can show is where they begin; for the smaller pixels nothing near is better, to 1 in 5000."""
    binary, signed = (exposure(small, {"binarisation": kind, "camera_pixel": d}) for kind in ("hard", "signed"))
    found = statistics(small, binary)
    best_binary = error_of(binary, shown(drafted(small, binary)), found)
    best_signed = error_of(signed, drafted(small, signed)().detach(), found)
    assert best_signed < best_binary * (1.0002 if d == 4 else 1)


@pytest.mark.parametrize("count", [2, 3])
def test_counts_without_regular_sets(small: Any, count: int) -> None:
    """From noise alone."""
    exposed = exposure(small, {"count": count})
    found = statistics(small, exposed)
    noise = torch.randn(count, D, D, generator=torch.Generator().manual_seed(0))
    reached = error_of(exposed, shown(drafted(small, exposed)), found)
    assert reached < error_of(exposed, (noise > 0).float(), found)


@pytest.mark.parametrize("tile", [1, 2])
def test_super_pixels_stay_whole(small: Any, tile: int) -> None:
    patterns = drafted(small, exposure(small, {"superpixel": 2, "tile": tile}))
    masks = shown(patterns)
    assert masks.shape == (4, D * tile, D * tile)
    coarse = masks[:, ::2, ::2]
    assert torch.equal(coarse.repeat_interleave(2, 1).repeat_interleave(2, 2), masks)
    assert 0 < float(masks.mean()) < 1


@pytest.mark.parametrize("cap", [{"sum": 0.75}, {"peak": 1}, {"sum": 1.5, "peak": 2}])
def test_caps_are_kept(small: Any, cap: dict[str, Any]) -> None:
    exposed = exposure(small, {"cap": cap})
    masks = shown(drafted(small, exposed))
    assert float(masks.mean(dim=(1, 2)).sum()) <= cap.get("sum", 4)
    assert float(masks.sum(dim=0).max()) <= cap.get("peak", 4)
    assert float(masks.sum()) > 0
    assert error_of(exposed, masks, statistics(small, exposed)) < statistics(small, exposed).variance


def test_the_best_that_it_came_by_is_kept(small: Any) -> None:
    """Not the last one: steps may lead astray."""
    exposed = exposure(small)
    found = statistics(small, exposed)
    errors: list[float] = []

    def design(patterns: Tensor) -> Design:
        errors.append(error_of(exposed, patterns.detach(), found))
        return exposed.design(patterns, 1)

    result: Draft = draft(
        {"noise": LearnedPatterns(torch.randn(4, D, D, generator=torch.Generator().manual_seed(1)))}, design, found
    )
    assert result.error == pytest.approx(min(errors), rel=1e-9)
