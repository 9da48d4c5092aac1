"""psf: how much the light is blurred on its way to the sample, and on its way back.

On sparse beads, smaller than the blur. With all mirrors on the light of each bead on the camera is as wide as the
emission's blur. Then stripes of mirrors pass over the beads: how the light of a bead rises and falls tells the
excitation's blur, and the camera's lens has no part in it. The kind of blur that is believed stays; its width is found.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.exposing import NoLightError
from dmu_hw.files import Count, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError
from dmu_hw.routines.psf.beads import Bead, fitted_bead, lights, lonely, patches, unbleached
from dmu_hw.routines.psf.edges import Sharpness, Stripes, places_among_mirrors, sharpness
from dmu_hw.routines.psf.shapes import Float64Array, Shape, shape_of
from dmu_hw.routines.psf.trying import bead_exposure_ms

_CLIPPED = 0.05
"""Light that differs more between exposures is clipped."""
_LEAST_LEFT = 0.3
_REACH_PX = 10
_REACH = 6.0
"""In widths that are believed."""
_HOT_SIGMAS = 8.0
_AGREE = 5.0
"""Beads whose width is farther off, in deviations, are something else."""
_GRAIN = 0.01
"""No beads agree better than that."""
_OF_MEDIANS = 1.2533
"""A median is that much less certain than a mean."""
_AT_A_TIME = 8


class PsfSettings(Settings):
    """How to measure blur."""

    bead_um: Annotated[float, Field(ge=0, le=5)] = 0.2
    """Diameter of the beads."""
    power_mw: Positive | None = None
    """Of the light; null: half of what the rig allows."""
    exposure_ms: Positive | None = None
    """null: found by trying."""
    repeats: Count = 4
    """Frames with all mirrors on and off; of stripes there is one each."""
    least_beads: Count = 3
    most_beads: Count = 60
    reach_px: Count | None = None
    """Half of the side of the squares round beads; null: 6 times the emission's width that is believed, 10 at least."""
    error: Positive = 0.02
    """Of a width, as a part of it: warned of beyond; refused beyond five times that."""


class Routine:
    """Widths of excitation and emission."""

    Settings = PsfSettings
    sample = "beads"
    needs = ("register",)
    devices = ("dmd", "camera", "light")
    per_channel = True
    valid_days = 30.0

    def __init__(self, settings: PsfSettings) -> None:
        self.settings = settings

    # ---------------------------------------------------------------- measure

    def measure(self, instrument: Instrument) -> Evidence:
        """All mirrors off, on, on for half as long; stripes; on again. Kept are the squares round beads."""
        on = np.ones((1, *instrument.mirrors_shape), dtype=bool)
        power_mw = self.settings.power_mw or instrument.highest_mw / 2
        facts: dict[str, Any] = {"power_mw": power_mw, "sensor_shape": list(instrument.sensor_shape)}
        try:
            exposure_ms = self.settings.exposure_ms or bead_exposure_ms(instrument, on, power_mw)
        except NoLightError as error:
            return Evidence({}, facts | {"no_light": str(error)})
        repeats = self.settings.repeats

        def taken(mirrors: BoolArray, ms: float, times: int = 1) -> Uint16Array:
            return instrument.take(mirrors, power_mw=power_mw, exposure_ms=ms, repeats=times)

        off, off_half = _mean(taken(~on, exposure_ms, repeats)), _mean(taken(~on, exposure_ms / 2, repeats))
        lit = _mean(taken(on, exposure_ms, repeats)) - off
        lit_half = _mean(taken(on, exposure_ms / 2, repeats)) - off_half
        good = _quiet(_mean(instrument.dark(exposure_ms, repeats)))
        reach_px = self.settings.reach_px or self._reach_px(instrument.optics)
        places = lonely(lit, good, reach_px, self.settings.most_beads)
        stripes = Stripes.on(instrument.optics, 5 * _excitation(instrument.optics).width_px)
        facts |= {"exposure_ms": exposure_ms, "half": stripes.half, "firsts": list(stripes.firsts)}
        kept = [patches(lit, places, reach_px), 2 * patches(lit_half, places, reach_px)]
        patterns = stripes.mirrors(instrument.mirrors_shape)
        for first in range(0, len(patterns) if len(places) else 0, _AT_A_TIME):
            frames = taken(patterns[first : first + _AT_A_TIME], exposure_ms)
            kept += [patches(frame - off, places, reach_px) for frame in frames]
            instrument.progress(first + len(frames), len(patterns))
        kept.append(patches(_mean(taken(on, exposure_ms, repeats)) - off, places, reach_px))
        arrays = {
            "beads": np.stack(kept, axis=1).astype(np.float32),
            "good": patches(good.astype(np.float64), places, reach_px) > 0,
            "places": places,
        }
        return Evidence(arrays, facts | {"repeats": repeats})

    def _reach_px(self, optics: Optics) -> int:
        return max(_REACH_PX, math.ceil(_REACH * _emission(optics).width_px))

    # ---------------------------------------------------------------- fit

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        facts, arrays = evidence.facts, evidence.arrays
        if "no_light" in facts:
            raise FitError(f"{facts['no_light']}: is the lamp on, are beads under the lens?")
        emission, excitation = _emission(optics), _excitation(optics)
        bead_px = self.settings.bead_um / optics.sensor_pixel_um
        stacks, good = arrays["beads"].astype(np.float64), arrays["good"].astype(bool)
        gain = optics.sensor.gain_adu_per_e / int(facts["repeats"])
        used, beads = self._beads(stacks, good, emission, gain, bead_px)
        stacks, good = stacks[used], good[used]
        width_px = float(np.median([bead.width_px for bead in beads]))
        alike = [replace(bead, width_px=width_px) for bead in beads]
        each = zip(stacks, good, alike, strict=True)
        light = np.stack([lights(stack, mask, bead, emission, bead_px) for stack, mask, bead in each])
        light, left = unbleached(light, int(facts["repeats"]))
        growth = float(np.median(light[:, 0] / light[:, 1]))
        if abs(growth - 1) > _CLIPPED or left < _LEAST_LEFT:
            raise FitError(
                f"beads are {growth:.3f} times as bright as half of the exposure tells, 1 ± {_CLIPPED} is allowed, and "
                f"{left:.0%} of their light is left at the end, {_LEAST_LEFT:.0%} are needed: less exposure, or others"
            )
        x_px = arrays["places"][used, 1] + np.array([bead.x_px for bead in beads])
        y_px = arrays["places"][used, 0] + np.array([bead.y_px for bead in beads])
        rows, columns = facts["sensor_shape"]
        stripes = Stripes(int(facts["half"]), tuple(facts["firsts"]))
        among, per_px = places_among_mirrors(x_px, y_px, (rows, columns), optics)
        sharp = sharpness(
            np.delete(light, [1, light.shape[1] - 1], axis=1), among, per_px, stripes, excitation, bead_px
        )
        found = {"excitation": excitation.psf(sharp.width_px), "emission": emission.psf(width_px)}
        brightest = int(np.argmax([bead.light for bead in beads]))
        row = _row(stacks[brightest, 0], beads[brightest], emission, bead_px)
        return Finding(
            optics={name: psf.model_dump(mode="json") for name, psf in found.items()},
            figures=_figures(beads, sharp, optics.sensor_pixel_um) | {"light_left": left},
            pictures={"the brightest bead": stacks[brightest, 0] / stacks[brightest, 0].max()},
            curves={"the brightest bead along its row": row, "beads near the edges of light": _edges(sharp)},
        )

    def _beads(
        self, stacks: Float64Array, good: BoolArray, emission: Shape, gain: float, bead_px: float
    ) -> tuple[list[int], list[Bead]]:
        """Those that are as wide as most, and their places among all."""
        tried = [fitted_bead(stack[0], mask, gain, emission, bead_px) for stack, mask in zip(stacks, good, strict=True)]
        found = [(place, bead) for place, bead in enumerate(tried) if bead is not None]
        agree = _agreeing(np.array([bead.width_px for _, bead in found])) if found else np.zeros(0, dtype=bool)
        found = [each for each, agrees in zip(found, agree, strict=True) if agrees]
        if len(found) < self.settings.least_beads:
            raise FitError(
                f"{len(stacks)} spots lie alone and {len(found)} of them look like beads, "
                f"{self.settings.least_beads} are needed: are sparse beads in focus, and lit by the mirrors?"
            )
        return [place for place, _ in found], [bead for _, bead in found]

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, error = finding.figures, self.settings.error
        more = "more beads, or more light, would help"
        return (
            Check("excitation_error", figures["excitation_error"], error, 5 * error, more),
            Check("emission_error", figures["emission_error"], error, 5 * error, more),
            Check("bead_spread", figures["bead_spread"], 0.1, 0.4, "are all beads in focus, and of one size?"),
            Check("bead_residual", figures["bead_residual"], 0.05, 0.2, "is the lens clean, its collar set right?"),
            Check("edge_residual", figures["edge_residual"], 0.05, 0.2, "is the DMD in focus at the sample?"),
            Check("edge_shift_px", figures["edge_shift_px"], 0.2, 1.5, "run `register` again"),
        )


def _emission(optics: Optics) -> Shape:
    return shape_of(optics.emission, optics.sensor_pixel_um)


def _excitation(optics: Optics) -> Shape:
    return shape_of(optics.excitation, optics.sensor_pixel_um)


def _mean(frames: Uint16Array) -> Float64Array:
    return np.asarray(frames.mean(axis=0, dtype=np.float64))


def _quiet(dark: Float64Array) -> BoolArray:
    """Pixels that are like others in the dark."""
    far = np.abs(dark - np.median(dark))
    quiet: BoolArray = far <= _HOT_SIGMAS * max(1.4826 * float(np.median(far)), 1.0)
    return quiet


def _agreeing(widths_px: Float64Array) -> BoolArray:
    """Those that are as wide as most."""
    middle = float(np.median(widths_px))
    spread = max(1.4826 * float(np.median(np.abs(widths_px - middle))), _GRAIN * middle)
    agree: BoolArray = np.abs(widths_px - middle) <= _AGREE * spread
    return agree


def _figures(beads: list[Bead], sharp: Sharpness, pixel_um: float) -> dict[str, float]:
    widths_px = np.array([bead.width_px for bead in beads])
    width_px = float(np.median(widths_px))
    spread = 1.4826 * float(np.median(np.abs(widths_px / width_px - 1)))
    return {
        "excitation_width_um": sharp.width_px * pixel_um,
        "excitation_width_px": sharp.width_px,
        "excitation_error": sharp.error,
        "emission_width_um": width_px * pixel_um,
        "emission_width_px": width_px,
        "emission_error": _OF_MEDIANS * spread / math.sqrt(len(beads)),
        "beads": float(len(beads)),
        "bead_spread": spread,
        "bead_residual": float(np.median([bead.residual for bead in beads])),
        "edge_residual": sharp.residual,
        "edge_shift_px": float(np.hypot(*sharp.shift)),
    }


def _row(patch: Float64Array, bead: Bead, emission: Shape, bead_px: float) -> Curve:
    reach = patch.shape[0] // 2
    x = np.arange(-reach, reach + 1, dtype=np.float64)
    fitted = bead.light * emission.point(x - bead.x_px, np.full_like(x, -bead.y_px), bead.width_px, bead_px)
    return Curve(x, patch[reach], fitted + float(np.median(patch[[0, -1]])), "pixel", "light")


def _edges(sharp: Sharpness) -> Curve:
    order = np.argsort(sharp.far_px)
    far_px, seen, fitted = (values[order] for values in (sharp.far_px, sharp.seen, sharp.fitted))
    return Curve(far_px, seen, fitted, "pixels inside the light", "part of full light")
