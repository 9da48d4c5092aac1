"""Blurs of one width each, as believed of a lens: what a pixel gathers of a point, and how an edge is smeared.

Widths and distances are in pixels of the camera. A bead is a ball full of dye; it is so much smaller than a blur that
only its second moment counts.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dmu_hw.physics.optics import AiryPsf, GaussianPsf, Psf
from dmu_hw.routine import FitError

Float64Array = NDArray[np.float64]
_SUBPIXELS = 4
_TURNS = np.arange(6) * math.pi / 3 + 0.1
_CUT_V = 32.0
"""The model's Airy pattern ends here."""
_MOST_NA = 1.7


class Shape(Protocol):
    """A blur of unit volume whose width is to be found."""

    width_px: float
    """As believed."""

    def point(self, dx: Float64Array, dy: Float64Array, width_px: float, bead_px: float) -> Float64Array:
        """What a pixel gathers of a bead that lies (dx, dy) off its middle."""

    def edge(self, far: Float64Array, width_px: float, bead_px: float) -> Float64Array:
        """Light on a bead so far inside a lit half-plane."""

    def psf(self, width_px: float) -> Psf:
        """As it is to be believed."""


def shape_of(psf: Psf, pixel_um: float) -> Shape:
    return GaussianShape(psf, pixel_um) if isinstance(psf, GaussianPsf) else AiryShape(psf, pixel_um)


def _axis_variance(diameter: float) -> float:
    """Of the dye of a ball, seen along one axis."""
    return diameter**2 / 20


class GaussianShape:
    """The width is the standard deviation."""

    def __init__(self, believed: GaussianPsf, pixel_um: float) -> None:
        self._believed = believed
        self._pixel_um = pixel_um
        self.width_px = max(believed.sigma_um / pixel_um, 0.3)

    def point(self, dx: Float64Array, dy: Float64Array, width_px: float, bead_px: float) -> Float64Array:
        from scipy.special import ndtr  # noqa: PLC0415 - takes a while to load

        sigma = math.sqrt(width_px**2 + _axis_variance(bead_px))
        along, down = (ndtr((place + 0.5) / sigma) - ndtr((place - 0.5) / sigma) for place in (dx, dy))
        return np.asarray(along * down)

    def edge(self, far: Float64Array, width_px: float, bead_px: float) -> Float64Array:
        from scipy.special import ndtr  # noqa: PLC0415 - takes a while to load

        return np.asarray(ndtr(far / math.sqrt(width_px**2 + _axis_variance(bead_px))))

    def psf(self, width_px: float) -> Psf:
        return self._believed.model_copy(update={"sigma_um": width_px * self._pixel_um})


class AiryShape:
    """The width is λ / (2π NA), in focus."""

    def __init__(self, believed: AiryPsf, pixel_um: float) -> None:
        from scipy.special import j1  # noqa: PLC0415 - takes a while to load

        self._believed = believed
        self._pixel_um = pixel_um
        self.width_px = believed.wavelength_nm * 1e-3 / (2 * math.pi * believed.na) / pixel_um
        self._v = np.linspace(0.0, _CUT_V, 3201)
        with np.errstate(invalid="ignore", divide="ignore"):
            self._light = np.where(self._v > 0, (2 * j1(self._v) / self._v) ** 2, 1.0)
        step = self._v[1]
        self._light /= float((self._light * self._v).sum() * step * 2 * math.pi)
        far = self._v[::4]
        lines = np.array([self._line(v) for v in far])
        within = np.concatenate([[0.0], np.cumsum((lines[1:] + lines[:-1]) / 2)])
        half = 0.5 * within / within[-1]
        self._edge_v, self._edge = np.concatenate([-far[:0:-1], far]), np.concatenate([0.5 - half[:0:-1], 0.5 + half])

    def _line(self, v: float) -> float:
        """Light on a line so far from the middle."""
        return float(np.interp(np.hypot(v, self._v), self._v, self._light, right=0.0).sum())

    def point(self, dx: Float64Array, dy: Float64Array, width_px: float, bead_px: float) -> Float64Array:
        light = self._light
        if bead_px > 0:
            ring = math.sqrt(2 * _axis_variance(bead_px)) / width_px
            ways = [np.hypot(self._v + ring * math.cos(turn), ring * math.sin(turn)) for turn in _TURNS]
            light = np.mean([np.interp(way, self._v, self._light, right=0.0) for way in ways], axis=0)
        total = np.zeros(np.broadcast_shapes(dx.shape, dy.shape))
        places, parts = np.polynomial.legendre.leggauss(_SUBPIXELS)
        for x, part_x in zip(places / 2, parts / 2, strict=True):
            for y, part_y in zip(places / 2, parts / 2, strict=True):
                v = np.hypot(dx + x, dy + y) / width_px
                total += part_x * part_y * np.interp(v, self._v, light, right=0.0)
        return np.asarray(total / width_px**2)

    def edge(self, far: Float64Array, width_px: float, bead_px: float) -> Float64Array:
        off = math.sqrt(_axis_variance(bead_px))
        sides = (np.interp((far + side) / width_px, self._edge_v, self._edge) for side in (-off, off))
        return np.asarray(sum(sides) / 2)

    def psf(self, width_px: float) -> Psf:
        na = self._believed.wavelength_nm * 1e-3 / (2 * math.pi * width_px * self._pixel_um)
        if not na < min(_MOST_NA, self._believed.refractive_index):
            raise FitError(
                f"the blur is that of a lens of NA {na:.2f} at {self._believed.wavelength_nm:g} nm, which is none in a "
                f"medium of {self._believed.refractive_index:g}: are wavelength and pixel size what the rig says?"
            )
        return self._believed.model_copy(update={"na": na})
