"""The marker frame: one more exposure of a burst, in which every camera pixel shows one of its patterns, or none.

Which pixel shows which is drawn from the hash of the patterns, so that the marker of other patterns looks otherwise.
Light that fell on a pixel in the marker must then equal what fell on it in the frame of that pattern: proof.py judges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Int32Array, PatternStack
from dmu_hw.physics.optics import AiryPsf, Optics, Psf
from dmu_hw.ports import CameraMode

PIXELS_A_PATTERN = 1024
CELLS_A_PATTERN = 64
"""More of both tell patterns apart no better than is needed, and cost light."""
_LEAST_CELLS = 16
"""Fewer of a pattern cannot tell it: rather cells of single pixels, though blur reaches into them."""
_MOST_EXCHANGE = 0.05
"""Where blur carries more than this from cell to cell, cells are larger."""
_MOST_DARK = 3072
_FREQUENCIES = 4000


@dataclass(frozen=True)
class Readings:
    """What is believed of the numbers that a camera gives, in its own units."""

    gain_adu_per_e: float
    offset_adu: float
    read_variance: float
    """Of reading and rounding, in ADU²."""
    dark_adu: float
    """Mean over the offset where no mirror sends light: what no pattern shapes."""
    hot_variance: float
    """Of hot pixels in the dark, in ADU²."""
    leakage: float
    hot_adu: float = 0.0
    """Of one hot pixel."""

    @classmethod
    def of(cls, optics: Optics, mode: CameraMode, camera_pixel: int, power_mw: float) -> Readings:
        sensor, area_um2 = optics.sensor, (camera_pixel * optics.object_pixel_um) ** 2
        photons = optics.dye.background_photons_per_um2_mw_ms * area_um2 * power_mw * mode.exposure_ms
        gain = sensor.gain_adu_per_e
        hot, hot_adu = sensor.hot_fraction * mode.binning**2, gain * sensor.hot_e_per_ms * mode.exposure_ms
        return cls(
            gain,
            sensor.offset_adu,
            (gain * sensor.read_noise_of(mode.binning)) ** 2 + 1 / 12,
            gain * sensor.quantum_efficiency * photons + hot * hot_adu,
            hot * hot_adu**2,
            optics.mirrors.leakage,
            hot_adu,
        )


@dataclass(frozen=True, eq=False)
class Marker:
    """What the marker frame of a stack shows in a field."""

    stack: PatternStack
    codes: Int32Array
    """(y, x) on camera pixels: the pattern that each shows; T where it is dark."""
    exchange: float
    """Part of the light of a camera pixel that blur brings from the neighbour on one side."""
    readings: Readings

    @classmethod
    def of(
        cls,
        stack: PatternStack,
        field_px: tuple[int, int],
        optics: Optics,
        mode: CameraMode,
        power_mw: float,
        lit: float | None = None,
    ) -> Marker:
        """`lit` is the part of the camera pixels that show a pattern; None: as few as are needed."""
        side = stack.camera_pixel
        shape = (field_px[0] // side, field_px[1] // side)
        exchange = exchanged(side * optics.object_pixel_um, optics)
        readings = Readings.of(optics, mode, side, power_mw)
        cell = next(n for n in range(1, 100) if exchanged(n * side * optics.object_pixel_um, optics) <= _MOST_EXCHANGE)
        if (shape[0] // cell) * (shape[1] // cell) < _LEAST_CELLS * (stack.count + 1):
            cell = 1
        return cls(stack, drawn_codes(stack, shape, cell, lit), exchange, readings)

    @cached_property
    def judged(self) -> NDArray[np.int64]:
        """Places, in the flattened frame, of the camera pixels that are looked at, pattern after pattern: those that
        show one; where there is but one, also of dark ones no more than are needed."""
        flat, count = self.codes.ravel(), self.stack.count
        order = np.argsort(flat, kind="stable")
        lit, dark = np.split(order, [np.count_nonzero(flat < count)])
        if count > 1:
            return lit
        return np.concatenate([lit, dark[np.linspace(0, len(dark) - 1, min(_MOST_DARK, len(dark))).astype(np.int64)]])

    @cached_property
    def shown(self) -> NDArray[np.int64]:
        """What they show."""
        return self.codes.ravel()[self.judged].astype(np.int64)

    @cached_property
    def beside(self) -> NDArray[np.int64]:
        """Places of their neighbours, (side, pixel); at the rim the pixel itself."""
        rows, columns = self.codes.shape
        y, x = np.divmod(self.judged, columns)
        sides = ((0, 1), (0, -1), (1, 0), (-1, 0))
        places = [np.clip(y + dy, 0, rows - 1) * columns + np.clip(x + dx, 0, columns - 1) for dy, dx in sides]
        return np.stack(places)

    @cached_property
    def shown_beside(self) -> NDArray[np.int64]:
        """What their neighbours show."""
        return self.codes.ravel()[self.beside].astype(np.int64)

    @property
    def pixels_a_pattern(self) -> int:
        """Camera pixels by which each is judged, on average."""
        return int((self.codes < self.stack.count).sum()) // self.stack.count

    def light(self, leakage: float) -> float:
        """Mean light on the field, in full frames of uniform light."""
        seen = float(self.mask().mean())
        return seen + (1 - seen) * leakage

    def mask(self) -> BoolArray:
        """The frame itself on the object grid, (y, x)."""
        side = self.stack.camera_pixel
        codes = self.codes.repeat(side, axis=0).repeat(side, axis=1)
        over = self.stack.over((codes.shape[0], codes.shape[1]))
        shown = np.zeros(codes.shape, dtype=bool)
        for pattern in range(self.stack.count):
            shown |= over[pattern] & (codes == pattern)
        return shown

    def as_stack(self) -> PatternStack:
        """For the mirrors: one pattern whose tile is the whole field."""
        return PatternStack("marker", self.mask()[None], self.stack.camera_pixel)


def drawn_codes(stack: PatternStack, shape: tuple[int, int], cell: int = 1, lit: float | None = None) -> Int32Array:
    """Each pattern has as many cells of `cell`×`cell` pixels as every other, up to one; what is left is dark."""
    rows, columns = -(-shape[0] // cell), -(-shape[1] // cell)
    cells, count = rows * columns, stack.count
    if lit is None:
        # patterns are told from one another; one that is alone, from the dark around it
        enough = max(CELLS_A_PATTERN, PIXELS_A_PATTERN // cell**2)
        wanted = min(cells, max(count, min(count * enough, cells if count > 1 else cells // 4)))
    else:
        wanted = min(max(count, round(lit * cells)), cells - 1)
    codes = np.full(cells, count, dtype=np.int32)
    codes[:wanted] = np.arange(wanted) % count
    order = np.random.default_rng([int(stack.hash[:16], 16), *shape]).permutation(cells)
    large = codes[order].reshape(rows, columns).repeat(cell, axis=0).repeat(cell, axis=1)
    return np.ascontiguousarray(large[: shape[0], : shape[1]])


def exchanged(side_um: float, optics: Optics) -> float:
    """How much of the light of a square that is lit lands beyond one of its sides, in a camera pixel of its size.

    Both lenses blur: what stays along one axis is the integral of sinc² and both transfer functions.
    """
    highest = 8 / side_um  # beyond it sinc² has nothing left
    frequency = np.linspace(0.0, highest, _FREQUENCIES)
    seen = np.sinc(frequency * side_um) ** 2
    whole = np.trapezoid(seen, frequency)
    stays = np.trapezoid(
        seen * transfer(optics.excitation, frequency) * transfer(optics.emission, frequency), frequency
    )
    return float((1 - stays / whole) / 2)


def transfer(
    psf: Psf, frequency: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Optical transfer function in focus, for frequencies per µm."""
    if not isinstance(psf, AiryPsf):
        return np.asarray(np.exp(-2 * (np.pi * psf.sigma_um * frequency) ** 2))
    part = np.clip(frequency * psf.wavelength_nm * 1e-3 / (2 * psf.na), 0.0, 1.0)
    return np.asarray((np.arccos(part) - part * np.sqrt(1 - part**2)) * 2 / np.pi)
