"""The fast path: patterns that repeat every n camera pixels make the whole chain one strided convolution a pattern.

For the camera pixel at phase (i, j) of the tile the chain excitation blur → pattern → emission blur → binning is a
weight over a window of the specimen: kernel = illumination there · (emission PSF turned and summed over the pixel).
Its adjoint is the transposed convolution. No blur of the full field is ever made.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw.physics import dye
from dmu_hw.physics.blur import blur
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.mirrors import leak


class Aligned:
    """`Forward.image` for one tile of patterns, as strided convolutions; equal to it to rounding."""

    def __init__(self, forward: Forward, tile: Tensor, power_mw: float = 0.0, *, delivered: bool = False) -> None:
        """`tile` is (pattern, y, x), its sides multiples of the camera pixel; it begins at the field's corner. What is
        `delivered` has gone through leakage and blur already: it is light as it was measured at the sample."""
        optics = forward.optics
        if not optics.sample_to_sensor.is_identity:
            raise ValueError("the aligned path needs an undistorted camera: sample_to_sensor must be the identity")
        if optics.dye.saturation_mw is not None and optics.profile.kind != "flat":
            raise ValueError("the aligned path cannot have saturation under an uneven profile: use Forward.image")
        side = forward.camera_pixel
        if tile.shape[-2] % side or tile.shape[-1] % side:
            raise ValueError(f"tile {tuple(tile.shape[-2:])} is not a multiple of the camera pixel {side}")
        if forward.shape_px[0] % tile.shape[-2] or forward.shape_px[1] % tile.shape[-1]:
            raise ValueError(f"field {forward.shape_px} is not a multiple of the tile {tuple(tile.shape[-2:])}")
        self.forward = forward
        self.reach = forward.emission.shape[-1] // 2
        self.phases = (tile.shape[-2] // side, tile.shape[-1] // side)
        lit = tile
        if not delivered:
            lit = blur(leak(tile, optics.mirrors.leakage), forward.excitation, periodic=True)
        self.kernels = self._kernels(dye.saturated(lit, power_mw, optics.dye))

    def _kernels(self, lit: Tensor) -> Tensor:
        """(phase y, phase x, pattern, window y, window x)."""
        side, reach = self.forward.camera_pixel, self.reach
        window = collection_window(self.forward.emission, side)
        span = torch.arange(side + 2 * reach, device=lit.device) - reach
        rows = [(span + i * side) % lit.shape[-2] for i in range(self.phases[0])]
        columns = [(span + j * side) % lit.shape[-1] for j in range(self.phases[1])]
        return torch.stack([torch.stack([lit[:, r][:, :, c] * window for c in columns]) for r in rows])

    def image(self, specimen: Tensor) -> Tensor:
        """Specimen (batch, y, x) → (batch, pattern, y, x) on camera pixels."""
        (ny, nx), side, reach = self.phases, self.forward.camera_pixel, self.reach
        padded = functional.pad((specimen * self.forward.profile)[:, None], (reach,) * 4)
        if (ny, nx) == (1, 1):
            return functional.conv2d(padded, self.kernels[0, 0][:, None], stride=side)
        batch, (rows, columns) = specimen.shape[0], specimen.shape[-2:]
        out = padded.new_empty(batch, self.kernels.shape[2], rows // side, columns // side)
        for i in range(ny):
            for j in range(nx):
                weight = self.kernels[i, j][:, None]
                part = padded[..., i * side :, j * side :]
                out[..., i::ny, j::nx] = functional.conv2d(part, weight, stride=(ny * side, nx * side))
        return out

    def adjoint(self, frames: Tensor) -> Tensor:
        """The transpose of `image`: frames (batch, pattern, y, x) → (batch, y, x)."""
        (ny, nx), side, reach = self.phases, self.forward.camera_pixel, self.reach
        rows, columns = self.forward.shape_px
        back = frames.new_zeros(frames.shape[0], rows + 2 * reach, columns + 2 * reach)
        for i in range(ny):
            for j in range(nx):
                weight = self.kernels[i, j][:, None]
                part = functional.conv_transpose2d(frames[..., i::ny, j::nx], weight, stride=(ny * side, nx * side))
                part = part[:, 0, : back.shape[1] - i * side, : back.shape[2] - j * side]
                back[:, i * side : i * side + part.shape[1], j * side : j * side + part.shape[2]] += part
        inner = back[:, reach : reach + rows, reach : reach + columns]
        return inner * self.forward.profile


def collection_window(emission: Tensor, side: int) -> Tensor:
    """How much of the light from each place around a camera pixel lands on it."""
    reach = emission.shape[-1] // 2
    box = torch.ones(1, 1, side, side, dtype=emission.dtype, device=emission.device)
    window: Tensor = functional.conv2d(functional.pad(box, (2 * reach,) * 4), emission[None, None])[0, 0]
    return window
