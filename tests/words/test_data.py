"""Patterns know what they are, and say so in hashes; frames stand in the order of their patterns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps

from dmu_hw.data import BoolArray, Burst, Frame, Missing, PatternStack

tiles = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
stacks = tiles.flatmap(lambda shape: nps.arrays(np.bool_, shape)).map(lambda masks: PatternStack("p", masks, 1))


def masks(*shape: int) -> BoolArray:
    return np.random.default_rng(0).random(shape) < 0.5


REFUSED = {
    "two axes": (masks(4, 4), 2, "boolean"),
    "four axes": (masks(1, 1, 4, 4), 2, "boolean"),
    "numbers": (masks(1, 4, 4).astype(np.float32), 2, "not float32"),
    "bytes": (masks(1, 4, 4).astype(np.uint8), 2, "not uint8"),
    "rows that are no whole camera pixels": (masks(1, 6, 8), 4, "6x8 is not a multiple of the camera pixel 4"),
    "columns that are no whole camera pixels": (masks(1, 8, 6), 4, "8x6 is not a multiple of the camera pixel 4"),
    "no pattern": (masks(0, 4, 4), 2, "no mirror"),
    "no row": (masks(2, 0, 4), 2, "no mirror"),
    "no camera pixel": (masks(1, 4, 4), 0, "camera pixel of 0"),
    "a negative camera pixel": (masks(1, 4, 4), -2, "camera pixel of -2"),
}


@pytest.mark.parametrize(("given_masks", "camera_pixel", "what"), REFUSED.values(), ids=REFUSED.keys())
def test_patterns_that_cannot_be_are_refused(given_masks: BoolArray, camera_pixel: int, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        PatternStack("p", given_masks, camera_pixel)


def test_patterns_know_their_size() -> None:
    patterns = PatternStack("p", masks(3, 4, 8), 2)
    assert (patterns.count, patterns.tile_px, patterns.compression) == (3, (4, 8), 4 / 3)


@given(stacks, st.data())
def test_a_mirror_changes_the_hash_of_its_pattern_and_of_no_other(patterns: PatternStack, data: st.DataObject) -> None:
    place = tuple(data.draw(st.integers(0, n - 1)) for n in patterns.masks.shape)
    flipped = patterns.masks.copy()
    flipped[place] ^= True
    other = PatternStack("p", flipped, 1)
    differ = [a != b for a, b in zip(patterns.hashes, other.hashes, strict=True)]
    assert differ == [number == place[0] for number in range(patterns.count)]
    assert patterns.hash != other.hash


def test_equal_masks_have_equal_hashes_whatever_the_name_and_the_layout_in_memory() -> None:
    first = masks(3, 8, 8)
    fortran = PatternStack("q", np.asfortranarray(first), 2)
    assert PatternStack("p", first, 2).hashes == fortran.hashes
    assert PatternStack("p", first, 2).hash == fortran.hash


def test_shape_order_count_and_camera_pixel_enter_the_hash() -> None:
    flat = masks(2, 4, 4)
    variants = {
        "as it is": PatternStack("p", flat, 2),
        "wide": PatternStack("p", flat.reshape(2, 2, 8), 2),
        "tall": PatternStack("p", flat.reshape(2, 8, 2), 2),
        "turned round": PatternStack("p", flat[::-1], 2),
        "the first alone": PatternStack("p", flat[:1], 2),
        "other camera pixel": PatternStack("p", flat, 4),
    }
    assert len({patterns.hash for patterns in variants.values()}) == len(variants)
    # bits that pack into the same bytes: only the shape tells these apart
    dark = [PatternStack("p", np.zeros((1, *shape), bool), 1) for shape in [(1, 5), (5, 1), (1, 8), (2, 4)]]
    assert len({patterns.hashes[0] for patterns in dark}) == len(dark)


@given(stacks, st.integers(1, 30), st.integers(1, 30))
def test_the_tile_is_repeated_from_the_first_pixel_on(patterns: PatternStack, rows: int, columns: int) -> None:
    field = patterns.over((rows, columns))
    y, x = np.mgrid[:rows, :columns]
    assert field.shape == (patterns.count, rows, columns)
    assert field.dtype == np.bool_
    assert np.array_equal(field, patterns.masks[:, y % patterns.tile_px[0], x % patterns.tile_px[1]])


def frame(pattern: int) -> Frame:
    return Frame(np.full((2, 3), pattern, np.uint16), number=pattern, time_ms=0.0, pattern=pattern, pattern_hash="")


def test_a_burst_stacks_its_frames_in_the_order_of_the_patterns() -> None:
    burst = Burst(0, tuple(frame(pattern) for pattern in (2, 0, 1)))
    assert burst.complete
    assert burst.stack().shape == (3, 2, 3)
    assert burst.stack().dtype == np.uint16
    assert burst.stack()[:, 0, 0].tolist() == [0, 1, 2]


def test_a_burst_with_missing_frames_is_not_complete_and_has_no_stack() -> None:
    burst = Burst(0, (frame(0),), (Missing(1, "dropped"), Missing(3, "dropped")))
    assert not burst.complete
    with pytest.raises(ValueError, match=r"frames of patterns 1, 3 are missing"):
        burst.stack()


def test_what_holds_arrays_is_compared_by_identity() -> None:
    first, second = PatternStack("p", masks(1, 4, 4), 2), PatternStack("p", masks(1, 4, 4), 2)
    assert first == first  # noqa: PLR0124 - the point
    assert first != second
    assert frame(0) != frame(0)
    assert len({first, second}) == 2
