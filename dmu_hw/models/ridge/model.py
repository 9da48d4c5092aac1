"""The linear minimum-mean-square-error estimate for any pattern set, computed in seconds and applied as convolutions.

Each camera pixel's block of d×d object pixels is estimated from its neighbourhood of camera pixels in all T frames:

    x = m + C Kᵀ (K C Kᵀ + N)⁻¹ (y - K m)

K are the collection kernels of the microscope, C the covariance of the specimen (from its power spectrum over scenes,
so no sampling noise enters block by block), N photon and read noise. Patterns that repeat every n camera pixels have
n² such estimators, one a phase.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw.bundle import Weights
from dmu_hw.data import PatternStack
from dmu_hw.models.ridge.settings import RidgeSettings
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import FlatProfile, Optics


class Model:
    """Signals of T frames → specimen."""

    def __init__(self, weights: Weights, stack: PatternStack, device: torch.device | str = "cpu") -> None:
        self.side = stack.camera_pixel
        self.count = stack.count
        self.phases = (stack.tile_px[0] // self.side, stack.tile_px[1] // self.side)
        tensors = {key: torch.from_numpy(value).to(device) for key, value in weights.items()}
        self.mean = tensors["mean"]
        self.mean_signal = tensors["mean_signal"]
        self.estimators = tensors["estimators"]
        """(phase y, phase x, pixel of the block, pattern, neighbour y, neighbour x)."""
        self.reach = self.estimators.shape[-1] // 2

    @classmethod
    def fit(
        cls, settings: RidgeSettings, stack: PatternStack, optics: Optics, power_mw: float, exposure_ms: float
    ) -> Weights:
        """Weights for one pattern set on one microscope at one light level."""
        return _Fit(settings, stack, optics, power_mw, exposure_ms).weights()

    @torch.no_grad()
    def __call__(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) in units of object pixels of brightness 1 → (batch, y, x) on the object grid."""
        (ny, nx), side, reach = self.phases, self.side, self.reach
        batch, _, rows, columns = signal.shape
        centred = signal - self.mean_signal.repeat(1, rows // ny, columns // nx)
        padded = centred[:, :, _same_phase(rows, ny, reach)][:, :, :, _same_phase(columns, nx, reach)]
        out = signal.new_empty(batch, rows, side, columns, side)
        for i in range(ny):
            for j in range(nx):
                part = padded[..., i : rows - ny + i + 1 + 2 * reach, j : columns - nx + j + 1 + 2 * reach]
                blocks = functional.conv2d(part, self.estimators[i, j], stride=(ny, nx))
                blocks = blocks.reshape(batch, side, side, rows // ny, columns // nx)
                out[:, i::ny, :, j::nx, :] = blocks.permute(0, 3, 1, 4, 2)
        return (out.reshape(batch, rows * side, columns * side) + self.mean).clamp(min=0)


def _same_phase(length: int, phases: int, reach: int) -> Tensor:
    """Camera pixels along one axis with `reach` more on each side; beyond the border the nearest of the same phase."""
    places = torch.arange(-reach, length + reach)
    below, above = places < 0, places >= length
    places[below] = places[below] % phases
    places[above] = length - phases + (places[above] - length) % phases
    return places


class _Fit:
    """The computation, in double precision."""

    def __init__(
        self, settings: RidgeSettings, stack: PatternStack, optics: Optics, power_mw: float, exposure_ms: float
    ) -> None:
        self.settings = settings
        self.side = stack.camera_pixel
        flat = optics.model_copy(update={"profile": FlatProfile()})
        forward = Forward(flat, stack.tile_px, self.side, dtype=torch.float64)
        tile = torch.from_numpy(stack.masks).to(torch.float64)
        self.aligned = Aligned(forward, tile, power_mw)
        self.kernels = self.aligned.kernels
        self.span = (2 * settings.reach + 1) * self.side + 2 * self.aligned.reach
        self.size = 1 << (2 * self.span - 1).bit_length()
        self.mean, self.spectrum = self._statistics(optics.object_pixel_um)
        self.per_signal = optics.photons_per_pixel(power_mw, exposure_ms) * optics.sensor.quantum_efficiency
        background = forward.photons(torch.zeros(()), power_mw, exposure_ms) * optics.sensor.quantum_efficiency
        read_noise = optics.sensor.read_noise_of(self.side // optics.sensor_ratio)
        rounding = 1 / (12 * optics.sensor.gain_adu_per_e**2)
        self.dark_variance_e = float(background) + read_noise**2 + rounding

    def _statistics(self, pixel_um: float) -> tuple[float, Tensor]:
        """Mean and power spectrum of the specimen on a torus twice as large as a neighbourhood."""
        shape = (self.size, self.size)
        apart_um = 10 * self.size * pixel_um
        scenes = [
            self.settings.specimen.scene((apart_um * (k % 8), apart_um * (k // 8)), shape, pixel_um).image
            for k in range(self.settings.scenes)
        ]
        mean = float(np.mean([scene.mean(dtype=np.float64) for scene in scenes]))
        power = torch.zeros(self.size, self.size // 2 + 1, dtype=torch.float64)
        for scene in scenes:
            power += torch.fft.rfft2(torch.from_numpy(scene).to(torch.float64) - mean).abs() ** 2
        return mean, power / (len(scenes) * self.size**2)

    def weights(self) -> Weights:
        ny, nx = self.aligned.phases
        estimators = torch.stack([torch.stack([self._estimator(i, j) for j in range(nx)]) for i in range(ny)])
        mean_signal = self.mean * self.kernels.sum(dim=(-2, -1)).permute(2, 0, 1)
        return {
            "mean": np.asarray(self.mean, dtype=np.float32),
            "mean_signal": mean_signal.to(torch.float32).numpy(),
            "estimators": estimators.to(torch.float32).contiguous().numpy(),
        }

    def _estimator(self, i: int, j: int) -> Tensor:
        """(pixel of the block, pattern, neighbour y, neighbour x) for one phase."""
        width, count = 2 * self.settings.reach + 1, self.kernels.shape[2]
        placed = self._placed(i, j)
        covered = torch.fft.irfft2(torch.fft.rfft2(placed) * self.spectrum, s=(self.size, self.size))
        signal_covariance = placed.flatten(1) @ covered.flatten(1).T
        mean_signal = self.mean * placed.sum(dim=(-2, -1))
        noise = (mean_signal * self.per_signal + self.dark_variance_e) / self.per_signal**2
        first = self.aligned.reach + self.settings.reach * self.side
        block = covered[:, first : first + self.side, first : first + self.side].flatten(1)
        solved: Tensor = torch.linalg.solve(signal_covariance + torch.diag(noise), block)
        return solved.T.reshape(self.side**2, width, width, count).permute(0, 3, 1, 2)

    def _placed(self, i: int, j: int) -> Tensor:
        """Collection kernels of all neighbours and patterns on the torus, (neighbour · pattern, y, x)."""
        width, (ny, nx) = 2 * self.settings.reach + 1, self.aligned.phases
        window = self.kernels.shape[-1]
        placed = torch.zeros(width, width, self.kernels.shape[2], self.size, self.size, dtype=torch.float64)
        for a in range(width):
            for b in range(width):
                kernel = self.kernels[(i + a - self.settings.reach) % ny, (j + b - self.settings.reach) % nx]
                y, x = a * self.side, b * self.side
                placed[a, b, :, y : y + window, x : x + window] = kernel
        return placed.flatten(0, 2)
