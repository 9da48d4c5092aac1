"""Light where mirrors are off: what they let through, and what comes through no mirror.

    off = leak · (on - off) + background

What mirrors let through is as uneven as their light and ends where the array ends; the background (autofluorescence,
scatter) is even, whatever the mirrors do. So they are told apart by light that is uneven, or by an array that does not
cover the chip. Where it is even all over the chip, nothing can tell them apart: then the errors say so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]
_BLOCK_PX = 8
_LEAST_GOOD = 0.5
"""Part of a block's pixels that must be good."""
_LEAST_BLOCKS = 9
_ROUNDS = 4
_SIGMAS = 3.5
"""Blocks that are farther off show something else: mirrors that are stuck, dust that shines."""


@dataclass(frozen=True, eq=False)
class Stray:
    """`background` is in the unit of the frames; errors are standard deviations."""

    leakage: float
    """Light of a mirror that is off, as a part of the light of one that is on."""
    leakage_error: float
    background: float
    background_error: float
    on: Float64Array
    """Light of the mirrors in blocks of the frame that were used…"""
    off: Float64Array
    """…and the light there while they are off."""


def stray_light(on: Float64Array, off: Float64Array, good: NDArray[np.bool_]) -> Stray:
    """From frames (y, x) with all mirrors on and off, both above the dark frame and for the same exposure, by the
    pixels that tell the truth. ValueError: there are not enough of them."""
    gained, rest = _blocks(on - off, good), _blocks(off, good)
    grain2 = _grain2(gained)
    whole = np.isfinite(gained)
    gained, rest = gained[whole], rest[whole]
    if len(gained) < _LEAST_BLOCKS:
        raise ValueError(f"{len(gained)} blocks of {_BLOCK_PX} good pixels cannot tell leakage and background apart")
    used = np.ones(len(gained), dtype=bool)
    for _ in range(_ROUNDS):
        design = np.stack([gained[used], np.ones(int(used.sum()))], axis=1)
        (leak, background), *_ = np.linalg.lstsq(design, rest[used], rcond=None)
        left = rest - leak * gained - background
        sigma = 1.4826 * float(np.median(np.abs(left[used])))
        used = np.abs(left) <= _SIGMAS * max(sigma, np.finfo(float).tiny)
    variance = float(np.var(gained[used]))
    mean = float(np.mean(gained[used]))
    noise = float(np.mean(left[used] ** 2)) / int(used.sum())
    # pixels differ in how they answer, on and off alike: that says nothing of leakage, though it looks like it
    alike = min(1.0, grain2 / variance) if variance > 0 else 1.0
    error = math.sqrt(noise / variance) if variance > 0 else math.inf
    error += abs(float(np.mean(rest[used]))) / max(mean, np.finfo(float).tiny) * alike / max(1 - alike, 1e-3)
    slope = 1 / (1 + leak)  # leak is of on - off, leakage of on
    return Stray(
        leakage=float(leak * slope),
        leakage_error=float(error * slope**2),
        background=float(background),
        background_error=float(error * abs(mean)),
        on=gained[used],
        off=rest[used],
    )


def _grain2(blocks: Float64Array) -> float:
    """Variance of blocks against their neighbours; what rises or falls evenly does not count."""
    bends = np.concatenate([np.diff(blocks, 2, axis=axis).ravel() for axis in (0, 1)])
    bends = bends[np.isfinite(bends)]
    return float(1.4826 * np.median(np.abs(bends))) ** 2 / 6 if len(bends) else math.inf


def _blocks(frame: Float64Array, good: NDArray[np.bool_]) -> Float64Array:
    """Means over the good pixels of square blocks; NaN where there are too few."""
    rows, columns = (side // _BLOCK_PX for side in frame.shape)
    shape = (rows, _BLOCK_PX, columns, _BLOCK_PX)
    cut = (slice(rows * _BLOCK_PX), slice(columns * _BLOCK_PX))
    count = good[cut].reshape(shape).sum(axis=(1, 3))
    total = np.where(good, frame, 0.0)[cut].reshape(shape).sum(axis=(1, 3))
    return np.where(count >= _LEAST_GOOD * _BLOCK_PX**2, total / np.maximum(count, 1), np.nan)
