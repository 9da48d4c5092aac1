"""Frames of stripes → the map of the mirrors, how well it holds, and pictures to judge it by."""

from __future__ import annotations

import numpy as np

from dmu_hw.physics.warp import Warp
from dmu_hw.routine import Array, Evidence, Finding, FitError
from dmu_hw.routines.register.decoding import Lit, decoded_coarse, decoded_fine, fine_period
from dmu_hw.routines.register.registration import Registration, Window
from dmu_hw.routines.register.shown import Shown
from dmu_hw.routines.register.stripes import of_facts

_BRIGHT = 80
"""Percentile: whether light grows with time is asked of brighter pixels."""


def fitted(evidence: Evidence, pixel_um: float) -> Finding:
    """FitError where there is no light, or nothing that the frames agree on."""
    facts, arrays = evidence.facts, evidence.arrays
    if "no_light" in facts:
        raise FitError(f"{facts['no_light']}; look for the lamp, a filter, a shutter, the dye")
    wide, first = of_facts(facts["coarse"]), arrays["coarse"]
    early = Lit.of(first[:1], first[1:2])
    fine_period(decoded_coarse(early, early.parts(first[2:]), wide), first.shape[1:])
    narrow, last, shape = (
        of_facts(facts["fine"]),
        arrays["fine"],
        (facts["mirrors_shape"][0], facts["mirrors_shape"][1]),
    )
    lit = Lit.of(np.stack([first[0], last[0], last[-2]]), np.stack([first[1], last[1], last[-1]]))
    parts = np.concatenate([lit.parts(first[2:], 0, 1), lit.parts(last[2:-2], 1, 2)])
    coarse = decoded_coarse(lit, parts[: len(wide)], wide)
    decoded = decoded_fine(lit, parts[len(wide) :], facts["period"], coarse, shape)
    found = Registration.of(lit, Window.of(facts), pixel_um, shape, coarse, decoded)
    shown = Shown.of(found, parts, [*wide, *narrow], len(wide))
    optics = {
        "mirrors": {"to_sample": found.warp.model_dump()},
        # measured coordinates are those of the sample: whatever the camera lens bends is bent in them
        "sample_to_sensor": Warp().model_dump(),
    }
    pictures, marks = found.pictures()
    figures = found.figures() | shown.figures() | _light(lit, arrays["half"])
    return Finding(optics, figures, pictures=pictures, marks=marks, curves=shown.curves())


def _light(lit: Lit, half: Array) -> dict[str, float]:
    """Whether light grows with time, and stayed as it was: from frames of all mirrors and of none for half as long."""
    before, *_, after = lit.spans
    bright = after >= np.percentile(after, _BRIGHT)
    doubled = 2 * (half[0].astype(np.float64) - half[1])[lit.mask]
    return {
        "bent": abs(float(np.median(doubled[bright] / after[bright])) - 1),
        "unsteady": float(np.percentile(np.abs(after / before - 1), 80)),
    }
