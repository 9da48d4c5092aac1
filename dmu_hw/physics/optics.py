"""What is true, or believed, of one microscope: every number the forward model needs, and nothing else.

The simulated microscope renders with one value of `Optics` (the truth); training and reconstruction use another
(the belief). This module holds values only and does not load torch.

Lengths at the sample are micrometres from the optical axis, x to the right and y down, in the camera's orientation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Count, Document, Fraction, NonNegative, Positive, Settings, validate
from dmu_hw.physics.warp import Warp


class GaussianPsf(Settings):
    """A Gaussian blur, widened by defocus like a beam."""

    kind: Literal["gaussian"] = "gaussian"
    sigma_um: NonNegative
    defocus_slope: NonNegative = 0.5
    """Growth of sigma with defocus far from focus, in µm per µm."""

    def stretched(self, factor: float) -> GaussianPsf:
        """The same blur in pixels that are larger by that."""
        return GaussianPsf(sigma_um=self.sigma_um * factor, defocus_slope=self.defocus_slope)


class AiryPsf(Settings):
    """A scalar pupil model of an unaberrated lens."""

    kind: Literal["airy"] = "airy"
    na: Annotated[float, Field(gt=0, le=1.7)]
    wavelength_nm: Annotated[float, Field(ge=200, le=2000)]
    refractive_index: Annotated[float, Field(ge=1, le=2)] = 1.0

    def stretched(self, factor: float) -> AiryPsf:
        """The same blur in pixels that are larger by that."""
        return self.model_copy(update={"na": self.na / factor})

    @model_validator(mode="after")
    def _na_fits_the_medium(self) -> AiryPsf:
        if self.na >= self.refractive_index:
            raise ValueError(f"na {self.na} needs a refractive_index above it, given {self.refractive_index}")
        return self


Psf = Annotated[GaussianPsf | AiryPsf, Field(discriminator="kind")]


class FlatProfile(Settings):
    """The same light everywhere."""

    kind: Literal["flat"] = "flat"

    def at(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ones(np.broadcast_shapes(x_um.shape, y_um.shape))

    def flipped(self, _x: bool, _y: bool) -> FlatProfile:
        """The same light seen with x, or y, running the other way."""
        return self

    def stretched(self, _factor: float) -> FlatProfile:
        """The same light in pixels that are larger by that."""
        return self


class GaussianProfile(Settings):
    """Brightest at a centre and falling off, as from a laser or a fibre."""

    kind: Literal["gaussian"] = "gaussian"
    sigma_um: Positive
    centre_um: tuple[float, float] = (0.0, 0.0)

    def at(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> NDArray[np.float64]:
        dx, dy = x_um - self.centre_um[0], y_um - self.centre_um[1]
        return np.asarray(np.exp(-(dx**2 + dy**2) / (2 * self.sigma_um**2)))

    def flipped(self, x: bool, y: bool) -> GaussianProfile:
        """The same light seen with x, or y, running the other way."""
        centre_um = (-self.centre_um[0] if x else self.centre_um[0], -self.centre_um[1] if y else self.centre_um[1])
        return GaussianProfile(sigma_um=self.sigma_um, centre_um=centre_um)

    def stretched(self, factor: float) -> GaussianProfile:
        """The same light in pixels that are larger by that."""
        centre_um = (self.centre_um[0] * factor, self.centre_um[1] * factor)
        return GaussianProfile(sigma_um=self.sigma_um * factor, centre_um=centre_um)


class GridProfile(Settings):
    """As measured: values on a coarse grid of points round the optical axis, smooth in between. Beyond the grid the
    light is that of its border."""

    kind: Literal["grid"]
    pitch_um: Positive
    """From point to point."""
    values: Annotated[tuple[tuple[NonNegative, ...], ...], Field(min_length=2)]
    """Rows and columns of the grid, whose middle lies on the axis."""

    @model_validator(mode="after")
    def _rows_are_as_long(self) -> GridProfile:
        lengths = sorted({len(row) for row in self.values})
        if len(lengths) > 1 or lengths[0] < 2:
            raise ValueError(f"values should have rows of the same length, 2 at least, given rows of {lengths}")
        return self

    def at(self, x_um: NDArray[np.float64], y_um: NDArray[np.float64]) -> NDArray[np.float64]:
        from scipy.ndimage import map_coordinates  # noqa: PLC0415 - takes a while to load

        values = np.asarray(self.values)
        rows, columns = values.shape
        places = np.broadcast_arrays(y_um / self.pitch_um + (rows - 1) / 2, x_um / self.pitch_um + (columns - 1) / 2)
        seen: NDArray[np.float64] = map_coordinates(values, places, order=3, mode="nearest")
        return seen.clip(0)

    def flipped(self, x: bool, y: bool) -> GridProfile:
        """The same light seen with x, or y, running the other way."""
        rows = self.values[::-1] if y else self.values
        return self.model_copy(update={"values": tuple(row[::-1] for row in rows) if x else rows})

    def stretched(self, factor: float) -> GridProfile:
        """The same light in pixels that are larger by that."""
        return self.model_copy(update={"pitch_um": self.pitch_um * factor})


Profile = Annotated[FlatProfile | GaussianProfile | GridProfile, Field(discriminator="kind")]


class Mirrors(Settings):
    """The DMD as the sample sees it."""

    shape: tuple[Count, Count] = (768, 1024)
    """Rows and columns of mirrors."""
    leakage: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Light of a mirror that is off, as a part of the light of one that is on."""
    to_sample: Warp = Warp()
    """Mirrors, counted from the centre of the array, to micrometres at the sample."""

    @property
    def area_um2(self) -> float:
        """Area at the sample that the whole array lights, from the linear part of the map."""
        (a, b), (c, d) = self.to_sample.matrix
        return abs(a * d - b * c) * self.shape[0] * self.shape[1]


class Dye(Settings):
    """How the sample answers light."""

    photons_per_um2_mw_ms: Positive
    """Photons that reach the camera plane from dye of brightness 1, per area at the sample, power and time."""
    background_photons_per_um2_mw_ms: NonNegative = 0.0
    """Light that no pattern shapes: autofluorescence, scatter, the room."""
    saturation_mw: Positive | None = None
    """Power at which the dye gives half of what it would without saturation; null: never."""
    bleach_dose_mj_cm2: Positive | None = None
    """Dose after which 1/e of the dye is left; null: never."""


class Sensor(Settings):
    """From photons on a camera pixel to numbers."""

    quantum_efficiency: Annotated[float, Field(gt=0, le=1)] = 0.8
    gain_adu_per_e: Positive = 0.25
    offset_adu: NonNegative = 100.0
    read_noise_e: NonNegative = 2.0
    """Root mean square over the pixels."""
    full_well_e: Positive = 250_000.0
    bits: Annotated[int, Field(ge=8, le=16)] = 16
    binning: Literal["charge", "digital"] = "charge"
    """charge: one reading for a binned pixel; digital: each is read and the readings are added."""
    offset_spread_adu: NonNegative = 0.0
    """Pixel-to-pixel standard deviation of the offset."""
    gain_spread: Fraction = 0.0
    """Pixel-to-pixel standard deviation of the sensitivity, as a part of it."""
    read_noise_spread: Fraction = 0.0
    """Pixel-to-pixel standard deviation of the logarithm of the read noise."""
    dead_fraction: Fraction = 0.0
    hot_fraction: Fraction = 0.0
    hot_e_per_ms: NonNegative = 5.0

    @property
    def largest_adu(self) -> int:
        return (1 << self.bits) - 1

    def read_noise_of(self, binning: int) -> float:
        """Read noise of one binned pixel in electrons."""
        return self.read_noise_e * (binning if self.binning == "digital" else 1)


class Optics(Settings):
    """One microscope, for one objective and one channel."""

    object_pixel_um: Positive
    """Side of a pixel of the reconstructed image."""
    sensor_pixel_um: Positive
    """Side of an unbinned camera pixel at the sample."""
    excitation: Psf
    emission: Psf
    mirrors: Mirrors = Mirrors()
    sample_to_sensor: Warp = Warp()
    """Where light from a place at the sample lands, in micrometres at the sample: the camera lens' distortion."""
    profile: Profile = FlatProfile()
    dye: Dye
    sensor: Sensor = Sensor()

    @model_validator(mode="after")
    def _pixels_nest(self) -> Optics:
        ratio = self.sensor_pixel_um / self.object_pixel_um
        if abs(ratio - round(ratio)) > 1e-6 or ratio < 0.999:
            raise ValueError(
                f"sensor_pixel_um must be a whole multiple of object_pixel_um, given "
                f"{self.sensor_pixel_um} and {self.object_pixel_um}"
            )
        return self

    @property
    def sensor_ratio(self) -> int:
        """Object pixels along the side of an unbinned camera pixel."""
        ratio: float = self.sensor_pixel_um / self.object_pixel_um
        return round(ratio)

    def photons_per_pixel(self, power_mw: float, exposure_ms: float) -> float:
        """Photons from one object pixel of dye of brightness 1 in full light."""
        return self.dye.photons_per_um2_mw_ms * self.object_pixel_um**2 * power_mw * exposure_ms

    def dose_mj_cm2(self, power_mw: float, exposure_ms: float) -> float:
        """Light dose of one exposure where all mirrors are on."""
        area_cm2 = self.mirrors.area_um2 * 1e-8
        return power_mw * exposure_ms * 1e-3 / area_cm2


def overridden(optics: Optics, changes: Mapping[str, Any], document: Document, key: str) -> Optics:
    """Optics with some numbers replaced, which stand under a key of a document; what fits no optics is refused."""
    merged = _merged(optics.model_dump(), changes)
    found = validate(Document(merged, document.lines, document.path, (*document.root, key)), Optics)
    if found.mirrors.shape != optics.mirrors.shape:
        where = document.where((key, "mirrors", "shape"))
        raise InputError([Problem(where, f"the array has {optics.mirrors.shape} mirrors, given {found.mirrors.shape}")])
    return found


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged
