"""Fixed pattern sets, the rivals of learned ones: uniform, sub-pixel blocks, random, Hadamard. Loads no torch."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from dmu_hw.data import BoolArray, PatternStack
from dmu_hw.files import Count, Settings

SetName = Literal["uniform", "blocks", "random", "hadamard"]
_MAX_PIXELS = 2**28
"""Of a whole set: a byte each in memory, and more than the mirror states that a DMD stores."""


class PatternSet(Settings):
    """A set of T patterns on camera pixels of d×d object pixels."""

    set: SetName
    count: Annotated[int, Field(ge=1, le=4096)]
    """T."""
    camera_pixel: Annotated[int, Field(ge=1, le=1024)]
    """d: side of a camera pixel in object pixels."""
    tile: Count = 1
    """The patterns repeat every so many camera pixels (random only)."""
    superpixel: Count = 1
    """Object pixels that switch together (random only)."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _can_be_made(self) -> PatternSet:
        side = _blocks_along(self.count)
        if self.set == "uniform" and self.count != 1:
            raise ValueError(f"uniform light is one pattern: count must be 1, given {self.count}")
        if self.set == "blocks" and (side**2 != self.count or self.camera_pixel % side):
            raise ValueError(
                f"blocks need a square count whose root divides camera_pixel {self.camera_pixel}, given {self.count}"
            )
        if self.set == "hadamard" and (4 ** round(np.log2(side)) != self.count or self.camera_pixel % side):
            raise ValueError(
                f"hadamard needs count 1, 4, 16, 64, … whose root divides camera_pixel {self.camera_pixel}, "
                f"given {self.count}"
            )
        if self.set != "random" and (self.tile != 1 or self.superpixel != 1):
            raise ValueError(f"tile and superpixel are for random patterns, given with {self.set}")
        if (self.camera_pixel * self.tile) % self.superpixel:
            raise ValueError(
                f"superpixel must divide the tile of {self.camera_pixel * self.tile}, given {self.superpixel}"
            )
        pixels = self.count * (self.camera_pixel * self.tile) ** 2
        if pixels > _MAX_PIXELS:
            raise ValueError(f"the set has {pixels:,} pixels, {_MAX_PIXELS:,} at most: count × (camera_pixel × tile)²")
        return self

    def make(self) -> PatternStack:
        """The patterns themselves."""
        masks = {"uniform": self._uniform, "blocks": self._blocks, "random": self._random, "hadamard": self._hadamard}
        return PatternStack(self.set, masks[self.set](), self.camera_pixel)

    def _uniform(self) -> BoolArray:
        return np.ones((1, self.camera_pixel, self.camera_pixel), dtype=bool)

    def _blocks(self) -> BoolArray:
        """One sub-pixel lit at a time."""
        side = _blocks_along(self.count)
        return _enlarged(np.eye(self.count, dtype=bool).reshape(self.count, side, side), self.camera_pixel // side)

    def _random(self) -> BoolArray:
        """Each super-pixel on or off by the toss of a coin."""
        side = self.camera_pixel * self.tile // self.superpixel
        rng = np.random.default_rng([self.seed, self.count, side])
        masks = np.stack([rng.random((side, side)) < 0.5 for _ in range(self.count)])
        return _enlarged(masks, self.superpixel)

    def _hadamard(self) -> BoolArray:
        """Products of 0/1 Walsh functions, fewest changes of sign first."""
        side = _blocks_along(self.count)
        walsh = _walsh(side)
        pairs = sorted(((i, j) for i in range(side) for j in range(side)), key=lambda ij: (sum(ij), max(ij), ij))
        masks = np.stack([np.outer(walsh[i], walsh[j]) > 0 for i, j in pairs])
        return _enlarged(masks, self.camera_pixel // side)


def _blocks_along(count: int) -> int:
    return math.isqrt(count)


def _enlarged(masks: BoolArray, factor: int) -> BoolArray:
    return masks.repeat(factor, axis=1).repeat(factor, axis=2)


def _walsh(order: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Hadamard matrix with its rows sorted by sequency, the number of sign changes."""
    matrix = np.ones((1, 1), dtype=np.int64)
    while len(matrix) < order:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    changes = (np.diff(matrix, axis=1) != 0).sum(axis=1)
    return matrix[np.argsort(changes)]
