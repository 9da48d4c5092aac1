"""Stained nuclei of a layer of cells."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from dmu_hw.files import Fraction, NonNegative, Settings
from dmu_hw.physics.specimens.base import (
    MOST_IN_A_CELL,
    Canvas,
    Cell,
    Scene,
    Seed,
    Waves,
    Window,
    brightnesses,
    generator,
    object_number,
)
from dmu_hw.physics.specimens.nucleus import LARGEST, Nucleus, outline

_FULLEST = 0.45
"""Nuclei thrown at random cannot cover much more of the plane."""
_OVERLAP = 0.04
"""How far two nuclei may lie over each other, as a part of the distance at which they touch."""
_THROWS = 40
_BRIGHTEST = 0.8
"""Mean brightness in the brightest nucleus, so that its texture stays below 1."""
Placed = tuple[float, float, Nucleus]


class Nuclei(Settings):
    """Nuclei that differ in size, shape and brightness; some touch, few overlap."""

    kind: Literal["nuclei"] = "nuclei"
    seed: Seed
    """Another seed, another specimen."""
    per_mm2: NonNegative = 2_000.0
    """Nuclei a square millimetre. Where it gets tight some find no room: 2 % of 2000, 5 % of 3000, 11 % of 3900."""
    radius_um: Annotated[float, Field(ge=0.5, le=50)] = 6.0
    """Mean radius of the circle of a nucleus' area."""
    radius_spread: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Standard deviation of the radius, as a part of it."""
    eccentricity: Annotated[float, Field(ge=0, le=0.85)] = 0.65
    """Mean eccentricity of the outline: 0 is a circle, 0.8 is 1.7 times as long as wide."""
    lobes: Annotated[float, Field(ge=0, le=0.2)] = 0.05
    """How far outlines stray from an ellipse, as a part of the radius."""
    edge_um: Annotated[float, Field(gt=0, le=5)] = 0.5
    """Width of the edge, from dark to bright."""
    touching: Fraction = 0.3
    """Part of the nuclei that are laid against another one."""
    condensed: Fraction = 0.04
    """Part of the nuclei that are small and bright, as in division or death."""
    brightness: Fraction = 0.5
    """Mean brightness in the middle of a nucleus."""
    brightness_spread: NonNegative = 0.35
    """Standard deviation of the brightness from nucleus to nucleus, as a part of it."""
    texture: Annotated[float, Field(ge=0, le=0.5)] = 0.11
    """Standard deviation of the brightness within a nucleus, as a part of it."""
    haze: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    """Mean brightness between the nuclei."""

    @model_validator(mode="after")
    def _there_is_room(self) -> Nuclei:
        covered = self.per_mm2 * 1e-6 * math.pi * self.radius_um**2
        if covered > _FULLEST:
            raise ValueError(
                f"per_mm2 {self.per_mm2:g} nuclei of radius_um {self.radius_um:g} would cover {covered:.0%}; "
                f"there is room for {_FULLEST:.0%}"
            )
        return self

    def scene(self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Scene:
        """What lies in a window round a stage position."""
        window = Window(centre_um, shape, pixel_um)
        canvas = Canvas(window)
        side_um = _cell_um(self)
        for cell in window.cells(side_um, LARGEST * self.radius_um + self.edge_um):
            for index, (x_um, y_um, nucleus) in enumerate(_place(self, cell)):
                nucleus.add(canvas, x_um, y_um, object_number(cell, index))
        haze = Waves.draw(generator(self.seed, "haze", (0, 0)), 5 * self.radius_um, 30 * self.radius_um, 24)
        canvas.fill(self.haze * np.clip(1 + 0.4 * haze.at(window.x_um, window.y_um), 0, 2))
        return canvas.scene()


def _cell_um(kind: Nuclei) -> float:
    # Wide enough that a nucleus can touch those of the adjacent cells only.
    return 2 * LARGEST * kind.radius_um


@lru_cache(maxsize=4096)
def _place(kind: Nuclei, cell: Cell) -> tuple[Placed, ...]:
    """The nuclei of one cell: thrown at random where there is room.

    Cells are filled in four turns, by the parity of their column and row, and each leaves alone what the adjacent
    cells of earlier turns hold. So a cell depends on a few cells round it and on no window.
    """
    rng = generator(kind.seed, kind.kind, cell)
    side_um = _cell_um(kind)
    others = [placed for near in _earlier(cell) for placed in _place(kind, near)]
    mine: list[Placed] = []
    count = min(int(rng.poisson(kind.per_mm2 * side_um**2 * 1e-6)), MOST_IN_A_CELL)
    for nucleus in _draw(rng, kind, count):
        for _ in range(_THROWS):
            x_um, y_um = _throw(rng, kind, cell, nucleus, others + mine)
            if all(_apart(x_um, y_um, nucleus, other) for other in others + mine):
                mine.append((x_um, y_um, nucleus))
                break
    return tuple(mine)


def _earlier(cell: Cell) -> list[Cell]:
    column, row = cell
    around = [(column + i, row + j) for j in (-1, 0, 1) for i in (-1, 0, 1)]
    return [near for near in around if _turn(near) < _turn(cell)]


def _turn(cell: Cell) -> int:
    return cell[0] % 2 + 2 * (cell[1] % 2)


def _throw(
    rng: np.random.Generator, kind: Nuclei, cell: Cell, nucleus: Nucleus, others: list[Placed]
) -> tuple[float, float]:
    """A place in the cell, some against a nucleus that is already there."""
    side_um = _cell_um(kind)
    if others and rng.uniform() < kind.touching:
        x_um, y_um, other = others[rng.integers(len(others))]
        angle = rng.uniform(-np.pi, np.pi)
        distance_um = float(other.radius_um(angle) + nucleus.radius_um(_opposite(angle))) * (1 - _OVERLAP)
        x_um, y_um = x_um + distance_um * math.cos(angle), y_um + distance_um * math.sin(angle)
        if (math.floor(x_um / side_um), math.floor(y_um / side_um)) == cell:
            return x_um, y_um
    return (cell[0] + rng.uniform()) * side_um, (cell[1] + rng.uniform()) * side_um


def _apart(x_um: float, y_um: float, nucleus: Nucleus, other: Placed) -> bool:
    dx, dy = x_um - other[0], y_um - other[1]
    distance_um = math.hypot(dx, dy)
    if distance_um > nucleus.reach_um + other[2].reach_um:
        return True
    angle = math.atan2(dy, dx)
    touch_um = float(other[2].radius_um(angle) + nucleus.radius_um(_opposite(angle)))
    return distance_um > (1 - _OVERLAP) * touch_um - 1e-6


def _opposite(angle: float) -> float:
    return angle - math.copysign(math.pi, angle)


def _draw(rng: np.random.Generator, kind: Nuclei, count: int) -> list[Nucleus]:
    brightness = brightnesses(rng, kind.brightness, kind.brightness_spread, count)
    return [_nucleus(rng, kind, value) for value in brightness]


def _nucleus(rng: np.random.Generator, kind: Nuclei, brightness: float) -> Nucleus:
    condensed = rng.uniform() < kind.condensed
    radius_um = kind.radius_um * (1 + kind.radius_spread * np.clip(rng.standard_normal(), -2.5, 2.5))
    radius_um *= rng.uniform(0.45, 0.7) if condensed else 1
    eccentricity = float(np.clip(rng.normal(kind.eccentricity, 0.15), 0, 0.85)) if kind.eccentricity else 0.0
    edge_um = outline(rng, radius_um, eccentricity, kind.lobes)
    edge_um *= min(1, LARGEST * kind.radius_um / edge_um.max())
    # Lengths within a nucleus follow its size.
    spots = rng.integers(0, 1 if condensed else 5)
    angle, distance_um = rng.uniform(0, 2 * np.pi, spots), radius_um * 0.6 * np.sqrt(rng.uniform(0, 1, spots))
    nucleoli = (
        distance_um * np.cos(angle),
        distance_um * np.sin(angle),
        radius_um * rng.uniform(0.1, 0.22, spots),
        rng.uniform(0.15, 0.45, spots) if kind.texture else np.zeros(spots),
    )
    return Nucleus(
        outline_um=edge_um,
        edge_um=kind.edge_um,
        brightness=min(brightness * (1.7 if condensed else 1), _BRIGHTEST),
        chromatin=Waves.draw(rng, kind.radius_um * 0.17, kind.radius_um * 1.5, 48),
        texture=kind.texture,
        nucleoli=np.stack(nucleoli, axis=1),
    )
