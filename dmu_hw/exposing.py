"""How long to expose for a calibration, found by trying: neither lost in noise nor clipped, whatever is believed."""

from __future__ import annotations

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.errors import DeviceError
from dmu_hw.instrument import Instrument

_SHORTEST_MS, _LONGEST_MS = 0.05, 2000.0
_LINEAR = 1.7
"""Light that grows by less when the exposure doubles is clipped."""
_SURE = 1.95
"""Light that grows by less may have begun to be."""
_NOISES = 20.0
"""From where on growth is told from noise."""
_BRIGHT = 99.0
"""Percentile that is not to be clipped: a few hot pixels do not count."""


class NoLightError(DeviceError):
    """Nothing of the light reaches the camera."""


def fitting_exposure_ms(
    instrument: Instrument, mirrors: BoolArray, *, power_mw: float, part: float = 0.5, bright: float = _BRIGHT
) -> float:
    """The exposure at which the bright parts of a frame of one state of the mirrors (row, column) are at that part of
    what the camera can tell; `bright` is the percentile that is not to be clipped. NoLightError: there is none, however
    long."""
    longest_ms = min(_LONGEST_MS, instrument.rig.settings.limits.exposure_ms)
    exposure_ms = sure_ms = _SHORTEST_MS
    before: float | None = None
    while exposure_ms <= longest_ms:
        level, noise = _level(instrument, mirrors, power_mw, exposure_ms, bright)
        full = float(instrument.optics.sensor.largest_adu)
        clipped = before is not None and level > _NOISES * noise and level < _LINEAR * before
        if clipped and before is not None:
            # the plateau is what the camera can tell, and the frame before was the last that told the truth
            return max(_SHORTEST_MS, part * level / before * exposure_ms / 2)
        if level > part * full:
            return exposure_ms * part * full / level
        sure_ms = exposure_ms if before is None or level > _SURE * before else exposure_ms / 2
        before = level if level > _NOISES * noise else None
        exposure_ms *= 2
    if before is None:
        raise NoLightError("light", f"no light reaches the camera in {longest_ms:g} ms at {power_mw:g} mW")
    return sure_ms


def _level(
    instrument: Instrument, mirrors: BoolArray, power_mw: float, exposure_ms: float, bright: float
) -> tuple[float, float]:
    """How bright a frame is above the dark one, and the noise of a pixel."""
    (dark,) = instrument.dark(exposure_ms, 1)
    (lit,) = instrument.take(mirrors[None], power_mw=power_mw, exposure_ms=exposure_ms)
    noise = 1.4826 * float(np.median(np.abs(dark - np.median(dark))))
    return float(np.percentile(lit, bright) - np.percentile(dark, bright)), max(noise, 1.0)
