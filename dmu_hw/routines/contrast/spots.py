"""Where mirrors fall on the chip, and how wide the spot of one of them is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.physics.optics import Optics

Float64Array = NDArray[np.float64]
Shape = tuple[int, int]
_SIDE_PX, _APART_PX = 1.5, 24.0
"""Of squares of mirrors that are lit to see how wide a spot is."""
_BRIGHT = 0.2
"""Of the brightest spot: dimmer ones tell little."""
_HOT_SIGMAS = 8.0


def places_px(optics: Optics, chip: Shape) -> tuple[Float64Array, Float64Array]:
    """Row and column of the pixel, with fractions, that the middle of each mirror falls on."""
    rows, columns = optics.mirrors.shape
    row, column = np.mgrid[:rows, :columns] + 0.5
    x_um, y_um = optics.mirrors.to_sample.apply(column - columns / 2, row - rows / 2)
    x_um, y_um = optics.sample_to_sensor.apply(x_um, y_um)
    return y_um / optics.sensor_pixel_um + (chip[0] - 1) / 2, x_um / optics.sensor_pixel_um + (chip[1] - 1) / 2


def mirror_px(optics: Optics) -> float:
    """Side of a mirror's image in pixels."""
    rows, columns = optics.mirrors.shape
    return math.sqrt(optics.mirrors.area_um2 / (rows * columns)) / optics.sensor_pixel_um


def middle_of(optics: Optics) -> tuple[float, float]:
    """Column and row, counted from the centre of the array, of what falls onto the middle of the chip."""
    u, v = optics.mirrors.to_sample.invert(np.zeros(1), np.zeros(1))
    return float(u[0]), float(v[0])


def quarters(optics: Optics) -> BoolArray:
    """Two of four quarters, which meet in the middle of the chip."""
    rows, columns = optics.mirrors.shape
    u, v = middle_of(optics)
    row, column = np.mgrid[:rows, :columns]
    lit: BoolArray = (column + 0.5 - columns / 2 < u) ^ (row + 0.5 - rows / 2 < v)
    return lit


def good_pixels(*darks: NDArray[Any]) -> BoolArray:
    """Pixels that are like others in the dark, however long."""
    good = np.ones(darks[0].shape, dtype=bool)
    for dark in (*darks, darks[-1] - darks[0]):
        off = np.abs(dark - np.median(dark))
        good &= off <= _HOT_SIGMAS * max(1.4826 * float(np.median(off)), 0.5)
    return good


@dataclass(frozen=True)
class Spots:
    """Small squares of mirrors far from each other."""

    side: int
    period: int

    @classmethod
    def on(cls, optics: Optics) -> Spots:
        side_px = mirror_px(optics)
        side = max(1, round(_SIDE_PX / side_px))
        return cls(side, max(3 * side, math.ceil(_APART_PX / side_px)))

    def mirrors(self, shape: Shape) -> BoolArray:
        row, column = np.mgrid[: shape[0], : shape[1]]
        lit: BoolArray = (row % self.period < self.side) & (column % self.period < self.side)
        return lit

    def width_px(self, light: Float64Array, good: BoolArray, optics: Optics) -> float:
        """Standard deviation of the spot of one mirror. NaN: no spots are seen."""
        y, x = (self._middles(place) for place in places_px(optics, (light.shape[0], light.shape[1])))
        seen_px = spot_width_px(light, good, y, x, _APART_PX / 2 - 1)
        more = (self.side**2 - 1) * mirror_px(optics) ** 2 / 12
        return math.sqrt(max(seen_px**2 - more, 0.25)) if math.isfinite(seen_px) else math.nan

    def _middles(self, places: Float64Array) -> Float64Array:
        """Of whole squares."""
        rows, columns = ((length - self.side) // self.period + 1 for length in places.shape)
        first = places[:: self.period, :: self.period][:rows, :columns]
        last = places[self.side - 1 :: self.period, self.side - 1 :: self.period][:rows, :columns]
        return ((first + last) / 2).ravel()


def spot_width_px(light: Float64Array, good: BoolArray, y: Float64Array, x: Float64Array, reach_px: float) -> float:
    """Standard deviation of isolated spots round known places. NaN: there are none."""
    reach = math.ceil(reach_px)
    inside = (y > reach) & (y < light.shape[0] - 1 - reach) & (x > reach) & (x < light.shape[1] - 1 - reach)
    y, x = y[inside], x[inside]
    down, across = (offset.ravel() for offset in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    row, column = np.rint(y).astype(int)[:, None] + down, np.rint(x).astype(int)[:, None] + across
    values = np.where(good[row, column], light[row, column], np.nan)
    far2 = (row - y[:, None]) ** 2 + (column - x[:, None]) ** 2
    sums = np.nansum(values, axis=1)
    bright = sums > 0.2 * np.max(sums, initial=0.0)
    if bright.sum() < 1 or not np.max(sums, initial=0.0) > 0:
        return math.nan
    shape, far2 = values[bright] / sums[bright][:, None], far2[bright]
    known = np.isfinite(shape) & (far2 < reach_px**2)
    return _best_width(shape[known], far2[known], reach_px)


def _best_width(shape: Float64Array, far2: Float64Array, reach_px: float) -> float:
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - takes a while to load

    def left(width_px: float) -> float:
        design = np.stack([np.exp(-far2 / (2 * width_px**2)), np.ones_like(far2)], axis=1)
        return float(np.linalg.lstsq(design, shape, rcond=None)[1][0])

    found: Any = minimize_scalar(left, bounds=(0.4, reach_px / 1.5), method="bounded", options={"xatol": 1e-3})
    return float(found.x)
