"""Patterns designed on the object grid → states of the mirrors, through the map that calibration measured."""

from __future__ import annotations

import numpy as np

from dmu_hw.data import BoolArray, PatternStack
from dmu_hw.physics.optics import Optics

_SUBSAMPLES = 3


def onto_mirrors(stack: PatternStack, optics: Optics, corner_um: tuple[float, float]) -> BoolArray:
    """Mirror frames (pattern, row, column): a mirror is on where most of its image at the sample is to be lit.

    `corner_um` is the outer corner of the field's first object pixel, seen from the optical axis; the tile is anchored
    there and goes on over the whole array, so that light at the field's border is as designed.
    """
    rows, columns = optics.mirrors.shape
    inside = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES
    lit = np.zeros((stack.count, rows, columns), dtype=np.uint8)
    column, row = np.arange(columns) - columns / 2, np.arange(rows) - rows / 2
    for dy in inside:
        for dx in inside:
            x_um, y_um = optics.mirrors.to_sample.apply((column + dx)[None, :], (row + dy)[:, None])
            tile_rows, tile_columns = stack.tile_px
            j = np.floor((x_um - corner_um[0]) / optics.object_pixel_um).astype(np.int64) % tile_columns
            i = np.floor((y_um - corner_um[1]) / optics.object_pixel_um).astype(np.int64) % tile_rows
            lit += stack.masks[:, i, j]
    frames: BoolArray = lit * 2 > _SUBSAMPLES**2
    return frames
