"""One sample to learn from, and its parts: image and labels are cut, turned and mirrored together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import Float32Array, Int32Array
from dmu_hw.errors import InputError, Problem

MOST_GB = 8
_BYTES = 4
"""Of a number in memory."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A specimen on the object grid."""

    image: Float32Array
    """(y, x) in [0, 1]."""
    labels: Int32Array | None = None
    """(y, x); 0 is background, 1, 2, … are objects."""

    def square(self, top: int, left: int, side_px: int) -> Sample:
        """A part of it."""
        return self._each(lambda plane: plane[top : top + side_px, left : left + side_px])

    def middle(self, side_px: int) -> Sample:
        """The part in the middle."""
        top, left = ((n - side_px) // 2 for n in self.image.shape)
        return self.square(top, left, side_px)

    def turned(self, turn: int) -> Sample:
        """One of the eight ways to lay down a square: quarter turns, from 4 on mirrored too."""
        return self._each(lambda plane: np.flip(np.rot90(plane, turn % 4), 0) if turn >= 4 else np.rot90(plane, turn))

    def at_least(self, side_px: int) -> Sample:
        """Continued as in a mirror on all sides where it is too small."""
        missing = [max(0, side_px - n) for n in self.image.shape]
        if not any(missing):
            return self
        pads = [(n // 2, n - n // 2) for n in missing]
        labels = None if self.labels is None else mirrored_labels(self.labels, pads)
        return Sample(np.pad(self.image, pads, mode="symmetric"), labels)

    def _each(self, change: Callable[[NDArray[np.generic]], NDArray[np.generic]]) -> Sample:
        image = change(self.image).astype(np.float32, copy=False)
        return Sample(image, None if self.labels is None else change(self.labels).astype(np.int32, copy=False))


def mirrored_labels(labels: Int32Array, pads: list[tuple[int, int]]) -> Int32Array:
    """Labels continued as in a mirror. A copy is another object, unless it touches what it is a copy of."""
    from scipy.sparse import coo_array  # noqa: PLC0415 - only where images are smaller than crops
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    found = np.pad(labels, pads, mode="symmetric").astype(np.int64)
    down, across = (
        np.arange(-before, n + after) // n + -(-before // n)
        for n, (before, after) in zip(labels.shape, pads, strict=True)
    )
    copy = down[:, np.newaxis] * (across[-1] + 1) + across
    top = int(labels.max())
    # every object of every copy has a number, and objects on both sides of a seam are one
    number = np.where(found > 0, copy * top + found, 0)
    rows, columns = np.flatnonzero(np.diff(down)), np.flatnonzero(np.diff(across))
    here = np.concatenate([number[rows].ravel(), number[:, columns].ravel()])
    there = np.concatenate([number[rows + 1].ravel(), number[:, columns + 1].ravel()])
    count = (int(copy[-1, -1]) + 1) * top + 1
    _, whole = connected_components(coo_array((np.ones(len(here)), (here, there)), shape=(count, count)))
    return np.where(found > 0, whole[number] + 1, 0).astype(np.int32)


def refuse_too_much(where: str, pixels: int, labelled: bool) -> None:
    """InputError for more samples than memory can be expected to hold."""
    gigabytes = pixels * _BYTES * (2 if labelled else 1) / 1e9
    if gigabytes > MOST_GB:
        what = f"{gigabytes:.1f} GB in memory on the object grid; at most {MOST_GB} GB can be used"
        raise InputError([Problem(where, what)])
