"""Cubic maps between two planes, fitted although some points are astray."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.physics.warp import Warp

Array = NDArray[np.float64]
TERMS = 10
"""Of a polynomial of third degree in x and y."""
_TRIALS = 200
_JUDGES = 1500
"""Points that an attempt is judged by."""
_ROUNDS = 12
_STEADY = 0.01
"""Change of the scale of residuals that is none."""
_TUKEY = 4.685
_MEDIAN_LENGTH = 1.1774
"""Of a vector whose two parts have a standard deviation of one."""
_SAME = 1e-4
"""As a part of the widest reach: what is nearer than that is the same place."""


@dataclass(frozen=True, eq=False)
class Cubic:
    """(x, y) ↦ a polynomial of third degree in both."""

    centre: Array
    radius: float
    """Positions count from the centre, in units of the radius."""
    terms: Array
    """(10, 2)."""

    def at(self, points: Array) -> Array:
        """Points (n, 2) → (n, 2)."""
        out: Array = powers((points - self.centre) / self.radius) @ self.terms
        return out


def robust_cubic(points: Array, values: Array, *, within: float) -> tuple[Cubic, BoolArray]:
    """A cubic map and which points follow it; `within` bounds how far from it those may be."""
    centre, radius = _frame(points)
    terms_of, weights = powers((points - centre) / radius), np.ones(len(points))
    scale = 0.0
    for _ in range(_ROUNDS):
        weighted = terms_of * weights[:, None]
        terms = np.linalg.lstsq(weighted.T @ terms_of, weighted.T @ values, rcond=None)[0]
        distance = np.hypot(*(values - terms_of @ terms).T)
        if np.count_nonzero(weights) < TERMS:
            break
        last, scale = scale, float(np.median(distance[weights > 0])) / _MEDIAN_LENGTH
        reach = min(within, max(_TUKEY * scale, _SAME * within))
        weights = np.where(distance < reach, (1 - np.minimum(distance / reach, 1) ** 2) ** 2, 0.0)
        if abs(scale - last) < _STEADY * scale:
            break
    followers: BoolArray = distance < reach
    return Cubic(centre, radius, terms.astype(np.float64)), followers


def robust_affine(points: Array, values: Array, rng: np.random.Generator) -> tuple[Array, float]:
    """The affine map (3, 2), applied as [x, y, 1] @ it, with the least median distance among many through three points
    each; and that distance."""
    chosen = rng.choice(len(points), min(_JUDGES, len(points)), replace=False)
    homogeneous = np.column_stack([points, np.ones(len(points))])
    some, wanted = homogeneous[chosen], values[chosen]
    best: Array = np.zeros((3, 2))
    least = np.inf
    for _ in range(_TRIALS):
        three = rng.choice(len(some), 3, replace=False)
        corner = some[three]
        if abs(np.linalg.det(corner)) < 1.0:
            continue  # nearly on a line
        affine = np.asarray(np.linalg.solve(corner, wanted[three]), dtype=np.float64)
        median = float(np.median(np.hypot(*(some @ affine - wanted).T)))
        if median < least:
            best, least = affine, median
    return best, least


def as_warp(mirrors: Array, microns: Array, *, within: float) -> tuple[Warp, BoolArray]:
    """The map from mirrors, counted from the centre of the array, to micrometres; and which points follow it."""
    radius = float(np.abs(mirrors).max())
    # in the layout of Warp: about (0, 0), whatever part of the array is seen
    cubic, followers = robust_cubic(mirrors, microns, within=within)
    exact = cubic.at(mirrors[followers])
    terms = np.linalg.lstsq(powers(mirrors[followers] / radius), exact, rcond=None)[0]
    linear = terms[1:3] / radius
    warp = Warp(
        matrix=((float(linear[0, 0]), float(linear[1, 0])), (float(linear[0, 1]), float(linear[1, 1]))),
        shift=(float(terms[0, 0]), float(terms[0, 1])),
        distortion=(tuple(map(float, terms[3:, 0])), tuple(map(float, terms[3:, 1]))),
        radius=radius,
    )
    return warp, followers


def spread_of_fit(points: Array, at: Array) -> Array:
    """Standard error of a cubic map at places (n, 2), for points whose values have a standard error of one."""
    centre, radius = _frame(points)
    known, wanted = powers((points - centre) / radius), powers((at - centre) / radius)
    covariance = np.linalg.pinv(known.T @ known)
    return np.asarray(np.sqrt(np.einsum("ij,jk,ik->i", wanted, covariance, wanted)), dtype=np.float64)


def _frame(points: Array) -> tuple[Array, float]:
    low, high = points.min(axis=0), points.max(axis=0)
    return (low + high) / 2, max(float((high - low).max()) / 2, 1e-9)


def powers(points: Array) -> Array:
    """1, x, y, then in the order of Warp: x², xy, y², x³, x²y, xy², y³."""
    x, y = points[:, 0], points[:, 1]
    xx, yy = x * x, y * y
    return np.stack([np.ones_like(x), x, y, xx, x * y, yy, xx * x, xx * y, x * yy, yy * y], axis=1)
