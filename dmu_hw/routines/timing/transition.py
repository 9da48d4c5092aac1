"""From one pattern to the next: what light came when, told by exposures that cover some of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_GRID, _BEGINS = 9, 6
_FULL = 0.01
"""Part of the light that may be lacking where nothing is."""
_ALIKE = 0.05
"""Of the contrast of two patterns by which light that counts as the same may differ."""
_FLICKER = 2e-3
"""Part by which light is taken to differ from exposure to exposure: long ones say less of short times."""


@dataclass(frozen=True)
class Rates:
    """Light a millisecond of the pixels that only the pattern before lights, and of those that only the one after
    does: (before, after)."""

    before: tuple[float, float]
    """While the pattern before stands."""
    dark: tuple[float, float]
    after: tuple[float, float]


@dataclass(frozen=True)
class Exposures:
    """What was gathered between two moments, in milliseconds after the step; if it is not known when the camera
    answers, `start_ms` is when it was asked to."""

    start_ms: Floats
    stop_ms: Floats
    light: Floats
    """(group, exposure)."""
    floats: bool
    """Whether the moments are all late by one time that is to be found, and begin while another pattern comes."""


@dataclass(frozen=True)
class Transition:
    """Dark from the step on, then something in between, then the new pattern."""

    late_ms: float
    """The camera begins so long after it was asked to; 0 where that is not to be found."""
    dark_ms: float
    settle_ms: float
    """From the step until the new pattern stands."""
    error_ms: float
    """Standard error of `settle_ms`."""
    late_error_ms: float
    residual: float
    """Root mean square of what is not explained, in units of what noise and jitter would give."""
    fitted: Floats
    """(group, exposure)."""


def transition(seen: Exposures, rates: Rates, longest_ms: float, jitter_ms: float = 0.0) -> Transition:
    """The one that explains best what was gathered; none of its times is longer than `longest_ms`. `jitter_ms` is the
    standard deviation of the camera's answer."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - slow to load

    if _stands_at_once(seen, rates):
        return Transition(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, seen.light)
    noise = _noise(seen, rates)[:, None] + _FLICKER * np.abs(seen.light)
    fit = _Fit(seen, rates, _whitening(noise, np.zeros_like(noise)))
    low, high = np.zeros(2 + seen.floats), np.full(2 + seen.floats, longest_ms)

    def best(fit: _Fit, begins: list[Floats]) -> Any:
        found = [
            least_squares(fit.residuals, np.clip(begin, 1e-6, longest_ms), bounds=(low, high), x_scale=longest_ms / 50)
            for begin in begins
        ]
        return min(found, key=lambda one: one.cost)

    found = best(fit, fit.coarse(longest_ms))
    if jitter_ms > 0:  # how an exposure that is late differs is known only when the transition is
        fit = _Fit(seen, rates, _whitening(noise, fit.slopes(found.x) * jitter_ms))
        found = best(fit, [found.x])
    times = found.x
    late_ms = float(times[2]) if seen.floats else 0.0
    fitted = fit.explained(times)
    residual = float(np.sqrt(np.mean(found.fun**2)))
    alike = fit.as_good_as_after(times)
    settle_error, late_error = _errors(np.asarray(found.jac), found.fun, alike=alike)
    settle_ms = float(times[0] if alike else times[:2].sum())
    return Transition(late_ms, float(times[0]), settle_ms, settle_error, late_error, residual, fitted)


def _stands_at_once(seen: Exposures, rates: Rates) -> bool:
    """Whether no exposure was early enough to see anything but the new pattern."""
    full = rates.after[1] * (seen.stop_ms - seen.start_ms)
    return not seen.floats and bool(np.all(seen.light[1] > (1 - _FULL) * full))


@dataclass(frozen=True)
class _Fit:
    """What transitions would give, linear in what is not known of the light: that of the time in between, and what an
    exposure gathered before all this."""

    seen: Exposures
    rates: Rates
    whitening: Floats
    """(exposure, group, group)."""

    def residuals(self, times: Floats) -> Floats:
        return self._white(self.explained(times) - self.seen.light)

    def explained(self, times: Floats) -> Floats:
        """(group, exposure)."""
        known, columns = self._parts(self.seen, times)
        return known + self._unknown(times) @ columns

    def as_good_as_after(self, times: Floats) -> bool:
        """Whether the light of the time in between is that of the new pattern, so that its end cannot be told."""
        contrast = np.abs(np.subtract(self.rates.after, self.rates.before))
        return bool(np.all(np.abs(self._unknown(times)[:, 0] - self.rates.after) < _ALIKE * contrast))

    def slopes(self, times: Floats) -> Floats:
        """By how much exposures would gather more if they were later as a whole, (group, exposure)."""
        step_ms, unknown = 0.02 * max(float(times[:2].sum()), 1e-3), self._unknown(times)
        late, soon = (self._parts(self._moved(by), times) for by in (step_ms, -step_ms))
        slopes = (late[0] + unknown @ late[1] - soon[0] - unknown @ soon[1]) / (2 * step_ms)
        return slopes - np.array(self.rates.before)[:, None] if self.seen.floats else slopes

    def coarse(self, longest_ms: float) -> list[Floats]:
        """The best of a lattice of times, at which the exposures that there are can tell something: where a fit may
        begin, since it has hollows of its own beside the right one."""
        first_ms, last_ms = float(self.seen.stop_ms.min()), float(self.seen.stop_ms.max())
        if not self.seen.floats:
            first_ms, last_ms = 0.0, float(self.seen.start_ms.max())
        reach_ms = min(last_ms - first_ms, longest_ms)
        axes = [np.linspace(0, reach_ms, _GRID)] * 2
        if self.seen.floats:
            axes.append(np.linspace(max(0.0, -last_ms), min(longest_ms, -first_ms), 2 * _GRID))
        points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
        order = np.argsort([np.sum(self.residuals(point) ** 2) for point in points])
        return [points[place] for place in order[:_BEGINS]]

    def _moved(self, by_ms: float) -> Exposures:
        start_ms = self.seen.start_ms if self.seen.floats else self.seen.start_ms + by_ms
        return replace(self.seen, start_ms=start_ms, stop_ms=self.seen.stop_ms + by_ms)

    def _unknown(self, times: Floats) -> Floats:
        """(group, unknown): those that explain best, of those that can be."""
        known, columns = self._parts(self.seen, times)
        count = len(columns)
        design = np.einsum("egh,ue->eghu", self.whitening, columns).reshape(-1, 2 * count)
        found, *_ = np.linalg.lstsq(design, self._white(self.seen.light - known), rcond=1e-8)
        unknown: Floats = found.reshape(2, count)
        # no mirror between two states gives more light than either
        highest = np.maximum(self.rates.before, self.rates.after)
        unknown[:, 0] = np.clip(unknown[:, 0], np.minimum(self.rates.dark, highest), highest)
        return unknown

    def _parts(self, seen: Exposures, times: Floats) -> tuple[Floats, Floats]:
        """What is known of each exposure, (group, exposure), and what counts by what is not, (unknown, exposure)."""
        dark_ms, settle_ms = times[0], times[:2].sum()
        late_ms = times[2] if seen.floats else 0.0
        start_ms, stop_ms = seen.start_ms + late_ms, seen.stop_ms + late_ms
        phases = (
            (self.rates.before, -np.inf, 0.0),
            (self.rates.dark, 0.0, dark_ms),
            (self.rates.after, settle_ms, np.inf),
        )
        known = sum(np.outer(rate, _overlap(start_ms, stop_ms, low, high)) for rate, low, high in phases)
        between = _overlap(start_ms, stop_ms, dark_ms, settle_ms)
        columns = [between, np.ones_like(between)] if seen.floats else [between]
        return np.asarray(known), np.stack(columns)

    def _white(self, light: Floats) -> Floats:
        return np.asarray(np.einsum("egh,he->eg", self.whitening, light).ravel())


def _whitening(noise: Floats, jitter: Floats) -> Floats:
    """What turns deviations of (group, exposure) into numbers that vary alike, (exposure, group, group)."""
    covariance = np.einsum("gh,ge->egh", np.eye(len(noise)), noise**2) + np.einsum("ge,he->egh", jitter, jitter)
    return np.linalg.inv(np.linalg.cholesky(covariance))


def _overlap(start_ms: Floats, stop_ms: Floats, low_ms: float, high_ms: float) -> Floats:
    return np.asarray(np.clip(np.minimum(stop_ms, high_ms) - np.maximum(start_ms, low_ms), 0, None))


def _noise(seen: Exposures, rates: Rates) -> Floats:
    """Something small, so that no exposure is trusted without limit."""
    span_ms = float(np.ptp(np.concatenate([seen.start_ms, seen.stop_ms])))
    return 1e-3 * span_ms * np.array([rates.before[0], rates.after[1]])


def _errors(jacobian: Floats, residuals: Floats, *, alike: bool) -> tuple[float, float]:
    """Standard errors of when the pattern stands and of how late the camera is. When the dark ends may not be known at
    all: it is not told from a time in between that is nearly dark."""
    dark, between, *late = jacobian.T
    columns = [dark, *late] if alike else [between, *late, dark - between]
    slopes = np.stack([column for column in columns if np.linalg.norm(column) > 0], axis=1)
    free = max(1, residuals.size - jacobian.shape[1] - 4)
    covariance = np.linalg.pinv(slopes.T @ slopes, rcond=1e-12) * float(residuals @ residuals) / free
    return float(np.sqrt(covariance[0, 0])), float(np.sqrt(covariance[1, 1])) if late else 0.0
