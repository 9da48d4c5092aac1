"""contrast: what light comes through mirrors that are off, and which mirrors do not obey.

On an even layer of dye. With all mirrors off there is light that mirrors let through, as uneven as their light, and a
background that is even and no mirror shapes: see `dmu_hw.stray`. Then lattices of single mirrors are shown, if spots of
mirrors can be told apart by so many frames as are allowed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.exposing import NoLightError, fitting_exposure_ms
from dmu_hw.files import Count, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError
from dmu_hw.routines.contrast.lattice import (
    Float64Array,
    Stuck,
    lattices,
    period_of,
    read,
    smoothed,
    stuck_light,
    stuck_mirrors,
)
from dmu_hw.routines.contrast.spots import Spots, good_pixels, middle_of, mirror_px, places_px, quarters
from dmu_hw.stray import stray_light

_PART = 0.5
"""Of what the camera can tell."""
_LONGEST_MS = 2000.0
_AT_A_TIME = 16
"""Lattices whose frames are in memory together."""
_LEAST_MORE = 0.5
"""All mirrors on must give so much more than all off."""
_LEAST_LEAKAGE = 1e-3
"""An error is not judged against less."""
_SURROUNDINGS = 6.0
"""Of a spot, in its widths."""
_MOST_SPREAD = 0.14
"""Between working mirrors, as a part of what one that is missing lacks."""
_FAR_PX = 16.0
"""From the edge of a pattern its light has ended but for what is scattered."""
_LIT = 0.05


class ContrastSettings(Settings):
    """How to measure the contrast."""

    power_mw: Positive | None = None
    """Of the light; null: half of what the rig allows."""
    repeats: Count = 4
    """Frames of each kind."""
    most_frames: Annotated[int, Field(ge=0)] = 400
    """For mirrors one by one; if more were needed, or this is 0, stuck mirrors are not looked for."""
    leakage: Positive = 0.05
    """Warned of beyond; refused beyond ten times that."""
    stuck: Positive = 0.001
    """Part of the mirrors that do not obey: warned of beyond; refused beyond twenty times that."""


class Routine:
    """Leakage and stuck mirrors."""

    Settings = ContrastSettings
    sample = "dye"
    needs = ("register",)
    devices = ("dmd", "camera", "light")
    per_channel = True
    valid_days = 30.0

    def __init__(self, settings: ContrastSettings) -> None:
        self.settings = settings

    # ---------------------------------------------------------------- measure

    def measure(self, instrument: Instrument) -> Evidence:
        """All mirrors on and off and the light off; two quarters of four; mirrors one by one."""
        on = np.ones(instrument.mirrors_shape, dtype=bool)
        taking = _Taking(instrument, self.settings.power_mw or instrument.highest_mw / 2, self.settings.repeats)
        try:
            exposure_ms = taking.exposure_ms(on, _PART)
        except NoLightError as error:
            return Evidence({}, {"no_light": str(error)})
        long_ms = max(exposure_ms, taking.exposure_ms_of_little(~on))
        arrays = {
            "on": taking.mean(on, exposure_ms),
            "quarters": taking.mean(quarters(instrument.optics), exposure_ms),
            "off": taking.mean(~on, long_ms),
            "dark": taking.dark(exposure_ms),
            "long_dark": taking.dark(long_ms),
        }
        facts: dict[str, Any] = {"power_mw": taking.power_mw, "exposure_ms": exposure_ms, "long_ms": long_ms}
        if self.settings.most_frames:
            facts |= self._lattice(taking, arrays)
        return Evidence(arrays, facts)

    def _lattice(self, taking: _Taking, arrays: dict[str, Any]) -> dict[str, Any]:
        """Spots of mirrors, and if there are frames enough to tell them apart, the light of each while it is on in its
        lattice: the frames of all lattices would need much room."""
        instrument, shape, optics = taking.instrument, taking.instrument.mirrors_shape, taking.instrument.optics
        spots = Spots.on(optics)
        spots_ms = taking.exposure_ms_of_little(spots.mirrors(shape))
        none = np.zeros(shape, dtype=bool)
        light = taking.mean(spots.mirrors(shape), spots_ms).astype(np.float64) - taking.mean(none, spots_ms)
        good = good_pixels(arrays["dark"], arrays["long_dark"])
        width_px = spots.width_px(light, good, optics)
        if not math.isfinite(width_px):
            return {}
        period = period_of(width_px, mirror_px(optics))
        if period**2 > self.settings.most_frames:
            return {"width_px": width_px}
        y, x = places_px(optics, instrument.sensor_shape)
        exposure_ms = taking.exposure_ms_of_little(lattices(shape, period, 0, 1)[0])
        off = taking.mean(none, exposure_ms)
        alone = np.full(shape, np.nan, dtype=np.float32)
        for first in range(0, period**2, _AT_A_TIME):
            masks = lattices(shape, period, first, min(_AT_A_TIME, period**2 - first))
            frames = instrument.take(masks, power_mw=taking.power_mw, exposure_ms=exposure_ms)
            for mask, frame in zip(masks, frames, strict=True):
                alone[mask] = read(smoothed(frame.astype(np.float64) - off, good, width_px), y[mask], x[mask])
            instrument.progress(first + len(masks), period**2)
        arrays |= {"alone": alone, "lattice_off": off}
        return {"width_px": width_px, "period": period, "lattice_ms": exposure_ms}

    # ---------------------------------------------------------------- fit

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        facts = evidence.facts
        if "no_light" in facts:
            raise FitError(f"{facts['no_light']}: is the lamp on, is dye under the lens?")
        arrays = {name: array.astype(np.float64) for name, array in evidence.arrays.items()}
        good = good_pixels(arrays["dark"], arrays["long_dark"])
        on = (arrays["on"] - arrays["dark"]) / facts["exposure_ms"]
        quartered = (arrays["quarters"] - arrays["dark"]) / facts["exposure_ms"]
        off = (arrays["off"] - arrays["long_dark"]) / facts["long_ms"]
        gained = on - off
        bright = float(np.percentile(gained[good], 99))
        if bright < _LEAST_MORE * float(np.median(np.abs(off[good]))):
            raise FitError("all mirrors on give no more light than all mirrors off: is an even layer of dye in focus?")
        found = _stuck(arrays, facts, optics, gained, good) if "alone" in arrays else None
        if found is not None:
            stuck = stuck_light(found, gained, facts["width_px"], optics)
            good &= stuck < 0.5 * float(np.median(off))  # brighter ones may be clipped
            off = off - stuck
        try:
            stray = stray_light(gained + off, off, good)
        except ValueError as error:
            raise FitError(f"{error}: is an even layer of dye in focus?") from None
        leakage, full = max(0.0, stray.leakage), bright / (1 - min(0.5, max(0.0, stray.leakage)))
        figures = {
            "leakage": stray.leakage,
            "leakage_error": stray.leakage_error,
            "leakage_uncertainty": stray.leakage_error / max(leakage, _LEAST_LEAKAGE),
            "background": stray.background / full,
            "background_error": stray.background_error / full,
            "scatter": _scatter(quartered - off, gained, good, optics),
            "mirrors_told_apart": float(found is not None),
        }
        maps: dict[str, Any] = {}
        left = np.where(good, off - stray.leakage / (1 - stray.leakage) * gained - stray.background, 0.0)
        pictures = {"all mirrors off, less leakage and background, as a part of the light": left / full}
        if found is not None:
            maps = {"stuck_on": found.on, "stuck_off": found.off, "seen": found.seen}
            figures |= {
                "mirrors_seen": float(found.seen.mean()),
                "stuck_on": float(found.on.sum() / max(1, found.seen.sum())),
                "stuck_off": float(found.off.sum() / max(1, found.seen.sum())),
                "shaded": float(found.shaded.mean()),
                "mirror_spread": found.spread,
            }
            pictures["mirrors: 1 stuck on, -1 stuck off"] = found.on.astype(np.float64) - found.off
        line = Curve(
            stray.on / bright,
            stray.off / bright,
            (stray.leakage / (1 - stray.leakage) * stray.on + stray.background) / bright,
            "light gained by mirrors on",
            "light with mirrors off",
        )
        return Finding(
            {"mirrors": {"leakage": float(f"{leakage:.6g}")}}, figures, maps, pictures, {"off mirrors": line}
        )

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, wanted = finding.figures, self.settings
        even = "light so even on a chip that the array covers cannot tell leakage from background"
        checks = [
            Check("leakage", figures["leakage"], wanted.leakage, 10 * wanted.leakage, "align lamp and mirrors"),
            Check("leakage_uncertainty", figures["leakage_uncertainty"], 0.1, 1.0, even),
            Check("scatter", figures["scatter"], 0.02, 0.2, "clean the optics; is the dye layer thin?"),
        ]
        if "stuck_on" in figures:
            stuck = figures["stuck_on"] + figures["stuck_off"]
            checks.append(Check("stuck", stuck, wanted.stuck, 20 * wanted.stuck, "the mirrors fail"))
        elif wanted.most_frames:
            few = "mirrors are too small, or their light too dim, to be told apart: allow more frames"
            checks.append(Check("mirrors_told_apart", 0.0, 1.0, -1.0, few))
        return tuple(checks)


@dataclass(frozen=True)
class _Taking:
    """Means of frames."""

    instrument: Instrument
    power_mw: float
    repeats: int

    def exposure_ms(self, mirrors: BoolArray, part: float) -> float:
        return fitting_exposure_ms(self.instrument, mirrors, power_mw=self.power_mw, part=part)

    def exposure_ms_of_little(self, mirrors: BoolArray) -> float:
        """However dim it may be; spots are brighter than what they are measured by."""
        try:
            return self.exposure_ms(mirrors, _PART / 2)
        except NoLightError:
            return min(_LONGEST_MS, self.instrument.rig.settings.limits.exposure_ms)

    def mean(self, mirrors: BoolArray, exposure_ms: float) -> NDArray[np.float32]:
        frames = self.instrument.take(
            mirrors[None], power_mw=self.power_mw, exposure_ms=exposure_ms, repeats=self.repeats
        )
        return _mean(frames)

    def dark(self, exposure_ms: float) -> NDArray[np.float32]:
        return _mean(self.instrument.dark(exposure_ms, self.repeats))


def _mean(frames: Uint16Array) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = frames.mean(axis=0, dtype=np.float32)
    return mean


def _stuck(
    arrays: dict[str, Float64Array],
    facts: Mapping[str, Any],
    optics: Optics,
    gained: Float64Array,
    good: BoolArray,
) -> Stuck | None:
    """None: mirrors cannot be told from each other."""
    width_px = float(facts["width_px"])
    y, x = places_px(optics, (gained.shape[0], gained.shape[1]))
    seen = np.nan_to_num(smoothed(arrays["lattice_off"] / float(facts["lattice_ms"]), good, width_px))
    rest = seen - _surroundings(seen, width_px)  # what is as bright as they are is leakage and background
    together = read(smoothed(gained, good, width_px), y, x)
    found = stuck_mirrors(arrays["alone"], together, read(rest, y, x), facts["period"], width_px, optics)
    return found if found.spread < _MOST_SPREAD else None


def _surroundings(frame: Float64Array, width_px: float) -> Float64Array:
    """Medians round each pixel of a frame that is as smooth as its spots."""
    from scipy.ndimage import map_coordinates, median_filter  # noqa: PLC0415 - takes a while to load

    step = max(1, int(width_px))
    medians = median_filter(frame[::step, ::step], size=2 * math.ceil(_SURROUNDINGS * width_px / step) + 1)
    rows, columns = frame.shape
    places = np.broadcast_arrays(np.arange(rows)[:, None] / step, np.arange(columns)[None, :] / step)
    return np.asarray(map_coordinates(medians, places, order=1, mode="nearest"))


def _scatter(quarters_on: Float64Array, gained: Float64Array, good: BoolArray, optics: Optics) -> float:
    """Light of mirrors that are on, far from them, as a part of what it is where they are."""
    rows, columns = gained.shape
    y_um, x_um = (
        np.mgrid[:rows, :columns] - np.array([rows - 1, columns - 1])[:, None, None] / 2
    ) * optics.sensor_pixel_um
    column, row = optics.mirrors.to_sample.invert(x_um, y_um)
    u, v = middle_of(optics)
    near_px = np.minimum(np.abs(column - u), np.abs(row - v)) * mirror_px(optics)
    dark = good & ((column < u) == (row < v)) & (near_px > _FAR_PX) & (gained > _LIT * np.percentile(gained, 99))
    return float(np.median(quarters_on[dark] / gained[dark])) if dark.any() else 0.0
