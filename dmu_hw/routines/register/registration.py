"""A map of the mirrors that was fitted: how well it holds, and where."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.physics.warp import Warp
from dmu_hw.routine import Array as AnyArray
from dmu_hw.routine import FitError
from dmu_hw.routines.register.decoding import Coarse, Decoded, Lit
from dmu_hw.routines.register.mapping import as_warp, spread_of_fit
from dmu_hw.routines.register.refining import Refined, refined
from dmu_hw.routines.register.stripes import STEPS

Array = NDArray[np.float64]
_BLOCKS = 20
"""Residuals are means over blocks: so many along the longer side of a frame."""
_FULL = 0.25
"""Part of a block that must be seen."""
_LEAST_BLOCKS = 4
_REACH_PX = 3.0
"""Pixels farther than that off the map do not follow it, beside what a step of the stripes allows."""
_ROUND_TRIP_PX = 1e-3


@dataclass(frozen=True)
class Window:
    """How pixels of a frame lie on the chip."""

    roi: tuple[int, int, int, int]
    binning: int
    sensor_shape: tuple[int, int]

    @classmethod
    def of(cls, facts: Any) -> Window:
        x, y, width, height = facts["roi"]
        rows, columns = facts["sensor_shape"]
        return cls((x, y, width, height), facts["binning"], (rows, columns))

    def on_chip(self, places: Array) -> Array:
        """Middles of pixels of the frame → unbinned pixels from the middle of the chip."""
        rows, columns = self.sensor_shape
        corner = np.array([self.roi[0] - columns / 2, self.roi[1] - rows / 2])
        found: Array = corner + (places + 0.5) * self.binning
        return found


@dataclass(frozen=True, eq=False)
class Registration:
    """A map and the pixels that it was fitted to."""

    lit: Lit
    window: Window
    pixel_um: float
    shape: tuple[int, int]
    """Rows and columns of the array."""
    coarse: Coarse
    modulation: float
    following: float
    """Part of the pixels that tell a mirror which follow the map; of these:"""
    places: Array
    """(n, 2): x and y in pixels of the frame."""
    mirrors: Array
    """(n, 2): columns and rows, counted from the centre of the array."""
    refined: Refined

    @classmethod
    def of(
        cls, lit: Lit, window: Window, pixel_um: float, shape: tuple[int, int], coarse: Coarse, decoded: Decoded
    ) -> Registration:
        """FitError where no map can be trusted."""
        rows, columns = shape
        microns = window.on_chip(decoded.places) * pixel_um
        mirrors = decoded.mirrors - np.array([columns, rows]) / 2
        binned_um, step = window.binning * pixel_um, decoded.period / STEPS
        within_um = (_REACH_PX + step * coarse.px_a_mirror) * binned_um
        warp, follows = as_warp(mirrors, microns, within=within_um)
        microns, mirrors = microns[follows], mirrors[follows]
        _check_inverse(warp, microns, pixel_um)
        found = refined(warp, microns, mirrors, step)
        _check_inverse(found.warp, microns, pixel_um)
        part = float(follows.mean())
        return cls(
            lit, window, pixel_um, shape, coarse, decoded.modulation, part, decoded.places[follows], mirrors, found
        )

    @property
    def warp(self) -> Warp:
        """Mirrors to micrometres from the middle of the chip."""
        return self.refined.warp

    def blocks(self) -> tuple[Array, Array, Array]:
        """Middles (n, 2) in pixels of the frame, mean residuals (n, 2), and the same as a map (y, x, 2)."""
        rows, columns = self.lit.mask.shape
        side = max(4, -(-max(rows, columns) // _BLOCKS))
        across = -(-columns // side)
        number = (self.places[:, 1] // side * across + self.places[:, 0] // side).astype(np.int64)
        cells = across * -(-rows // side)
        kept = np.flatnonzero(np.bincount(number, minlength=cells) > _FULL * side**2)

        def mean(values: Array, weights: Array) -> Array:
            known = np.bincount(number, weights, cells)[kept]
            return np.column_stack([np.bincount(number, each * weights, cells)[kept] / known for each in values.T])

        means = mean(self.refined.residuals / self.pixel_um, self.refined.weights)
        table = np.full((cells, 2), np.nan)
        table[kept] = means
        return mean(self.places, np.ones(len(self.places))), means, table.reshape(-1, across, 2)

    def reached(self) -> BoolArray:
        """Pixels of the frame (y, x) that the array lights, as the map has it."""
        rows, columns = self.lit.mask.shape
        x, y = np.meshgrid(np.arange(columns), np.arange(rows))
        chip = self.window.on_chip(np.column_stack([x.ravel(), y.ravel()]).astype(np.float64))
        column, row = self.warp.invert(*(chip * self.pixel_um).T)
        there = np.column_stack(self.warp.apply(column, row)) / self.pixel_um
        solved = np.hypot(*(there - chip).T) < 1.0
        inside = (np.abs(column) <= self.shape[1] / 2) & (np.abs(row) <= self.shape[0] / 2) & solved
        found: BoolArray = inside.reshape(rows, columns)
        return found

    def followers(self) -> BoolArray:
        """Pixels of the frame that were seen to follow the map."""
        found = np.zeros(self.lit.mask.shape, dtype=bool)
        columns, rows = self.places.astype(np.int64).T
        found[rows, columns] = True
        return found

    def figures(self) -> dict[str, float]:
        from scipy.ndimage import distance_transform_edt, uniform_filter  # noqa: PLC0415 - slow to load

        middles, means, _ = self.blocks()
        if len(means) < _LEAST_BLOCKS:
            raise FitError("the array lights too little of the chip for a map")
        reached, seen = self.reached(), uniform_filter(self.followers().astype(np.float32), 5) > 0.5
        away = distance_transform_edt(~seen)[reached] * self.window.binning
        y, x = np.nonzero(reached)
        border = np.column_stack([x, y])[:: max(1, len(x) // 5000)].astype(np.float64)
        error_px = math.sqrt(float((means**2).sum(axis=1).mean()) / 2)
        spread = spread_of_fit(middles, border)
        return {
            "residual_px": math.sqrt(2) * error_px,
            "worst_px": float(np.hypot(*means.T).max()),
            "scatter_px": 1.4826 * float(np.median(np.abs(self.refined.residuals))) / self.pixel_um,
            "uncertainty_px": math.sqrt(2) * error_px * float(spread.max()),
            "following": self.following,
            "covered": float(reached.mean()),
            "extrapolated_px": float(away.max()),
            "modulation": self.modulation,
            **self._shape(),
        }

    def _shape(self) -> dict[str, float]:
        """The map in words that people can check, at the middle of what was seen."""
        here = np.median(self.mirrors, axis=0)
        steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) + here
        origin, right, down = np.column_stack(self.warp.apply(*steps.T)) / self.pixel_um
        along, across = right - origin, down - origin
        det = float(along[0] * across[1] - along[1] * across[0])
        linear = np.column_stack([along, across])
        straight = origin + (self.mirrors - here) @ linear.T
        bend = np.column_stack(self.warp.apply(*self.mirrors.T)) / self.pixel_um - straight
        return {
            "scale_px_per_mirror": math.sqrt(abs(det)),
            "turn_deg": math.degrees(math.atan2(along[1], along[0])),
            "mirrored": float(det < 0),
            "skew_deg": math.degrees(math.asin(float(along @ across / np.hypot(*along) / np.hypot(*across)))),
            "distortion_px": float(np.hypot(*bend.T).max()),
        }

    def pictures(self) -> tuple[dict[str, AnyArray], dict[str, AnyArray]]:
        middles, means, table = self.blocks()
        covered = self.lit.mask.astype(np.uint8) + self.reached() + self.followers()
        light = "light of all mirrors, and where the map puts what was seen elsewhere"
        pictures: dict[str, AnyArray] = {
            light: self.lit.span.astype(np.float32),
            "used: 3 follows the map, 2 lit by the array, 1 light that is not the array's, 0 dark": covered,
            "residual along x in pixels": table[..., 0].astype(np.float32),
            "residual along y in pixels": table[..., 1].astype(np.float32),
        }
        return pictures, {light: np.column_stack([middles, means / self.window.binning])}


def _check_inverse(warp: Warp, microns: Array, pixel_um: float) -> None:
    there = np.column_stack(warp.apply(*warp.invert(*microns.T)))
    if not np.abs(there - microns).max() < _ROUND_TRIP_PX * pixel_um:
        raise FitError("the map that fits best folds the array over itself: let the array light more of the chip")
