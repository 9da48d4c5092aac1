"""What is taken: dark frames, and pairs of flat ones from next to no light to more than the camera can tell.

Of what every pixel gives only sums are kept, since frames of a whole chip would fill gigabytes; they are exact. Pairs
are kept as they came, within a window where it is brightest.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.instrument import Instrument
from dmu_hw.routine import Evidence
from dmu_hw.routines.sensor.settings import SensorSettings

PARTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
"""Exposures of pairs, as parts of the one at which the brightest part of the chip is full."""
_TOP_PART, _TOP_STEP = 3.0, 2.0
"""The brightest pair is so far beyond full, and the one before it so much darker."""
_FLAT_PART = 0.6
_AT_ONCE = 8
"""Frames that are held in memory."""
_WINDOW_PX = 1024
_BLOCK_PX = 8
_BRIGHT = 99.0
_GROWS, _LINEAR = 1.6, 1.9
"""Light that grows by less when the exposure doubles is clipped; light that grows by more is not."""
_NOISES = 10.0
_DOUBLINGS = 5
"""So many exposures must be free of clipping, or there is too much light."""
_DARK_MS = 100.0
"""Exposure at which hot pixels are told from others, if flat frames need no longer ones."""
_LONG_DARKS, _BINNED = 16, 2
_LEAST = 1e-4
"""Part of the power that is never gone below."""


@dataclass
class Sums:
    """Of the numbers of every pixel, and what all of them have in common."""

    count: int = 0
    total: NDArray[np.uint32] | None = None
    squares: NDArray[np.uint64] | None = None
    seen: BoolArray = field(default_factory=lambda: np.zeros(1 << 16, dtype=bool))
    """Which numbers have come at all."""
    zeros: int = 0

    def add(self, frames: Uint16Array, *, squares: bool = False) -> Sums:
        self.count += len(frames)
        total = frames.sum(axis=0, dtype=np.uint32)
        self.total = total if self.total is None else self.total + total
        if squares:
            square = (frames.astype(np.uint64) ** 2).sum(axis=0)
            self.squares = square if self.squares is None else self.squares + square
        self.seen[frames] = True
        self.zeros += int(np.count_nonzero(frames == 0))
        return self

    def arrays(self, name: str) -> dict[str, NDArray[Any]]:
        named = {f"{name}_sum": self.total, f"{name}_squares": self.squares}
        return {key: value for key, value in named.items() if value is not None}


class Series:
    """Everything that one measurement takes."""

    def __init__(self, instrument: Instrument, settings: SensorSettings) -> None:
        self.instrument = instrument
        self.settings = settings
        self.longest_ms = min(settings.longest_ms, instrument.rig.settings.limits.exposure_ms)
        self.mirrors = np.ones((1, *instrument.mirrors_shape), dtype=bool)
        self.power_mw = min(settings.power_mw or instrument.highest_mw / 2, instrument.highest_mw)
        self.seen = np.zeros(1 << 16, dtype=bool)
        self._done = 0
        self._binned = _BINNED in instrument.camera.binnings
        self._all = settings.dark_frames + settings.flat_frames + _LONG_DARKS + 4 * len(PARTS) + 4
        self._all += settings.dark_frames + 6 if self._binned else 0

    def take(self) -> Evidence:
        shortest_ms = self.settings.shortest_ms
        dark = self._darks(shortest_ms, self.settings.dark_frames, squares=True)
        facts: dict[str, Any] = {
            "dark_ms": shortest_ms,
            "frames": {"dark": dark.count, "long_dark": _LONG_DARKS, "flat": self.settings.flat_frames},
            "zero_fraction": dark.zeros / (dark.count * math.prod(self.instrument.sensor_shape)),
        }
        (black,) = self.instrument.dark(shortest_ms, 1)
        full = self._full(bright(black))
        if full is None:
            return Evidence(dark.arrays("dark"), facts | self._numbers)
        full_ms, image, clips = full
        window = _window(image)
        long_ms = min(max(full_ms, _DARK_MS), self.longest_ms)
        flat_ms = max(_FLAT_PART * full_ms, shortest_ms)
        arrays = dark.arrays("dark")
        top_ms = min(_TOP_PART * full_ms, self.longest_ms)
        tops_ms = [top_ms / _TOP_STEP, top_ms] if clips else []
        if tops_ms:
            arrays["tops"] = np.stack([self._pair(exposure_ms)[:, *window] for exposure_ms in tops_ms])
        arrays |= self._darks(long_ms, _LONG_DARKS).arrays("long_dark")
        arrays |= self._flats(flat_ms).arrays("flat")
        exposures_ms = sorted({max(part * full_ms, shortest_ms) for part in PARTS})
        order = [*exposures_ms, *reversed(exposures_ms)]
        # up and down again: dye that bleaches meanwhile is told from a camera that is not linear
        arrays["pairs"] = np.stack([self._pair(exposure_ms)[:, *window] for exposure_ms in order])
        facts |= {
            "long_dark_ms": long_ms,
            "flat_ms": flat_ms,
            "pairs_ms": order,
            "tops_ms": tops_ms,
            "power_mw": self.power_mw,
            "window": [window[0].start, window[1].start],
        }
        if self._binned:
            binned_ms = max(0.1 * full_ms, shortest_ms)
            arrays |= self._darks(shortest_ms, self.settings.dark_frames, squares=True, binning=_BINNED).arrays(
                "binned"
            )
            near = [self._pair(binned_ms)[:, *window]]
            arrays["binned_pair"] = self._pair(binned_ms, binning=_BINNED)
            near.append(self._pair(binned_ms)[:, *window])
            arrays["binned_near"] = np.stack(near)
            facts |= {"binned_ms": binned_ms}
        return Evidence(arrays, facts | self._numbers)

    @property
    def _numbers(self) -> dict[str, int]:
        """What all numbers that came have in common."""
        came = np.flatnonzero(self.seen)
        return {"step_adu": int(np.gcd.reduce(came)), "numbers": came.size, "largest_adu": int(came[-1])}

    # ---------------------------------------------------------------- frames

    def _darks(self, exposure_ms: float, count: int, *, squares: bool = False, binning: int = 1) -> Sums:
        sums = Sums()
        for some in _lots(count):
            sums.add(self.instrument.dark(exposure_ms, some, binning=binning), squares=squares)
            self._tell(some)
        self.seen |= sums.seen
        return sums

    def _flats(self, exposure_ms: float) -> Sums:
        sums = Sums()
        for some in _lots(self.settings.flat_frames):
            sums.add(self._lit(exposure_ms, some))
            self._tell(some)
        self.seen |= sums.seen
        return sums

    def _pair(self, exposure_ms: float, *, binning: int = 1) -> Uint16Array:
        """Two frames of the same exposure, one after the other."""
        pair = self._lit(exposure_ms, 2, binning=binning)
        self.seen[pair] = True
        self._tell(2)
        return pair

    def _lit(self, exposure_ms: float, count: int, *, binning: int = 1) -> Uint16Array:
        power_mw = self.power_mw
        return self.instrument.take(
            self.mirrors, power_mw=power_mw, exposure_ms=exposure_ms, repeats=count, binning=binning
        )

    def _tell(self, frames: int) -> None:
        self._done += frames
        self.instrument.progress(min(self._done, self._all), self._all)

    # ---------------------------------------------------------------- how long to expose

    def _full(self, black: tuple[float, float]) -> tuple[float, Uint16Array, bool] | None:
        """The exposure at which the brightest part of the chip is full, a frame for where that is, and whether it was
        reached at all; with less light if it is too much. None: there is no light."""
        while True:
            levels, image, clips = self._ramp(black)
            if not levels:
                return None
            if not clips:
                return levels[-1][0], image, False
            rate = _rate(levels)
            full_ms = levels[-1][1] / rate if rate > 0 else 0.0
            if full_ms >= 2**_DOUBLINGS * self.settings.shortest_ms:
                return self._brighter(full_ms), image, True
            if self.power_mw < _LEAST * self.instrument.highest_mw:
                return max(full_ms, self.settings.shortest_ms), image, True
            self.power_mw /= 8

    def _brighter(self, full_ms: float) -> float:
        """With as much more light as exposures beyond full need, if there is more."""
        factor = min(_TOP_PART * full_ms / self.longest_ms, self.instrument.highest_mw / self.power_mw)
        if factor <= 1:
            return full_ms
        self.power_mw *= factor
        return full_ms / factor

    def _ramp(self, black: tuple[float, float]) -> tuple[list[tuple[float, float]], Uint16Array, bool]:
        """Exposures and levels, each exposure twice as long as the one before, until it grows no brighter; the last
        frame, and whether it was clipped."""
        levels: list[tuple[float, float]] = []
        exposure_ms = self.settings.shortest_ms
        while True:
            (image,) = self._lit(exposure_ms, 1)
            level = bright(image)[0] - black[0]
            if level > _NOISES * black[1]:
                levels.append((exposure_ms, level))
            clips = len(levels) > 1 and level < _GROWS * levels[-2][1]
            exposure_ms *= 2
            if clips or exposure_ms > self.longest_ms:
                return levels, image, clips


def _rate(levels: list[tuple[float, float]]) -> float:
    """The growth while it was in proportion; 0 if it never was."""
    rates = [after / after_ms for (_, before), (after_ms, after) in pairwise(levels) if after > _LINEAR * before]
    return float(np.median(rates)) if rates else 0.0


def blocks(image: NDArray[Any], side: int) -> NDArray[Any]:
    """(row, column, pixel): squares of that side; what is left at the border belongs to none."""
    rows, columns = (size // side for size in image.shape)
    cut = image[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return cut.swapaxes(1, 2).reshape(rows, columns, side**2)


def bright(image: NDArray[Any]) -> tuple[float, float]:
    """The level of the bright part of a frame, and by how much it may be off by chance; hot pixels do not count."""
    middles = np.median(blocks(image, _BLOCK_PX), axis=2)
    spread = 1.4826 * float(np.median(np.abs(middles - np.median(middles))))
    return float(np.percentile(middles, _BRIGHT)), max(spread, 0.5)


def _window(image: Uint16Array) -> tuple[slice, slice]:
    """Round the middle of the light, as far as it fits on the chip."""
    levels = blocks(image, _BLOCK_PX).mean(axis=2)
    light = np.clip(levels - np.percentile(levels, 5), 0, None) + 1e-9
    places = (light.sum(axis=1), light.sum(axis=0))
    found = []
    for size, weight in zip(image.shape, places, strict=True):
        middle = _BLOCK_PX * (0.5 + float(weight @ np.arange(weight.size) / weight.sum()))
        first = int(np.clip(middle - _WINDOW_PX / 2, 0, max(0, size - _WINDOW_PX)))
        found.append(slice(first, min(size, first + _WINDOW_PX)))
    return found[0], found[1]


def _lots(count: int) -> Iterator[int]:
    while count > 0:
        yield min(count, _AT_ONCE)
        count -= _AT_ONCE
