"""How long to expose beads: bright enough to be measured, not clipped, and not bleached before all is taken."""

from __future__ import annotations

import math

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.exposing import NoLightError
from dmu_hw.instrument import Instrument
from dmu_hw.routines.psf.shapes import Float64Array

_SHORTEST_MS, _LONGEST_MS = 0.05, 2000.0
_SEEN = 15.0
"""Noises: beads are told from it from here on…"""
_ENOUGH = 60.0
"""…and from here on they can be measured: only now is looked whether they are clipped or bleach."""
_LINEAR = 1.85
"""The brightest beads that grow by less when the exposure doubles are clipped."""
_FULL = 0.5
"""Of what the camera can tell, as is believed."""
_BLEACHED = 0.015
"""From one frame to the next, as a part…"""
_SURE = 2.0
"""…and so many errors more."""


def bead_exposure_ms(instrument: Instrument, on: BoolArray, power_mw: float) -> float:
    """NoLightError: there is nothing bright."""
    longest_ms = min(_LONGEST_MS, instrument.rig.settings.limits.exposure_ms)
    full = _FULL * instrument.optics.sensor.largest_adu
    exposure_ms, good_ms, before = _SHORTEST_MS, 0.0, 0.0
    while exposure_ms <= longest_ms:
        off = instrument.take(~on, power_mw=power_mw, exposure_ms=exposure_ms)[0].astype(np.float64)
        lit = instrument.take(on, power_mw=power_mw, exposure_ms=exposure_ms, repeats=2).astype(np.float64) - off
        level, noise = _level(lit[0])
        if before > _ENOUGH * noise and level < _LINEAR * before:
            break
        if level > _SEEN * noise:
            good_ms = exposure_ms
        if level > full or (level > _ENOUGH * noise and _fades(lit, instrument.optics.sensor.gain_adu_per_e)):
            break
        before = level
        exposure_ms *= 2
    if not good_ms:
        raise NoLightError("light", f"no beads are seen in {longest_ms:g} ms at {power_mw:g} mW")
    return good_ms


def _level(lit: Float64Array) -> tuple[float, float]:
    """Of the brightest spots, and the noise; single hot pixels are no spots."""
    from scipy.ndimage import uniform_filter  # noqa: PLC0415 - takes a while to load

    spots = uniform_filter(np.minimum(lit, np.percentile(lit, 99.99)), 3)
    spots -= np.median(spots)
    noise = 1.4826 * float(np.median(np.abs(spots)))
    return float(np.partition(spots.ravel(), -4)[-4]), max(noise, 0.3)


def _fades(lit: Float64Array, gain: float) -> bool:
    """Whether the second frame has certainly less light where the first is bright."""
    from scipy.ndimage import uniform_filter  # noqa: PLC0415 - takes a while to load

    first, second = (frame - np.median(frame) for frame in lit)
    smooth = uniform_filter(first + second, 5)
    bright = smooth > 0.3 * np.partition(smooth.ravel(), -20)[-20]
    light, lost = float(first[bright].sum()), float((first - second)[bright].sum())
    noise = 1.4826 * float(np.median(np.abs(first - second)))
    error = math.sqrt(noise**2 * int(bright.sum()) + 2 * gain * max(light, 0.0))
    return lost > _BLEACHED * light + _SURE * error
