"""The map once more, by what pixels know best.

Fine stripes go on in steps of whole mirrors. Where a lens is sharp, all pixels on one such step tell the same place,
and only those between two steps tell where they are: the phase is a stair. What all steps have in common is taken off,
and a pixel counts by how steep the stair is where it lies. The error is that of the mirror told, not that of the pixel
that tells it: a mirror cut by the border of the chip would pull the map inwards otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.physics.warp import Warp
from dmu_hw.routines.register.mapping import TERMS, powers

Array = NDArray[np.float64]
_BINS = 24
_FLAT = 0.2
"""Less steep than that a stair tells nothing."""
_ROUNDS = 4


@dataclass(frozen=True, eq=False)
class Refined:
    """A map, and how each pixel's mirror lies beside it."""

    warp: Warp
    residuals: Array
    """(n, 2) in micrometres: where the map puts a mirror, as seen from where it was."""
    weights: Array
    """(n,): what a pixel knows of it."""


def refined(warp: Warp, microns: Array, mirrors: Array, step: float) -> Refined:
    """Least squares of mirrors (n, 2), counted from the centre of the array, that are seen at places (n, 2) in
    micrometres; stairs repeat every so many mirrors."""
    for _ in range(_ROUNDS):
        model = np.column_stack(warp.invert(*microns.T))
        levelled = [_levelled(place, told - place, step) for place, told in zip(model.T, mirrors.T, strict=True)]
        away, weights = (np.column_stack(each) for each in zip(*levelled, strict=True))
        slopes = _slopes(warp, model)
        inverse: Array = np.linalg.inv(slopes).astype(np.float64)
        warp = _moved(warp, model, away, weights, inverse)
    return Refined(warp, np.einsum("nij,nj->ni", slopes, away), weights.mean(axis=1))


def _levelled(place: Array, away: Array, step: float) -> tuple[Array, Array]:
    """How far places told are from where they are, without what all steps of the stair have in common; and weights."""
    part = place / step % 1.0
    number = np.minimum((part * _BINS).astype(np.int64), _BINS - 1)
    count = np.maximum(np.bincount(number, minlength=_BINS), 1)
    stair = np.bincount(number, away, _BINS) / count
    stair -= stair.mean()
    middles = np.arange(-1, _BINS + 1) + 0.5
    round_trip = np.concatenate([stair[-1:], stair, stair[:1]])
    steep = 1 + (np.roll(stair, -1) - np.roll(stair, 1)) / (2 * step / _BINS)
    steepness = np.maximum(np.interp(part * _BINS, middles, np.concatenate([steep[-1:], steep, steep[:1]])), 0.0)
    level = away - np.interp(part * _BINS, middles, round_trip)
    return level / np.maximum(steepness, _FLAT), np.maximum(steepness, _FLAT / 4) ** 2


def _slopes(warp: Warp, places: Array) -> Array:
    """(n, 2, 2): micrometres a mirror."""
    column, row = places.T
    along = [
        np.subtract(*pair) for pair in zip(warp.apply(column + 0.5, row), warp.apply(column - 0.5, row), strict=True)
    ]
    down = [
        np.subtract(*pair) for pair in zip(warp.apply(column, row + 0.5), warp.apply(column, row - 0.5), strict=True)
    ]
    return np.moveaxis(np.array([along, down]), 2, 0).swapaxes(1, 2)


def _moved(warp: Warp, model: Array, away: Array, weights: Array, inverse: Array) -> Warp:
    """One step of Gauss and Newton: a map that is larger by δ sends a place to a mirror that is less by inverse · δ."""
    terms = powers(model / warp.radius)
    normal, right = np.zeros((2 * TERMS, 2 * TERMS)), np.zeros(2 * TERMS)
    for axis in (0, 1):
        rows = -np.concatenate([inverse[:, axis, :1] * terms, inverse[:, axis, 1:] * terms], axis=1)
        weighted = rows * weights[:, axis : axis + 1]
        normal += weighted.T @ rows
        right += weighted.T @ away[:, axis]
    change = np.linalg.lstsq(normal, right, rcond=None)[0].astype(np.float64)
    return _added(warp, change.reshape(2, TERMS))


def _added(warp: Warp, change: Array) -> Warp:
    """A map with other terms: for x, then for y, those of 1, x, y, and of its distortion, places in units of radius."""
    matrix = np.array(warp.matrix) + change[:, 1:3] / warp.radius
    shift = np.array(warp.shift) + change[:, 0]
    across, down = np.array(warp.distortion) + change[:, 3:]
    return Warp(
        matrix=((float(matrix[0, 0]), float(matrix[0, 1])), (float(matrix[1, 0]), float(matrix[1, 1]))),
        shift=(float(shift[0]), float(shift[1])),
        distortion=(tuple(map(float, across)), tuple(map(float, down))),
        radius=warp.radius,
    )
