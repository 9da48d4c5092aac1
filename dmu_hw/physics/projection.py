"""Patterns designed on the object grid → states of the mirrors, through the map that calibration measured."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, PatternStack
from dmu_hw.physics.optics import Optics

_MOST_PLACES = 15
"""Along either side of a mirror: all of them are counted in a byte."""


def onto_mirrors(stack: PatternStack, optics: Optics, corner_um: tuple[float, float]) -> BoolArray:
    """Mirror frames (pattern, row, column): a mirror is on where most of its image at the sample is to be lit,
    or half of it and the middle.

    `corner_um` is the outer corner of the field's first object pixel, seen from the optical axis; the tile is anchored
    there and goes on over the whole array, so that light at the field's border is as designed.
    """
    rows, columns = optics.mirrors.shape
    tile_rows, tile_columns = stack.tile_px
    pixels = np.ascontiguousarray(stack.masks.reshape(stack.count, -1).T).astype(np.uint8)
    lit = np.zeros((rows, columns, stack.count), dtype=np.uint8)
    down, along = _places(optics)
    middle, a_row, a_column = _images(optics, corner_um)

    def lit_at(dy: float, dx: float) -> NDArray[np.uint8]:
        """Of every mirror and pattern, at a place within the mirror."""
        i, j = np.floor(middle + dy * a_row + dx * a_column).astype(np.int64)
        found: NDArray[np.uint8] = pixels.take(i % tile_rows * tile_columns + j % tile_columns, axis=0)
        return found

    for dy in down:
        for dx in along:
            lit += lit_at(dy, dx)
    half = len(down) * len(along) / 2
    on = lit > half
    if half % 1 == 0:
        on |= (lit == half) & (lit_at(0.0, 0.0) > 0)  # or light would be lost at every edge
    return np.ascontiguousarray(np.moveaxis(on, 2, 0))


def _images(optics: Optics, corner_um: tuple[float, float]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Of every mirror: where its middle is seen, in object pixels from the corner, and what it extends to along its
    column and along its row; (y or x, row, column). Within one mirror any smooth map is straight."""
    rows, columns = optics.mirrors.shape
    column, row = np.arange(columns) + 0.5 - columns / 2, np.arange(rows) + 0.5 - rows / 2

    def seen(dx: float, dy: float) -> NDArray[Any]:
        x_um, y_um = optics.mirrors.to_sample.apply((column + dx)[None, :], (row + dy)[:, None])
        return np.stack([y_um - corner_um[1], x_um - corner_um[0]]) / optics.object_pixel_um

    return seen(0, 0), seen(0, 0.5) - seen(0, -0.5), seen(0.5, 0) - seen(-0.5, 0)


def _places(optics: Optics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places down and along a mirror that are looked at, -0.5 to 0.5: the more the larger it is, and where object
    pixels nest in it, as many for each of them."""
    (a, b), (c, d) = optics.mirrors.to_sample.matrix
    found = []
    for side_um in (math.hypot(b, d), math.hypot(a, c)):
        pixels = max(1, min(_MOST_PLACES, math.ceil(side_um / optics.object_pixel_um - 0.01)))
        count = pixels * max(1, min(3 if pixels < 3 else 2, _MOST_PLACES // pixels))
        found.append((np.arange(count) + 0.5) / count - 0.5)
    return found[0], found[1]
