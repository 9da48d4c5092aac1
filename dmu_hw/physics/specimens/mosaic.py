"""Pictures laid over the whole plane without a seam."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Int32Array
from dmu_hw.physics.specimens.base import Float64Array, Scene, Window, object_number
from dmu_hw.physics.specimens.pictures import SMALLEST_SIDE, Pixels

_BLEND_PX = SMALLEST_SIDE / 2
"""Neighbours run into each other from this far before their border to as far behind it."""


@dataclass(frozen=True)
class Tile:
    """One picture, continued beyond its borders as in a mirror."""

    pixels: Pixels
    black: float
    white: float
    labels: Int32Array | None = None
    """Objects numbered 1, 2, …"""

    @cached_property
    def objects(self) -> int:
        return 0 if self.labels is None else int(self.labels.max())

    def image_at(self, y_px: Float64Array, x_px: Float64Array) -> Float64Array:
        """(y, x) brightness on rows and columns given in pixels from the picture's corner."""
        rows, columns = (_Mirrored.of(at, size) for at, size in zip((y_px, x_px), self.pixels.shape, strict=True))
        upper, lower = (self._between(row, columns) for row in (rows.low, rows.high))
        value = upper + (lower - upper) * rows.part[:, None]
        return np.clip((value - self.black) / (self.white - self.black), 0, 1)

    def _between(self, row: NDArray[np.intp], columns: _Mirrored) -> Float64Array:
        left, right = (self.pixels[row[:, None], column].astype(np.float64) for column in (columns.low, columns.high))
        return left + (right - left) * columns.part

    def labels_at(self, y_px: Float64Array, x_px: Float64Array, copies: tuple[int, int]) -> Int32Array:
        """(y, x) object numbers; every mirrored copy of an object has its own."""
        if self.labels is None:
            return np.zeros((len(y_px), len(x_px)), dtype=np.int32)
        (rows, down), (columns, across) = (
            _nearest(at, size, count) for at, size, count in zip((y_px, x_px), self.labels.shape, copies, strict=True)
        )
        found = self.labels[rows[:, None], columns]
        copy = (down[:, None] * copies[1] + across).astype(np.int32)
        return np.where(found > 0, found + copy * np.int32(self.objects), 0).astype(np.int32)


@dataclass(frozen=True)
class Mosaic:
    """Tiles in rows and columns of one size, that of the largest; every second column and row is mirrored."""

    tiles: tuple[Tile, ...]

    @cached_property
    def tile_px(self) -> tuple[int, int]:
        return max(tile.pixels.shape[0] for tile in self.tiles), max(tile.pixels.shape[1] for tile in self.tiles)

    @cached_property
    def _index_bits(self) -> int:
        """Enough for the objects of one place of the mosaic."""
        return max(tile.objects * math.prod(self._copies(tile)) for tile in self.tiles).bit_length()

    def _copies(self, tile: Tile) -> tuple[int, int]:
        """How often a tile that is smaller than its place is mirrored, down and across."""
        down, across = (-(-place // size) for place, size in zip(self.tile_px, tile.pixels.shape, strict=True))
        return down, across

    def _tile(self, column: int, row: int) -> Tile:
        # In the order of their names along a row; the next row begins so far on that copies are far apart.
        return self.tiles[(column + row * round(0.382 * len(self.tiles))) % len(self.tiles)]

    def scene(self, window: Window, pixel_um: float) -> Scene:
        """What lies in a window, with pictures of this pixel at the sample."""
        image, labels = np.zeros(window.shape), np.zeros(window.shape, dtype=np.int32)
        height, width = self.tile_px
        # The middle of the first picture is the origin of the plane. Rounded, so that a point on the border of two of
        # its pixels falls to the same one through every window.
        y_px = np.round(window.y_um / pixel_um + height / 2, 6)
        x_px = np.round(window.x_um / pixel_um + width / 2, 6)
        for down in _strips(y_px, height):
            for across in _strips(x_px, width):
                tile = self._tile(across.place, down.place)
                lit = tile.image_at(down.inside_px, across.inside_px) * down.fade[:, None] * across.fade
                image[down.span, across.span] += lit
                found = tile.labels_at(down.inside_px[down.own], across.inside_px[across.own], self._copies(tile))
                first = object_number((across.place, down.place), 0, self._index_bits)
                labels[down.span, across.span][np.ix_(down.own, across.own)] = np.where(found > 0, found - 1 + first, 0)
        return Scene(np.clip(image, 0, 1).astype(np.float32), labels)


@dataclass(frozen=True)
class _Strip:
    """Along one axis, one place of the mosaic and the stretch of the window that it lights."""

    place: int
    span: slice
    inside_px: Float64Array
    """From the corner of the picture, which is at the far end of every second place."""
    fade: Float64Array
    """How much of the light here is this place's."""
    own: BoolArray
    """Whether it lies in this place, and not only near it."""


def _strips(at_px: Float64Array, size: int) -> Iterator[_Strip]:
    for place in range(math.floor((at_px[0] - _BLEND_PX) / size), math.floor((at_px[-1] + _BLEND_PX) / size) + 1):
        start, stop = np.searchsorted(at_px, (place * size - _BLEND_PX, (place + 1) * size + _BLEND_PX))
        if start < stop:
            here_px = at_px[start:stop]
            inside_px = here_px - place * size if place % 2 == 0 else (place + 1) * size - here_px
            fade = _step(inside_px) * _step(size - inside_px)
            yield _Strip(place, slice(int(start), int(stop)), inside_px, fade, np.floor(here_px / size) == place)


def _step(inside_px: Float64Array) -> Float64Array:
    """From 0 to 1 across a border, smoothly; with its mirror image it makes 1."""
    part = np.clip(inside_px / (2 * _BLEND_PX) + 0.5, 0, 1)
    return np.asarray(part**2 * (3 - 2 * part))


@dataclass(frozen=True)
class _Mirrored:
    """The two pixels that a point lies between, and how far it is from the first."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    part: Float64Array

    @classmethod
    def of(cls, at_px: Float64Array, size: int) -> _Mirrored:
        centre = _folded(at_px, size) - 0.5
        low = np.floor(centre).astype(np.intp)
        return cls(np.clip(low, 0, size - 1), np.clip(low + 1, 0, size - 1), centre - low)


def _nearest(at_px: Float64Array, size: int, copies: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pixel at a point, and the number of the mirrored copy that it is in."""
    copy = np.clip(np.floor(at_px / size).astype(np.intp), 0, copies - 1)
    return np.clip(np.floor(_folded(at_px, size)).astype(np.intp), 0, size - 1), copy


def _folded(at_px: Float64Array, size: int) -> Float64Array:
    """The point of a picture that a point beyond its border mirrors."""
    around = np.mod(at_px, 2 * size)
    return np.asarray(np.minimum(around, 2 * size - around))
