"""Curved fibres: worm-like chains, as of microtubules or actin bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dmu_hw.files import Fraction, NonNegative, Positive, Settings
from dmu_hw.physics.specimens.base import (
    MOST_IN_A_CELL,
    Box,
    Canvas,
    Cell,
    Float64Array,
    Scene,
    Seed,
    Window,
    brightnesses,
    bump,
    generator,
    object_number,
)

_CELL_UM = 40.0
_LONGEST = 1.5
"""Longest fibre, as a part of the mean; the shortest is as far below."""
_MODES = np.arange(1, 17)
_PATCHINESS = 0.2


@dataclass(frozen=True)
class _Fibre:
    x_um: Float64Array
    y_um: Float64Array
    brightness: Float64Array
    """One a point; the stretch to the next point has it."""
    number: int


class Filaments(Settings):
    """Fibres that bend as heat bends them."""

    kind: Literal["filaments"] = "filaments"
    seed: Seed
    """Another seed, another specimen."""
    per_mm2: Annotated[float, Field(ge=0, le=20_000)] = 4_000.0
    """Fibres a square millimetre."""
    width_um: Annotated[float, Field(ge=0.05, le=5)] = 0.4
    """Width of a fibre at half of its brightness."""
    length_um: Annotated[float, Field(gt=0, le=500)] = 60.0
    """Mean length; fibres have half to one and a half of it."""
    persistence_um: Positive = 150.0
    """Length over which a fibre forgets its direction: large is straight."""
    brightness: Fraction = 0.5
    """Mean brightness along the middle of a fibre."""
    brightness_spread: NonNegative = 0.4
    """Standard deviation of the brightness from fibre to fibre, as a part of it."""

    def scene(self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Scene:
        """What lies in a window round a stage position."""
        window = Window(centre_um, shape, pixel_um)
        canvas = Canvas(window)
        reach_um = self.length_um * _LONGEST / 2 + self.width_um
        for cell in window.cells(_CELL_UM, reach_um):
            for fibre in self._fibres(cell):
                _add(canvas, fibre, self.width_um)
        return canvas.scene()

    def _fibres(self, cell: Cell) -> list[_Fibre]:
        rng = generator(self.seed, self.kind, cell)
        count = min(int(rng.poisson(self.per_mm2 * _CELL_UM**2 * 1e-6)), MOST_IN_A_CELL)
        brightness = brightnesses(rng, self.brightness, self.brightness_spread, count)
        return [self._fibre(rng, cell, i, brightness[i]) for i in range(count)]

    def _fibre(self, rng: np.random.Generator, cell: Cell, index: int, brightness: float) -> _Fibre:
        middle_um = (np.array(cell) + rng.uniform(size=2)) * _CELL_UM
        length_um = self.length_um * rng.uniform(2 - _LONGEST, _LONGEST)
        steps = max(round(length_um / max(self.width_um, 0.25)), 2)
        along = np.linspace(0, np.pi, steps + 1)
        # The direction of a worm-like chain as a sum of its bending modes (Gittes et al. 1993), each in equilibrium.
        amplitudes = rng.standard_normal(len(_MODES)) * np.sqrt(2 * length_um / self.persistence_um) / (np.pi * _MODES)
        angle = rng.uniform(0, 2 * np.pi) + amplitudes @ np.cos(np.outer(_MODES, along))
        step_um = length_um / steps
        x_um, y_um = (_centred(np.cumsum(direction(angle)) * step_um) for direction in (np.cos, np.sin))
        ripple = np.sin(rng.uniform(4, 12) * along + rng.uniform(0, 2 * np.pi))
        return _Fibre(
            x_um + middle_um[0],
            y_um + middle_um[1],
            brightness * (1 + _PATCHINESS * (ripple - 1) / 2),
            object_number(cell, index),
        )


def _centred(path_um: Float64Array) -> Float64Array:
    return np.asarray(path_um - path_um[len(path_um) // 2])


def _add(canvas: Canvas, fibre: _Fibre, width_um: float) -> None:
    x_um, y_um = fibre.x_um, fibre.y_um
    box = canvas.window.box(x_um.min() - width_um, x_um.max() + width_um, y_um.min() - width_um, y_um.max() + width_um)
    if box is None:
        return
    values = _ridge(canvas.window, box, fibre, width_um)
    canvas.add(box, values, values > fibre.brightness.mean() / 2, fibre.number)


def _ridge(window: Window, box: Box, fibre: _Fibre, width_um: float) -> Float64Array:
    """Brightness of one fibre over a box: at each pixel, that of the nearest of its straight stretches."""
    rows, columns = window.y_um[box[0]], window.x_um[box[1]]
    values = np.zeros((len(rows), len(columns)))
    start_x, start_y = fibre.x_um[:-1], fibre.y_um[:-1]
    run_x, run_y = np.diff(fibre.x_um), np.diff(fibre.y_um)
    length_um = np.hypot(run_x, run_y).max()
    # Each stretch paints one small square of pixels; squares that stick out of the box are cut by `kept`.
    side = int(np.ceil((length_um + 2 * width_um) / window.pixel_um)) + 1
    first_row = np.ceil((start_y + run_y / 2 - length_um / 2 - width_um - rows[0]) / window.pixel_um).astype(int)
    first_column = np.ceil((start_x + run_x / 2 - length_um / 2 - width_um - columns[0]) / window.pixel_um).astype(int)
    near = (first_row > -side) & (first_row < len(rows)) & (first_column > -side) & (first_column < len(columns))
    row = first_row[near, None, None] + np.arange(side)[:, None]
    column = first_column[near, None, None] + np.arange(side)
    dy = rows[0] + row * window.pixel_um - start_y[near, None, None]
    dx = columns[0] + column * window.pixel_um - start_x[near, None, None]
    run_x, run_y = run_x[near, None, None], run_y[near, None, None]
    part = np.clip((dx * run_x + dy * run_y) / (run_x**2 + run_y**2), 0, 1)
    distance = np.hypot(dx - part * run_x, dy - part * run_y) / width_um
    painted = fibre.brightness[:-1][near, None, None] * bump(distance)
    kept = (painted > 0) & (row >= 0) & (row < len(rows)) & (column >= 0) & (column < len(columns))
    np.maximum.at(values.reshape(-1), (row * len(columns) + column)[kept], painted[kept])
    return values
