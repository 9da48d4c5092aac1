"""A smooth surface on a coarse grid through many noisy values, some of which are wrong or missing.

One parabola for all, and cubic B-splines round the points of the grid for what it leaves over, with a faint wish for
little of them and without third derivatives: where there is no value the surface soon follows the parabola.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
_STIFFNESS, _LITTLE = 1e-3, 1e-4
"""Of the wishes, as parts of the weight of the values."""
_ROUNDS = 4
_SIGMAS = 4.0
_AT_POINTS = (1 / 6, 4 / 6, 1 / 6)


class Surface:
    """Splines round `rows` × `columns` points, for values that lie on a grid of their own: `x` and `y` are their
    columns and rows in units of the grid's pitch, counted from its first point."""

    def __init__(self, y: Float64Array, x: Float64Array, rows: int, columns: int) -> None:
        from scipy import sparse  # noqa: PLC0415 - takes a while to load

        self._shape = (rows + 2, columns + 2)  # a spline more at each end
        self._parabola = _parabola(y, x)
        self._at_points = _parabola(np.arange(rows, dtype=np.float64), np.arange(columns, dtype=np.float64))
        self._design = sparse.kron(_splines(y, rows), _splines(x, columns), format="csr")
        self._wish: Any = _STIFFNESS * sum(part.T @ part for part in _bends(self._shape))
        self._wish += _LITTLE * sparse.eye_array(self._wish.shape[0])

    def fit(self, values: Float64Array, weights: Float64Array) -> tuple[Float64Array, Float64Array, NDArray[np.bool_]]:
        """The surface at the grid's points, at the values, and which values it follows."""
        from scipy.sparse import diags_array  # noqa: PLC0415 - takes a while to load
        from scipy.sparse.linalg import spsolve  # noqa: PLC0415

        flat, kept = values.ravel(), (weights.ravel() > 0).astype(np.float64)
        wanted = np.where(kept > 0, flat, 0.0)
        points = self._shape[0] * self._shape[1]
        for _ in range(_ROUNDS):
            weight = weights.ravel() * kept
            root = np.sqrt(weight)
            terms = np.linalg.lstsq(self._parabola * root[:, None], wanted * root, rcond=None)[0]
            rest = wanted - self._parabola @ terms
            normal = self._design.T @ diags_array(weight) @ self._design + float(weight.sum()) / points * self._wish
            coefficients = spsolve(normal.tocsc(), self._design.T @ (weight * rest))
            at_values = self._parabola @ terms + self._design @ coefficients
            off = np.abs(wanted - at_values) * np.sqrt(weights.ravel())
            sigma = 1.4826 * float(np.median(off[kept > 0]))
            kept = ((weights.ravel() > 0) & (off <= _SIGMAS * sigma + 1e-12)).astype(np.float64)
        grid = coefficients.reshape(self._shape)
        for axis in (0, 1):
            grid = np.apply_along_axis(np.convolve, axis, grid, _AT_POINTS, mode="valid")
        grid += (self._at_points @ terms).reshape(grid.shape)
        return grid, at_values.reshape(values.shape), kept.reshape(values.shape) > 0


def _parabola(y: Float64Array, x: Float64Array) -> Float64Array:
    """(place, term): 1, x, y, x², xy, y² on a grid of rows and columns."""
    down, across = (place.ravel() for place in np.meshgrid(y, x, indexing="ij"))
    return np.stack([np.ones_like(across), across, down, across**2, across * down, down**2], axis=1)


def _splines(place: Float64Array, points: int) -> Any:
    """(place, spline): how much of each spline there is at places."""
    from scipy import sparse  # noqa: PLC0415 - takes a while to load

    distance = np.abs(place[:, None] - (np.arange(points + 2) - 1)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance.clip(max=2)) ** 3 / 6
    return sparse.csr_array(np.where(distance < 1, near, far))


def _bends(shape: tuple[int, int]) -> Iterator[Any]:
    """Third derivatives in all directions, of the coefficients."""
    from scipy import sparse  # noqa: PLC0415 - takes a while to load

    for down in range(4):
        kernels = (np.diff(np.eye(count), order, axis=0) for count, order in zip(shape, (down, 3 - down), strict=True))
        along_y, along_x = map(sparse.csr_array, kernels)
        part = sparse.kron(along_y, along_x, format="csr")
        yield math.sqrt(math.comb(3, down)) * part
