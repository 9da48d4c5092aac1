"""Photon transfer: how the noise grows with the light tells how many numbers an electron makes.

The chip is cut into squares, each lit evenly in itself. Within a square one frame of a pair is scaled to the other, so
that neither uneven light nor a light that flickers, drifts or bleaches adds to their difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.routine import FitError
from dmu_hw.routines.sensor.series import blocks

Floats = NDArray[np.float64]
SIDE_PX = 16
_LEAST_PIXELS = 100
"""Of a square, beside bad ones."""
_ROUNDED = 0.5
"""Variance below which rounding is more than the 1/12 that it adds."""
_SIGMAS = 4.5
"""So far below saturation a level must stay that no pixel of it is clipped."""
_LINEAR_PART = 0.85
_ROUNDS = 4
_OUTLIER = 6.0
_GROWN = 1.3
"""Pixels that grow by less when the exposure doubles are full."""
_FEWEST_FULL = 200
_QUIET = 0.3
_EVEN = 0.15
"""Squares in whose quarters the light differs by more, as a part of it, may bleach here and not there."""
_DIM_PART, _FULL_PART, _FEW = 0.05, 0.97, 0.001
"""Of levels that tell of proportion: they are not much darker than the brightest, and few of their pixels are full."""


@dataclass(frozen=True)
class Transfer:
    """Signal and noise of all squares at all levels that are not clipped, and what follows."""

    gain_adu_per_e: float
    error: float
    """Of the gain by chance, as a part of it."""
    bend: float
    """By how much more the gain is in the brighter half than in the darker one, as a part of it."""
    signal_adu: Floats
    variance_adu2: Floats


@dataclass(frozen=True)
class Saturation:
    """Where numbers end."""

    level_adu: float
    """Number of a pixel that is full, offset included."""
    is_converter: bool
    """All full pixels say the same number, the largest of so many bits; else it is the wells that are full."""
    signal_adu: float
    variance_adu2: float
    """Of full pixels from frame to frame."""

    def is_quiet(self, gain: float) -> bool:
        """Whether light makes no noise any more: if it does, light grew no brighter for another reason."""
        return self.variance_adu2 < _QUIET * gain * self.signal_adu


def saturation(tops: Uint16Array, offset: Floats, fine: BoolArray) -> Saturation | None:
    """From pairs far beyond what the brightest part of the chip can take; None where nothing is full."""
    if len(tops) < 2:
        return None
    less, more = (pair.mean(axis=0, dtype=np.float64) - offset for pair in (tops[-2], tops[-1]))
    full = fine & (less > np.percentile(more, 98) / 2) & (more < _GROWN * less)
    if np.count_nonzero(full) < _FEWEST_FULL:
        return None
    values = tops[-1][:, full]
    top = int(values.max())
    same = np.count_nonzero(values == top) > 0.5 * values.size
    first, second = values.astype(np.float64)
    return Saturation(
        level_adu=float(np.median(values)),
        is_converter=bool(same and (top & (top + 1)) == 0),
        signal_adu=float(np.median(more[full])),
        variance_adu2=float(np.var(second - first) / 2),
    )


def transfer(
    pairs: Uint16Array, offset: Floats, fine: BoolArray, dark_variance: float, saturated: Saturation | None
) -> Transfer:
    """`dark_variance` is that of the numbers without light before rounding. FitError: there is nothing to fit."""
    floor = dark_variance + 1 / 12
    even = _even(pairs.mean(axis=(0, 1), dtype=np.float64) - offset)
    measured = [_squares(pair, offset, fine, even) for pair in pairs]
    signal, variance, freedom = (np.concatenate(parts) for parts in zip(*measured, strict=True))
    ceiling = np.inf if saturated is None else saturated.level_adu - float(np.median(offset[fine]))
    # chosen by what is to be expected and not by what was seen, or what by chance is small would be chosen more often
    gain, lit = 0.0, (signal > 0) & (signal < _LINEAR_PART * ceiling)
    for _ in range(_ROUNDS):
        expected = np.maximum(gain * signal, 0) + floor if gain > 0 else np.full_like(signal, np.median(variance))
        usable = lit & (expected > _ROUNDED) & (signal + _SIGMAS * np.sqrt(expected) < ceiling)
        if np.count_nonzero(usable) < 20:
            raise FitError(
                "too little of the series is neither dark nor clipped to see the noise of light grow with the light: "
                "is there an even layer of dye, is it bright enough, and does the camera hand over raw numbers?"
            )
        gain = _slope(signal[usable], variance[usable], freedom[usable], floor)
        if not np.isfinite(gain) or gain <= 0:
            raise FitError("the noise of light does not grow with the light: no numbers of counted light do that")
    signal, variance, freedom = signal[usable], variance[usable], freedom[usable]
    split = np.median(signal)
    dim, bright = (
        _slope(signal[half], variance[half], freedom[half], floor) for half in (signal < split, signal >= split)
    )
    weight = (gain * signal / (gain * signal + floor)) ** 2 * freedom / 2
    return Transfer(gain, float(1 / np.sqrt(weight.sum())), bright / dim - 1, signal, variance)


def _even(light: Floats) -> BoolArray:
    """Which squares are lit evenly. Of all pairs together, so that the choice knows nothing of the noise of one."""
    quarters = np.median(blocks(light, SIDE_PX // 2), axis=2)
    four = blocks(quarters, 2).reshape(-1, 4)
    return np.asarray(np.ptp(four, axis=1) < _EVEN * four.mean(axis=1))


def _squares(pair: Uint16Array, offset: Floats, fine: BoolArray, even: BoolArray) -> tuple[Floats, Floats, Floats]:
    """Signal, its variance and the degrees of freedom of the squares of a pair of frames."""
    a, b, good = (
        blocks(image, SIDE_PX).reshape(-1, SIDE_PX**2) for image in (pair[0] - offset, pair[1] - offset, fine)
    )
    count = good.sum(axis=1)
    kept = even & (count >= _LEAST_PIXELS)
    a, b, good, count = a[kept], b[kept], good[kept], count[kept]
    sum_a, sum_b = (a * good).sum(axis=1), (b * good).sum(axis=1)
    ratio = np.divide(sum_a, sum_b, out=np.ones_like(sum_a), where=sum_b > 0)
    ratio = np.where(np.abs(ratio - 1) < 0.5, ratio, 1.0)
    different = (a - ratio[:, None] * b) * good
    middle = different.sum(axis=1) / count
    spread = ((different - middle[:, None]) ** 2 * good).sum(axis=1) / (count - 1)
    # both the signal and the noise of reading are those that a single frame would have
    variance = spread / (1 + ratio**2)
    signal = sum_a / count * (1 + ratio) / (1 + ratio**2)
    return signal, variance, (count - 1).astype(np.float64)


def _slope(signal: Floats, variance: Floats, freedom: Floats, floor: float) -> float:
    """Of a straight line from the noise of reading, each point weighted by the noise that the line itself expects."""
    gain = float(np.sum(signal * (variance - floor)) / np.sum(signal**2))
    kept = np.ones(signal.shape, dtype=bool)
    for _ in range(5):
        expected = np.maximum(gain, 1e-9) * signal + floor
        off = (variance - expected) / (expected * np.sqrt(2 / freedom))
        kept = np.abs(off) < _OUTLIER if np.count_nonzero(np.abs(off) < _OUTLIER) > 10 else kept
        weight = kept * freedom / expected**2
        gain = float(np.sum(weight * signal * (variance - floor)) / np.sum(weight * signal**2))
    return gain


def gathered(signal: Floats, variance: Floats, steps: int = 24) -> tuple[Floats, Floats]:
    """Means of squares that are about equally bright, for people's eyes."""
    order = np.array_split(np.argsort(signal), min(steps, signal.size))
    return np.array([signal[some].mean() for some in order]), np.array([variance[some].mean() for some in order])


def linearity(
    pairs: Uint16Array, exposures_ms: Floats, offset: Floats, fine: BoolArray, saturated: Saturation | None
) -> Floats:
    """(level, [exposure, signal, departure from proportion]) of the bright part of the chip, without what bleaching
    took from it: exposures go up and down again. Levels that are dark or clipped are left out."""
    means = np.array([pair.mean(axis=0, dtype=np.float64) for pair in pairs]) - offset
    whole = means.mean(axis=0)
    lit = fine & (whole > np.percentile(whole[fine], 99) / 2)
    signal = means[:, lit].mean(axis=1)
    usable = signal > _DIM_PART * signal.max()
    if saturated is not None:
        usable &= np.array([np.mean(pair[:, lit] > _FULL_PART * saturated.level_adu) for pair in pairs]) < _FEW
    if np.count_nonzero(usable) < 4:
        return np.zeros((0, 3))
    before = (np.cumsum(exposures_ms) - exposures_ms / 2)[usable]
    ratio = np.log(signal[usable] / exposures_ms[usable])
    design = np.stack([np.ones_like(before), before / before[-1]], axis=1)
    found, *_ = np.linalg.lstsq(design, ratio)
    departure = np.expm1(ratio - design @ found)
    shown = np.unique(exposures_ms[usable])
    places = [np.flatnonzero(exposures_ms[usable] == one) for one in shown]
    rows = [(one, signal[usable][at].mean(), departure[at].mean()) for one, at in zip(shown, places, strict=True)]
    return np.array(rows)
