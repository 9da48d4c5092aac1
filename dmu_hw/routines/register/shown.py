"""Every frame against the stripes that it should show where the map has them: nothing else tells that patterns came in
their order, and that nothing moved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dmu_hw.routine import Curve
from dmu_hw.routines.register.registration import Registration
from dmu_hw.routines.register.stripes import AXES, COLUMN, ROW, Stripes

Array = NDArray[np.float64]
_SURE = 0.125
"""Pixels so far from an edge, as a part of a stripe, must be on or off as the stripe is…"""
_SURE_PX, _SURE_BLURS = 2.5, 0.3
"""…and so far in pixels, and as a part of the finest stripe that is resolved."""
_TELLING = 0.1
"""Part of the pixels that must be sure for a frame to tell."""


@dataclass(frozen=True, eq=False)
class Shown:
    """Every frame against the stripes that it should show where the map has them."""

    stripes: Sequence[Stripes]
    coarse: int
    """How many of them are coarse ones, which come first."""
    agreements: Array
    """Part of the sure pixels of each frame that are as they should be; nan where too few are sure."""
    slips_px: Array
    """How far its stripes lie beside where the map has them; nan where too few edges are seen."""

    @classmethod
    def of(cls, fit: Registration, parts: Array, stripes: Sequence[Stripes], coarse: int) -> Shown:
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
