"""Fringes on whatever specimen is there: their phase tells where the mirrors' light falls, their contrast how sharp.

Three directions, three steps of each. In the sum over a field of (light × the fringe that is believed there), what the
specimen looks like drops out: it weighs all steps alike. The phase of that sum against the one that the mirrors
themselves have, by the believed map, is the shift of mirrors against camera; its size, against all the light, is what
both lenses leave of the contrast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Float32Array, PatternStack, Uint16Array
from dmu_hw.marker import Readings, transfer
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.warp import Pair

Array = NDArray[np.float64]
Matrix = tuple[Pair, Pair]
STEPS = 3
_ANGLES_DEG = (29.4, 100.4, 157.0)
"""Along no row of mirrors or pixels: what rounding to whole mirrors does to an edge is undone by the next one."""
_PERIODS = (1.0, 1.244, 1.259)
"""Of the directions, in those of the first: whole fringes in one are none in the others, up to two of them."""
_PERIOD_PX, _PERIOD_MIRRORS = 8.0, 6.0
"""Fringes are no finer than so many camera pixels, and mirrors."""
_CONTRAST = 0.6
"""What lenses in focus leave of the contrast of fringes, at least."""
_TILE_PERIODS = 12
"""Along a side of what is repeated over the field."""
_COARSEST = 8.0
"""Times the finest, however much the lenses blur."""
_BLOCKS = 4
"""Along a side of the field."""
_DARK = 3
"""Frames with all mirrors off behind the fringes: what no mirror sends, and the camera's offset, are in these too."""
_FOLDS = 2
"""Whole fringes that a shift may have, either way."""
_FIT = 0.02
"""Root mean square in fringes by which the directions may contradict one another."""
_SURE = 5.0


@dataclass(frozen=True)
class Place:
    """Where the mirrors' light falls, against where it is believed to."""

    shift_um: Pair
    """In the middle of the field."""
    error_um: float
    matrix: Matrix = ((0.0, 0.0), (0.0, 0.0))
    """How the shift grows from the middle, in µm per µm; 0 where that is no more than noise."""

    def at(self, x_um: float, y_um: float) -> Pair:
        """The shift so far from the middle of the field."""
        (a, b), (c, d) = self.matrix
        return self.shift_um[0] + a * x_um + b * y_um, self.shift_um[1] + c * x_um + d * y_um

    def largest_um(self, size_um: Pair) -> float:
        """In all of a field."""
        corners = product((-size_um[0] / 2, size_um[0] / 2), (-size_um[1] / 2, size_um[1] / 2))
        return max(float(np.hypot(*self.at(x, y))) for x, y in corners)


@dataclass(frozen=True)
class Sight:
    """What one look found."""

    place: Place | None
    why: str = ""
    """Why it does not tell the place."""
    contrast: float = 0.0
    """Of the fringes, against that of the mirrors: 1 is perfectly sharp."""
    contrast_error: float = 0.0
    light: float = 0.0
    """In electrons; 0 where there is too little."""
    light_error: float = 0.0


@dataclass(frozen=True, eq=False)
class Fringes:
    """The frames of a look, and what they are read by."""

    stack: PatternStack
    waves: tuple[Pair, ...]
    """Fringes per object pixel along x and y, one for each direction."""
    readings: Readings

    @classmethod
    def of(cls, optics: Optics, pixel_px: int, readings: Readings) -> Fringes:
        """`pixel_px` is the side of the camera's pixels in object pixels."""
        period_px = _period_px(optics, pixel_px)
        side = -(-round(_TILE_PERIODS * period_px) // pixel_px) * pixel_px
        shape = side, side
        waves = _waves(side, period_px)
        y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
        phases = [(along * x + down * y) - step / STEPS for along, down in waves for step in range(STEPS)]
        masks = np.cos(2 * np.pi * np.array(phases)) > 0
        masks = np.concatenate([masks, np.zeros((_DARK, *shape), dtype=bool)])
        return cls(PatternStack("fringes", masks, pixel_px), waves, readings)

    @property
    def period_px(self) -> float:
        """Of the finest fringes, in object pixels."""
        return float(1 / max(np.hypot(*wave) for wave in self.waves))

    # ---------------------------------------------------------------- reading

    def read(self, frames: Uint16Array, told: Told, optics: Optics, corner_um: Pair) -> Sight:
        """What frames (pattern, y, x) of a field say, against what the mirrors were told to show; `corner_um` is that
        of the field's first pixel."""
        dark = self._dark(frames[-_DARK:])
        side_um = self.stack.camera_pixel * optics.object_pixel_um
        pixels = _Pixels.of(frames.shape[1:], side_um, optics, corner_um)
        found = [self._direction(number, frames, dark, pixels, told, optics) for number in range(len(self.waves))]
        level = sum(each.light for each in found)
        of_dark = float(dark.variance.sum(dtype=np.float64)) * (STEPS * len(self.waves)) ** 2
        doubt = float(np.sqrt(sum(each.variance for each in found) + of_dark))
        if level <= _SURE * doubt:
            return Sight(None, "there is too little light to tell")
        place = _placed(np.array(self.waves) / optics.object_pixel_um, found, pixels.middle_um)
        whole = [each.whole for each in found]
        return Sight(
            place if isinstance(place, Place) else None,
            place if isinstance(place, str) else "",
            float(np.mean([each.contrast for each in whole])),
            float(np.sqrt(np.mean([each.contrast_error**2 for each in whole]) / len(whole))),
            level,
            doubt,
        )

    def _variance(self, adu: Any) -> Any:
        """Of what the camera gives, in electrons²."""
        readings, gain = self.readings, self.readings.gain_adu_per_e
        return np.maximum(adu - np.float32(readings.offset_adu), 0) / gain + readings.read_variance / gain**2

    def _dark(self, frames: Uint16Array) -> _Dark:
        mean = frames.mean(axis=0, dtype=np.float32)
        return _Dark(mean, np.asarray(self._variance(mean) / len(frames), dtype=np.float32))

    def _direction(
        self, number: int, frames: Uint16Array, dark: _Dark, pixels: _Pixels, told: Told, optics: Optics
    ) -> _Direction:
        adu = frames[number * STEPS : (number + 1) * STEPS].astype(np.float32)
        noise = np.asarray(self._variance(adu), dtype=np.float32).sum(axis=0)
        light = (adu - dark.mean) / np.float32(self.readings.gain_adu_per_e)
        turns = np.exp(2j * np.pi * np.arange(STEPS) / STEPS)
        along, down = (wave / optics.object_pixel_um for wave in self.waves[number])
        turning = pixels.wave(along, down) * np.tensordot(turns.astype(np.complex64), light, axes=1)
        seen = _Seen(turning, light.sum(axis=0), noise, noise + STEPS**2 * dark.variance, pixels)
        blocks = [seen.part(at, told.phasors[number][block]) for block, at in pixels.blocks()]
        whole = seen.part((slice(None), slice(None)), told.phasors[number].sum(axis=(0, 1)))
        sums = float(light.sum(dtype=np.float64)), float(noise.sum(dtype=np.float64))
        return _Direction(whole, blocks, *sums)

    def told(self, mirrors: BoolArray, optics: Optics, corner_um: Pair, size_um: Pair) -> Told:
        """What its frames say where they are shown perfectly: `mirrors` are their states (pattern, row, column), and
        `optics` those by which the mirrors are believed to lie."""
        rows, columns = optics.mirrors.shape
        column, row = np.arange(columns) + 0.5 - columns / 2, np.arange(rows) + 0.5 - rows / 2
        x_um, y_um = np.broadcast_arrays(*optics.mirrors.to_sample.apply(column[None, :], row[:, None]))
        x_um, y_um = x_um - corner_um[0], y_um - corner_um[1]
        inside = (x_um > 0) & (x_um < size_um[0]) & (y_um > 0) & (y_um < size_um[1])
        x_um, y_um, on = x_um[inside], y_um[inside], mirrors[:, inside]
        block = (y_um * _BLOCKS / size_um[1]).astype(int) * _BLOCKS + (x_um * _BLOCKS / size_um[0]).astype(int)
        turns = np.exp(2j * np.pi * np.arange(STEPS) / STEPS)
        found = np.zeros((len(self.waves), _BLOCKS, _BLOCKS, 2), dtype=np.complex128)
        for number, (along, down) in enumerate(self.waves):
            own = on[number * STEPS : (number + 1) * STEPS]
            phase = (along * x_um + down * y_um) / optics.object_pixel_um
            turning = np.tensordot(turns, own, axes=1) * np.exp(-2j * np.pi * phase)
            for part, values in enumerate((turning, own.sum(axis=0))):
                real = np.bincount(block, np.real(values), _BLOCKS**2)
                found[number, :, :, part] = (real + 1j * np.bincount(block, np.imag(values), _BLOCKS**2)).reshape(
                    _BLOCKS, _BLOCKS
                )
        return Told(found)


@dataclass(frozen=True, eq=False)
class Told:
    """Fringes and light of the mirrors themselves."""

    phasors: NDArray[np.complex128]
    """(direction, block y, block x, of fringes and of all light)."""


# ---------------------------------------------------------------- making


def _period_px(optics: Optics, pixel_px: int) -> float:
    """As fine as camera, mirrors and lenses allow."""
    mirror_um = float(np.sqrt(optics.mirrors.area_um2 / np.prod(optics.mirrors.shape)))
    period_px = max(_PERIOD_PX * pixel_px, _PERIOD_MIRRORS * mirror_um / optics.object_pixel_um)
    coarsest_px = _COARSEST * period_px
    while _left(period_px * optics.object_pixel_um, optics) < _CONTRAST and period_px < coarsest_px:
        period_px *= 1.1
    return period_px


def _waves(side: int, period_px: float) -> tuple[Pair, ...]:
    """Whole numbers of fringes on a tile, so that they go on over the field."""
    found = []
    for angle_deg, factor in zip(_ANGLES_DEG, _PERIODS, strict=True):
        angle, wave = np.deg2rad(angle_deg), side / (period_px * factor)
        found.append((round(wave * np.cos(angle)) / side, round(wave * np.sin(angle)) / side))
    return tuple(found)


def _left(period_um: float, optics: Optics) -> float:
    frequency = np.array([1 / period_um])
    return float((transfer(optics.excitation, frequency) * transfer(optics.emission, frequency))[0])


# ---------------------------------------------------------------- what frames say


@dataclass(frozen=True, eq=False)
class _Pixels:
    """Where the pixels of a frame lie at the sample, from the corner of the field."""

    x_um: Array
    y_um: Array
    even: bool
    """In rows and columns: no lens bends them."""

    @classmethod
    def of(cls, shape: tuple[int, ...], side_um: float, optics: Optics, corner_um: Pair) -> _Pixels:
        y_um, x_um = (np.mgrid[: shape[0], : shape[1]] + 0.5) * side_um
        even = optics.sample_to_sensor.is_identity
        if not even:
            x, y = optics.sample_to_sensor.invert(x_um + corner_um[0], y_um + corner_um[1])
            x_um, y_um = x - corner_um[0], y - corner_um[1]
        return cls(x_um, y_um, even)

    def wave(self, along: float, down: float) -> NDArray[np.complex64]:
        """So many turns per µm."""
        if self.even:
            across, upright = np.exp(-2j * np.pi * along * self.x_um[0]), np.exp(-2j * np.pi * down * self.y_um[:, 0])
            return np.asarray(np.outer(upright, across), dtype=np.complex64)
        return np.asarray(np.exp(-2j * np.pi * (along * self.x_um + down * self.y_um)), dtype=np.complex64)

    @property
    def middle_um(self) -> Pair:
        return float(self.x_um.mean()), float(self.y_um.mean())

    def blocks(self) -> Sequence[tuple[tuple[int, int], tuple[slice, slice]]]:
        rows, columns = self.x_um.shape
        ys = [slice(rows * i // _BLOCKS, rows * (i + 1) // _BLOCKS) for i in range(_BLOCKS)]
        xs = [slice(columns * j // _BLOCKS, columns * (j + 1) // _BLOCKS) for j in range(_BLOCKS)]
        return [((i, j), (ys[i], xs[j])) for i, j in product(range(_BLOCKS), repeat=2)]


@dataclass(frozen=True)
class _Block:
    """A part of the field in one direction of the fringes."""

    turn: complex
    """Its light in fringes, against that of the mirrors; its angle is the shift."""
    error: float
    """Of the angle, in fringes."""
    contrast: float
    contrast_error: float
    x_um: float
    y_um: float
    """Where its light is."""

    @property
    def shift(self) -> float:
        """In fringes, up to whole ones."""
        return float(-np.angle(self.turn) / (2 * np.pi))


@dataclass(frozen=True, eq=False)
class _Seen:
    """The light of one direction in all pixels."""

    turning: NDArray[np.complex64]
    """In fringes."""
    mean: Float32Array
    """In all steps together."""
    noise: Float32Array
    mean_noise: Float32Array
    """Their variances."""
    pixels: _Pixels

    def part(self, at: tuple[slice, slice], told: Any) -> _Block:
        """Some pixels, against what the mirrors have there."""
        fringes, light = complex(self.turning[at].sum(dtype=np.complex128)), float(self.mean[at].sum(dtype=np.float64))
        doubt = float(np.sqrt(self.noise[at].sum(dtype=np.float64) / 2))
        light_doubt = float(np.sqrt(self.mean_noise[at].sum(dtype=np.float64)))
        fringe, lit = complex(told[0]), float(told[1].real)
        if not (light > 0 and abs(fringes) > 0 and abs(fringe) > 0):
            return _Block(0j, np.inf, 0.0, 1.0, 0.0, 0.0)
        contrast = abs(fringes) * lit / (abs(fringe) * light)
        error = float(np.hypot(doubt / abs(fringes), light_doubt / light))
        weight = np.maximum(self.mean[at], 0)
        x_um, y_um = (
            float((weight * place[at]).sum() / weight.sum()) for place in (self.pixels.x_um, self.pixels.y_um)
        )
        return _Block(fringes / fringe, doubt / (2 * np.pi * abs(fringes)), contrast, contrast * error, x_um, y_um)


@dataclass(frozen=True)
class _Direction:
    whole: _Block
    blocks: list[_Block]
    light: float
    variance: float
    """Of that, without what the dark has of it."""


@dataclass(frozen=True, eq=False)
class _Dark:
    """What comes without mirrors."""

    mean: Float32Array
    variance: Float32Array
    """Of the mean, in electrons²."""


def _placed(waves: Array, found: list[_Direction], middle_um: Pair) -> Place | str:
    """The smallest shift on which all directions agree, and how it changes over the field; or why there is none."""
    errors = np.array([each.whole.error for each in found])
    if not np.all(errors < 1 / (2 * np.pi * _SURE)):
        return "the fringes do not stand out of the noise"
    told = np.array([each.whole.shift for each in found])
    best: tuple[float, Array] | None = None
    for folds in product(range(-_FOLDS, _FOLDS + 1), repeat=len(told)):
        shift, *_ = np.linalg.lstsq(waves, told + folds, rcond=None)
        off = float(np.sqrt(np.mean((waves @ shift - told - folds) ** 2)))
        if off < _FIT + float(np.sqrt(np.mean(errors**2))) and (best is None or np.hypot(*shift) < best[0]):
            best = float(np.hypot(*shift)), np.asarray(shift)
    if best is None:
        return "the directions of the fringes contradict one another"
    return _spread(waves, found, best[1], middle_um)


def _spread(waves: Array, found: list[_Direction], shift: Array, middle_um: Pair) -> Place:
    """Shift and its slopes from all blocks, by weighted least squares."""
    lines, values, weights = [], [], []
    for wave, each in zip(waves, found, strict=True):
        expected = float(wave @ shift)
        for block in each.blocks:
            if block.error < 1 / (2 * np.pi * _SURE):
                x, y = block.x_um - middle_um[0], block.y_um - middle_um[1]
                lines.append([*wave, wave[0] * x, wave[0] * y, wave[1] * x, wave[1] * y])
                values.append(expected + (block.shift - expected + 0.5) % 1 - 0.5)
                weights.append(1 / block.error)
    if len(lines) < 2 * len(_ANGLES_DEG) * 3:  # light in few places: it tells of one shift, and of no slope
        error = _error(np.linalg.pinv(waves.T @ waves), float(np.mean([each.whole.error for each in found])))
        return Place((float(shift[0]), float(shift[1])), error)
    design, value, weight = np.array(lines), np.array(values), np.array(weights)
    fit, covariance = _fitted(design, value, weight)
    slopes = fit[2:]
    if float(slopes @ np.linalg.solve(covariance[2:, 2:], slopes)) < 2 * _SURE**2:
        fit, covariance = _fitted(design[:, :2], value, weight)
        slopes = np.zeros(4)
    a, b, c, d = map(float, slopes)
    error = float(np.sqrt(np.trace(covariance[:2, :2]) / 2))
    return Place((float(fit[0]), float(fit[1])), error, ((a, b), (c, d)))


def _error(covariance: Any, error: float) -> float:
    return float(np.sqrt(np.trace(covariance) / 2)) * error


def _fitted(design: Array, value: Array, weight: Array) -> tuple[Array, Array]:
    """Parameters and their covariance, as large as the residuals say if these are larger than noise."""
    scaled = design * weight[:, None]
    covariance = np.linalg.inv(scaled.T @ scaled)
    fit = covariance @ scaled.T @ (value * weight)
    rest = (value - design @ fit) * weight
    more = float(rest @ rest) / max(1, len(value) - design.shape[1])
    return fit, covariance * max(1.0, more)
