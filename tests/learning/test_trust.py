"""How a bundle learns when not to be believed: fields with faults, limits, and how far pixels are off."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from dmu_hw.bundle import Bundle
from dmu_hw.course import course_of
from dmu_hw.erring import learn_spread
from dmu_hw.grounds import Grounds, Moved, _lit, images_for
from dmu_hw.images import Images
from dmu_hw.judging import bundled
from dmu_hw.lesson import Lesson
from dmu_hw.physics.forward import Forward
from dmu_hw.train import Learner
from dmu_hw.trust import _limits, _whitener, _worst, trusted, without_trust
from tests.cli.test_train import SMALL_LESSON
from tests.conftest import SMALL

LESSON: dict[str, Any] = copy.deepcopy(SMALL_LESSON) | {"trust": {"fields": 24, "updates": 30}}
LESSON["data"] |= {"train": 8}


@pytest.fixture(scope="module", name="lesson")
def _lesson() -> Lesson:
    given = {key: value for key, value in LESSON.items() if key != "rig"}
    return course_of(given | {"optics": SMALL["optics"]}).lesson


@pytest.fixture(scope="module", name="grounds")
def _grounds(lesson: Lesson) -> Grounds:
    course = course_of(lesson.model_dump(mode="json", exclude_none=True))
    images = Images.load(lesson.data, course.optics.object_pixel_um)
    bundle = bundled(Learner(course.lesson, course.network, course.optics, images))
    return Grounds(bundle, lesson, images_for(lesson, bundle), None, "cpu")


def test_light_that_is_moved(grounds: Grounds) -> None:
    tile = grounds.masks
    side = grounds.side_px
    forward = Forward(grounds.exposure.optics, (side, side), grounds.bundle.header.camera_pixel)
    there = tile.repeat(1, side // tile.shape[1], side // tile.shape[2])
    assert torch.allclose(_lit(forward, tile, Moved()), there, atol=1e-4)
    moved = _lit(forward, tile, Moved(across_px=1, down_px=-2))
    assert torch.allclose(moved, there.roll((-2, 1), (1, 2)), atol=1e-4)
    turned = _lit(forward, tile, Moved(turned=torch.pi / 2))
    assert torch.allclose(turned, there.rot90(-1, (1, 2)), atol=1e-3)


def test_faults_are_seen_on_the_same_fields(grounds: Grounds) -> None:
    def first(moved: Moved, *, noisy: bool = True) -> torch.Tensor:
        return next(iter(grounds.faulty(moved, 8, 3, noisy=noisy)))[0]

    assert torch.equal(first(Moved()), first(Moved()))
    blurred, sharp = first(Moved(defocus_um=3.0), noisy=False), first(Moved(), noisy=False)
    assert float((blurred - sharp).std()) > 0.01 * float(sharp.std())
    assert float(blurred.sum() / sharp.sum()) == pytest.approx(1, abs=0.1), "blur moves light, it takes none"


def test_what_was_whitened_is_white() -> None:
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(4000, 6, generator=generator).double() @ torch.randn(6, 6, generator=generator).double()
    white = mixed @ _whitener(mixed)
    assert torch.allclose(white.T @ white / len(white), torch.eye(6).double(), atol=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_limits_let_good_fields_pass(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def far() -> dict[str, torch.Tensor]:
        drawn = torch.randn(4, 2000, generator=generator)
        names = ("focus", "registration", "residual", "unlike")
        return {name: row.abs() if name != "unlike" else 1 + 0.2 * row for name, row in zip(names, drawn, strict=True)}

    limits = _limits(far())
    assert float(_worst(far(), limits).gt(1).float().mean()) <= 0.01
    assert limits["focus"] < 6, "what is far beyond noise is found"


def test_spreads_tell_how_far_pixels_are_off(grounds: Grounds) -> None:
    found, covered = learn_spread(grounds)
    assert 0.5 < covered["spread_within_1"] < 0.85
    assert covered["spread_within_1"] < covered["spread_within_2"] <= 1
    truths, signals, images = next(iter(grounds.good("test", 8, 9)))
    spread = found(signals, images).detach()
    error = (images - truths).abs()
    certain = spread < spread.median()
    assert float(error[certain].mean()) < float(error[~certain].mean())


def test_a_bundle_that_is_taught_again(grounds: Grounds, lesson: Lesson) -> None:
    once = trusted(grounds.bundle, lesson, grounds.images)
    twice = trusted(once, lesson, grounds.images)
    assert once.hash == twice.hash
    bare = Bundle(grounds.bundle.header, grounds.bundle.patterns, without_trust(once.weights))
    assert bare.hash == grounds.bundle.hash
