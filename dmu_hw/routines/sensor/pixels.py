"""What differs from pixel to pixel, and which pixels are not to be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.routine import Evidence
from dmu_hw.routines.sensor import rounding

Floats = NDArray[np.float64]
_ODD_OFFSET = 10.0
"""Offsets that are off by so many spreads are none of the usual ones."""
_NOISY = 30.0
"""So many times the usual variance is not to be trusted."""
_HOT_NOISES = 8.0
_WARM_ADU = 1.0
_HOT_E_PER_MS = 0.05
"""Dark current from where on a pixel is hot, if it is seen that well."""
_DEAD = 0.5
_SMOOTH_PX = 8.0
_SURE = 0.02
"""Sensitivity that is known worse, as a part of it, is not told from that of all pixels."""
_LIT, _RIM, _ROUNDS = 0.3, 2.5, 5
_EDGE = 0.01
"""Where the light changes faster than a smooth fit follows, by so much, nothing is known of sensitivity."""


@dataclass(frozen=True)
class Dark:
    """A chip without light."""

    offset: Floats
    variance: Floats
    """Of its numbers."""
    noise_variance: float | None
    """The mean of it before rounding; None where it is lost in rounding."""
    count: int
    fine: BoolArray
    """Pixels with nothing odd about them in the dark."""
    cool: BoolArray
    """Those of them that long exposures leave dark."""

    @classmethod
    def of(cls, evidence: Evidence) -> Dark:
        count = int(evidence.facts["frames"]["dark"])
        mean, variance = moments(evidence, "dark", count)
        steady = variance < _NOISY * max(_low_mean(variance), 1e-9)
        usual = np.abs(mean - np.median(mean)) < _ODD_OFFSET * max(spread(mean), 0.3)
        fine = steady & usual
        noise = rounding.variance_of_noise(mean[fine], variance[fine], count)
        more = evidence.arrays["long_dark_sum"] / evidence.facts["frames"]["long_dark"] - mean
        warm = more - np.median(more) > _HOT_NOISES * max(spread(more), _WARM_ADU / _HOT_NOISES)
        return cls(rounding.mean_of_noise(mean, noise), variance, noise, count, fine, fine & ~warm)


def moments(evidence: Evidence, name: str, count: int) -> tuple[Floats, Floats]:
    """Mean and variance of frames of which sums are known."""
    total = evidence.arrays[f"{name}_sum"].astype(np.float64)
    squares = evidence.arrays[f"{name}_squares"].astype(np.float64)
    return total / count, np.maximum(squares - total**2 / count, 0.0) / (count - 1)


def read_noise(dark: Dark, gain: float) -> tuple[Floats, float]:
    """Of every pixel in electrons, and the spread of its logarithm. Few frames tell little of one pixel: what chance
    alone does is taken back."""
    variance = dark.noise_variance
    if variance is None:
        return np.zeros_like(dark.offset), 0.0
    usual = rounding.expected_variance(dark.offset, variance)
    excess = (dark.variance - usual) / variance
    share = 2 / (dark.count - 1)
    chance = share * float(np.mean(usual**2)) / variance**2
    seen = float(np.var(excess[dark.fine])) - chance
    # chance is larger where the variance is: of a spread s it makes (1 + s²) of what it makes of none
    true = max(0.0, seen) / (1 + share)
    noise = np.sqrt(variance * np.clip(1 + excess * true / (true + chance), 0.01, None)) / gain
    return noise, 0.5 * float(np.sqrt(np.log1p(true)))


def dark_rate(evidence: Evidence, dark: Dark, gain: float) -> tuple[Floats, float]:
    """Electrons a millisecond of every pixel without light, and by how much they are off by chance."""
    count = int(evidence.facts["frames"]["long_dark"])
    longer_ms = evidence.facts["long_dark_ms"] - evidence.facts["dark_ms"]
    if longer_ms <= 0:
        return np.zeros_like(dark.offset), np.inf
    short = evidence.arrays["dark_sum"] / dark.count
    rate = (evidence.arrays["long_dark_sum"] / count - short) / (gain * longer_ms)
    noise = np.sqrt(float(np.mean(dark.variance[dark.fine])) + 1 / 12) * np.sqrt(1 / count + 1 / dark.count)
    return rate, float(noise / (gain * longer_ms))


def hot_pixels(rate: Floats, noise: float) -> BoolArray:
    """Those that stand out, each by itself, from all others."""
    above = rate - np.median(rate)
    return above > max(_HOT_E_PER_MS, _HOT_NOISES * max(noise, spread(rate)))


@dataclass(frozen=True)
class Response:
    """How sensitive pixels are against their neighbours."""

    response: Floats
    """1 where it is not known."""
    known: BoolArray
    dead: BoolArray
    spread: float
    light: Floats
    """What was divided out, in ADU."""


def response(flat: Floats, odd: BoolArray, gain: float, floor: float, count: int) -> Response:
    """From the mean of frames in even light, offset and dark current taken off. Uneven light is divided out with a
    smooth fit; so what of the sensitivity is smooth over many pixels counts as light."""
    light, unsteady = _smooth(flat, ~odd)
    dim = np.maximum(light, 1e-9)
    dead = ~odd & (flat < _DEAD * light)
    light, unsteady = _smooth(flat, ~(odd | dead))
    dim = np.maximum(light, 1e-9)
    chance = np.sqrt((gain * dim + floor) / count) / dim
    known = (light > 0) & (chance < _SURE) & (unsteady < _EDGE)
    dead &= known
    ratio = np.where(known, flat / dim, 1.0)
    counted = known & ~odd & ~dead
    if not counted.any():
        return Response(np.ones_like(flat), known, dead, 0.0, light)
    true = spread(ratio[counted]) ** 2 - float(np.median(chance[counted] ** 2))
    # of a hot pixel it is known as well, unless its dark current alone has filled it
    sane = np.where(odd & (ratio > 1 + _DEAD), 1.0, np.maximum(ratio, 0.0))
    return Response(sane, known, dead, float(np.sqrt(max(0.0, true))), light)


def _smooth(flat: Floats, good: BoolArray) -> tuple[Floats, Floats]:
    """The flat frame without what is fine in it, and by which part of it the fit had to be mended."""
    from scipy.ndimage import gaussian_filter  # noqa: PLC0415 - loads slowly

    def filtered(image: Floats) -> Floats:
        return np.asarray(gaussian_filter(image, _SMOOTH_PX, mode="nearest"))

    weight = np.maximum(filtered(good.astype(np.float64)), 1e-6)
    first = filtered(flat * good) / weight
    safe = np.where(np.abs(first) > 1e-9, first, 1e-9)
    # once more on what is left: a blur flattens hills, and this gives them back
    mend = filtered(np.where(good, flat / safe, 0.0)) / weight
    return first * mend, np.abs(mend - 1)


def unevenness(light: Floats) -> float:
    """By how much light differs, as a part of it, from a hill that is smooth over the whole of what is lit."""
    lit = light > _LIT * np.percentile(light, 98)
    y, x = (place / max(light.shape) - 0.5 for place in np.indices(light.shape))
    hill = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)[lit]
    logarithm = np.log(light[lit])
    off = logarithm - logarithm.mean()
    for _ in range(_ROUNDS):  # without the rim of what the mirrors light, which is no part of the hill
        kept = np.abs(off - np.median(off)) < _RIM * spread(off)
        found, *_ = np.linalg.lstsq(hill[kept], logarithm[kept])
        off = logarithm - hill @ found
    return spread(off)


def spread(values: Floats) -> float:
    """Standard deviation of most of them."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _low_mean(values: Floats) -> float:
    """The mean without the largest hundredth."""
    return float(values[values <= np.percentile(values, 99)].mean())
