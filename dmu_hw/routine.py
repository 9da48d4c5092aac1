"""The promise of a calibration routine: measure → fit → judge. Only `measure` needs the instrument.

A routine is a module of `dmu_hw.routines` with a class `Routine`, its `Settings` (what a recipe may say) and what the
class attributes below tell of it. `fit` and `judge` are pure: the evidence that was saved can be fitted again by
anybody, anywhere.

Coordinates are those of the bare chip, however the camera turns its frames: lengths are micrometres from the middle of
the whole chip (one unbinned pixel is `optics.sensor_pixel_um`), x to the right and y down. So ROI, binning and flips
are applied to a result and never measured again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dmu_hw import plugin
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Settings
from dmu_hw.physics.optics import Optics

if TYPE_CHECKING:
    from dmu_hw.instrument import Instrument

Array = NDArray[Any]
Sample = Literal["any", "dark", "dye", "beads", "specimen"]
"""What must lie under the objective: whatever lies there, no light at all (lid on), an even layer of dye, a slide of
sparse beads, or a specimen as it is imaged."""
SAMPLES: dict[str, str] = {
    "dark": "nothing: no sample, lens covered or room dark",
    "dye": "an even layer of dye (a dye slide, a concentrated droplet under a cover glass)",
    "beads": "sparse small beads, in focus",
    "specimen": "a specimen as it is to be imaged, in focus",
}
"""How people are asked for it."""
Said = Literal["pass", "warn", "refuse"]
_ORDER: tuple[Said, ...] = ("pass", "warn", "refuse")


@dataclass(frozen=True, eq=False)
class Evidence:
    """What was measured, as it came from the instrument: all that `fit` sees."""

    arrays: Mapping[str, Array]
    """Frames and the like, by name."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """How they were taken: numbers, texts and lists of them, as JSON can say them."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Something to be judged by eye: points that were measured and what the fit makes of them."""

    x: Array
    y: Array
    fitted: Array | None
    x_label: str
    y_label: str


@dataclass(frozen=True, eq=False)
class Finding:
    """What a fit makes of evidence."""

    optics: Mapping[str, Any]
    """What is to be believed from now on, in the layout of `Optics` and only what was found."""
    figures: Mapping[str, float]
    """What was found and how well: names end with their unit (`worst_px`, `gain_adu_per_e`), or are ratios."""
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """Maps that are too large for a YAML."""
    pictures: Mapping[str, Array] = field(default_factory=dict)
    """Caption → (y, x): residuals and the like for people's eyes."""
    curves: Mapping[str, Curve] = field(default_factory=dict)
    """Caption → curve."""
    marks: Mapping[str, Array] = field(default_factory=dict)
    """Caption of a picture → (n, 4): points with arrows to be drawn over it, x, y, dx, dy in its pixels; arrows are
    drawn larger than they are."""


@dataclass(frozen=True)
class Check:
    """One figure against its limits."""

    name: str
    value: float
    warns: float
    """Beyond it people are warned…"""
    refuses: float
    """…and beyond this the result is not to be used. Limits above each other bound from above, below from below."""
    advice: str = ""
    """What to do about it."""

    @property
    def said(self) -> Said:
        if not np.isfinite(self.value):
            return "refuse"
        sign = 1 if self.refuses >= self.warns else -1
        if sign * self.value > sign * self.refuses:
            return "refuse"
        return "warn" if sign * self.value > sign * self.warns else "pass"

    def __str__(self) -> str:
        allowed = f"{'at most' if self.refuses >= self.warns else 'at least'} {self.warns:.4g}"
        text = f"{self.name} is {self.value:.4g}, should be {allowed} (refused beyond {self.refuses:.4g})"
        return f"{text}; {self.advice}" if self.advice and self.said != "pass" else text


def verdict(checks: tuple[Check, ...]) -> Said:
    """The worst of them."""
    return max((check.said for check in checks), key=_ORDER.index, default="pass")


class FitError(ValueError):
    """The evidence does not allow a fit: what was seen, what was expected, and what to do. Nothing is believed."""


class Routine(Protocol):
    """The promise of a class `Routine`, built from its settings."""

    Settings: ClassVar[type[Settings]]
    sample: ClassVar[Sample]
    needs: ClassVar[tuple[str, ...]]
    """Routines whose results it builds upon: they must have passed before."""
    devices: ClassVar[tuple[str, ...]]
    """Roles whose settings in the rig YAML the result depends on: if they change, it is foreign."""
    per_channel: ClassVar[bool]
    """Whether each channel has its own result."""
    valid_days: ClassVar[float]
    """How long a result is good for where the recipe does not say so."""

    def measure(self, instrument: Instrument) -> Evidence:
        """Take what is needed. Light only through the instrument, which guards it."""

    def fit(self, evidence: Evidence, optics: Optics) -> Finding:
        """Pure. `optics` is what was believed when it was measured. FitError: nothing fits."""

    def judge(self, finding: Finding) -> tuple[Check, ...]:
        """Pure: the figures against their limits."""


def routine_of(name: str, document: Document, where: str) -> type[Routine]:
    """The class that a recipe names."""
    found: Any = plugin.load_class("dmu_hw.routines", name, "Routine", where=where, folder=document.path.parent)
    promised = ("Settings", "sample", "needs", "devices", "per_channel", "valid_days", "measure", "fit", "judge")
    lacking = [member for member in promised if not hasattr(found, member)]
    if lacking:
        raise InputError([Problem(where, f"Routine of {name!r} lacks {', '.join(lacking)}")])
    routine: type[Routine] = found
    return routine
