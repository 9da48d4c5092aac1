"""register: which mirror lights which camera pixel.

Stripes of mirrors are shown, and every pixel tells by its own light in which of them it lies: coarse ones count the
mirrors, fine ones, shown at eight places of their period, divide them. Nothing need be known beforehand, and dust,
uneven light and a texture of the sample make no difference. A smooth map is fitted to all pixels at once; pixels that
lie (hot ones, reflections) do not follow it and are left out. Then every frame is looked at again: it must show its
stripes where the map has them.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.exposing import NoLightError, fitting_exposure_ms
from dmu_hw.files import Count, Fraction, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import Roi
from dmu_hw.routine import Check, Evidence, Finding, FitError
from dmu_hw.routines.register.decoding import Lit, decoded_coarse, fine_period
from dmu_hw.routines.register.fitting import fitted
from dmu_hw.routines.register.stripes import as_facts, coarse, fine, shown

_PART = 0.5
"""Of what the camera can tell."""
_ENOUGH_PX = 512
"""More pixels along a side tell no more, and their frames would need a lot of disk."""


class RegisterSettings(Settings):
    """How to register."""

    power_mw: Positive | None = None
    """Of the light; null: half of what the rig allows."""
    exposure_ms: Positive | None = None
    """null: found by trying."""
    binning: Count | None = None
    """null: the largest that leaves the chip 512 pixels along its shorter side."""
    residual_px: Positive = 0.1
    """Where neighbouring pixels may agree to lie, off the map, in unbinned pixels: refused beyond."""
    least_covered: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Part of the chip that the array has to light."""
    least_following: Fraction = 0.7
    """Part of the pixels that have to follow the map."""


class Routine:
    """DMD ↔ camera."""

    Settings = RegisterSettings
    sample = "dye"
    needs = ()
    devices = ("dmd", "camera")
    per_channel = True
    valid_days = 7.0

    def __init__(self, settings: RegisterSettings) -> None:
        self.settings = settings

    # ---------------------------------------------------------------- measure

    def measure(self, instrument: Instrument) -> Evidence:
        """All mirrors, none of them, coarse stripes; fine stripes as the coarse ones say; all and none again, and once
        more for half as long."""
        shape = instrument.mirrors_shape
        roi, binning = self._window(instrument)
        power_mw = self.settings.power_mw or instrument.highest_mw / 2
        facts = {"mirrors_shape": list(shape), "roi": [roi.x, roi.y, roi.width, roi.height], "binning": binning}
        facts |= {"sensor_shape": list(instrument.sensor_shape), "power_mw": power_mw}
        both = np.stack([np.ones(shape, dtype=bool), np.zeros(shape, dtype=bool)])
        try:
            exposure_ms = self.settings.exposure_ms or self._exposure_ms(instrument, both[0], power_mw, binning)
        except NoLightError as error:
            return Evidence({}, facts | {"no_light": str(error)})

        def taken(patterns: BoolArray, ms: float) -> Uint16Array:
            return instrument.take(patterns, power_mw=power_mw, exposure_ms=ms, roi=roi, binning=binning)

        wide = coarse(shape)
        first = taken(np.concatenate([both, shown(wide, shape)]), exposure_ms)
        arrays, facts = {"coarse": first}, facts | {"exposure_ms": exposure_ms, "coarse": as_facts(wide)}
        try:
            lit = Lit.of(first[:1], first[1:2])
            period = fine_period(decoded_coarse(lit, lit.parts(first[2:]), wide), first.shape[1:])
        except FitError:
            return Evidence(arrays, facts)  # the fit will say the same
        narrow = fine(period)
        instrument.progress(len(wide), len(wide) + len(narrow))
        arrays["fine"] = taken(np.concatenate([both, shown(narrow, shape), both]), exposure_ms)
        arrays["half"] = taken(both, exposure_ms / 2)
        instrument.progress(1, 1)
        return Evidence(arrays, facts | {"period": period, "fine": as_facts(narrow)})

    def _exposure_ms(self, instrument: Instrument, mirrors: BoolArray, power_mw: float, binning: int) -> float:
        """A binned pixel gathers the light of all pixels that it is made of."""
        return fitting_exposure_ms(instrument, mirrors, power_mw=power_mw, part=_PART) / binning**2

    def _window(self, instrument: Instrument) -> tuple[Roi, int]:
        """The whole chip, but for a rim that fills no binned pixel."""
        rows, columns = instrument.sensor_shape
        fitting = [side for side in instrument.camera.binnings if min(rows, columns) // side >= _ENOUGH_PX]
        binning = self.settings.binning or max(fitting, default=1)
        width, height = columns // binning * binning, rows // binning * binning
        return Roi(0, 0, width, height), binning

    # ---------------------------------------------------------------- fit and judge

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        return fitted(evidence, optics.sensor_pixel_um)

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, wanted = finding.figures, self.settings
        order = "were patterns shown in their order, and did everything stand still?"
        blur = "bring DMD and sample into focus"
        return (
            Check("residual_px", figures["residual_px"], wanted.residual_px / 2, wanted.residual_px, order),
            Check("uncertainty_px", figures["uncertainty_px"], 0.05, 0.2, "let the array light more of the chip"),
            Check("following", figures["following"], (1 + wanted.least_following) / 2, wanted.least_following, order),
            Check("agreement", figures["agreement"], 0.98, 0.95, order),
            Check("slip_px", figures["slip_px"], 0.1, 0.25, order),
            Check("odd_frame_px", figures["odd_frame_px"], 0.4, 0.9, order),
            Check(
                "covered", figures["covered"], 2 * wanted.least_covered, wanted.least_covered, "move the DMD's image"
            ),
            Check("extrapolated_px", figures["extrapolated_px"], 30.0, 100.0, "look for what covers part of the chip"),
            Check("modulation", figures["modulation"], 0.3, 0.15, blur),
            Check("bent", figures["bent"], 0.05, 0.15, "light is clipped: less power or a shorter exposure"),
            Check("unsteady", figures["unsteady"], 0.05, 0.3, "let the lamp warm up; has the sample moved?"),
        )


__all__ = ["RegisterSettings", "Routine"]
