"""Stripes of mirrors: coarse ones that count mirrors in Gray code, fine ones that tell parts of a period."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray

Array = NDArray[np.float64]
Axis = Literal[0, 1]
ROW: Axis = 0
COLUMN: Axis = 1
"""Which number of a mirror a stripe tells."""
AXES: tuple[Axis, Axis] = (COLUMN, ROW)
"""In the order of x and y."""
CELL = 4
"""Mirrors that have one Gray code. Coarse stripes are at least twice as wide."""
STEPS = 8
"""Places that a fine stripe is shown at, one after the other: only its 7th harmonic and higher ones can disturb."""


@dataclass(frozen=True)
class Stripes:
    """Mirror t of an axis is on if (t - start) // width is even. Positions are counted from the array's edge, so that
    mirror t reaches from t to t + 1."""

    axis: Axis
    start: int
    width: int

    def mirrors(self, shape: tuple[int, int]) -> BoolArray:
        """As a state of the whole array."""
        line = (np.arange(shape[self.axis]) - self.start) // self.width % 2 == 0
        whole: BoolArray = np.broadcast_to(line[:, None] if self.axis == ROW else line[None, :], shape)
        return whole

    def is_on(self, position: Array) -> BoolArray:
        found: BoolArray = np.floor((position - self.start) / self.width) % 2 == 0
        return found

    def edge(self, position: Array) -> tuple[Array, Array]:
        """How far beyond the nearest edge a position lies, and whether stripes go on (1) or off (-1) there."""
        part = (position - self.start) / self.width
        number = np.rint(part)
        return (part - number) * self.width, np.where(number % 2 == 0, 1.0, -1.0)


def as_facts(stripes: Iterable[Stripes]) -> list[list[int]]:
    """As JSON can say them."""
    return [[each.axis, each.start, each.width] for each in stripes]


def of_facts(facts: Sequence[Any]) -> list[Stripes]:
    return [Stripes(axis, int(start), int(width)) for axis, start, width in facts]


def shown(stripes: Sequence[Stripes], shape: tuple[int, int]) -> BoolArray:
    """(pattern, row, column)."""
    return np.stack([each.mirrors(shape) for each in stripes])


def coarse(shape: tuple[int, int]) -> list[Stripes]:
    """For each axis the bits of a Gray code, the widest stripes first: bit k is one row of stripes 2^(k+1) cells wide
    that begins after half of one."""
    found: list[Stripes] = []
    for axis in AXES:
        bits = math.ceil(math.log2(max(2.0, shape[axis] / CELL)))
        found += [Stripes(axis, CELL << bit, CELL << (bit + 1)) for bit in reversed(range(bits))]
    return found


def fine(period: int) -> list[Stripes]:
    """For each axis STEPS places of stripes with a period that STEPS divides."""
    return [Stripes(axis, step * period // STEPS, period // 2) for axis in AXES for step in range(STEPS)]


def gray_decoded(bits: BoolArray) -> NDArray[np.int64]:
    """Bits (bit, …), the highest first → numbers."""
    number = np.zeros(bits.shape[1:], dtype=np.int64)
    last = np.zeros(bits.shape[1:], dtype=bool)
    for bit in bits:
        last = last ^ bit
        number = 2 * number + last
    return number
