"""The linear minimum-mean-square-error estimate, for any pattern set: computed in seconds, applied as convolutions.

Each camera pixel's block of d×d object pixels is estimated from its neighbourhood of camera pixels in all T frames:

    x = m + C Kᵀ (K C Kᵀ + N)⁻¹ (y - K m)

K are the collection kernels of the microscope, C the covariance of the specimen (from its power spectrum over scenes,
so no sampling noise enters block by block), N photon and read noise. Patterns that repeat every n camera pixels have
n² such estimators, one a phase. Inverse models use it as it is, or start from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw.bundle import Weights
from dmu_hw.data import Float32Array, Layout, PatternStack
from dmu_hw.physics import psf
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import FlatProfile, Optics


def magnitude(patterns: Tensor) -> Tensor:
    """Absolute values; the slope at 0 is 1, so that a dark mirror feels what it would cost to light it."""
    return torch.where(patterns < 0, -patterns, patterns)


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and power spectrum of a kind of specimen."""

    mean: float
    power: Tensor
    """Of `rfft2` on a torus, per pixel."""

    @property
    def size(self) -> int:
        return int(self.power.shape[0])

    @property
    def variance(self) -> float:
        """Of one object pixel."""
        return float(torch.fft.irfft2(self.power, s=(self.size, self.size))[0, 0])

    @classmethod
    def of(cls, scenes: Iterable[Float32Array]) -> Statistics:
        """From square scenes of one size, one after the other.

        Each is faded out towards its borders first: on a torus a border is a jump from one side of a scene to the
        other, which looks like detail that no specimen has, and patterns would be designed to see it."""
        count, total, power, spectra = 0, 0.0, torch.zeros(()), torch.zeros(())
        window = taper = torch.ones(())
        for scene in scenes:
            if not count:
                window = _window(len(scene))
                taper = torch.fft.rfft2(window)
            spectrum = torch.fft.rfft2(torch.from_numpy(scene).to(torch.float64) * window)
            power, spectra = power + spectrum.abs().square(), spectra + spectrum
            total += float(scene.mean(dtype=np.float64))
            count += 1
        # the mean is no variation: |spectrum - mean · taper|², summed over scenes
        mean = total / count
        power = power - 2 * mean * (spectra * taper.conj()).real + count * mean**2 * taper.abs().square()
        return cls(mean, power.clamp(min=0) / (count * power.shape[0] ** 2))


def _window(size: int) -> Tensor:
    """A hump over a scene that leaves its power on average as it is."""
    hump = torch.hann_window(size, periodic=True, dtype=torch.float64)
    window = hump[:, None] * hump
    return window / window.square().mean().sqrt()


@dataclass(frozen=True, eq=False)
class Design:
    """What an estimate is computed for."""

    patterns: Tensor
    """One tile, (pattern, y, x), in double precision; 0 to 1, or of either sign where no mirror has to show them. May
    carry gradients."""
    camera_pixel: int
    optics: Optics
    power_mw: float
    exposure_ms: float | Tensor
    """Of one frame; with gradients where it depends on the patterns."""
    reach: int
    """Neighbours on each side that a camera pixel is decoded from."""
    delivered: bool = False
    """Whether the patterns are light as it was measured at the sample, leakage and blur included."""

    @classmethod
    def of(cls, stack: PatternStack, optics: Optics, power_mw: float, exposure_ms: float, reach: int) -> Design:
        """For binary patterns."""
        masks = torch.from_numpy(stack.masks).to(torch.float64)
        return cls(masks, stack.camera_pixel, optics, power_mw, exposure_ms, reach)

    @property
    def layout(self) -> Layout:
        count, rows, columns = self.patterns.shape
        return Layout(count, (rows, columns), self.camera_pixel)

    def kernels(self) -> Tensor:
        """What each camera pixel collects, (phase y, phase x, pattern, y, x), under even light: what is uneven is
        divided out afterwards."""
        return self._kernels(self.patterns)

    def lit(self) -> Tensor:
        """Signal of a specimen that is 1 everywhere, (phase y, phase x, pattern): what makes the noise. That of signed
        patterns is that of their light, whatever sign it counts with."""
        return self._kernels(magnitude(self.patterns)).sum(dim=(-2, -1))

    def _kernels(self, patterns: Tensor) -> Tensor:
        flat = self.optics.model_copy(update={"profile": FlatProfile()})
        forward = Forward(flat, self.layout.tile_px, self.camera_pixel, dtype=torch.float64)
        return Aligned(forward, patterns, self.power_mw, delivered=self.delivered).kernels

    def torus_px(self) -> int:
        """Side of the torus that statistics must have: twice a neighbourhood, so that nothing wraps into itself."""
        window = self.camera_pixel + psf.kernel(self.optics.emission, self.optics.object_pixel_um).shape[-1] - 1
        return 1 << (2 * (2 * self.reach * self.camera_pixel + window) - 1).bit_length()

    def noise_variance(self, signal: Tensor) -> Tensor:
        """Of a measurement with that mean signal, in units of the signal."""
        sensor = self.optics.sensor
        per_ms = self.optics.photons_per_pixel(self.power_mw, 1.0) * sensor.quantum_efficiency
        per_signal = per_ms * self.exposure_ms
        density = self.optics.dye.background_photons_per_um2_mw_ms / self.optics.dye.photons_per_um2_mw_ms
        background = density * self.camera_pixel**2
        read_noise = sensor.read_noise_of(self.camera_pixel // self.optics.sensor_ratio)
        rounding = 1 / (12 * sensor.gain_adu_per_e**2)
        return (signal + background) / per_signal + (read_noise**2 + rounding) / per_signal**2


@dataclass(frozen=True, eq=False)
class Estimator:
    """The estimate, with gradients in the patterns if they carry any."""

    mean: float
    mean_signal: Tensor
    """(pattern, phase y, phase x)."""
    estimators: Tensor
    """(phase y, phase x, pixel of the block, pattern, neighbour y, neighbour x)."""
    error: Tensor
    """Mean squared error that is left, per object pixel, over specimens of those statistics."""

    def weights(self) -> Weights:
        """As a model keeps them."""
        return {
            "mean": np.asarray(self.mean, dtype=np.float32),
            "mean_signal": self.mean_signal.detach().to(torch.float32).contiguous().numpy(),
            "estimators": self.estimators.detach().to(torch.float32).contiguous().numpy(),
        }


def compute(design: Design, statistics: Statistics) -> Estimator:
    """The best linear estimate of specimens of those statistics."""
    kernels = design.kernels()
    ny, nx = design.layout.phases
    covered = _Covered(design, statistics, kernels)
    noise = design.noise_variance(statistics.mean * design.lit())
    solved = [[_estimator(design, covered, noise, i, j) for j in range(nx)] for i in range(ny)]
    explained = torch.stack([told for row in solved for _, told in row]).mean()
    return Estimator(
        statistics.mean,
        statistics.mean * kernels.sum(dim=(-2, -1)).permute(2, 0, 1),
        torch.stack([torch.stack([estimator for estimator, _ in row]) for row in solved]),
        statistics.variance - explained,
    )


def apply(signal: Tensor, weights: dict[str, Tensor], side: int) -> Tensor:
    """(batch, pattern, y, x) in units of object pixels of brightness 1 → (batch, y, x) on the object grid."""
    mean_signal, estimators = weights["mean_signal"], weights["estimators"]
    (ny, nx), reach = mean_signal.shape[1:], estimators.shape[-1] // 2
    batch, _, rows, columns = signal.shape
    centred = signal - mean_signal.repeat(1, rows // ny, columns // nx)
    padded = centred[:, :, _same_phase(rows, ny, reach)][:, :, :, _same_phase(columns, nx, reach)]
    phases = []
    for i in range(ny):
        for j in range(nx):
            part = padded[..., i : rows - ny + i + 1 + 2 * reach, j : columns - nx + j + 1 + 2 * reach]
            phases.append(functional.conv2d(part, estimators[i, j], stride=(ny, nx)))
    blocks = torch.stack(phases, dim=1).reshape(batch, ny, nx, side, side, rows // ny, columns // nx)
    return blocks.permute(0, 5, 1, 3, 6, 2, 4).reshape(batch, rows * side, columns * side) + weights["mean"]


class _Covered:
    """Collection kernels K of all phases, and C K around each: as far as neighbourhoods reach."""

    def __init__(self, design: Design, statistics: Statistics, kernels: Tensor) -> None:
        self.kernels = kernels
        self.pairs: dict[tuple[int, ...], Tensor] = {}
        self.reach = design.reach
        self.side = design.camera_pixel
        self.window = kernels.shape[-1]
        self.margin = 2 * design.reach * self.side
        size = statistics.size
        ny, nx, count = kernels.shape[:3]
        length = self.window + 2 * self.margin
        self.values = kernels.new_empty(ny, nx, count, length, length)
        """(phase y, phase x, pattern, y, x), from `margin` before the kernel's own window to `margin` behind it."""
        for i in range(ny):
            for j in range(nx):
                placed = functional.pad(kernels[i, j], (self.margin, 0, self.margin, 0))
                spectrum = torch.fft.rfft2(placed, s=(size, size)) * statistics.power
                self.values[i, j] = torch.fft.irfft2(spectrum, s=(size, size))[:, :length, :length]

    def neighbours(self, i: int, j: int) -> list[tuple[int, int, int, int]]:
        """Phase and place, in camera pixels, of each neighbour of a camera pixel of phase (i, j)."""
        ny, nx = self.kernels.shape[:2]
        steps = range(-self.reach, self.reach + 1)
        return [((i + a) % ny, (j + b) % nx, a, b) for a in steps for b in steps]

    def covariance(self, i: int, j: int) -> Tensor:
        """K C Kᵀ of all measurements of a neighbourhood, (neighbour · pattern)²."""
        around = self.neighbours(i, j)
        rows = [torch.cat([self._between(one, other) for other in around], dim=1) for one in around]
        return torch.cat(rows)

    def _between(self, one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> Tensor:
        """Of the measurements of two camera pixels: their phases and how far apart they are tell it."""
        (p, q, a, b), (r, s, c, d) = one, other
        key = (p, q, r, s, a - c, b - d)
        if key not in self.pairs:
            cut = self._cut(r, s, (a - c) * self.side, (b - d) * self.side, self.window)
            self.pairs[key] = self.kernels[p, q].flatten(1) @ cut.flatten(1).T
        return self.pairs[key]

    def block(self, i: int, j: int) -> Tensor:
        """C Kᵀ of the middle block of object pixels, (neighbour · pattern, pixel of the block)."""
        before = (self.window - self.side) // 2
        cuts = [
            self._cut(p, q, before - a * self.side, before - b * self.side, self.side)
            for p, q, a, b in self.neighbours(i, j)
        ]
        return torch.cat(cuts).flatten(1)

    def _cut(self, p: int, q: int, y: int, x: int, size: int) -> Tensor:
        """(pattern, y, x) from a place that is counted from the corner of the kernel's own window."""
        top, left = y + self.margin, x + self.margin
        return self.values[p, q, :, top : top + size, left : left + size]


def _estimator(design: Design, covered: _Covered, noises: Tensor, i: int, j: int) -> tuple[Tensor, Tensor]:
    """(pixel of the block, pattern, neighbour y, neighbour x) for one phase, and the variance that it explains."""
    width, count = 2 * design.reach + 1, design.layout.count
    noise = torch.cat([noises[p, q] for p, q, _, _ in covered.neighbours(i, j)])
    block = covered.block(i, j)
    solved: Tensor = torch.linalg.solve(covered.covariance(i, j) + torch.diag(noise), block)
    estimator = solved.T.reshape(design.camera_pixel**2, width, width, count).permute(0, 3, 1, 2)
    return estimator, (solved * block).sum() / design.camera_pixel**2


def _same_phase(length: int, phases: int, reach: int) -> Tensor:
    """Camera pixels along one axis with `reach` more on each side; beyond the border the nearest of the same phase."""
    places = torch.arange(-reach, length + reach)
    below, above = places < 0, places >= length
    places[below] = places[below] % phases
    places[above] = length - phases + (places[above] - length) % phases
    return places
