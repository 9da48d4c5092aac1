"""What every specimen shares: the scene, the window it is seen through, and an endless plane of random objects.

The plane is divided in square cells. What is in a cell depends on the seed and on the cell alone, so that a place
looks the same whenever and through whatever window it is seen.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dmu_hw.data import BoolArray, Float32Array, Int32Array

Float64Array = NDArray[np.float64]
Cell = tuple[int, int]
"""Column and row of a cell of the plane; (0, 0) begins at the stage's origin."""
Box = tuple[slice, slice]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]

_INDEX_BITS = 7
MOST_IN_A_CELL = 2**_INDEX_BITS - 1


@dataclass(frozen=True)
class Scene:
    """What lies in one window: brightness, and which object each pixel belongs to."""

    image: Float32Array
    """(y, x) in [0, 1]."""
    labels: Int32Array
    """(y, x); 0 is background, any other number one object, the same through whatever window it is seen."""


@dataclass(frozen=True)
class Window:
    """A grid of pixel centres at the sample."""

    centre_um: tuple[float, float]
    shape: tuple[int, int]
    pixel_um: float

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or not self.pixel_um > 0 or not all(map(math.isfinite, self.centre_um)):
            raise ValueError(f"no window has centre {self.centre_um}, shape {self.shape}, pixel {self.pixel_um}")

    @cached_property
    def x_um(self) -> Float64Array:
        return self._axis(self.centre_um[0], self.shape[1])

    @cached_property
    def y_um(self) -> Float64Array:
        return self._axis(self.centre_um[1], self.shape[0])

    def _axis(self, centre_um: float, count: int) -> Float64Array:
        return centre_um + (np.arange(count, dtype=np.float64) - (count - 1) / 2) * self.pixel_um

    def box(self, left_um: float, right_um: float, top_um: float, bottom_um: float) -> Box | None:
        """The pixels whose centres lie in a rectangle, or None."""
        rows = _span(self.y_um[0], self.pixel_um, self.shape[0], top_um, bottom_um)
        columns = _span(self.x_um[0], self.pixel_um, self.shape[1], left_um, right_um)
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def around(self, x_um: float, y_um: float, reach_um: float) -> Box | None:
        """The pixels whose centres lie in a square round a point, or None."""
        return self.box(x_um - reach_um, x_um + reach_um, y_um - reach_um, y_um + reach_um)

    def cells(self, side_um: float, reach_um: float) -> Iterator[Cell]:
        """The cells whose objects may reach into the window, always in the same order."""
        columns = _cell_span(self.x_um, side_um, reach_um)
        return ((column, row) for row in _cell_span(self.y_um, side_um, reach_um) for column in columns)


def _span(first_um: float, pixel_um: float, count: int, low_um: float, high_um: float) -> slice:
    start = math.ceil((low_um - first_um) / pixel_um)
    stop = math.floor((high_um - first_um) / pixel_um) + 1
    return slice(min(max(start, 0), count), min(max(stop, 0), count))


def _cell_span(axis_um: Float64Array, side_um: float, reach_um: float) -> range:
    return range(
        math.floor((axis_um[0] - reach_um) / side_um),
        math.floor((axis_um[-1] + reach_um) / side_um) + 1,
    )


class Canvas:
    """A scene in the making. Objects that overlap shine together and never above 1: 1 - (1 - a)(1 - b)."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self._dark = np.ones(window.shape)
        self._labels = np.zeros(window.shape, dtype=np.int32)
        self._strength = np.zeros(window.shape)

    def add(self, box: Box, values: Float64Array, inside: BoolArray, number: int) -> None:
        """Lay an object of brightness `values` over a box; the brightest object at a pixel owns it."""
        self._dark[box] *= 1 - values
        owned = inside & (values > self._strength[box])
        self._labels[box][owned] = number
        self._strength[box][owned] = values[owned]

    def fill(self, values: Float64Array) -> None:
        """Lay light that belongs to no object over the whole window."""
        self._dark *= 1 - values

    def scene(self) -> Scene:
        return Scene((1 - self._dark).astype(np.float32), self._labels)


@dataclass(frozen=True)
class Waves:
    """A smooth random field of mean 0 and variance 1 without an edge: plane waves in random directions."""

    x_per_um: Float64Array
    y_per_um: Float64Array
    phase: Float64Array

    @classmethod
    def draw(cls, rng: np.random.Generator, shortest_um: float, longest_um: float, count: int) -> Waves:
        """Wavelengths between two lengths, every octave with the same power."""
        per_um = 2 * np.pi / np.exp(rng.uniform(math.log(shortest_um), math.log(longest_um), count))
        angle = rng.uniform(0, 2 * np.pi, count)
        return cls(per_um * np.cos(angle), per_um * np.sin(angle), rng.uniform(0, 2 * np.pi, count))

    def at(self, x_um: Float64Array, y_um: Float64Array) -> Float64Array:
        """(y, x) values on a grid of columns and rows; a product of two thin matrices, so waves are cheap."""
        across = np.outer(self.x_per_um, x_um)
        down = np.outer(y_um, self.y_per_um) + self.phase
        field: Float64Array = np.cos(down) @ np.cos(across) - np.sin(down) @ np.sin(across)
        return field * math.sqrt(2 / len(self.phase))


def generator(seed: int, kind: str, cell: Cell) -> np.random.Generator:
    """The random numbers of one cell of one kind."""
    column, row = cell
    return np.random.default_rng([seed, *kind.encode(), column & 0xFFFFFFFF, row & 0xFFFFFFFF])


def object_number(cell: Cell, index: int, index_bits: int = _INDEX_BITS) -> int:
    """A positive 31-bit number for an object (index from 0) of a cell.

    With the default bits no number comes twice within 4096 cells in either direction.
    """
    bits = (31 - index_bits) // 2
    column, row = (place & ((1 << bits) - 1) for place in cell)
    return (row << bits | column) << index_bits | (index + 1)


def bump(distance: Float64Array) -> Float64Array:
    """A smooth hill: 1 at 0, ½ at ½, and nothing from 1 on."""
    return np.cos(np.pi / 2 * np.minimum(distance, 1)) ** 2


def brightnesses(rng: np.random.Generator, mean: float, spread: float, count: int) -> Float64Array:
    """Log-normal brightnesses up to 1, or up to the mean where that is more; `spread` is the standard deviation as a
    part of the mean."""
    sigma = math.sqrt(math.log1p(spread**2))
    return np.minimum(mean * np.exp(rng.normal(-(sigma**2) / 2, sigma, count)), max(1.0, mean))
