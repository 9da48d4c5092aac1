"""Where a specimen is sharp, told from compressed frames: large camera pixels, light carved by patterns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from dmu_hw.data import Uint16Array
from dmu_hw.files import Count, Name, Positive, Settings
from dmu_hw.physics.optics import Sensor

MOST_PLANES = 101
_FEWEST_PLANES = 3
_SURE = 5.0
"""Standard errors that the sharpest plane must stand out by."""

FloatArray = NDArray[np.float64]


class Autofocus(Settings):
    """Software autofocus: planes around the last focus are compared now and then."""

    range_um: Positive
    """From the lowest to the highest plane."""
    step_um: Positive
    every: Count | None = None
    """Fields; every field, unless every_min is given."""
    every_min: Positive | None = None
    patterns: Literal["one", "all"] = "one"
    """one: a frame with the pattern that lets most light through. all: a whole burst, which finds the focus two to five
    times as precisely for its light."""
    channel: Name | None = None
    """In which the planes are looked at; null: in the first."""
    tilt: bool = False
    """Lay a plane through what was found, once three fields that do not lie in a row have been focused."""

    @model_validator(mode="after")
    def _consistent(self) -> Autofocus:
        if self.every is not None and self.every_min is not None:
            raise ValueError("give every (fields) or every_min, not both")
        if not _FEWEST_PLANES <= self.planes <= MOST_PLANES:
            raise ValueError(f"compares {_FEWEST_PLANES} to {MOST_PLANES} planes, given {self.planes}")
        return self

    @property
    def planes(self) -> int:
        return int(min(self.range_um / self.step_um, 1e9) + 1e-9) + 1

    @property
    def fields(self) -> int:
        """How many visits of fields there are from one search to the next, as far as they are counted."""
        return self.every or 1

    def offsets_um(self) -> tuple[float, ...]:
        """Planes around the last focus, from below."""
        return tuple((plane - (self.planes - 1) / 2) * self.step_um for plane in range(self.planes))


@dataclass(frozen=True)
class Sharpness:
    """How sharp one plane is, and how much of that may be noise of light and camera."""

    value: float
    error: float


def sharpness(frames: Uint16Array, lit: FloatArray, sensor: Sensor, binning: int) -> Sharpness:
    """Mean square of what neighbouring camera pixels of a burst (pattern, y, x) differ by; `lit` is the mean light of
    each pattern. The noise is taken off and the brightness divided out, so that neither a lamp that flickers nor dye
    that fades moves the focus.

    Differences of the frames of different patterns in the same pixel, which defocus takes away as well, were tried
    too: they tell little beyond 2 µm, and no better within.
    """
    electrons = (frames.astype(np.float64) - sensor.offset_adu) / sensor.gain_adu_per_e
    noise = np.maximum(electrons, 0.0) + sensor.read_noise_of(binning) ** 2
    each = lit[:, None, None]
    light, variance = electrons / each, noise / each**2
    mean = float(light.mean())
    if not mean > 0:
        return Sharpness(0.0, math.inf)
    down, right = light[:, 1:] - light[:, :-1], light[:, :, 1:] - light[:, :, :-1]
    noise_down, noise_right = variance[:, 1:] + variance[:, :-1], variance[:, :, 1:] + variance[:, :, :-1]
    steps = np.concatenate([down.ravel(), right.ravel()])
    found = _mean_square(steps, np.concatenate([noise_down.ravel(), noise_right.ravel()]))
    return Sharpness(found.value / mean**2, found.error / mean**2)


def _mean_square(steps: FloatArray, variance: FloatArray) -> Sharpness:
    """Of differences with noise of known variance, without that noise."""
    value = float(np.mean(steps**2 - variance))
    error = math.sqrt(float(np.sum(2 * variance**2 + 4 * np.maximum(steps**2 - variance, 0) * variance))) / steps.size
    return Sharpness(value, error)


@dataclass(frozen=True)
class Peak:
    """Where it is sharpest, or why that cannot be told."""

    z_um: float | None
    why: str = ""


def peak(planes_um: Sequence[float], found: Sequence[Sharpness | None]) -> Peak:
    """The top of the parabola through the sharpest plane and its neighbours."""
    told = [(z, sharp) for z, sharp in zip(planes_um, found, strict=True) if sharp is not None]
    if len(told) < _FEWEST_PLANES:
        return Peak(None, f"only {len(told)} of {len(planes_um)} planes could be imaged")
    z = np.array([z for z, _ in told])
    value = np.array([sharp.value for _, sharp in told])
    best, worst = int(np.argmax(value)), int(np.argmin(value))
    doubt = math.hypot(told[best][1].error, told[worst][1].error)
    if not value[best] - value[worst] > _SURE * doubt:
        return Peak(None, "no plane is surely sharper than the others")
    if best in (0, len(told) - 1):
        return Peak(None, f"the sharpest plane, {z[best]:.4g} µm, is at the border of the range")
    curve, slope, _ = np.polyfit(z[best - 1 : best + 2] - z[best], value[best - 1 : best + 2], 2)
    return Peak(float(z[best] - slope / (2 * curve)))


@dataclass(frozen=True)
class Plane:
    """z = z0 + a·x + b·y."""

    z0_um: float
    slope_x: float
    slope_y: float

    def at(self, x_um: float, y_um: float) -> float:
        return self.z0_um + self.slope_x * x_um + self.slope_y * y_um


def plane_through(points_um: Sequence[tuple[float, float, float]]) -> Plane | None:
    """The best plane through (x, y, z); None where the points lie in a row, or nearly."""
    if len(points_um) < 3:
        return None
    points = np.array(points_um, dtype=np.float64)
    middle = points.mean(axis=0)
    around = points - middle
    spread = np.linalg.svd(around[:, :2], compute_uv=False)
    if not spread[1] > 0.1 * spread[0] > 0:
        return None
    (slope_x, slope_y), *_ = np.linalg.lstsq(around[:, :2], around[:, 2], rcond=None)
    z0 = middle[2] - slope_x * middle[0] - slope_y * middle[1]
    return Plane(float(z0), float(slope_x), float(slope_y))
