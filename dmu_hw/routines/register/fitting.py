"""Frames of stripes → the map of the mirrors, how well it holds, and pictures to judge it by."""

from __future__ import annotations

from collections.abc import Mapping

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
    coarse = decoded_coarse(Lit.of(first[:1], first[1:2]), first[2:], wide)
    fine_period(coarse, first.shape[1:])
    rows, columns = facts["mirrors_shape"]
    narrow, last = of_facts(facts["fine"]), arrays["fine"]
    lit = Lit.of(np.stack([first[0], last[0]]), np.stack([first[1], last[1]]))
    decoded = decoded_fine(lit, last[2:], facts["period"], coarse, (rows, columns))
    found = Registration.of(lit, Window.of(facts), pixel_um, (rows, columns), coarse, decoded)
    parts = np.concatenate([lit.parts(first[2:]), lit.parts(last[2:])])
    shown = Shown.of(found, parts, [*wide, *narrow], len(wide))
    optics = {
        "mirrors": {"to_sample": found.warp.model_dump()},
        # measured coordinates are those of the sample: whatever the camera lens bends is bent in them
        "sample_to_sensor": Warp().model_dump(),
    }
    pictures, marks = found.pictures()
    figures = found.figures() | shown.figures() | _light(lit, arrays)
    return Finding(optics, figures, pictures=pictures, marks=marks, curves=shown.curves())


def _light(lit: Lit, arrays: Mapping[str, Array]) -> dict[str, float]:
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
