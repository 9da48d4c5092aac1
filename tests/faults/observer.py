"""Who could tell more than the judge: an oracle that knows the specimen, and an observer that knows its kind.

Both know the optics, the patterns of this upload and of the one before, and which faults there can be. The oracle also
knows each picture, how the specimen moves and bleaches, and the camera's faults: nobody can tell more than it. The
observer has seen other specimens of the same kind under the same patterns. To it a window of a few camera pixels is
drawn from one of a few normal distributions, dark to bright, over all that its pixels may show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from lightbench import BELIEF, DARK, MARKER, STALE, LightBench

Array = np.ndarray[Any, Any]
SIDE = 2
"""Of a window, in camera pixels."""
CLASSES = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)
"""Parts of all windows, by their light."""
_PIXELS = SIDE**2
_NOISE = BELIEF.sensor.read_noise_e**2 + 1 / (12 * BELIEF.sensor.gain_adu_per_e**2)


def electrons_of(frames: Sequence[Array]) -> Array:
    return np.asarray((np.stack(frames).astype(float) - BELIEF.sensor.offset_adu) / BELIEF.sensor.gain_adu_per_e)


def energy_of(bench: LightBench, electrons: float) -> float:
    return electrons / (BELIEF.sensor.quantum_efficiency * bench.photons_of_full)


def orders(count: int) -> list[list[int]]:
    """What may be shown in a burst in which one thing went wrong."""
    right, each = [*range(count), MARKER], range(count)
    changed = [(place, what) for place in each for what in (DARK, *each) if what != place]
    wrong = [[*right[:place], what, *right[place + 1 :]] for place, what in changed]
    wrong += [[*(STALE - 1 - pattern for pattern in each), STALE], [*right[1:], right[0]]]
    wrong += [[*right[: place + 1], *right[place:-1]] for place in each]
    wrong += [[*right[:place], *right[place + 1 :], DARK] for place in each]
    wrong += [[*((pattern + shift) % count for pattern in each), MARKER] for shift in range(1, count)]
    for one in each:
        for other in range(one + 1, count):
            swapped = right.copy()
            swapped[one], swapped[other] = other, one
            wrong.append(swapped)
    return wrong


def oracle(bench: LightBench, frames: Sequence[Array], electrons: float) -> float:
    """By how much the best of all wrong orders explains a burst better than the right one."""
    energy, seen, count = energy_of(bench, electrons), electrons_of(frames), bench.count
    table: dict[tuple[int, int], float] = {}

    def fit(order: list[int]) -> float:
        for moment, what in enumerate(order):
            if (moment, what) not in table:
                first, last = bench._picture(what)
                mean = bench._electrons(first + (last - first) * moment / count, energy)
                variance = mean + _NOISE
                table[moment, what] = float(-((seen[moment] - mean) ** 2 / variance + np.log(variance)).sum() / 2)
        return sum(table[place] for place in enumerate(order))

    return max(map(fit, orders(count))) - fit([*range(count), MARKER])


@dataclass(frozen=True, eq=False)
class _Class:
    """Windows of about the same light: how many, and what all their pixels show in every picture at the middle of a
    burst, and by how much that changes until its end."""

    part: float
    mean: Array
    covariance: Array
    borders: tuple[float, float]
    """Variance of what blur does to a marker, in pixels that have only their likes beside them, and in others."""


class Observer:
    """Has seen `benches`: other specimens under the same patterns and markers."""

    def __init__(self, benches: Sequence[LightBench]) -> None:
        marker, old = benches[0].marker, benches[0].old
        self.count = count = marker.stack.count
        self.pictures = [*range(count), DARK, *(STALE - 1 - pattern for pattern in range(count))]
        self.codes = {MARKER: marker.codes, STALE: np.where(old.codes == count, count, old.codes + count + 1)}
        self.hot = float(np.mean([bench.hot_e.mean() for bench in benches]))
        self.hot_variance = float(np.mean([bench.hot_e.var() for bench in benches]))
        seen, lost = zip(*map(self._seen, benches), strict=True)
        self.classes = list(self._classes(np.concatenate(seen), np.concatenate(lost)))

    def _seen(self, bench: LightBench) -> tuple[Array, Array]:
        """Windows at every place, (window, value), and (window, whether at a border, …) of what blur does to them."""
        scale = BELIEF.sensor.quantum_efficiency * bench.gain
        first, last = (scale * np.array([bench._picture(what)[i] for what in self.pictures]) for i in (0, 1))
        values = np.concatenate([(first + last) / 2, last - first])
        mosaic = np.take_along_axis(first, self.codes[MARKER][None], axis=0)[0]
        off = (scale * bench._picture(MARKER)[0] - mosaic) ** 2
        edge = _edges(self.codes[MARKER])
        both = np.stack([off * ~edge, ~edge, off * edge, edge])
        corners = [(y, x) for y in range(SIDE) for x in range(SIDE)]

        def everywhere(of: Array) -> Array:
            return np.concatenate([_windows(of[:, y:, x:]).reshape(-1, len(of) * _PIXELS) for y, x in corners])

        return everywhere(values), everywhere(both)

    def _classes(self, values: Array, lost: Array) -> Iterator[_Class]:
        order = np.argsort(values[:, : self.count * _PIXELS].mean(axis=1))
        for low, high in pairwise(CLASSES):
            some = order[int(low * len(order)) : int(high * len(order))]
            inner, inners, outer, outers = lost[some].reshape(len(some), 4, _PIXELS).sum(axis=(0, 2))
            borders = (float(inner / max(inners, 1)), float(outer / max(outers, 1)))
            yield _Class(high - low, values[some].mean(axis=0), np.cov(values[some].T), borders)

    def fit(self, frames: Sequence[Array], order: list[int], energy: float) -> float:
        """Log-likelihood of a burst in which that was shown."""
        seen = _windows(electrons_of(frames))
        whole = [moment for moment, what in enumerate(order) if what not in self.codes]
        mixed = [moment for moment, what in enumerate(order) if what in self.codes]
        known = [self._rows(moment, self.pictures.index(order[moment])) for moment in whole]
        sought = [self._rows(moment, picture) for moment in mixed for picture in range(len(self.pictures))]
        parts = [
            np.log(part.part)
            + self._explained(part, np.concatenate([*known, *sought]), seen, (whole, mixed), order, energy)
            for part in self.classes
        ]
        return float(np.logaddexp.reduce(parts).sum())

    def _rows(self, moment: int, picture: int) -> Array:
        """What a picture shows at a moment, out of the values of a window."""
        values, each = 2 * len(self.pictures) * _PIXELS, np.arange(_PIXELS)
        rows = np.zeros((_PIXELS, values))
        rows[each, picture * _PIXELS + each] = 1
        rows[each, (len(self.pictures) + picture) * _PIXELS + each] = moment / self.count - 0.5
        return rows

    def _explained(
        self,
        part: _Class,
        rows: Array,
        seen: Array,
        moments: tuple[list[int], list[int]],
        order: list[int],
        energy: float,
    ) -> Array:
        """Of each window: of the frames, and of the marker as far as the frames tell it."""
        whole, mixed = moments
        mean = energy * (rows @ part.mean) + self.hot
        covariance = energy**2 * (rows @ part.covariance @ rows.T)
        covariance += self.hot_variance * np.tile(np.eye(_PIXELS), (len(rows) // _PIXELS,) * 2)
        noise, told = np.maximum(mean, 0) + _NOISE, len(whole) * _PIXELS
        frames = seen[:, whole].reshape(len(seen), told)
        lower = np.linalg.cholesky(covariance[:told, :told] + np.diag(noise[:told]))
        white = np.linalg.solve(lower, (frames - mean[:told]).T)
        fit = -(white**2).sum(axis=0) / 2 - np.log(np.diagonal(lower)).sum() - told / 2 * np.log(2 * np.pi)
        if not mixed:
            return np.asarray(fit)
        gain = np.linalg.solve(lower, covariance[:told, told:])
        expected = mean[told:, None] + gain.T @ white
        left = covariance[told:, told:] - gain.T @ gain
        codes = np.stack([_windows(self.codes[order[moment]]) for moment in mixed], axis=1)
        edges = np.stack([_windows(_edges(self.codes[order[moment]])) for moment in mixed], axis=1).reshape(
            len(seen), -1
        )
        shown = np.arange(len(mixed))[:, None] * len(self.pictures) + codes
        place = (shown * _PIXELS + np.arange(_PIXELS)).reshape(len(seen), -1)
        missed = seen[:, mixed].reshape(len(seen), -1) - expected[place, np.arange(len(seen))[:, None]]
        spread, each = left[place[:, :, None], place[:, None, :]], np.arange(place.shape[1])
        spread[:, each, each] += noise[told:][place] + energy**2 * np.array(part.borders)[edges.astype(int)]
        lower = np.linalg.cholesky(spread)
        white = np.linalg.solve(lower, missed[:, :, None])[:, :, 0]
        fit = fit - (white**2).sum(axis=1) / 2 - np.log(lower[:, each, each]).sum(axis=1)
        return np.asarray(fit - len(each) / 2 * np.log(2 * np.pi))


def _windows(pictures: Array) -> Array:
    """(…, y, x) → (window, …, pixel)."""
    rows, columns = pictures.shape[-2] // SIDE, pictures.shape[-1] // SIDE
    cut = pictures[..., : rows * SIDE, : columns * SIDE]
    split = np.moveaxis(cut.reshape(*cut.shape[:-2], rows, SIDE, columns, SIDE), -3, -2)
    return np.asarray(np.moveaxis(split.reshape(*cut.shape[:-2], rows * columns, _PIXELS), -2, 0))


def _edges(codes: Array) -> Array:
    """Pixels that have others beside them than their likes."""
    edges = np.zeros(codes.shape, dtype=bool)
    for axis in (0, 1):
        step = np.diff(codes, axis=axis) != 0
        for ahead in (0, 1):
            edges |= np.pad(step, [(ahead, 1 - ahead) if side == axis else (0, 0) for side in (0, 1)])
    return edges
