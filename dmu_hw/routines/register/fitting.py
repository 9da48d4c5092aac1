"""Frames of stripes → the map of the mirrors, how well it holds, and pictures to judge it by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray
from dmu_hw.physics.warp import Warp
from dmu_hw.routine import Array as AnyArray
from dmu_hw.routine import Curve, Evidence, Finding, FitError
from dmu_hw.routines.register.decoding import Coarse, Decoded, Lit, decoded_coarse, decoded_fine, fine_period
from dmu_hw.routines.register.mapping import as_warp, spread_of_fit
from dmu_hw.routines.register.stripes import AXES, COLUMN, ROW, Stripes, of_facts

Array = NDArray[np.float64]
_BLOCKS = 20
"""Residuals are means over blocks: so many along the longer side of a frame."""
_FULL = 0.25
"""Part of a block that must be seen."""
_REACH_PX = 3.0
"""Pixels farther than that off the map do not follow it."""
_ROUND_TRIP_PX = 1e-3
_SURE = 0.125
"""Pixels so far from an edge, as a part of a stripe, must be on or off as the stripe is…"""
_SURE_PX, _SURE_BLURS = 2.5, 0.3
"""…and so far in pixels, and as a part of the finest stripe that is resolved."""
_TELLING = 0.1
"""Part of the pixels that must be sure for a frame to tell."""
_BRIGHT = 80
"""Percentile: whether light grows with time is asked of brighter pixels."""


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


def fitted(evidence: Evidence, pixel_um: float) -> Finding:
    """FitError where there is no light, or nothing that the frames agree on."""
    facts, arrays = evidence.facts, evidence.arrays
    if "no_light" in facts:
        raise FitError(f"{facts['no_light']}; look for the lamp, a filter, a shutter, the dye")
    wide = of_facts(facts["coarse"])
    first = arrays["coarse"]
    seen = decoded_coarse(Lit.of(first[:1], first[1:2]), first[2:], wide)
    fine_period(seen, first.shape[1:])
    fine = arrays["fine"]
    lit = Lit.of(np.stack([first[0], fine[0]]), np.stack([first[1], fine[1]]))
    rows, columns = facts["mirrors_shape"]
    decoded = decoded_fine(lit, fine[2:], facts["period"], seen, (rows, columns))
    window = Window.of(facts)
    chip = window.on_chip(decoded.places)
    mirrors = decoded.mirrors - np.array([columns, rows]) / 2
    warp, follows = as_warp(mirrors, chip * pixel_um, within=_REACH_PX * window.binning * pixel_um)
    fit = _Fit(lit, window, warp, pixel_um, (rows, columns), seen, decoded, mirrors, chip, follows)
    parts = np.concatenate([lit.parts(first[2:]), lit.parts(fine[2:])])
    shown = _Shown.of(fit, parts, [*wide, *of_facts(facts["fine"])], len(wide))
    figures = fit.figures() | shown.figures() | _light(lit, arrays)
    optics = {
        "mirrors": {"to_sample": warp.model_dump()},
        # measured coordinates are those of the sample: whatever the camera lens bends is bent in them
        "sample_to_sensor": Warp().model_dump(),
    }
    pictures, marks = fit.pictures()
    return Finding(optics, figures, pictures=pictures, marks=marks, curves=shown.curves())


@dataclass(frozen=True, eq=False)
class _Fit:
    """A map and the pixels that it was fitted to."""

    lit: Lit
    window: Window
    warp: Warp
    pixel_um: float
    shape: tuple[int, int]
    coarse: Coarse
    decoded: Decoded
    mirrors: Array
    """(n, 2): columns and rows, counted from the centre of the array."""
    chip: Array
    """(n, 2): where they were seen, in unbinned pixels from the middle of the chip."""
    follows: BoolArray

    def __post_init__(self) -> None:
        x, y = self.warp.invert(*(self.chip[self.follows] * self.pixel_um).T)
        there = np.column_stack(self.warp.apply(x, y)) / self.pixel_um
        if not np.abs(there - self.chip[self.follows]).max() < _ROUND_TRIP_PX:
            raise FitError("the map that fits best folds the array over itself: let the array light more of the chip")

    def residuals(self) -> Array:
        """(n, 2) in unbinned pixels: where the map puts a mirror, as seen from where it was."""
        return np.column_stack(self.warp.apply(*self.mirrors.T)) / self.pixel_um - self.chip

    def blocks(self) -> tuple[Array, Array, Array]:
        """Middles (n, 2) in pixels of the frame, mean residuals (n, 2), and the same as a map (y, x, 2)."""
        rows, columns = self.lit.mask.shape
        side = max(4, -(-max(rows, columns) // _BLOCKS))
        across = -(-columns // side)
        places = self.decoded.places[self.follows]
        number = (places[:, 1] // side * across + places[:, 0] // side).astype(np.int64)
        count = np.bincount(number, minlength=across * -(-rows // side))
        kept = np.flatnonzero(count > _FULL * side**2)

        def mean(values: Array) -> Array:
            sums = [np.bincount(number, values[:, axis], len(count))[kept] / count[kept] for axis in (0, 1)]
            return np.column_stack(sums)

        means = mean(self.residuals()[self.follows])
        table = np.full((len(count), 2), np.nan)
        table[kept] = means
        return mean(places), means, table.reshape(-1, across, 2)

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
        columns, rows = self.decoded.places[self.follows].astype(np.int64).T
        found[rows, columns] = True
        return found

    def figures(self) -> dict[str, float]:
        from scipy.ndimage import distance_transform_edt, uniform_filter  # noqa: PLC0415 - slow to load

        middles, means, _ = self.blocks()
        if len(means) < 4:
            raise FitError("the array lights too little of the chip for a map")
        reached, seen = self.reached(), uniform_filter(self.followers().astype(np.float32), 5) > 0.5
        away = distance_transform_edt(~seen)[reached] * self.window.binning
        y, x = np.nonzero(reached)
        border = np.column_stack([x, y])[:: max(1, len(x) // 5000)].astype(np.float64)
        scatter = self.residuals()[self.follows]
        error_px = math.sqrt(float((means**2).sum(axis=1).mean()) / 2)
        spread = spread_of_fit(middles, border)
        return {
            "residual_px": math.sqrt(2) * error_px,
            "worst_px": float(np.hypot(*means.T).max()),
            "scatter_px": 1.4826 * float(np.median(np.abs(scatter))),
            "uncertainty_px": math.sqrt(2) * error_px * float(spread.max()),
            "following": float(self.follows.mean()),
            "covered": float(reached.mean()),
            "extrapolated_px": float(away.max()),
            "modulation": self.decoded.modulation,
            **self._shape(),
        }

    def _shape(self) -> dict[str, float]:
        """The map in words that people can check, at the middle of what was seen."""
        here = np.median(self.mirrors[self.follows], axis=0)
        steps = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) + here
        origin, right, down = np.column_stack(self.warp.apply(*steps.T)) / self.pixel_um
        along, across = right - origin, down - origin
        det = float(along[0] * across[1] - along[1] * across[0])
        linear = np.column_stack([along, across])
        straight = origin + (self.mirrors[self.follows] - here) @ linear.T
        bend = np.column_stack(self.warp.apply(*self.mirrors[self.follows].T)) / self.pixel_um - straight
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


@dataclass(frozen=True, eq=False)
class _Shown:
    """Every frame against the stripes that it should show where the map has them."""

    stripes: Sequence[Stripes]
    coarse: int
    """How many of them are coarse ones, which come first."""
    agreements: Array
    """Part of the sure pixels of each frame that are as they should be; nan where too few are sure."""
    slips_px: Array
    """How far its stripes lie beside where the map has them; nan where too few edges are seen."""

    @classmethod
    def of(cls, fit: _Fit, parts: Array, stripes: Sequence[Stripes], coarse: int) -> _Shown:
        chip = fit.window.on_chip(fit.lit.places)
        column, row = fit.warp.invert(*(chip * fit.pixel_um).T)
        rows, columns = fit.shape
        positions = {COLUMN: column + columns / 2, ROW: row + rows / 2}
        scale_px = fit.coarse.px_a_mirror
        sure_px = max(_SURE_PX, _SURE_BLURS * fit.coarse.stripe_px)
        inside = np.minimum(columns / 2 - np.abs(column), rows / 2 - np.abs(row)) * scale_px > sure_px
        agreements, slips = np.full((2, len(parts)), np.nan)
        for number, (part, each) in enumerate(zip(parts, stripes, strict=True)):
            position = positions[each.axis]
            beyond, sign = each.edge(position)
            away_px, width_px = np.abs(beyond) * scale_px, each.width * scale_px
            sure = inside & (away_px > max(sure_px, _SURE * width_px))
            if np.count_nonzero(sure) > _TELLING * np.count_nonzero(inside):
                agreements[number] = np.mean((part[sure] > 0.5) == each.is_on(position[sure]))
            reach_px = min(2 * sure_px, width_px / 2)
            near = inside & (away_px < reach_px)
            if np.count_nonzero(near) > _TELLING * np.count_nonzero(inside) and width_px > 2 * sure_px:
                # light beyond an edge that lies too far on is missing: as much as the way between them
                lack = sign[near] * (each.is_on(position[near]) - np.clip(part[near], -0.5, 1.5))
                slips[number] = 2 * reach_px * lack.mean()
        return cls(stripes, coarse, agreements, slips * fit.window.binning)

    def figures(self) -> dict[str, float]:
        """No number where frames cannot tell."""
        axes = np.array([each.axis for each in self.stripes[: self.coarse]])
        slips = [self.slips_px[: self.coarse][axes == axis] for axis in AXES]
        return {
            "agreement": -_largest(-self.agreements),
            "slip_px": max(abs(float(np.mean(_told(each)))) if _told(each).size else math.nan for each in slips),
            "odd_frame_px": _largest(np.abs(self.slips_px)),
        }

    def curves(self) -> dict[str, Curve]:
        frames = np.flatnonzero(np.isfinite(self.slips_px))
        slips = Curve(frames, self.slips_px[frames], None, "frame", "pixels beside where the map has its stripes")
        return {"every frame against the map": slips}


def _told(values: Array) -> Array:
    return values[np.isfinite(values)]


def _largest(values: Array) -> float:
    return float(np.max(_told(values), initial=-math.inf))


def _light(lit: Lit, arrays: Any) -> dict[str, float]:
    """Whether light grows with time, and stayed as it was."""
    span = lit.span[lit.mask]
    bright = span >= np.percentile(span, _BRIGHT)
    half = (arrays["half"][0].astype(np.float64) - arrays["half"][1])[lit.mask]
    before, after = (arrays[name][0].astype(np.float64) - arrays[name][1] for name in ("coarse", "fine"))
    ratio = after[lit.mask] / np.maximum(before[lit.mask], 1.0)
    return {
        "bent": abs(2 * float(np.median(half[bright] / span[bright])) - 1),
        "unsteady": float(np.percentile(np.abs(ratio - 1), 80)),
    }
