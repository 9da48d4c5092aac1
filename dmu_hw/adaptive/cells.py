"""Fields with cells: counted where the bundle segments, else found as what is bright in the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field
from scipy import ndimage

from dmu_hw.choosing import Seen
from dmu_hw.data import Estimate
from dmu_hw.files import Count, Fraction, NonNegative, Settings


class CellSettings(Settings):
    """What counts as a cell, and how many make a field worth while."""

    least: Annotated[float, Field(gt=0)] = 1.0
    """Cells that a field has at least, in the plane that has most of them."""
    most: Count | None = None
    """No more fields than so many of a time point, those with the most cells first; null: all that have enough."""
    area_um2: NonNegative = 20.0
    """Smaller objects are no cells."""
    brightness: Fraction = 0.2
    """Of an image without objects: what is brighter belongs to a cell; 1 is the brightest dye of the model."""


class Chooser:
    """Scores are numbers of cells."""

    Settings = CellSettings

    def __init__(self, settings: CellSettings) -> None:
        self.settings = settings

    def score(self, estimate: Estimate, seen: Seen) -> float:  # noqa: ARG002 - cells are cells wherever they are
        bright = estimate.image > self.settings.brightness
        labels = ndimage.label(bright)[0] if estimate.labels is None else estimate.labels
        sizes = np.bincount(np.asarray(labels).ravel())[1:]
        return float(np.count_nonzero(sizes * estimate.pixel_um**2 >= max(self.settings.area_um2, 1e-9)))

    def choose(self, scores: Mapping[int, Sequence[float]]) -> list[int]:
        best = {field: max(values) for field, values in scores.items()}
        enough = sorted((field for field in best if best[field] >= self.settings.least), key=lambda f: (-best[f], f))
        return sorted(enough[: self.settings.most])
