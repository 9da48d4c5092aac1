"""Patterns on the object grid become states of mirrors through the map, whatever the map."""

from __future__ import annotations

import numpy as np
import pytest

from dmu_hw.data import PatternStack
from dmu_hw.physics.optics import Dye, GaussianPsf, Mirrors, Optics
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.physics.warp import Warp

PIXEL_UM = 0.5


def optics(shape: tuple[int, int], to_sample: Warp) -> Optics:
    return Optics(
        object_pixel_um=PIXEL_UM,
        sensor_pixel_um=PIXEL_UM,
        excitation=GaussianPsf(sigma_um=0.3),
        emission=GaussianPsf(sigma_um=0.3),
        mirrors=Mirrors(shape=shape, to_sample=to_sample),
        dye=Dye(photons_per_um2_mw_ms=100.0),
    )


def stack(*tile: int, seed: int = 0, count: int = 2) -> PatternStack:
    return PatternStack("random", np.random.default_rng(seed).random((count, *tile)) < 0.5, 1)


def scaled(per_mirror_um: float, shift: tuple[float, float] = (0.0, 0.0)) -> Warp:
    return Warp(matrix=((per_mirror_um, 0.0), (0.0, per_mirror_um)), shift=shift)


def test_one_mirror_an_object_pixel() -> None:
    """The tile begins at the corner and goes on over the whole array, to the left of the field and above it too."""
    patterns = stack(4, 6)
    frames = onto_mirrors(patterns, optics((20, 30), scaled(PIXEL_UM)), (-15 * PIXEL_UM, -10 * PIXEL_UM))
    assert frames.dtype == np.bool_
    assert np.array_equal(frames, patterns.over((20, 30)))
    inside = onto_mirrors(patterns, optics((20, 30), scaled(PIXEL_UM)), (-8 * PIXEL_UM, -7 * PIXEL_UM))
    assert np.array_equal(inside, np.roll(np.tile(patterns.masks, (1, 6, 6)), (3, 7), axis=(1, 2))[:, :20, :30])


@pytest.mark.parametrize("mirrors", [2, 3])
def test_many_mirrors_an_object_pixel(mirrors: int) -> None:
    patterns = stack(8, 8)
    frames = onto_mirrors(patterns, optics((8 * mirrors, 8 * mirrors), scaled(PIXEL_UM / mirrors)), (-2.0, -2.0))
    assert np.array_equal(frames, patterns.masks.repeat(mirrors, axis=1).repeat(mirrors, axis=2))


def test_a_large_mirror_goes_with_the_most_of_its_pixels() -> None:
    """A mirror of 3×3 object pixels is on if 5 of them are to be lit."""
    patterns = stack(12, 18, count=20)
    frames = onto_mirrors(patterns, optics((4, 6), scaled(3 * PIXEL_UM)), (-9 * PIXEL_UM, -6 * PIXEL_UM))
    blocks = patterns.masks.reshape(20, 4, 3, 6, 3).sum(axis=(2, 4))
    assert np.array_equal(frames, blocks >= 5)


TURNS = {
    "mirrored": (((-1, 0), (0, 1)), lambda masks: masks[:, :, ::-1]),
    "upside down": (((1, 0), (0, -1)), lambda masks: masks[:, ::-1]),
    "half a turn": (((-1, 0), (0, -1)), lambda masks: masks[:, ::-1, ::-1]),
    "transposed": (((0, 1), (1, 0)), lambda masks: masks.swapaxes(1, 2)),
    "a quarter turn": (((0, -1), (1, 0)), lambda masks: masks[:, :, ::-1].swapaxes(1, 2)),
}


@pytest.mark.parametrize("turn", TURNS)
def test_turned_arrays(turn: str) -> None:
    """(x, y) at the sample = matrix · (column, row)."""
    matrix, expected = TURNS[turn]
    patterns = stack(16, 16)
    to_sample = Warp.model_validate({"matrix": tuple(tuple(n * PIXEL_UM for n in row) for row in matrix)})
    frames = onto_mirrors(patterns, optics((16, 16), to_sample), (-4.0, -4.0))
    assert np.array_equal(frames, expected(patterns.masks))


@pytest.mark.parametrize("bend", [0.0, 0.6])
def test_every_mirror_is_as_the_pattern_at_its_image(bend: float) -> None:
    """A shifted, sheared, bent map; mirrors whose image lies within one object pixel have no choice."""
    terms = ((bend, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), (0.0, -bend, 0.0, 0.0, 0.0, bend, 0.0))
    to_sample = Warp(matrix=((0.11, 0.03), (-0.05, -0.13)), shift=(1.7, -0.6), distortion=terms, radius=60.0)
    patterns, corner_um = stack(10, 14), (-3.3, 1.9)
    frames = onto_mirrors(patterns, optics((80, 100), to_sample), corner_um)
    checked = 0
    for row in range(80):
        for column in range(100):
            places = set()
            for at_y in (0.02, 0.5, 0.98):
                for at_x in (0.02, 0.5, 0.98):
                    x_um, y_um = to_sample.apply(column + at_x - 50, row + at_y - 40)
                    places.add((int((y_um - corner_um[1]) // PIXEL_UM), int((x_um - corner_um[0]) // PIXEL_UM)))
            if len(places) == 1:
                ((i, j),) = places
                assert np.array_equal(frames[:, row, column], patterns.masks[:, i % 10, j % 14])
                checked += 1
    assert checked > 2000


@pytest.mark.parametrize("matrix", [((0.0, 0.0), (0.0, 0.0)), ((1.0, 2.0), (2.0, 4.0)), ((0.2, 0.0), (0.2, 1e-12))])
def test_a_map_without_an_inverse_is_refused(matrix: tuple[tuple[float, float], tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="maps the plane onto a line and cannot be inverted"):
        Warp(matrix=matrix)


def test_a_small_or_lopsided_map_is_none_of_these() -> None:
    for matrix in (((1e-6, 0.0), (0.0, 1e-6)), ((1.0, 0.0), (0.0, 1e-4)), ((0.0, -1e5), (1e5, 0.0))):
        x, y = Warp(matrix=matrix).invert(*Warp(matrix=matrix).apply(3.0, -7.0))
        assert (x, y) == pytest.approx((3.0, -7.0))
