"""From readings to a curve: the simplest of several that are as good as any."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dmu_hw.routine import Evidence, FitError

Floats = NDArray[np.float64]
Model = Callable[[Floats], Floats]
MISFIT = 0.01
"""Beyond it no smooth curve is believed, and the table holds the points themselves."""
_LEAST_NOISE = 5e-4
"""Of readings, as a part of them: so good is no meter."""
_SEEN = 10.0
"""Highest reading against the noise in the dark: less is no light."""
_ORDERS = range(1, 6)
_TABLE = 129
_RISES = 0.02
"""Where the power rises by less than this part of its mean rise, more of a setting is of no use."""


@dataclass(frozen=True)
class Points:
    """Means of readings going up and down, with the dark taken off; settings rise."""

    settings_mw: Floats
    power: Floats
    noise: Floats
    """What chance may do to the power."""
    flicker: float
    lost: float
    """What of it was lost from going up to going down, as a part of it: to bleaching, or a light that tires."""


@dataclass(frozen=True)
class Fitted:
    """A smooth curve through points."""

    threshold_mw: float
    model: Model
    misfit: float
    """Root mean square of what is left beyond noise, as a part of the power, where there is a fair part of it."""


def points_of(evidence: Evidence) -> Points:
    """FitError: whatever the light is told, it is as dark as without it."""
    read, told = evidence.arrays["read"].astype(np.float64), evidence.arrays["settings_mw"].astype(np.float64)
    dark = evidence.arrays["dark"].astype(np.float64)
    read = read - dark.mean()
    half = len(told) // 2
    up, down = read[:half].mean(axis=1), read[half:][::-1].mean(axis=1)
    settings_mw = told[:half]
    # of light that bleaches on the way, the product of what it was going up and going down is the same for all
    both = np.sqrt(np.maximum(up, 0) * np.maximum(down, 0))
    power = np.where((up > 0) & (down > 0), both, (up + down) / 2)
    count = 2 * read.shape[1]
    floor = float(dark.std()) + 1e-12
    bright = power > power.max() / 4
    if power.max() < _SEEN * floor or power.max() <= 0:
        raise FitError(
            "whatever the light is told, nothing comes of it: is it on, is the way to meter or camera free, and does "
            "an even layer of dye lie there if no meter does?"
        )
    scatter = np.concatenate([read[:half][bright], read[half:][::-1][bright]], axis=1)
    # bleaching between going up and down is no flicker
    scatter = scatter / np.repeat(np.stack([up, down], axis=1)[bright], read.shape[1], axis=1)
    flicker = float(np.sqrt(np.mean(scatter.var(axis=1)) * count / max(1, count - 2)))
    lost = float(1 - np.median((down / up)[bright]))
    noise = np.sqrt((floor**2 + (max(flicker, _LEAST_NOISE) * power) ** 2) / count + floor**2 / dark.size)
    return Points(settings_mw, power, noise, flicker, lost)


def fitted(points: Points) -> Fitted:
    """Through points, by the measure of their noise and of how many numbers a curve has to choose."""
    x, y, noise = points.settings_mw, points.power, points.noise

    def cost(curve: _Polynomial | _Saturating) -> float:
        return float(np.sum(((y - curve(x)) / noise) ** 2)) + curve.parameters * float(np.log(x.size))

    polynomials = list(_polynomials(points))
    curves: list[_Polynomial | _Saturating] = [*polynomials]
    curves += _saturating(points, {polynomial.threshold_mw for polynomial in polynomials})
    curve = min(curves, key=cost)
    fair = y > y.max() / 20
    left, chance = ((values / y)[fair] for values in (y - curve(x), noise))
    misfit = float(np.sqrt(max(0.0, np.mean(left**2) - np.mean(chance**2))))
    return Fitted(curve.threshold_mw, curve, misfit)


def table(points: Points, found: Fitted) -> tuple[Floats, Floats]:
    """Settings and powers, up to where more of a setting gives no more power."""
    top_mw = float(points.settings_mw[-1])
    if found.misfit > MISFIT:
        settings_mw = np.array([0.0, *points.settings_mw])
        power = np.array([0.0, *points.power])
    else:
        # closer together where little light is, since people want a tenth of it as exactly as all of it
        above = np.linspace(0, 1, _TABLE - 1) ** 1.5 * (top_mw - found.threshold_mw) + found.threshold_mw
        settings_mw = np.unique(np.array([0.0, *above]))
        power = found.model(settings_mw)
    power = np.maximum.accumulate(np.maximum(power, 0))
    rise = np.diff(power) / np.diff(settings_mw)
    end = int(np.flatnonzero(rise > _RISES * power[-1] / top_mw)[-1]) + 2
    return settings_mw[:end], power[:end]


@dataclass(frozen=True)
class _Polynomial:
    """Of what is above a threshold; nothing below it."""

    threshold_mw: float
    top_mw: float
    factors: tuple[float, ...]
    free: bool
    """Whether the threshold was chosen too."""

    @property
    def parameters(self) -> int:
        return len(self.factors) + self.free

    def __call__(self, settings_mw: Floats) -> Floats:
        return np.asarray(_powers(settings_mw, self.threshold_mw, self.top_mw, len(self.factors)) @ self.factors)


@dataclass(frozen=True)
class _Saturating:
    """Straight from a threshold, and less the more there is."""

    threshold_mw: float
    top_mw: float
    rise: float
    loss: float
    parameters: int = 3

    def __call__(self, settings_mw: Floats) -> Floats:
        above = np.maximum(settings_mw - self.threshold_mw, 0) / self.top_mw
        return np.asarray(self.rise * above / (1 + max(self.loss, -0.9) * above))


def _powers(settings_mw: Floats, threshold_mw: float, top_mw: float, order: int) -> Floats:
    above = np.maximum(settings_mw - threshold_mw, 0) / top_mw
    return np.asarray(above[:, None] ** np.arange(1, order + 1))


def _polynomials(points: Points) -> Iterator[_Polynomial]:
    """Of several orders, without a threshold and with the best."""
    from scipy.optimize import minimize_scalar  # noqa: PLC0415 - loads slowly

    x, y, noise = points.settings_mw, points.power, points.noise
    top_mw = float(x[-1])

    def polynomial(order: int, threshold_mw: float, *, free: bool) -> _Polynomial:
        design = _powers(x, threshold_mw, top_mw, order)
        factors, *_ = np.linalg.lstsq(design / noise[:, None], y / noise)
        return _Polynomial(threshold_mw, top_mw, tuple(factors.tolist()), free)

    # every point that the threshold passes is a kink in how well it fits: each span has a best place of its own
    edges = [0.0, *x[x < _dim_mw(points)], _dim_mw(points)]
    for order in _ORDERS:
        yield polynomial(order, 0.0, free=False)

        def off(threshold_mw: float, order: int = order) -> float:
            return float(np.sum(((y - polynomial(order, threshold_mw, free=True)(x)) / noise) ** 2))

        tries = [minimize_scalar(off, bounds=span, method="bounded") for span in pairwise(edges)]
        yield polynomial(order, float(min(tries, key=lambda tried: float(tried.fun)).x), free=True)


def _saturating(points: Points, starts_mw: Iterable[float]) -> Iterator[_Saturating]:
    from scipy.optimize import least_squares  # noqa: PLC0415 - loads slowly

    x, y, noise = points.settings_mw, points.power, points.noise
    top_mw, highest = float(x[-1]), float(y.max())

    def off(given: Floats) -> Floats:
        return np.asarray((y - _Saturating(given[0] * top_mw, top_mw, given[1] * highest, given[2])(x)) / noise)

    for start_mw in starts_mw:
        threshold, rise, loss = least_squares(off, np.array([start_mw / top_mw, 1.0, 0.1])).x
        if 0 <= threshold * top_mw <= _dim_mw(points):
            yield _Saturating(float(threshold) * top_mw, top_mw, float(rise) * highest, float(loss))


def _dim_mw(points: Points) -> float:
    """A setting from which surely some light comes."""
    return float(points.settings_mw[np.flatnonzero(points.power > points.power.max() / 10)[0]])
