"""Frames of stripes → for each camera pixel the row and the column of the mirror that lights it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.routine import Array as AnyArray
from dmu_hw.routine import FitError
from dmu_hw.routines.register.mapping import Cubic, robust_affine, robust_cubic
from dmu_hw.routines.register.stripes import AXES, CELL, COLUMN, STEPS, Stripes, gray_decoded

Array = NDArray[np.float64]
_DIM = 0.08
"""Pixels with less light, as a part of the bright ones, tell nothing."""
_NOISES = 5.0
"""Light is more than so many times the noise of a pixel."""
_FEWEST = 400
"""Pixels that a map is fitted to."""
_CLEAR = 0.25
"""How far from half of the light a pixel must be to be on or off."""
_CLEAR_PART = 0.6
"""Part of the pixels that must be, or stripes are too fine for the lens."""
_CELLS_SEEN = 3
_FOLLOW = 0.6
"""Part of the pixels that must follow one map."""
_FINEST_PX = 16.0
"""Shortest period of fine stripes in camera pixels."""
_PERIODS = 5.0
"""The least of them across the chip."""
_MODULATED = 0.12
"""Swing of fine stripes, as a part of the light; with sharp edges it is 0.64."""
_ROUNDS = 4
_SEED = 0x5E6


@dataclass(frozen=True, eq=False)
class Lit:
    """What the mirrors light, and how much, at several times: dye bleaches, and lamps drift."""

    mask: BoolArray
    """(y, x) of a frame."""
    dark: Array
    """Light of no mirror in the pixels that are lit, (time, n)."""
    spans: Array
    """Light of all mirrors over that of none, (time, n)."""
    span: Array
    """The mean of it, (y, x)."""

    @classmethod
    def of(cls, on: AnyArray, off: AnyArray) -> Lit:
        """From frames (time, y, x) of all mirrors and of none."""
        spans = on.astype(np.float64) - off
        span = spans.mean(axis=0)
        # neighbours differ by noise and by their sensitivity; what the sample shows changes more slowly
        noise_adu = max(1.0, 1.4826 * float(np.median(np.abs(np.diff(span, axis=1)))) / math.sqrt(2))
        bright = float(np.percentile(span, 99.0))
        mask = span > max(_DIM * bright, _NOISES * noise_adu)
        mask &= spans.min(axis=0) > 0.5 * span  # a pixel that was lit once only tells nothing
        if np.count_nonzero(mask) < _FEWEST:
            raise FitError(
                f"no light of the mirrors is seen: all on are {bright:.1f} ADU brighter than all off, noise is "
                f"{noise_adu:.1f} ADU; look for the lamp, its filter, a shutter, the dye, the light path of the DMD"
            )
        return cls(mask, off[:, mask].astype(np.float64), spans[:, mask], span)

    def parts(self, frames: AnyArray, before: int = 0, after: int = 0) -> Array:
        """Light of frames that were taken from one of the times to another, in the pixels that are lit: 0 as with no
        mirror, 1 as with all; (frame, n)."""
        found = np.empty((len(frames), np.count_nonzero(self.mask)))
        for number, frame in enumerate(frames):
            late = (number + 1) / (len(frames) + 1)
            dark, span = ((1 - late) * light[before] + late * light[after] for light in (self.dark, self.spans))
            found[number] = (frame[self.mask] - dark) / span
        return found

    @property
    def places(self) -> Array:
        """Of the pixels that are lit, (n, 2): x and y in pixels of the frame, their middles."""
        rows, columns = np.nonzero(self.mask)
        return np.column_stack([columns, rows]).astype(np.float64)


@dataclass(frozen=True)
class Coarse:
    """What coarse stripes say."""

    cubic: Cubic
    """Pixels of the frame → column and row of mirrors, counted from the array's edge."""
    px_a_mirror: float
    stripe_px: float
    """The finest that is resolved."""
    following: float
    """Part of the lit pixels that follow the map."""


def decoded_coarse(lit: Lit, parts: Array, stripes: Sequence[Stripes]) -> Coarse:
    """From the light of stripes (frame, n). FitError where they are not seen, or pixels do not agree."""
    places = lit.places
    clear = np.abs(parts - 0.5) > _CLEAR
    told, cells, good = [], [], np.ones(len(places), dtype=bool)
    for axis in AXES:
        bits = [number for number, each in enumerate(stripes) if each.axis == axis]
        fine = 0
        while fine < len(bits) and clear[bits[fine]].mean() > _CLEAR_PART:
            fine += 1
        usable = bits[:fine]
        if not usable:
            raise FitError(_unresolved(axis))
        numbers = gray_decoded(parts[usable] > 0.5)
        cell = CELL << (len(bits) - fine)
        good &= clear[usable].all(axis=0)
        told.append((numbers + 0.5) * cell)
        cells.append(cell)
        if len(np.unique(numbers[good])) < _CELLS_SEEN:
            raise FitError(_unresolved(axis))
    if np.count_nonzero(good) < _FEWEST:
        raise FitError(_unresolved(COLUMN))
    return _coarse_map(places[good], np.column_stack(told)[good], np.array(cells, dtype=np.float64))


def _coarse_map(places: Array, told: Array, cells: Array) -> Coarse:
    affine, _ = robust_affine(places, told / cells, np.random.default_rng(_SEED))
    homogeneous = np.column_stack([places, np.ones(len(places))])
    astray = np.abs(homogeneous @ affine - told / cells).max(axis=1)
    bent = 0.05 * np.ptp(told / cells, axis=0).max()
    following = astray < 1.0 + bent
    if following.mean() < _FOLLOW:
        raise FitError(
            f"only {following.mean():.0%} of the lit pixels agree on where the mirrors are (at least {_FOLLOW:.0%} "
            "should): patterns were not shown in their order, changed while a frame was taken, or the sample moved"
        )
    cubic, _ = robust_cubic(places[following], told[following], within=float(cells.max() * (1.0 + bent)))
    mirrors_a_px = math.sqrt(abs(np.linalg.det((affine * cells)[:2])))
    return Coarse(cubic, 1 / mirrors_a_px, 2 * float(cells.max()) / mirrors_a_px, float(following.mean()))


def fine_period(coarse: Coarse, shape: tuple[int, ...]) -> int:
    """Mirrors of a period of fine stripes that the lens resolves well."""
    period_px = max(_FINEST_PX, 2 * coarse.stripe_px)
    if period_px > min(shape) / _PERIODS:
        raise FitError(
            f"the finest stripes that are resolved are {coarse.stripe_px:.0f} pixels wide: bring DMD and sample into "
            "focus"
        )
    return STEPS * max(1, round(period_px / coarse.px_a_mirror / STEPS))


@dataclass(frozen=True, eq=False)
class Decoded:
    """Camera pixels that know their mirror."""

    places: Array
    """(n, 2): x and y in pixels of the frame."""
    mirrors: Array
    """(n, 2): column and row, counted from the array's edge."""
    period: int
    """Mirrors of a period of the fine stripes."""
    modulation: float
    """Median swing of them, as a part of the light."""


def decoded_fine(lit: Lit, parts: Array, period: int, coarse: Coarse, shape: tuple[int, int]) -> Decoded:
    """Where in a period, by the phase of the light over the steps (frame, n); which period, by the map so far."""
    places = lit.places
    turns = np.exp(2j * np.pi * np.arange(STEPS) / STEPS)
    swings = [turns @ parts[:STEPS], turns @ parts[STEPS:]]
    strength = np.minimum(*(np.abs(swing) * 2 / STEPS for swing in swings))
    modulation = float(np.median(strength))
    if modulation < _MODULATED:
        raise FitError(
            f"stripes of {period} mirrors, {period * coarse.px_a_mirror:.0f} pixels, swing by {modulation:.2f} of the "
            f"light, at least {_MODULATED} is needed: bring DMD and sample into focus"
        )
    # the first stripes are brightest a quarter of a period from the edge
    within = np.column_stack([(np.angle(swing) / (2 * np.pi) + 0.25) * period for swing in swings])
    clear = strength > 0.5 * modulation
    places, within, cubic = places[clear], within[clear], coarse.cubic
    periods = np.zeros_like(within)
    for _ in range(_ROUNDS):
        last, periods = periods, np.rint((cubic.at(places) - within) / period)
        if np.array_equal(last, periods):
            break
        mirrors = within + period * periods
        inside = _well_inside(mirrors, period, shape)
        if np.count_nonzero(inside) < _FEWEST:
            raise FitError("hardly any of the lit pixels see the array farther in than a period of stripes")
        cubic, followers = robust_cubic(places[inside], mirrors[inside], within=period / 4)
    if followers.mean() < _FOLLOW:
        raise FitError(
            f"only {followers.mean():.0%} of the lit pixels agree on where fine stripes are (at least {_FOLLOW:.0%} "
            "should): patterns were not shown in their order, changed while a frame was taken, or the sample moved"
        )
    return Decoded(places[inside], mirrors[inside], period, modulation)


def _well_inside(mirrors: Array, period: int, shape: tuple[int, int]) -> BoolArray:
    """Next to the border of the array stripes are cut, and their light tells another place."""
    rows, columns = shape
    far = np.minimum(mirrors, np.array([columns, rows]) - mirrors).min(axis=1)
    inside: BoolArray = far > period / 2
    return inside


def _unresolved(axis: int) -> str:
    what = "columns" if axis == COLUMN else "rows"
    return (
        f"stripes that tell {what} of mirrors are not seen: bring DMD and sample into focus, and let the array light "
        "more of the chip than a few of its mirrors"
    )
