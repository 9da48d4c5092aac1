"""Do the frames of a burst vary together as light through their patterns must, whatever it falls on?

How alike two frames are follows from how their patterns overlap, and from how what is seen varies over a camera pixel:
finely or coarsely, along it or across. That is not known, but it is some mixture of a few shapes of all lengths and
directions, and the frames themselves tell which. Then they tell, too, whether they would vary together more likely if
two of them were swapped, or if one had the pattern of another, or none, or if all were of patterns of no order.

Only what frames share from pixel to pixel is asked, at each brightness by itself, so that it matters little what the
specimen is. Single objects may lie as they like: evidence must come from all over the field, and what it varies by
from block to block is taken off.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import PatternStack
from dmu_hw.marker import Readings

Array = NDArray[np.float64]
MOST_PATTERNS = 64
"""More are not asked: it would be too much work."""
_LENGTHS_PX = (0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 8.0)
"""Over which a specimen may vary along rows and along columns, in camera pixels…"""
_SLANTED_PX = (0.12, 0.5, 2.0, 8.0)
"""…and along diagonals."""
_FINEST = 16
"""Parts along a side of a camera pixel by which its patterns are compared."""
_LEVELS = (0.03, 0.1, 0.25, 0.5, 0.8)
"""Brightness from which pixels are looked at together, in that of the brightest."""
_STANDS_OUT = 5.0
"""Sigmas of noise over the darkest light from which a pixel is looked at."""
_DARKEST, _BRIGHTEST = 0.1, 0.995
_BACKGROUND = 1.5
"""How much more than the darkest light there may be that no pattern shapes, in that."""
_MODEL, _EVEN = 0.02, 0.05
"""Error of the signal, as a part of it; and by how much any frame may be brighter or darker than its pattern."""
_PIXELS = 2
"""Least number of pixels of one brightness, for each pattern."""
_BLOCKS = 4
"""Along a side of the field."""
_STEPS = 25
"""By which the mixture is found."""
_LIKES = 6
"""Of each frame; only these may have its pattern."""
_SIGMAS = 2.5
_SPEAKS = 3.0
"""Log-likelihood from which frames speak for a swap, though it may be uncertain."""


@dataclass(frozen=True, eq=False)
class Mistakes:
    """By how much, at least, the frames' log-likelihood is better if something went wrong."""

    swapped: Array
    """(frame, frame)"""
    spoken_for: NDArray[np.bool_]
    """(frame, frame): swapped, they look better at all."""
    repeated: Array
    """(frame, frame): the first has the pattern of the second; -inf where the two are unlike each other."""
    dark: tuple[int, float]
    """The frame that may have no pattern at all."""
    other: float
    """All have patterns that are as like each other as none of these."""


def mistakes(
    stack: PatternStack, patterns: list[int], light: NDArray[np.float32], shape: tuple[int, int], readings: Readings
) -> Mistakes | None:
    """Of frames of some of the patterns, (frame, pixel) over the camera's offset, of a field of that shape; None where
    they cannot tell."""
    count = len(patterns)
    if not 1 < count <= MOST_PATTERNS or stack.layout.phases != (1, 1):
        return None
    seen = _Seen.of(light.astype(np.float64), stack.masks[patterns].mean(axis=(1, 2)), shape, readings)
    if seen is None:
        return None
    kernels = _kernels(stack)[:, patterns][:, :, patterns]
    most = np.full(len(kernels), np.inf)
    most[-1] = (_BACKGROUND * seen.background) ** 2 * count
    weights = _mixed(kernels, seen, most)
    precision: Array = np.asarray(np.linalg.inv(_sum(weights, kernels, seen)))
    return Mistakes(
        *_swapped(seen, precision),
        _repeated(kernels, weights, seen, precision),
        _dark(kernels, most, seen, precision),
        _other(seen, precision),
    )


# ---------------------------------------------------------------- what is seen


@dataclass(frozen=True, eq=False)
class _Seen:
    """Sums of products of frames."""

    products: Array
    """(brightness, block, frame, frame)"""
    pixels: Array
    """(brightness, block)"""
    noise: Array
    """Its variance, (brightness)."""
    background: float

    @classmethod
    def of(cls, light: Array, part: Array, shape: tuple[int, int], readings: Readings) -> _Seen | None:
        """`part` is that of the mirrors which each pattern has on."""
        mean = light.mean(axis=0)
        background, brightest = (float(value) for value in np.quantile(mean, (_DARKEST, _BRIGHTEST)))
        over = mean - background
        noise = readings.gain_adu_per_e * max(0.0, background) + readings.read_variance
        least = _STANDS_OUT * np.sqrt(noise / len(light))
        level = np.digitize(over, np.maximum(np.array(_LEVELS) * (brightest - background), least)) - 1
        rows, columns = (np.arange(side) * _BLOCKS // side for side in shape)
        block = (rows[:, None] * _BLOCKS + columns).ravel()
        enough = [number for number in range(len(_LEVELS)) if np.count_nonzero(level == number) >= _PIXELS * len(light)]
        if not enough:
            return None
        places = [[np.flatnonzero((level == number) & (block == b)) for b in range(_BLOCKS**2)] for number in enough]
        lit = np.array([float(over[level == number].mean()) for number in enough])
        signal = (light - background) / _brighter(light - background, over, part)[:, None]
        parts = [[signal[:, at] for at in each] for each in places]
        return cls(
            np.array([[part @ part.T for part in each] for each in parts]),
            np.array([[float(len(at)) for at in each] for each in places]),
            readings.gain_adu_per_e * np.maximum(lit + background, 0) + readings.read_variance + (_MODEL * lit) ** 2,
            max(background, 1.0),
        )


def _brighter(signal: Array, over: Array, part: Array) -> Array:
    """By how much each frame is brighter than its pattern is, as far as the model may be wrong about that."""
    lit = over * (over > 0)
    found = signal @ lit / max(float(lit @ lit), 1e-9) * part.mean() / np.maximum(part, 1e-9)
    brighter: Array = np.clip(found, 1 - _EVEN, 1 + _EVEN)
    return brighter


def _likes(seen: _Seen, frame: int) -> list[int]:
    """The frames that differ least from one."""
    products = seen.products.sum(axis=(0, 1))
    apart = np.diagonal(products) - 2 * products[frame]
    return [int(other) for other in np.argsort(apart) if other != frame][:_LIKES]


# ---------------------------------------------------------------- what may be seen


@lru_cache(maxsize=8)
def _kernels(stack: PatternStack) -> Array:
    """Covariances of frames, (shape, frame, frame), of specimens that vary over each of the lengths; of those that do
    not vary over a pixel; and last of light that no pattern shapes."""
    side = stack.camera_pixel
    parts = min(side, _FINEST)
    cuts = np.arange(parts) * side // parts
    masks = np.add.reduceat(np.add.reduceat(stack.masks.astype(np.float64), cuts, axis=1), cuts, axis=2)
    masks = masks.reshape(stack.count, -1) / side**2
    centres = (cuts + np.append(cuts[1:], side)) / (2 * side)
    y, x = (axis.ravel() for axis in np.meshgrid(centres, centres, indexing="ij"))
    down, along = y[:, None] - y, x[:, None] - x
    slanted = (along + down) / np.sqrt(2), (along - down) / np.sqrt(2)
    lengths = [(along, down, *pair) for pair in product(_LENGTHS_PX, repeat=2)]
    lengths += [(*slanted, *pair) for pair in permutations(_SLANTED_PX, 2)]
    found = [masks @ np.exp(-((a / far) ** 2 + (b / wide) ** 2) / 2) @ masks.T for a, b, far, wide in lengths]
    light = masks.sum(axis=1)
    kernels = np.array([*found, np.outer(light, light), np.ones((stack.count, stack.count))])
    return np.asarray(kernels / np.trace(kernels, axis1=1, axis2=2)[:, None, None])


def _mixed(kernels: Array, seen: _Seen, most: Array) -> Array:
    """Weights of the most likely mixture, (brightness, shape); each step makes it more likely."""
    pixels = seen.pixels.sum(axis=1)
    products = seen.products.sum(axis=1) / pixels[:, None, None]
    left = np.maximum(np.trace(products, axis1=1, axis2=2) - products.shape[1] * seen.noise, 1e-3)
    weights = np.minimum(np.repeat(left[:, None], len(kernels), axis=1) / len(kernels), most)
    flat = kernels.reshape(len(kernels), -1).T
    for _ in range(_STEPS):
        precision = np.linalg.inv(_sum(weights, kernels, seen))
        found = (precision @ products @ precision).reshape(len(weights), -1) @ flat
        expected = precision.reshape(len(weights), -1) @ flat
        weights = np.minimum(weights * np.sqrt(found / expected), most)
    return weights


def _sum(weights: Array, kernels: Array, seen: _Seen) -> Array:
    """Covariance of the frames with their noise, (brightness, frame, frame)."""
    return np.asarray(np.tensordot(weights, kernels, 1) + seen.noise[:, None, None] * np.eye(kernels.shape[1]))


# ---------------------------------------------------------------- what may be wrong


def _certain(better: Array) -> Array:
    """What is left of log-likelihoods (which, brightness, block) in all when they vary from block to block."""
    blocks = better.sum(axis=1)
    return np.asarray(blocks.sum(axis=-1) - _SIGMAS * np.sqrt(_BLOCKS**2 * blocks.var(axis=-1, ddof=1)))


def _better(seen: _Seen, precision: Array, covariances: Array) -> Array:
    """Log-likelihoods of other covariances (brightness, which, frame, frame) against that of the order asked for,
    (which, brightness, block)."""
    others = np.linalg.inv(covariances)
    more = np.linalg.slogdet(others)[1] - np.linalg.slogdet(precision)[1][:, None]
    apart = np.einsum("lwij,lbij->wlb", others - precision[:, None], seen.products, optimize=True)
    return np.asarray((more.T[:, :, None] * seen.pixels - apart) / 2)


def _swapped(seen: _Seen, precision: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Of all pairs of frames, of which only rows and columns change places; and which of them look better swapped."""
    both = precision[:, None] @ seen.products
    own = np.diagonal(both, axis1=2, axis2=3)
    crossed = both + both.swapaxes(2, 3) - own[..., None] - own[..., None, :]
    inner, outer = precision[:, None], seen.products
    inner_own, outer_own = np.diagonal(inner, axis1=2, axis2=3), np.diagonal(outer, axis1=2, axis2=3)
    # what both are with each other and with themselves is in the sum above as if it changed otherwise
    first, second = inner_own[..., None], inner_own[..., None, :]
    one, other = outer_own[..., None], outer_own[..., None, :]
    change = 2 * (crossed - (first - inner) * (outer - one) - (inner - second) * (other - outer))
    change += (first - second) * (other - one)
    better = np.moveaxis(-change.reshape(-1, _BLOCKS**2, len(one[0, 0]) ** 2) / 2, -1, 0)
    return _certain(better).reshape(change.shape[2:]), better.sum(axis=(1, 2)).reshape(change.shape[2:]) > _SPEAKS


def _repeated(kernels: Array, weights: Array, seen: _Seen, precision: Array) -> Array:
    """Of frames that have the pattern of another."""
    count = kernels.shape[1]
    likes = [(frame, like) for frame in range(count) for like in _likes(seen, frame)]
    better = _certain(_replaced(kernels, weights, seen, precision, likes))
    found = np.full((count, count), -np.inf)
    found[tuple(np.array(likes).T)] = better
    return found


def _dark(kernels: Array, most: Array, seen: _Seen, precision: Array) -> tuple[int, float]:
    """Of the frame that varies least, as if it had none: what may be seen is learned once more, from the others."""
    frame = int(np.diagonal(seen.products.sum(axis=(0, 1))).argmin())
    unlit = kernels.copy()
    unlit[:-1, frame] = unlit[:-1, :, frame] = 0
    covariances = _sum(_mixed(unlit, seen, most), unlit, seen)
    return frame, float(_certain(_better(seen, precision, covariances[:, None]))[0])


def _replaced(kernels: Array, weights: Array, seen: _Seen, precision: Array, wrong: list[tuple[int, int]]) -> Array:
    """Of frames that have the pattern of another; (which, brightness, block)."""
    count = kernels.shape[1]
    signal = np.tensordot(weights[:, :-1], kernels[:-1], 1)
    rest = weights[:, -1, None, None] * kernels[-1] + seen.noise[:, None, None] * np.eye(count)
    shown = np.tile(np.arange(count), (len(wrong), 1))
    for row, (frame, pattern) in zip(shown, wrong, strict=True):
        row[frame] = pattern
    return _better(seen, precision, signal[:, shown[:, :, None], shown[:, None, :]] + rest[:, None])


def _other(seen: _Seen, precision: Array) -> float:
    """All as like each other as all."""
    count = precision.shape[1]
    kernels = np.array([np.ones((count, count)), np.eye(count)]) / count
    weights = _mixed(kernels, seen, np.full(2, np.inf))
    return float(_certain(_better(seen, precision, _sum(weights, kernels, seen)[:, None]))[0])
