"""What rounding to whole numbers does to noise.

Where the noise is larger than half a number, rounding adds 1/12 to its variance and nothing to its mean. Where it is
less, both depend on where between two numbers the mean lies.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_SURE = 0.6
"""Variance of numbers from where on 1/12 is all there is to say, to better than 1e-4."""
_EVEN = 0.7
"""Standard deviation of offsets from where on they lie everywhere between two whole numbers."""
_LEAST, _LEAST_ALIKE = 0.08, 0.2
"""Standard deviation of noise that is lost in rounding: of pixels whose offsets differ, and of those that are alike."""
_STEEP = 0.4
"""What is seen has to depend on the noise at least with this power of it."""
_MOST = 0.8
_PLACES = 201


def rounded(sigma: float) -> tuple[Floats, Floats, Floats]:
    """Where a mean lies between -½ and ½, and the mean and variance of whole numbers that noise makes of it."""
    from scipy.special import ndtr  # noqa: PLC0415 - loads slowly

    true = np.linspace(-0.5, 0.5, _PLACES)
    reach = int(np.ceil(6 * sigma)) + 1
    number = np.arange(-reach, reach + 1)
    edges = np.arange(-reach - 0.5, reach + 1)
    part = np.diff(ndtr((edges[:, None] - true) / sigma), axis=0)
    mean = number @ part
    return true, mean, number**2 @ part - mean**2


def variance_of_noise(means: Floats, variances: Floats, count: int) -> float | None:
    """The variance before rounding, from means and variances of so many frames of many pixels; None where the noise is
    lost in rounding."""
    seen = float(variances.mean())
    if seen > _SURE:
        return seen - 1 / 12
    if float(means.std()) > _EVEN:
        return _solved(_of_even_phases, seen, _LEAST)
    phase, share = _phases(means)
    return _solved(lambda sigma: _expected(sigma, phase, share, count), seen, _LEAST_ALIKE)


def _solved(expected: Callable[[float], float], seen: float, least: float) -> float | None:
    """The variance of the noise at which so much is to be expected."""
    if seen < expected(least):
        return None
    from scipy.optimize import brentq  # noqa: PLC0415 - loads slowly

    sigma = float(brentq(lambda trial: expected(trial) - seen, least, _MOST, xtol=1e-5))
    steepness = np.log(expected(1.05 * sigma) / expected(sigma)) / np.log(1.05)
    return sigma**2 if steepness > _STEEP else None


def mean_of_noise(means: Floats, variance: float | None) -> Floats:
    """What the means were before rounding; where the noise is lost nobody knows, and they are as good as any."""
    if variance is None or variance > _SURE:
        return means
    true, mean, _ = rounded(float(np.sqrt(variance)))
    whole = np.rint(means)
    return whole + np.interp(means - whole, mean, true)


def expected_variance(means: Floats, variance: float) -> Floats:
    """What the variance of rounded numbers is to be, for means before rounding."""
    if variance > _SURE:
        return np.full_like(means, variance + 1 / 12)
    true, _, spread = rounded(float(np.sqrt(variance)))
    return np.interp(means - np.rint(means), true, spread)


def _phases(means: Floats) -> tuple[Floats, Floats]:
    """Where pixels lie between two whole numbers, and which part of them."""
    counts, edges = np.histogram(means - np.rint(means), bins=2 * _PLACES, range=(-0.5, 0.5))
    return (edges[1:] + edges[:-1]) / 2, counts / counts.sum()


def _expected(sigma: float, phase: Floats, share: Floats, count: int) -> float:
    """The mean variance of pixels whose means were seen there. Means of few frames are noise themselves, which bends
    what is read off at them."""
    _, mean, variance = rounded(sigma)
    even = np.linspace(-0.5, 0.5, _PLACES)
    there = np.interp(even, mean, variance)
    bend = np.gradient(np.gradient(there, even), even)
    return float(share @ np.interp(phase, even, there - bend * there / (2 * count)))


def _of_even_phases(sigma: float) -> float:
    """The mean variance of pixels that lie everywhere between two whole numbers."""
    k = np.arange(1, 40)
    lost = np.exp(-((2 * np.pi * k * sigma) ** 2)) / (2 * (np.pi * k) ** 2)
    return sigma**2 + 1 / 12 - float(lost.sum())
