"""Mirrors one by one: lattices of single mirrors that are on, so far apart that their spots are told apart.

After all lattices each mirror was on once while its neighbours were off. A mirror whose spot is missing from its frame,
less the frame with all mirrors off, is stuck: off, or on, and then it is bright while all others are off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.physics.optics import Optics
from dmu_hw.routines.contrast.spots import mirror_px, places_px

Float64Array = NDArray[np.float64]
Shape = tuple[int, int]
_APART = 2.5
"""Spots, in widths (standard deviations)."""
_REACH = 5.0
_MOST_SHADED = 9
"""Missing mirrors that touch each other: more of them lie in the shade of something."""
_LEAST_LIGHT = 0.05
"""Of the brightest: too little to say anything of a mirror."""


def lattices(shape: Shape, period: int, first: int, count: int) -> BoolArray:
    """Some of the lattices, in order: one mirror of each square of period × period is on."""
    masks = np.zeros((count, *shape), dtype=bool)
    for place, mask in enumerate(masks):
        row, column = divmod(first + place, period)
        mask[row::period, column::period] = True
    return masks


def period_of(width_px: float, side_px: float) -> int:
    """How many mirrors apart those of a lattice are, whose spots are so wide."""
    return max(3, math.ceil(_APART * width_px / side_px))


def smoothed(frame: Float64Array, good: BoolArray, width_px: float) -> Float64Array:
    """Seen through a Gaussian as wide as a spot, by good pixels."""
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - takes a while to load

    seen = gaussian_filter(np.where(good, frame, 0.0), width_px, mode="constant", truncate=3.0)
    counted = gaussian_filter(good.astype(np.float64), width_px, mode="constant", truncate=3.0)
    return np.asarray(np.where(counted > 0.2, seen / np.maximum(counted, 0.2), np.nan))


def read(frame: Float64Array, y: Float64Array, x: Float64Array) -> Float64Array:
    """A smooth frame at places; NaN beyond it."""
    from scipy.ndimage import map_coordinates  # noqa: PLC0415 - takes a while to load

    seen: Float64Array = map_coordinates(frame, [y, x], order=1, mode="constant", cval=np.nan)
    return seen


@dataclass(frozen=True, eq=False)
class Stuck:
    """Maps of the mirrors (row, column)."""

    seen: BoolArray
    """Of which anything can be said."""
    on: BoolArray
    off: BoolArray
    shaded: BoolArray
    """Missing, but with so many others that something hides them."""
    spread: float
    """Of what working mirrors give, as a part of what a missing one lacks."""


def stuck_mirrors(
    alone: Float64Array, together: Float64Array, rest: Float64Array, period: int, width_px: float, optics: Optics
) -> Stuck:
    """From the light at each mirror's place (row, column) while it is on in its lattice, less all off; with all
    mirrors on, less all off; and with all mirrors off, above what mirrors that are off give."""
    from scipy.ndimage import label  # noqa: PLC0415 - takes a while to load

    seen = np.isfinite(alone) & np.isfinite(together) & np.isfinite(rest)
    seen &= together > _LEAST_LIGHT * np.max(together[seen], initial=0.0)
    part = np.where(seen, alone, 0.0) / np.where(seen, together, 1.0)
    for row in range(period):
        for column in range(period):
            members = (slice(row, None, period), slice(column, None, period))
            usual = float(np.median(part[members][seen[members]])) if seen[members].any() else 1.0
            part[members] /= max(usual, 1e-12)
    own = _own_part(period, width_px, optics)
    lacks = (1 - part) / own
    missing = seen & (lacks > 0.5)
    pieces, _ = label(missing, np.ones((3, 3)))
    shaded: BoolArray = missing & (np.bincount(pieces.ravel())[pieces] > _MOST_SHADED)
    missing &= ~shaded
    on = np.zeros_like(missing)
    on[missing] = _alone(rest, together, missing, width_px, optics) > 0.5
    spread = 1.4826 * float(np.median(np.abs(lacks[seen]))) if seen.any() else math.inf
    return Stuck(seen & ~shaded, on, missing & ~on, shaded, spread)


def _own_part(period: int, width_px: float, optics: Optics) -> float:
    """What a mirror itself gives of the light that is read at its place; the rest comes from its lattice."""
    (a, b), (c, d) = optics.mirrors.to_sample.matrix
    steps = np.arange(-3, 4) * period / optics.sensor_pixel_um
    u, v = np.meshgrid(steps, steps)
    far2 = (a * u + b * v) ** 2 + (c * u + d * v) ** 2
    return float(1 / np.exp(-far2 / (4 * width_px**2)).sum())


def one_mirror(width_px: float, side_px: float) -> float:
    """What is read at the place of a mirror that is on alone, as a part of what all give together."""
    return min(1.0, side_px**2 / (4 * math.pi * width_px**2))


def stuck_light(found: Stuck, gained: Float64Array, width_px: float, optics: Optics) -> Float64Array:
    """What mirrors that are stuck on give while all should be off, on the pixels that gain so much from all mirrors."""
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - takes a while to load

    y, x = (place[found.on] for place in places_px(optics, (gained.shape[0], gained.shape[1])))
    row, column = np.floor(y).astype(int), np.floor(x).astype(int)
    spots = np.zeros((gained.shape[0] + 1, gained.shape[1] + 1))
    inside = (row >= 0) & (column >= 0) & (row < gained.shape[0]) & (column < gained.shape[1])
    for down in (0, 1):
        for across in (0, 1):
            part = np.abs(1 - down - (y - row)) * np.abs(1 - across - (x - column))
            np.add.at(spots, (row[inside] + down, column[inside] + across), part[inside])
    spread = gaussian_filter(spots[:-1, :-1], width_px, mode="constant")
    return np.asarray(spread * mirror_px(optics) ** 2 * gained)


def _alone(
    rest: Float64Array, together: Float64Array, missing: BoolArray, width_px: float, optics: Optics
) -> Float64Array:
    """How much of its light each missing mirror gives while all should be off, near ones disentangled."""
    from scipy.sparse import coo_array, eye_array  # noqa: PLC0415 - takes a while to load
    from scipy.sparse.linalg import spsolve  # noqa: PLC0415 - takes a while to load
    from scipy.spatial import cKDTree  # noqa: PLC0415 - takes a while to load

    count = int(missing.sum())
    if not count:
        return np.zeros(0)
    gives = rest[missing] / (together[missing] * one_mirror(width_px, mirror_px(optics)))
    y, x = places_px(optics, (1, 1))
    places = np.stack([y[missing], x[missing]], axis=1)
    pairs = cKDTree(places).query_pairs(_REACH * width_px, output_type="ndarray")
    near = np.exp(-((places[pairs[:, 0]] - places[pairs[:, 1]]) ** 2).sum(axis=1) / (4 * width_px**2))
    first, second = np.concatenate([pairs, pairs[:, ::-1]]).T
    mixing = coo_array((np.concatenate([near, near]), (first, second)), shape=(count, count)).tocsc()
    solved: Float64Array = spsolve((mixing + (1 + 1e-3) * eye_array(count)).tocsc(), gives)
    return np.atleast_1d(solved)
