"""What patterns begin with: each way that a protocol can ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmu_hw.beginning import first_patterns
from dmu_hw.bundle import Bundle
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError
from dmu_hw.exposure import Exposure
from dmu_hw.judging import bundled
from dmu_hw.lesson import Learned
from dmu_hw.physics.mirrors import LearnedPatterns
from dmu_hw.physics.patterns import PatternSet

D = 4


def begun(small: Any, seed: int = 0, **patterns: Any) -> LearnedPatterns:
    exposed = Exposure(small.lesson({"camera_pixel": D, "noise": 0.0} | patterns), small.optics)
    return first_patterns(exposed.lesson.patterns, exposed, small.images(), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("parametrisation", ["spatial", "fourier"])
@pytest.mark.parametrize("tile", [1, 2])
@pytest.mark.parametrize("name", ["uniform", "blocks", "hadamard", "random"])
def test_a_fixed_set(small: Any, name: Any, tile: int, parametrisation: str) -> None:
    count = 1 if name == "uniform" else 4
    patterns = begun(small, 7, start=name, count=count, tile=tile, parametrisation=parametrisation)
    expected = PatternSet(set=name, count=count, camera_pixel=D, seed=7 if name == "random" else 0).make().masks
    assert np.array_equal(patterns.masks(), np.tile(expected, (1, tile, tile)))
    torch.testing.assert_close(patterns.logits().abs(), torch.full_like(patterns.logits(), 0.3))


def test_random_sets_depend_on_the_seed(small: Any) -> None:
    one, same, other = (begun(small, seed, start="random", superpixel=2).masks() for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert np.array_equal(one[:, ::2, ::2].repeat(2, 1).repeat(2, 2), one)


@pytest.mark.parametrize("superpixel", [1, 2])
def test_noise(small: Any, superpixel: int) -> None:
    one, same, other = (begun(small, seed, start="noise", superpixel=superpixel, tile=4) for seed in (1, 1, 2))
    assert torch.equal(one.weights, same.weights)
    assert not torch.equal(one.weights, other.weights)
    assert one.weights.shape == (4, 16 // superpixel, 16 // superpixel)
    assert float(one.weights.detach().std()) == pytest.approx(1, abs=0.1)
    assert not np.array_equal(one.masks()[:, :8, :8], one.masks()[:, 8:, 8:])


def test_noise_on_a_fixed_set_does_not_hide_it(small: Any) -> None:
    plain, noisy = begun(small, start="hadamard"), begun(small, start="hadamard", noise=0.05)
    assert np.array_equal(plain.masks(), noisy.masks())
    assert float((noisy.weights - plain.weights).detach().std()) == pytest.approx(0.05, rel=0.3)


def test_a_draft_is_repeated_over_its_tile(small: Any) -> None:
    single, tiled = (begun(small, start="draft", tile=tile) for tile in (1, 2))
    assert np.array_equal(np.tile(single.masks(), (1, 2, 2)), tiled.masks())


def test_a_fourier_draft_is_the_spatial_one(small: Any) -> None:
    spatial, fourier = (begun(small, start="draft", parametrisation=kind) for kind in ("spatial", "fourier"))
    assert fourier.weights.shape == (4, D, D, 2)
    assert np.array_equal(spatial.masks(), fourier.masks())


def test_soft_patterns_begin_with_the_binary_draft(small: Any) -> None:
    soft, hard = (begun(small, start="draft", binarisation=kind) for kind in ("soft", "hard"))
    assert np.array_equal(soft.masks(), hard.masks())


def test_a_signed_start_shows_the_set(small: Any) -> None:
    patterns = begun(small, start="hadamard", binarisation="signed")().detach()
    masks = torch.from_numpy(PatternSet(set="hadamard", count=4, camera_pixel=D).make().masks)
    assert float(patterns[masks].min()) > 0.95
    assert float(patterns[~masks].abs().max()) == 0


def test_frozen_patterns_do_not_learn(small: Any) -> None:
    assert not begun(small, start="hadamard", frozen=True).weights.requires_grad
    assert begun(small, start="hadamard").weights.requires_grad


# ---------------------------------------------------------------- from a bundle


def bundle_of(small: Any, path: Path, **patterns: Any) -> PatternStack:
    learner = small.learner(small.lesson({"start": "noise", "camera_pixel": D} | patterns))
    learner.validate()
    bundled(learner).save(path)
    return Bundle.load(path).patterns


@pytest.mark.parametrize("shape", [{"tile": 1}, {"tile": 2, "superpixel": 2}, {"count": 3}])
@pytest.mark.parametrize("binarisation", ["hard", "signed"])
def test_a_bundle(small: Any, tmp_path: Path, shape: dict[str, int], binarisation: str) -> None:
    given = bundle_of(small, tmp_path / "x.dmu", **shape)
    patterns = begun(small, start={"bundle": tmp_path / "x.dmu"}, binarisation=binarisation, **shape)
    assert np.array_equal(patterns.masks(), given.masks)


@pytest.mark.parametrize("wanted", [{"count": 3}, {"tile": 2}, {"camera_pixel": 8}])
def test_a_bundle_of_another_layout_is_refused(small: Any, tmp_path: Path, wanted: dict[str, int]) -> None:
    bundle_of(small, tmp_path / "x.dmu")
    with pytest.raises(InputError, match=r"x\.dmu: has T 4, tile \(4, 4\) and camera pixel 4; patterns asks for"):
        begun(small, start={"bundle": tmp_path / "x.dmu"}, **wanted)


def test_a_bundle_that_is_not_there(small: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.dmu"):
        begun(small, start={"bundle": tmp_path / "nowhere.dmu"})


# ---------------------------------------------------------------- what cannot be begun with


@pytest.mark.parametrize("start", ["draft", "hadamard", "random"])
def test_super_pixels_over_several_camera_pixels_begin_from_noise(start: str) -> None:
    """Sets repeat with the camera pixel, and such super-pixels cannot."""
    with pytest.raises(ValueError, match="superpixel must divide camera_pixel 4 to start from"):
        Learned(count=4, camera_pixel=4, tile=2, superpixel=8, start=start)  # type: ignore[arg-type]


def test_super_pixels_over_several_camera_pixels(small: Any) -> None:
    patterns = begun(small, start="noise", tile=2, superpixel=8)
    assert patterns.masks().shape == (4, 8, 8)
    assert patterns.weights.shape == (4, 1, 1)
