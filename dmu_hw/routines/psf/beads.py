"""Beads that lie alone: where they are, how wide their light is, how bright they are in each frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.routines.psf.shapes import Float64Array, Shape

_SMOOTH_PX = 1.5
_NOISES = 12.0
_DIM = 0.05
"""Of the brightest bead: dimmer ones are not used."""
_NEIGHBOUR = 0.04
"""Of a bead: what is brighter near by spoils it."""
_GRAIN = 0.01
"""Pixels answer that much more or less."""
_WIDEST = 4.0
"""And narrowest, as a part of what is believed."""


def lonely(light: Float64Array, good: BoolArray, reach_px: int, most: int) -> NDArray[np.int64]:
    """Rows and columns (bead, 2) of the brightest spots that lie alone, well inside the frame."""
    from scipy.ndimage import gaussian_filter, maximum_filter  # noqa: PLC0415 - takes a while to load

    smooth = gaussian_filter(np.where(good, light, np.median(light)), _SMOOTH_PX)
    smooth -= np.median(smooth)
    noise = 1.4826 * float(np.median(np.abs(smooth)))
    peaks = smooth == maximum_filter(smooth, 3)
    bright = float(np.max(smooth, initial=0.0))
    far = reach_px + 1
    places = np.argwhere(peaks & (smooth > max(_NOISES * noise, _DIM * bright)))
    places = places[np.argsort(-smooth[tuple(places.T)], kind="stable")]
    chosen = []
    others = np.where(peaks, smooth, 0.0)
    for row, column in places:
        inside = far <= row < light.shape[0] - far and far <= column < light.shape[1] - far
        around = others[max(0, row - far) : row + far + 1, max(0, column - far) : column + far + 1]
        alone = np.count_nonzero(around > _NEIGHBOUR * smooth[row, column] + 4 * noise) == 1
        if inside and alone:
            chosen.append((row, column))
    return np.array(chosen[:most], dtype=np.int64).reshape(-1, 2)


def patches(frame: Float64Array, places: NDArray[np.int64], reach_px: int) -> Float64Array:
    """(bead, y, x) round each."""
    span = np.arange(-reach_px, reach_px + 1)
    return np.asarray(frame[places[:, 0, None, None] + span[:, None], places[:, 1, None, None] + span[None, :]])


@dataclass(frozen=True)
class Bead:
    """One bead, as its patch was fitted: place in pixels from the middle of the patch."""

    x_px: float
    y_px: float
    width_px: float
    light: float
    residual: float
    """Root mean square, as a part of the brightest pixel."""


def fitted_bead(patch: Float64Array, good: BoolArray, gain: float, shape: Shape, bead_px: float) -> Bead | None:
    """None: it is no single bead."""
    from scipy.optimize import least_squares  # noqa: PLC0415 - takes a while to load

    reach = patch.shape[0] // 2
    y, x = (offset[good].astype(np.float64) for offset in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    seen = patch[good]
    border = np.maximum(np.abs(x), np.abs(y)) >= reach - 1
    floor = float(np.median(seen[border]))
    variance = float(np.var(seen[border])) + gain * (seen - floor).clip(0) + (_GRAIN * (seen - floor)) ** 2
    root = 1 / np.sqrt(variance + 1e-9)

    def model(given: Float64Array) -> tuple[Float64Array, Float64Array]:
        values = shape.point(x - given[0], y - given[1], shape.width_px * math.exp(given[2]), bead_px)
        design = np.stack([values, np.ones_like(values)], axis=1) * root[:, None]
        parts = np.linalg.lstsq(design, seen * root, rcond=None)[0]
        return np.asarray(design @ parts - seen * root), np.asarray(parts)

    def left_over(given: Float64Array) -> Float64Array:
        return model(given)[0]

    weight = (seen - floor).clip(0) * (np.hypot(x, y) <= reach / 2 + 1)
    if not weight.sum() > 0:
        return None
    start = [float((weight * x).sum() / weight.sum()), float((weight * y).sum() / weight.sum()), 0.0]
    limits = [reach / 2, reach / 2, math.log(_WIDEST)]
    start = [min(max(value, -0.9 * limit), 0.9 * limit) for value, limit in zip(start, limits, strict=True)]
    found: Any = least_squares(left_over, np.array(start), bounds=([-each for each in limits], limits))
    left, parts = model(found.x)
    if not found.success or not parts[0] > 0 or abs(found.x[2]) > 0.98 * limits[2]:
        return None
    width_px = shape.width_px * math.exp(found.x[2])
    brightest = float(parts[0] * shape.point(np.zeros(1), np.zeros(1), width_px, bead_px)[0])
    residual = float(np.sqrt(np.mean((left / root) ** 2))) / brightest
    return Bead(float(found.x[0]), float(found.x[1]), width_px, float(parts[0]), residual)


def lights(stack: Float64Array, good: BoolArray, bead: Bead, shape: Shape, bead_px: float) -> Float64Array:
    """How bright a bead is in each patch of a stack (frame, y, x)."""
    reach = stack.shape[-1] // 2
    y, x = (offset[good].astype(np.float64) for offset in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    values = shape.point(x - bead.x_px, y - bead.y_px, bead.width_px, bead_px)
    root = 1 / np.sqrt(values + 0.05 * values.max())
    design = np.stack([values, np.ones_like(values)], axis=1) * root[:, None]
    return np.asarray(np.linalg.lstsq(design, (stack[:, good] * root).T, rcond=None)[0][0])


def unbleached(light: Float64Array, repeats: int) -> tuple[Float64Array, float]:
    """Light of beads (bead, all on, half as long, each pattern, all on at the end) as if none of it had bleached them;
    and what is left at the end. Dose is counted in frames with all mirrors on."""
    first, last = light[:, 0], light[:, -1]
    shares = (light[:, 2:-1] / first[:, None]).clip(0, 1)
    taken = 1.5 * repeats + np.cumsum(shares, axis=1)
    before = np.full((len(light), 2), [0.5 * repeats, 1.25 * repeats])
    dose = np.concatenate([before, taken - shares / 2, taken[:, -1:] + 0.5 * repeats], axis=1)
    rate = np.log((last / first).clip(0.01, 2)) / (dose[:, -1] - dose[:, 0])
    return light * np.exp(-rate[:, None] * (dose - dose[:, :1])), float(np.median(last / first))
