"""What light has done to the specimen, remembered at the places where it was done."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import Float32Array

_TILE = 64


class DoseMap:
    """Dose in mJ/cm² on a lattice fixed to the specimen; memory grows with the area that was lit."""

    def __init__(self, pitch_um: float) -> None:
        self.pitch_um = pitch_um
        self._tiles: defaultdict[tuple[int, int], Float32Array] = defaultdict(
            lambda: np.zeros((_TILE, _TILE), dtype=np.float32)
        )

    def read(self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Float32Array:
        """The dose that each pixel of a window has taken so far."""
        rows, columns = self._nodes(centre_um, shape, pixel_um)
        window = self._window(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)
        along, across = (np.diff(_starts(nodes), append=nodes.size) for nodes in (rows, columns))
        return np.repeat(np.repeat(window, across, axis=1), along, axis=0)

    def add(self, centre_um: tuple[float, float], dose: Float32Array, pixel_um: float) -> None:
        """Book the dose of each pixel of a window, averaged over each node of the lattice."""
        rows, columns = self._nodes(centre_um, (dose.shape[0], dose.shape[1]), pixel_um)
        row_starts, column_starts = _starts(rows), _starts(columns)
        total = _sums(_sums(dose, row_starts, axis=0), column_starts, axis=1)
        weight = np.diff(row_starts, append=rows.size)[:, None] * np.diff(column_starts, append=columns.size)[None, :]
        mean = (total / weight).astype(np.float32)
        top, left = int(rows[0]), int(columns[0])
        for tile, inside, outside in self._pieces(top, top + mean.shape[0], left, left + mean.shape[1]):
            self._tiles[tile][inside] += mean[outside]

    def _nodes(
        self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float
    ) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
        x = centre_um[0] + (np.arange(shape[1]) - (shape[1] - 1) / 2) * pixel_um
        y = centre_um[1] + (np.arange(shape[0]) - (shape[0] - 1) / 2) * pixel_um
        return np.floor(y / self.pitch_um).astype(np.int64), np.floor(x / self.pitch_um).astype(np.int64)

    def _window(self, top: int, bottom: int, left: int, right: int) -> Float32Array:
        window = np.zeros((bottom - top, right - left), dtype=np.float32)
        for tile, inside, outside in self._pieces(top, bottom, left, right):
            if tile in self._tiles:
                window[outside] = self._tiles[tile][inside]
        return window

    def _pieces(
        self, top: int, bottom: int, left: int, right: int
    ) -> list[tuple[tuple[int, int], tuple[slice, slice], tuple[slice, slice]]]:
        """The tiles that a window touches, and where they overlap: within the tile and within the window."""
        pieces = []
        for row in range(top // _TILE, (bottom - 1) // _TILE + 1):
            for column in range(left // _TILE, (right - 1) // _TILE + 1):
                y0, y1 = max(top, row * _TILE), min(bottom, (row + 1) * _TILE)
                x0, x1 = max(left, column * _TILE), min(right, (column + 1) * _TILE)
                inside = (slice(y0 - row * _TILE, y1 - row * _TILE), slice(x0 - column * _TILE, x1 - column * _TILE))
                pieces.append(((row, column), inside, (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))))
        return pieces


def _starts(nodes: NDArray[np.int64]) -> NDArray[np.intp]:
    """Where in a row of pixels each node begins."""
    return np.flatnonzero(np.diff(nodes, prepend=nodes[0] - 1))


def _sums(values: Float32Array, starts: NDArray[np.intp], axis: int) -> Float32Array:
    """As `np.add.reduceat` gives them, and of runs as short as those here to the last bit, in a third of its time."""
    end = values.shape[axis]
    counts = np.diff(starts, append=end)
    rest = np.zeros((), dtype=values.dtype)
    for step in range(1, int(counts.max())):
        reached = np.expand_dims(counts > step, 1 - axis)
        rest = rest + np.take(values, (starts + step).clip(max=end - 1), axis=axis) * reached
    total: Float32Array = np.take(values, starts, axis=axis) + rest
    return total
