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


def covered(
    patterns: PatternStack, to_sample: Warp, shape: tuple[int, int], corner_um: tuple[float, float]
) -> np.ndarray:
    """Lit part of each mirror's image, (pattern, row, column), by looking at very many places."""
    many = 24
    inside = (np.arange(many) + 0.5) / many
    column = np.add.outer(np.arange(shape[1]) - shape[1] / 2, inside).ravel()
    row = np.add.outer(np.arange(shape[0]) - shape[0] / 2, inside).ravel()
    x_um, y_um = to_sample.apply(column[None, :], row[:, None])
    j = np.floor((x_um - corner_um[0]) / PIXEL_UM).astype(int) % patterns.tile_px[1]
    i = np.floor((y_um - corner_um[1]) / PIXEL_UM).astype(int) % patterns.tile_px[0]
    return patterns.masks[:, i, j].reshape(patterns.count, shape[0], many, shape[1], many).mean(axis=(2, 4))


@pytest.mark.parametrize("mirror_px", [0.3, 1.0, 2.0, 2.5, 4.0, 6.0])
def test_a_mirror_is_on_where_most_of_its_image_is_to_be_lit(mirror_px: float) -> None:
    """Mirrors far smaller and far larger than an object pixel, turned, mirrored and bent by 2 %: where one is set
    otherwise, half of it is to be lit within a few per cent, so that no light is gained by the other state."""
    turn, side, half = 0.5, mirror_px * PIXEL_UM, 30 * mirror_px * PIXEL_UM
    matrix = ((-side * np.cos(turn), -side * np.sin(turn)), (-side * np.sin(turn), side * np.cos(turn)))
    bend = ((0.01 * half, 0.0, 0.0, 0.0, 0.0, 0.01 * half, 0.0), (0.0, 0.01 * half, 0.0, 0.0, 0.0, 0.0, 0.01 * half))
    to_sample = Warp(matrix=matrix, shift=(1.1, 0.3), distortion=bend, radius=30.0)
    patterns, corner_um = stack(32, 32), (-3.3, 1.9)
    frames = onto_mirrors(patterns, optics((40, 60), to_sample), corner_um)
    part = covered(patterns, to_sample, (40, 60), corner_um)
    wrong = frames != (part > 0.5)
    assert np.abs(part[wrong] - 0.5).max(initial=0) < 0.2
    assert np.abs(2 * part - 1)[wrong].sum() / part.size < 0.005


def test_the_same_pattern_is_lit_wherever_mirrors_lie() -> None:
    """Edges of a square come out where they are designed, by the light on either side of them: no side is preferred."""
    square = np.zeros((1, 64, 64), dtype=bool)
    square[0, 20:44, 16:48] = True
    for mirror_px in (0.3, 1.3, 4.0):
        side = mirror_px * PIXEL_UM
        to_sample = Warp(matrix=((side * 0.8, side * 0.6), (-side * 0.6, side * 0.8)), shift=(0.2, -0.4))
        shape = (int(64 / mirror_px), int(64 / mirror_px))
        frame = onto_mirrors(PatternStack("square", square, 1), optics(shape, to_sample), (-16.0, -16.0))[0]
        row, column = np.nonzero(frame)
        x_um, y_um = to_sample.apply(column + 0.5 - shape[1] / 2, row + 0.5 - shape[0] / 2)
        assert (x_um.mean(), y_um.mean()) == pytest.approx((0.0, 0.0), abs=0.1 * side)
        assert frame.sum() * side**2 == pytest.approx(24 * 32 * PIXEL_UM**2, rel=0.01, abs=3 * side**2)


@pytest.mark.parametrize("matrix", [((0.0, 0.0), (0.0, 0.0)), ((1.0, 2.0), (2.0, 4.0)), ((0.2, 0.0), (0.2, 1e-12))])
def test_a_map_without_an_inverse_is_refused(matrix: tuple[tuple[float, float], tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="maps the plane onto a line and cannot be inverted"):
        Warp(matrix=matrix)


def test_a_small_or_lopsided_map_is_none_of_these() -> None:
    for matrix in (((1e-6, 0.0), (0.0, 1e-6)), ((1.0, 0.0), (0.0, 1e-4)), ((0.0, -1e5), (1e5, 0.0))):
        x, y = Warp(matrix=matrix).invert(*Warp(matrix=matrix).apply(3.0, -7.0))
        assert (x, y) == pytest.approx((3.0, -7.0))
