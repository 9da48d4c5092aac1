"""The only composition of the physics: patterns and specimen → mean photons on camera pixels.

    photons = bin_d( emPSF * (X · saturation(profile · leak(exPSF * H))) ) · photons per pixel + background

`Forward` is the general path: any illumination, distortion, any grid. `Aligned` (aligned.py) gives the same numbers
much faster for patterns that repeat with the camera pixel.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dmu_hw.physics import dye, psf
from dmu_hw.physics.blur import bin_sum, blur, blur_adjoint, spread
from dmu_hw.physics.mirrors import leak
from dmu_hw.physics.optics import Optics

_MOST_PLACES = 8
"""Along the side of a pixel, however small mirrors are."""


class Forward:
    """One microscope looking at one field on one grid."""

    def __init__(
        self,
        optics: Optics,
        shape_px: tuple[int, int],
        camera_pixel: int,
        *,
        pixel_um: float | None = None,
        centre_um: tuple[float, float] = (0.0, 0.0),
        defocus_um: float = 0.0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """`camera_pixel` is the side of a camera pixel in pixels of this grid; `centre_um` is seen from the axis."""
        if shape_px[0] % camera_pixel or shape_px[1] % camera_pixel:
            raise ValueError(f"field {shape_px} is not a multiple of the camera pixel {camera_pixel}")
        self.optics = optics
        self.shape_px = shape_px
        self.camera_pixel = camera_pixel
        self.pixel_um = pixel_um or optics.object_pixel_um
        self.centre_um = centre_um
        self.device = device
        self.dtype = dtype
        self.excitation = psf.kernel(optics.excitation, self.pixel_um, defocus_um, dtype=dtype, device=device)
        self.emission = psf.kernel(optics.emission, self.pixel_um, defocus_um, dtype=dtype, device=device)
        self.x_um, self.y_um = self._positions()
        profile = optics.profile.at(self.x_um[None, :], self.y_um[:, None])
        self.profile = torch.from_numpy(profile).to(dtype=dtype, device=device).expand(shape_px)

    def _positions(self) -> tuple[NDArray[Any], NDArray[Any]]:
        rows, columns = self.shape_px
        x_um = (np.arange(columns) - (columns - 1) / 2) * self.pixel_um + self.centre_um[0]
        y_um = (np.arange(rows) - (rows - 1) / 2) * self.pixel_um + self.centre_um[1]
        return x_um, y_um

    # ---------------------------------------------------------------- light that reaches the specimen

    def deliver(self, patterns: Tensor, *, periodic: bool = True) -> Tensor:
        """Patterns on this grid → relative intensity without the profile; beyond the field they repeat, or dark."""
        lit = leak(patterns, self.optics.mirrors.leakage)
        return blur(lit, self.excitation, periodic=periodic)

    def illuminate(self, patterns: Tensor, power_mw: float = 0.0, *, periodic: bool = True) -> Tensor:
        """Patterns on this grid → emission per dye: blurred, uneven, saturating."""
        return dye.saturated(self.profile * self.deliver(patterns, periodic=periodic), power_mw, self.optics.dye)

    def from_mirrors(self, mirrors: Tensor, creep_um: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """States of all mirrors, (…, rows, columns), as they fall onto this grid, before any blur; their light may lie
        a little beside where `to_sample` has it."""
        stack = mirrors.reshape(1, -1, *self.optics.mirrors.shape)
        places = self._usual_places if creep_um == (0.0, 0.0) else self._places(creep_um)
        seen = torch.zeros(1, stack.shape[1], *self.shape_px, dtype=self.dtype, device=self.device)
        for place in places:
            seen += functional.grid_sample(stack, place, mode="bilinear", padding_mode="zeros", align_corners=False)
        return (seen / len(places)).reshape(*mirrors.shape[:-2], *self.shape_px)

    @cached_property
    def _mirror_px(self) -> float:
        """Side of a mirror's image in pixels of this grid."""
        rows, columns = self.optics.mirrors.shape
        return math.sqrt(self.optics.mirrors.area_um2 / (rows * columns)) / self.pixel_um

    @cached_property
    def _usual_places(self) -> list[Tensor]:
        return self._places((0.0, 0.0))

    def _places(self, creep_um: tuple[float, float]) -> list[Tensor]:
        """Where the pixels of this grid lie in the array, both of whose sides are from -1 to 1: one place of each, or
        so many that no mirror on it is missed."""
        rows, columns = self.optics.mirrors.shape
        x, y = np.broadcast_arrays(self.x_um[None, :] - creep_um[0], self.y_um[:, None] - creep_um[1])
        column, row = self.optics.mirrors.to_sample.invert(x, y)
        along = min(_MOST_PLACES, math.ceil(1 / self._mirror_px - 1e-6))
        steps = (np.arange(along) + 0.5) / along - 0.5
        places = []
        for down in steps:
            for across in steps:
                seen = [_moved(place, down, across) if along > 1 else place for place in (column, row)]
                sides = [
                    self._edged(place, count, along) * 2 / count
                    for place, count in zip(seen, (columns, rows), strict=True)
                ]
                places.append(torch.from_numpy(np.stack(sides, axis=-1)).to(dtype=self.dtype, device=self.device)[None])
        return places

    def _edged(self, place: NDArray[Any], count: int, along: int) -> NDArray[Any]:
        """Places among mirrors, moved so that a pixel, or a part of it, that lies between two mirrors has of each what
        it covers of it: a mirror is even from edge to edge, and only who is on the edge sees both."""
        side = self._mirror_px * along
        if side <= 1:
            return place
        middle = (count - 1) / 2  # of the first mirror is at -middle
        before = np.floor(place + middle)
        beyond = place + middle - before - 0.5
        return before - middle + np.clip(beyond * side + 0.5, 0, 1)

    # ---------------------------------------------------------------- light that reaches the camera

    def image(self, specimen: Tensor, illumination: Tensor) -> Tensor:
        """Specimen (batch, y, x) under emission maps (pattern, y, x) → (batch, pattern, y, x) on camera pixels."""
        emitted = specimen[:, None] * illumination[None]
        return bin_sum(self._distort(blur(emitted, self.emission)), self.camera_pixel)

    def adjoint(self, frames: Tensor, illumination: Tensor) -> Tensor:
        """The transpose of `image` in the specimen; only where the camera is not distorted."""
        if not self.optics.sample_to_sensor.is_identity:
            raise ValueError("the adjoint needs an undistorted camera: sample_to_sensor must be the identity")
        back = blur_adjoint(spread(frames, self.camera_pixel), self.emission)
        return (back * illumination[None]).sum(dim=1)

    def photons(self, signal: Tensor, power_mw: float, exposure_ms: float | Tensor) -> Tensor:
        """Mean photons on camera pixels for a signal from `image`, background included."""
        area_um2 = self.pixel_um**2
        per_signal = self.optics.dye.photons_per_um2_mw_ms * area_um2 * power_mw * exposure_ms
        background = self.optics.dye.background_photons_per_um2_mw_ms * area_um2 * power_mw * exposure_ms
        return signal * per_signal + background * self.camera_pixel**2

    def _distort(self, image: Tensor) -> Tensor:
        """Move light from where it left the sample to where the camera's lens puts it."""
        if self.optics.sample_to_sensor.is_identity:
            return image
        x, y = np.broadcast_arrays(self.x_um[None, :], self.y_um[:, None])
        from_x, from_y = self.optics.sample_to_sensor.invert(x, y)
        rows, columns = self.shape_px
        place = np.stack(
            [
                (from_x - self.centre_um[0]) * 2 / (columns * self.pixel_um),
                (from_y - self.centre_um[1]) * 2 / (rows * self.pixel_um),
            ],
            axis=-1,
        )
        grid = torch.from_numpy(place).to(dtype=self.dtype, device=self.device)[None]
        flat = image.reshape(1, -1, rows, columns)
        moved = functional.grid_sample(flat, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return moved.reshape(image.shape)


def _moved(place: NDArray[Any], down: float, across: float) -> NDArray[Any]:
    """What is there a part of a pixel farther."""
    by_row, by_column = np.gradient(place)
    moved: NDArray[Any] = place + down * by_row + across * by_column
    return moved
