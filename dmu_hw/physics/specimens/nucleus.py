"""One nucleus: its outline, chromatin and nucleoli."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmu_hw.physics.specimens.base import Canvas, Float64Array, Waves

ANGLES = np.linspace(-np.pi, np.pi, 257)
"""Where outlines are given; the first is the last."""
LARGEST = 2.0
"""No outline reaches farther than this times the mean radius."""
_RIM = 0.55
"""Brightness near the edge, where a nucleus is thin, as a part of that in the middle."""


@dataclass(frozen=True)
class Nucleus:
    """A nucleus about its own centre."""

    outline_um: Float64Array
    """Distance of the edge in the directions `ANGLES`."""
    edge_um: float
    brightness: float
    chromatin: Waves
    texture: float
    nucleoli: Float64Array
    """(nucleolus, 4): x, y and radius in µm, depth."""

    @property
    def reach_um(self) -> float:
        return float(self.outline_um.max()) + self.edge_um

    def radius_um(self, angle: Float64Array | float) -> Float64Array:
        """Distance of the edge in a direction between -π and π."""
        return np.asarray(np.interp(angle, ANGLES, self.outline_um))

    def add(self, canvas: Canvas, x_um: float, y_um: float, number: int) -> None:
        """Lay this nucleus at a place of the plane."""
        window = canvas.window
        box = window.around(x_um, y_um, self.reach_um)
        if box is None:
            return
        dx, dy = window.x_um[box[1]] - x_um, window.y_um[box[0]] - y_um
        distance = np.hypot(dy[:, None], dx)
        radius = self.radius_um(np.arctan2(dy[:, None], dx))
        depth = np.clip((radius - distance) / self.edge_um + 0.5, 0, 1)
        edge = depth**2 * (3 - 2 * depth)
        dome = _RIM + (1 - _RIM) * np.sqrt(np.maximum(1 - (distance / radius) ** 2, 0))
        values = self.brightness * edge * dome * (1 + self.texture * self.chromatin.at(dx, dy))
        for spot_x, spot_y, spot_radius, spot_depth in self.nucleoli:
            values *= 1 - spot_depth * np.outer(_gauss(dy - spot_y, spot_radius), _gauss(dx - spot_x, spot_radius))
        canvas.add(box, np.clip(values, 0, 1), distance < radius, number)


def _gauss(distance_um: Float64Array, radius_um: float) -> Float64Array:
    return np.asarray(np.exp(-((distance_um / radius_um) ** 2)))


def outline(rng: np.random.Generator, radius_um: float, eccentricity: float, lobes: float) -> Float64Array:
    """An ellipse of the area of a circle of this radius, dented at random; one in six is kidney-shaped."""
    stretch = (1 - eccentricity**2) ** -0.25
    turned = ANGLES - rng.uniform(0, 2 * np.pi)
    ellipse = radius_um / np.sqrt((np.cos(turned) / stretch) ** 2 + (np.sin(turned) * stretch) ** 2)
    orders = np.arange(2, 7)[:, None]
    waves = np.cos(orders * ANGLES + rng.uniform(0, 2 * np.pi, orders.shape)) * rng.normal(0, 1.5 / orders**1.5)
    # The dent of a kidney is at one of the long sides.
    dent = rng.uniform(0.15, 0.4) * (rng.uniform() < 1 / 6) * np.exp(6 * (np.sin(turned) - 1))
    return np.asarray(ellipse * (1 + lobes * waves.sum(axis=0)) * (1 - dent))
