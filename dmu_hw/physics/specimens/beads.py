"""Beads and puncta: small bright spots."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dmu_hw.files import NonNegative, Settings
from dmu_hw.physics.specimens.base import (
    MOST_IN_A_CELL,
    Canvas,
    Scene,
    Seed,
    Window,
    brightnesses,
    bump,
    generator,
    object_number,
)

_CELL_UM = 20.0


class Beads(Settings):
    """Round spots strewn at random."""

    kind: Literal["beads"] = "beads"
    seed: Seed
    """Another seed, another specimen."""
    per_mm2: Annotated[float, Field(ge=0, le=200_000)] = 60_000.0
    """Beads a square millimetre."""
    diameter_um: Annotated[float, Field(gt=0, le=5)] = 0.5
    """Mean width of a bead at half of its brightness."""
    diameter_spread: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Standard deviation of the diameter, as a part of it; none differs by more than twice that."""
    brightness: Annotated[float, Field(ge=0, le=10_000)] = 0.6
    """Mean brightness in the middle of a bead; those that are sold to calibrate with hold far more dye than a cell."""
    brightness_spread: NonNegative = 0.4
    """Standard deviation of the brightness, as a part of it."""

    def scene(self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Scene:
        """What lies in a window round a stage position."""
        window = Window(centre_um, shape, pixel_um)
        canvas = Canvas(window)
        reach_um = self.diameter_um * (1 + 2 * self.diameter_spread)
        for cell in window.cells(_CELL_UM, reach_um):
            self._add_cell(canvas, cell)
        return canvas.scene()

    def _add_cell(self, canvas: Canvas, cell: tuple[int, int]) -> None:
        rng = generator(self.seed, self.kind, cell)
        count = min(int(rng.poisson(self.per_mm2 * _CELL_UM**2 * 1e-6)), MOST_IN_A_CELL)
        x_um, y_um = (np.array(cell) + rng.uniform(size=(count, 2))).T * _CELL_UM
        diameter_um = self.diameter_um * (1 + self.diameter_spread * np.clip(rng.standard_normal(count), -2, 2))
        brightness = brightnesses(rng, self.brightness, self.brightness_spread, count)
        window = canvas.window
        for i in range(count):
            # Half of the hill lies within half of its foot, so the foot is as far out as the bead is wide.
            box = window.around(x_um[i], y_um[i], diameter_um[i])
            if box is None:
                continue
            rows, columns = box
            distance = np.hypot(window.y_um[rows, None] - y_um[i], window.x_um[columns] - x_um[i]) / diameter_um[i]
            canvas.add(box, brightness[i] * bump(distance), distance < 0.5, object_number(cell, i))
