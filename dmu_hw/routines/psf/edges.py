"""Stripes of mirrors over beads: how sharp the light's edges are at the sample, whatever the camera's lens makes of it.

A bead is a detector much smaller than the blur. Its light while stripes pass over it, as a part of its light with all
mirrors on, is that of the edge response at its distance from the edges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.physics.optics import Optics
from dmu_hw.routines.psf.shapes import Float64Array, Shape

_HALF_PX = 10.0
_PHASES = 16
_WIDEST = math.log(4.0)
"""And narrowest, as a part of what is believed."""
_MOST_SHIFT_PX = 2.0
_OUTLIER = 0.03
"""Light that is farther off counts less."""


@dataclass(frozen=True)
class Stripes:
    """Columns, or rows, of mirrors: `half` on and `half` off, at several places of their period."""

    half: int
    firsts: tuple[int, ...]

    @classmethod
    def on(cls, optics: Optics, wide_px: float) -> Stripes:
        rows, columns = optics.mirrors.shape
        side_px = math.sqrt(optics.mirrors.area_um2 / (rows * columns)) / optics.sensor_pixel_um
        half = max(2, math.ceil(max(_HALF_PX, wide_px) / side_px))
        phases = min(_PHASES, 2 * half)
        return cls(half, tuple(round(2 * half * phase / phases) for phase in range(phases)))

    def mirrors(self, shape: tuple[int, int]) -> BoolArray:
        """Columns first, then rows, (pattern, row, column)."""
        row, column = np.mgrid[: shape[0], : shape[1]]
        lit = [(place - first) % (2 * self.half) < self.half for place in (column, row) for first in self.firsts]
        return np.stack(lit)


def places_among_mirrors(
    x_px: Float64Array, y_px: Float64Array, chip: tuple[int, int], optics: Optics
) -> tuple[Float64Array, Float64Array]:
    """(axis, bead): column and row of the array that falls onto places of the chip, counted from the first mirror's
    edge, and how many of them a pixel is."""
    middle = (chip[1] - 1) / 2, (chip[0] - 1) / 2

    def mirrors(x: Float64Array, y: Float64Array) -> Float64Array:
        x_um, y_um = ((place - centre) * optics.sensor_pixel_um for place, centre in zip((x, y), middle, strict=True))
        x_um, y_um = optics.sample_to_sensor.invert(x_um, y_um)
        column, row = optics.mirrors.to_sample.invert(x_um, y_um)
        return np.asarray(np.stack([column + optics.mirrors.shape[1] / 2, row + optics.mirrors.shape[0] / 2]))

    across = mirrors(x_px + 0.5, y_px) - mirrors(x_px - 0.5, y_px)
    down = mirrors(x_px, y_px + 0.5) - mirrors(x_px, y_px - 0.5)
    return mirrors(x_px, y_px), np.hypot(across, down)


@dataclass(frozen=True, eq=False)
class Sharpness:
    """What edges tell of the excitation."""

    width_px: float
    error: float
    """Standard deviation, as a part of it."""
    shift: Float64Array
    """Of the stripes against the map, in pixels along columns and rows."""
    residual: float
    far_px: Float64Array
    """From an edge, for pictures…"""
    seen: Float64Array
    fitted: Float64Array


def sharpness(
    light: Float64Array, places: Float64Array, per_px: Float64Array, stripes: Stripes, shape: Shape, bead_px: float
) -> Sharpness:
    """From the light of beads (bead, all on and then each pattern) and their places (axis, bead) among mirrors."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - takes a while to load

    period, half = 2 * stripes.half, stripes.half / 2
    axis = np.repeat([0, 1], len(stripes.firsts))
    pitch = per_px[axis].T  # (bead, pattern)
    place = places[axis].T - np.tile(stripes.firsts, 2) - half

    def off_middle(shift: Float64Array) -> Float64Array:
        """Mirrors from the middle of a lit stripe."""
        return np.asarray((place + shift[axis] * pitch + period / 2) % period - period / 2)

    def share(width_px: float, shift: Float64Array) -> Float64Array:
        """Of the full light that each bead has under each pattern."""
        total = np.zeros_like(place)
        for turn in (-1, 0, 1):
            middle = off_middle(shift) + turn * period
            total += shape.edge((middle + half) / pitch, width_px, bead_px)
            total -= shape.edge((middle - half) / pitch, width_px, bead_px)
        return np.asarray(total)

    def left(given: Float64Array) -> Float64Array:
        parts = share(shape.width_px * math.exp(given[0]), given[1:])
        parts = np.concatenate([np.ones((len(parts), 1)), parts], axis=1)
        full = (light * parts).sum(axis=1) / (parts**2).sum(axis=1)
        return np.asarray(light / full[:, None] - parts)

    def left_over(given: Float64Array) -> Float64Array:
        return np.asarray(left(given).ravel())

    limits = [_WIDEST, _MOST_SHIFT_PX, _MOST_SHIFT_PX]
    found: Any = least_squares(
        left_over,
        np.zeros(3),
        loss="soft_l1",
        f_scale=_OUTLIER,
        bounds=([-limit for limit in limits], limits),
    )
    width_px, shift = shape.width_px * math.exp(found.x[0]), found.x[1:]
    rest = left(found.x)[:, 1:]
    noise2 = float(np.mean(rest**2))
    fitted = share(width_px, shift)
    return Sharpness(
        width_px=width_px,
        error=float(np.sqrt(np.linalg.pinv(found.jac.T @ found.jac)[0, 0] * noise2)),
        shift=shift,
        residual=math.sqrt(noise2),
        far_px=((half - np.abs(off_middle(shift))) / pitch).ravel(),
        seen=(fitted + rest).ravel(),
        fitted=fitted.ravel(),
    )
