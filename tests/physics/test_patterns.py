"""Fixed pattern sets: what they measure, that seeds repeat them, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from dmu_hw.physics.patterns import PatternSet


def measured(pattern_set: PatternSet) -> NDArray[np.float64]:
    """One row a pattern: what it weighs the object pixels of a tile with."""
    masks = pattern_set.make().masks
    return masks.reshape(len(masks), -1).astype(np.float64)


def span(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The projection onto what the rows measure: the same for two sets that measure the same."""
    return np.linalg.pinv(rows) @ rows


def sign_changes(mask: NDArray[np.bool_]) -> int:
    return int((np.diff(mask[0]) != 0).sum() + (np.diff(mask[:, 0]) != 0).sum())


@pytest.mark.parametrize(
    ("count", "camera_pixel"), [(1, 1), (1, 4), (4, 2), (4, 4), (16, 4), (16, 8), (64, 8), (256, 16)]
)
def test_hadamard_rows_are_orthogonal_and_ordered_by_sequency(count: int, camera_pixel: int) -> None:
    stack = PatternSet(set="hadamard", count=count, camera_pixel=camera_pixel).make()
    assert stack.masks.shape == (count, camera_pixel, camera_pixel)
    signs = 2 * measured(PatternSet(set="hadamard", count=count, camera_pixel=camera_pixel)) - 1
    assert np.array_equal(signs @ signs.T, camera_pixel**2 * np.eye(count))
    assert stack.masks[0].all()
    changes = [sign_changes(mask) for mask in stack.masks]
    assert changes == sorted(changes)


@pytest.mark.parametrize("count", [4, 16, 64])
def test_hadamard_and_blocks_measure_the_same(count: int) -> None:
    camera_pixel = 8
    hadamard = measured(PatternSet(set="hadamard", count=count, camera_pixel=camera_pixel))
    blocks = measured(PatternSet(set="blocks", count=count, camera_pixel=camera_pixel))
    assert np.linalg.matrix_rank(hadamard) == count
    assert np.allclose(span(hadamard), span(blocks))


@pytest.mark.parametrize(("count", "camera_pixel"), [(1, 3), (4, 6), (9, 6), (16, 4)])
def test_blocks_light_every_object_pixel_once(count: int, camera_pixel: int) -> None:
    masks = PatternSet(set="blocks", count=count, camera_pixel=camera_pixel).make().masks
    assert np.array_equal(masks.sum(axis=0), np.ones((camera_pixel, camera_pixel)))
    assert (masks.sum(axis=(1, 2)) == camera_pixel**2 / count).all()


def test_uniform_light_is_one_pattern_all_on() -> None:
    stack = PatternSet(set="uniform", count=1, camera_pixel=5).make()
    assert stack.masks.shape == (1, 5, 5)
    assert stack.masks.all()
    assert stack.compression == 25


def test_random_patterns_are_half_on_and_not_alike() -> None:
    pattern_set = PatternSet(set="random", count=16, camera_pixel=8, tile=8, seed=3)
    masks = pattern_set.make().masks
    assert masks.shape == (16, 64, 64)
    # 65,536 coins: 0.5 ± 5 standard deviations
    assert abs(masks.mean() - 0.5) < 5 * 0.5 / np.sqrt(masks.size)
    signs = 2.0 * masks.reshape(16, -1) - 1
    overlap = signs @ signs.T / masks[0].size
    assert np.abs(overlap - np.eye(16)).max() < 5 / np.sqrt(masks[0].size)


def test_random_patterns_follow_their_seed() -> None:
    def made(seed: int) -> NDArray[np.bool_]:
        return PatternSet(set="random", count=4, camera_pixel=4, tile=4, seed=seed).make().masks

    assert np.array_equal(made(1), made(1))
    assert not np.array_equal(made(1), made(2))


def test_superpixels_switch_together() -> None:
    masks = PatternSet(set="random", count=4, camera_pixel=4, tile=3, superpixel=2).make().masks
    assert masks.shape == (4, 12, 12)
    corners = masks[:, ::2, ::2]
    assert np.array_equal(masks, corners.repeat(2, axis=1).repeat(2, axis=2))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "uniform light twice": ({"set": "uniform", "count": 2}, "count must be 1"),
    "blocks, no square": ({"set": "blocks", "count": 5}, "square count"),
    "blocks, root does not divide": ({"set": "blocks", "count": 9}, "divides camera_pixel 8"),
    "hadamard, a square but no power of four": ({"set": "hadamard", "count": 9, "camera_pixel": 9}, "1, 4, 16"),
    "hadamard, a power of two": ({"set": "hadamard", "count": 8}, "1, 4, 16"),
    "hadamard, finer than the camera pixel": ({"set": "hadamard", "count": 256}, "divides camera_pixel 8"),
    "tile of what has none": ({"set": "hadamard", "count": 4, "tile": 2}, "for random patterns"),
    "superpixel of what has none": ({"set": "blocks", "count": 4, "superpixel": 2}, "for random patterns"),
    "superpixel does not divide": ({"set": "random", "count": 4, "superpixel": 3}, "superpixel must divide"),
    "more than memory holds": ({"set": "random", "count": 4096, "camera_pixel": 1024}, "268,435,456 at most"),
    "a tile without end": ({"set": "random", "count": 1, "tile": 10**18}, "at most"),
    "unknown set": ({"set": "learned", "count": 4}, "uniform"),
    "no pattern": ({"set": "random", "count": 0}, "greater than or equal to 1"),
    "negative seed": ({"set": "random", "count": 1, "seed": -1}, "greater than or equal to 0"),
}


@pytest.mark.parametrize(("given_settings", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_made_is_refused(given_settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        PatternSet.model_validate({"camera_pixel": 8, **given_settings})


@given(
    st.sampled_from(["uniform", "blocks", "random", "hadamard"]),
    st.integers(1, 70),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 8),
    st.integers(0, 2**63),
)
def test_what_is_not_refused_can_be_made(
    name: str, count: int, camera_pixel: int, tile: int, superpixel: int, seed: int
) -> None:
    settings = {"set": name, "count": count, "camera_pixel": camera_pixel, "seed": seed}
    settings |= {"tile": tile, "superpixel": superpixel} if name == "random" else {}
    try:
        pattern_set = PatternSet.model_validate(settings)
    except ValidationError:
        return
    stack = pattern_set.make()
    assert stack.count == count
    assert stack.tile_px == (camera_pixel * tile if name == "random" else camera_pixel,) * 2
    assert stack.compression == camera_pixel**2 / count
