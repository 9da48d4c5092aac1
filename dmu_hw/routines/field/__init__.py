"""field: how even the light of the mirrors is, and what light there is besides.

An even layer of dye shines as it is lit. What all mirrors on give more than all mirrors off is the light of the
mirrors; a smooth surface through its logarithm leaves out grain, dust and pixels that answer differently, and goes on
beyond what was lit. How bright the dye itself is cannot be known from it, nor how much of the background another sample
will have: that is told as figures and not believed.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dmu_hw.data import Uint16Array
from dmu_hw.exposing import NoLightError, fitting_exposure_ms
from dmu_hw.files import Count, Fraction, Positive, Settings
from dmu_hw.instrument import Instrument
from dmu_hw.physics.optics import Optics
from dmu_hw.routine import Check, Curve, Evidence, Finding, FitError
from dmu_hw.routines.field.smooth import Float64Array, Surface
from dmu_hw.stray import stray_light

_PART = 0.5
"""Of what the camera can tell."""
_PARTS = (0.25, 0.5, 1.0)
"""Of the fitting exposure."""
_LONGER = 16.0
"""Frames with all mirrors off are dim: so much longer they may be exposed."""
_NO_FULLER = 0.8
"""Than so much of what frames with all mirrors on are."""
_ENOUGH_PX = 512
"""More pixels along a side tell no more, and their frames would need a lot of disk."""
_DARKEST = 0.01
"""Nobody measures less, and images are divided by it."""
_BEYOND = 3
"""Points of the grid beyond the chip."""
_BLOCKS = 3
"""Blocks of pixels from point to point of the grid."""
_LIT = 0.05
"""Of the brightest light: below it is beyond the array, or too dim to tell."""
_LONGEST_MS = 2000.0
_HOT_SIGMAS = 8.0
_SATURATED = 0.05
"""Light that grows by so much less than the exposure is not light any more."""


class FieldSettings(Settings):
    """How to measure the light."""

    power_mw: Positive | None = None
    """Of the light; null: half of what the rig allows."""
    exposure_ms: Positive | None = None
    """null: found by trying."""
    repeats: Count = 4
    """Frames of each kind."""
    points: Annotated[int, Field(ge=5, le=129)] = 33
    """Of the grid, along the longer side of the chip: finer ones follow narrower fringes."""
    border_px: Positive = 14.0
    """So far from where the light of the array ends it is blurred."""
    residual: Positive = 0.01
    """What smooth light may leave over, as a part of it: warned of beyond; refused beyond three times that."""
    least_lit: Fraction = 0.02
    """Part of the chip that has to be lit."""


class Routine:
    """Profile of the light."""

    Settings = FieldSettings
    sample = "dye"
    needs = ()
    devices = ("dmd", "camera", "light")
    per_channel = True
    valid_days = 7.0

    def __init__(self, settings: FieldSettings) -> None:
        self.settings = settings

    # ---------------------------------------------------------------- measure

    def measure(self, instrument: Instrument) -> Evidence:
        """All mirrors on and off and the light off, at several exposures; all off and the light off for longer."""
        mirrors = np.ones((1, *instrument.mirrors_shape), dtype=bool)
        power_mw = self.settings.power_mw or instrument.highest_mw / 2
        facts: dict[str, object] = {"power_mw": power_mw}
        try:
            exposure_ms = self.settings.exposure_ms or fitting_exposure_ms(
                instrument, mirrors[0], power_mw=power_mw, part=_PART
            )
        except NoLightError as error:
            return Evidence({}, facts | {"no_light": str(error)})
        side = max(1, min(instrument.sensor_shape) // _ENOUGH_PX)
        arrays: dict[str, NDArray[np.float32]] = {}

        def take(place: int, ms: float, *names: str) -> None:
            states = {"on": mirrors, "off": ~mirrors}
            for name in names:
                frames = instrument.take(states[name], power_mw=power_mw, exposure_ms=ms, repeats=self.settings.repeats)
                arrays[f"{name}_{place}"] = _shrunk(frames, side)
            arrays[f"dark_{place}"] = _shrunk(instrument.dark(ms, self.settings.repeats), side)
            instrument.progress(place + 1, len(_PARTS) + 1)

        exposures_ms = [part * exposure_ms for part in _PARTS]
        for place, each_ms in enumerate(exposures_ms):
            take(place, each_ms, "on", "off")
        on, off = (float(np.percentile(arrays[f"{name}_2"] - arrays["dark_2"], 95)) for name in ("on", "off"))
        longer = min(_LONGER, _NO_FULLER * on / max(off, 1e-3 * on)) if on > 0 else 1.0
        longest_ms = min(instrument.rig.settings.limits.exposure_ms, _LONGEST_MS)
        exposures_ms.append(max(exposure_ms, min(longer * exposure_ms, longest_ms)))
        take(len(_PARTS), exposures_ms[-1], "off")
        return Evidence(arrays, facts | {"exposures_ms": exposures_ms, "sensor_shape": list(instrument.sensor_shape)})

    # ---------------------------------------------------------------- fit

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        if "no_light" in evidence.facts:
            raise FitError(f"{evidence.facts['no_light']}: is the lamp on, is dye under the lens?")
        arrays = {name: array.astype(np.float64) for name, array in evidence.arrays.items()}
        exposures_ms = [float(value) for value in evidence.facts["exposures_ms"]]
        last = len(_PARTS) - 1
        good = _quiet(arrays["dark_0"]) & _quiet(arrays[f"dark_{last + 1}"])
        good &= _quiet(arrays[f"dark_{last + 1}"] - arrays["dark_0"])
        lights = [(arrays[f"on_{i}"] - arrays[f"off_{i}"]) / exposures_ms[i] for i in range(last + 1)]
        grid = _Grid(evidence.facts["sensor_shape"], lights[0].shape, self.settings.points)
        lit, whole = self._lit(*grid.blocks(lights[0], good), grid)
        nonlinear = _nonlinearity(lights, good)
        if nonlinear > _SATURATED:
            raise FitError(
                f"light differs by {nonlinear:.1%} between an exposure of {exposures_ms[last]:.4g} ms and of half of "
                f"it, {_SATURATED:.0%} at most are allowed: is the camera saturated, or the lamp not steady yet?"
            )
        light = np.average(lights, axis=0, weights=_PARTS)
        blocks, weights = grid.blocks(light, good)
        surface = Surface(*grid.places, grid.rows, grid.columns)
        points, smooth, kept = surface.fit(np.log(np.where(lit, blocks, 1.0)), weights * lit)
        brightest = float(np.exp(smooth[lit].max()))
        values = np.clip(np.exp(points) / brightest, _DARKEST, 1.0)
        follows = lit & kept
        left = np.where(lit, blocks / np.exp(smooth) - 1, 0.0)
        off = (arrays[f"off_{last + 1}"] - arrays[f"dark_{last + 1}"]) / exposures_ms[-1]
        try:
            stray = stray_light(light + off, off, good)
        except ValueError as error:
            raise FitError(f"{error}: is the camera covered?") from None
        lit_values, full = np.exp(smooth[lit]) / brightest, brightest / (1 - stray.leakage)
        profile = {
            "kind": "grid",
            "pitch_um": grid.pitch_px * grid.side * optics.sensor_pixel_um,
            "values": [[float(f"{value:.5g}") for value in row] for row in values],
        }
        middle = blocks.shape[0] // 2
        return Finding(
            optics={"profile": profile},
            figures={
                "residual": _structured(left, follows),
                "whole": whole,
                "following": float(follows.sum() / lit.sum()),
                "lit_part": float(lit.mean()),
                "dimmest": float(lit_values.min()),
                "mean": float(lit_values.mean()),
                "nonlinearity": nonlinear,
                "background": stray.background / full,
                "background_error": stray.background_error / full,
            },
            pictures={
                "light of the mirrors, smooth, 1 where it is brightest": np.where(lit, np.exp(smooth) / brightest, 0.0),
                "what the smooth light leaves over, as a part of it": left,
            },
            curves={
                "light along the middle row": Curve(
                    grid.columns_px * grid.side,
                    blocks[middle] / brightest,
                    np.where(lit[middle], np.exp(smooth[middle]) / brightest, np.nan),
                    "pixel",
                    "light",
                )
            },
        )

    def _lit(self, blocks: Float64Array, weights: Float64Array, grid: _Grid) -> tuple[NDArray[np.bool_], float]:
        """The blocks that mirrors light, away from the borders of the array; and how much of what lies between them is
        lit: an array and a chip have no bays."""
        from scipy.ndimage import binary_erosion, binary_opening  # noqa: PLC0415 - takes a while to load

        seen = weights > 0
        bright = float(np.percentile(blocks[seen], 99)) if seen.any() else 0.0
        lit = ~seen | (blocks > _LIT * bright)  # a dead pixel is no border
        rounds = int(np.ceil(self.settings.border_px / grid.side / grid.block_px))
        inner: NDArray[np.bool_] = seen & (blocks > 0) & binary_erosion(lit, iterations=rounds, border_value=1)
        if bright <= 0 or inner.mean() < self.settings.least_lit:
            raise FitError(
                f"mirrors light {inner.mean():.1%} of the chip evenly, {self.settings.least_lit:.1%} are needed: is an "
                "even layer of dye in focus, does the array reach the camera's field, or is the camera saturated?"
            )
        outline = binary_opening(lit, np.ones((3, 3), dtype=bool))
        return inner, float(lit[_between(outline)].mean()) if outline.any() else 0.0

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        figures, residual = finding.figures, self.settings.residual
        return (
            Check(
                "residual", figures["residual"], residual, 3 * residual, "clean the slide, look for bubbles and fringes"
            ),
            Check("whole", figures["whole"], 0.97, 0.9, "is it an even layer of dye?"),
            Check("following", figures["following"], 0.9, 0.6, "is it an even layer of dye, in focus?"),
            Check("nonlinearity", figures["nonlinearity"], 0.01, _SATURATED, "let lamp and camera warm up"),
            Check("dimmest", figures["dimmest"], 0.1, 0.0, "align the lamp"),
            Check(
                "lit_part", figures["lit_part"], 0.5, self.settings.least_lit, "let the array light more of the chip"
            ),
        )


class _Grid:
    """Points over the chip and a little beyond, and blocks of pixels between them. Pixels are those of frames, a few of
    which may fill no square at the end of the chip."""

    def __init__(self, chip: tuple[int, int], shape: tuple[int, ...], points: int) -> None:
        self.side = min(chip) // min(shape)
        """Of a pixel of the frames, in pixels of the chip."""
        self._shape = [along / self.side for along in chip]
        self.block_px = max(1, round(max(shape) / (points - 1) / _BLOCKS))
        self.pitch_px = float(self.block_px * _BLOCKS)
        self.rows, self.columns = (int(np.ceil(along / self.pitch_px)) + 1 + 2 * _BEYOND for along in shape)
        self.rows_px, self.columns_px = map(self._middles, shape)

    def _middles(self, side: int) -> Float64Array:
        """Of the blocks, in pixels; what fills no block at the end is left out."""
        return np.arange(0.5, side // self.block_px) * self.block_px

    @property
    def places(self) -> tuple[Float64Array, Float64Array]:
        """Of the blocks, in units of the pitch from the first point of the grid."""
        y, x = (
            (middles - side / 2) / self.pitch_px + (count - 1) / 2
            for middles, side, count in zip(
                (self.rows_px, self.columns_px), self._shape, (self.rows, self.columns), strict=True
            )
        )
        return y, x

    def blocks(self, frame: Float64Array, good: NDArray[np.bool_]) -> tuple[Float64Array, Float64Array]:
        """Means over the good pixels of each block, and how many there are."""
        rows, columns, side = len(self.rows_px), len(self.columns_px), self.block_px
        cut = (slice(rows * side), slice(columns * side))
        shape = (rows, side, columns, side)
        count = good[cut].reshape(shape).sum(axis=(1, 3)).astype(np.float64)
        total = np.where(good, frame, 0.0)[cut].reshape(shape).sum(axis=(1, 3))
        return total / np.maximum(count, 1), count


def _shrunk(frames: Uint16Array, side: int) -> NDArray[np.float32]:
    """The mean of frames, and of it the medians of squares of pixels: hot ones do not count."""
    mean = frames.mean(axis=0, dtype=np.float32)
    rows, columns = (along // side for along in mean.shape)
    squares = mean[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return np.asarray(np.median(squares, axis=(1, 3)), dtype=np.float32)


def _between(lit: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The smallest piece without a bay that all lit blocks lie in."""
    from scipy.spatial import Delaunay  # noqa: PLC0415 - takes a while to load

    rows, columns = np.nonzero(lit)
    if np.ptp(rows) == 0 or np.ptp(columns) == 0:
        return lit
    y, x = np.mgrid[: lit.shape[0], : lit.shape[1]]
    within: NDArray[np.bool_] = Delaunay(np.stack([rows, columns], axis=1)).find_simplex(np.stack([y, x], axis=-1)) >= 0
    return within


def _quiet(dark: Float64Array) -> NDArray[np.bool_]:
    """Pixels that are like others without light."""
    off = np.abs(dark - np.median(dark))
    return off <= _HOT_SIGMAS * max(1.4826 * float(np.median(off)), 0.5)


def _nonlinearity(lights: list[Float64Array], good: NDArray[np.bool_]) -> float:
    """How much the light of the bright pixels seems to change with the exposure."""
    half, full = lights[-2], lights[-1]
    bright = good & (half > _LIT * np.percentile(half[good], 99)) & (half > 0)
    return float(abs(np.median(full[bright] / half[bright]) - 1)) if bright.any() else 1.0


def _structured(left: Float64Array, lit: NDArray[np.bool_]) -> float:
    """Root mean square of what is left over nine blocks: grain is averaged away, dust and fringes are not."""
    from scipy.ndimage import uniform_filter  # noqa: PLC0415 - takes a while to load

    count = uniform_filter(lit.astype(np.float64), 3)
    mean = uniform_filter(np.where(lit, left, 0.0), 3) / np.maximum(count, 1e-9)
    return float(np.sqrt(np.mean(mean[lit] ** 2)))
