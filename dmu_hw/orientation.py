"""How a camera turns its frames against the bare chip. Calibrations know only the chip, runs only the frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dmu_hw.physics.optics import Optics
from dmu_hw.physics.warp import Pair, Terms, Warp
from dmu_hw.ports import Camera, Roi, Turning

ScalarT = TypeVar("ScalarT", bound=np.generic)
_ODD_X, _ODD_Y = (0, 1, 0, 1, 0, 1, 0), (0, 1, 0, 0, 1, 0, 1)
"""Whether a term of a distortion (x², xy, y², x³, x²y, xy², y³) changes its sign with x, and with y."""


@dataclass(frozen=True)
class Orientation:
    """A flip is its own inverse: what turns chip into frame turns frame into chip."""

    flip_x: bool
    flip_y: bool
    sensor_shape: tuple[int, int]

    @classmethod
    def of(cls, camera: Camera) -> Orientation:
        flips = camera.flips if isinstance(camera, Turning) else (False, False)
        return cls(*flips, camera.sensor_shape)

    def window(self, roi: Roi) -> Roi:
        """A window of the chip as it lies in frames, or the other way."""
        rows, columns = self.sensor_shape
        x = columns - roi.x - roi.width if self.flip_x else roi.x
        y = rows - roi.y - roi.height if self.flip_y else roi.y
        return Roi(x, y, roi.width, roi.height)

    def turned(self, pixels: NDArray[ScalarT]) -> NDArray[ScalarT]:
        """A view of a frame (…, y, x)."""
        return pixels[..., :: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def optics(self, optics: Optics) -> Optics:
        """What is believed, said of the frames instead of the chip, or the other way."""
        if not (self.flip_x or self.flip_y):
            return optics
        mirrors = optics.mirrors.model_copy(update={"to_sample": self._after(optics.mirrors.to_sample)})
        changes: dict[str, Any] = {"mirrors": mirrors, "profile": optics.profile.flipped(self.flip_x, self.flip_y)}
        changes["sample_to_sensor"] = self._before(self._after(optics.sample_to_sensor))
        return optics.model_copy(update=changes)

    @property
    def signs(self) -> Pair:
        """-1 for x, and for y, if it runs the other way."""
        return -1.0 if self.flip_x else 1.0, -1.0 if self.flip_y else 1.0

    def _after(self, warp: Warp) -> Warp:
        """The same map, with the plane that it leads to turned."""
        sign_x, sign_y = self.signs
        (a, b), (c, d) = warp.matrix
        return Warp(
            matrix=((sign_x * a, sign_x * b), (sign_y * c, sign_y * d)),
            shift=(sign_x * warp.shift[0], sign_y * warp.shift[1]),
            distortion=(_scaled(warp.distortion[0], sign_x), _scaled(warp.distortion[1], sign_y)),
            radius=warp.radius,
        )

    def _before(self, warp: Warp) -> Warp:
        """The same map, with the plane that it leads from turned."""
        sign_x, sign_y = self.signs
        (a, b), (c, d) = warp.matrix
        terms = [sign_x**odd_x * sign_y**odd_y for odd_x, odd_y in zip(_ODD_X, _ODD_Y, strict=True)]
        across, down = (tuple(s * t for s, t in zip(line, terms, strict=True)) for line in warp.distortion)
        return Warp(
            matrix=((sign_x * a, sign_y * b), (sign_x * c, sign_y * d)),
            shift=warp.shift,
            distortion=(across, down),
            radius=warp.radius,
        )


def _scaled(terms: Terms, sign: float) -> Terms:
    return tuple(sign * term for term in terms)
