"""From photons on camera pixels to numbers: mean, variance, likelihood, a draw, and a differentiable surrogate."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmu_hw.physics.optics import Sensor


@dataclass(frozen=True)
class SensorMaps:
    """What differs from pixel to pixel of the unbinned chip, (y, x)."""

    response: Tensor
    offset_adu: Tensor
    dark_e_per_ms: Tensor
    read_noise: Tensor
    """As a part of that of the whole chip."""

    @classmethod
    def draw(cls, sensor: Sensor, shape: tuple[int, int], seed: int) -> SensorMaps:
        """One chip: the same seed, the same chip."""
        rng = np.random.default_rng([seed, 0x5E4507])
        response = 1 + sensor.gain_spread * rng.standard_normal(shape)
        response[rng.random(shape) < sensor.dead_fraction] = 0
        offset = sensor.offset_adu + sensor.offset_spread_adu * rng.standard_normal(shape)
        dark = sensor.hot_e_per_ms * (rng.random(shape) < sensor.hot_fraction)
        noise = np.exp(sensor.read_noise_spread * rng.standard_normal(shape))
        noise /= math.sqrt(np.mean(noise**2))
        return cls(*(torch.from_numpy(values) for values in (response.clip(0), offset, dark, noise)))


@dataclass(frozen=True)
class SensorModel:
    """The chip at one binning. Numbers, or tensors where a map was measured."""

    sensor: Sensor
    read_noise_e: float | Tensor
    offset_adu: float | Tensor
    dark_e: float | Tensor = 0.0
    response: float | Tensor = 1.0
    """Sensitivity of each pixel, as a part of the quantum efficiency."""

    @classmethod
    def at(cls, sensor: Sensor, binning: int) -> SensorModel:
        """A chip without differences between its pixels."""
        return cls(sensor, sensor.read_noise_of(binning), sensor.offset_adu)

    def electrons(self, photons: Tensor) -> Tensor:
        """Mean electrons for mean photons."""
        return photons * (self.sensor.quantum_efficiency * self.response) + self.dark_e

    def mean_adu(self, photons: Tensor) -> Tensor:
        """Mean of the numbers, where neither well nor converter is full."""
        return self.offset_adu + self.sensor.gain_adu_per_e * self.electrons(photons)

    def variance_adu(self, photons: Tensor) -> Tensor:
        """Variance of the numbers: photons, reading, rounding."""
        noise = self.electrons(photons) + self.read_noise_e**2
        return self.sensor.gain_adu_per_e**2 * noise + 1 / 12

    def draw(self, photons: Tensor, generator: torch.Generator) -> Tensor:
        """Numbers as the camera gives them: Poisson, read noise, full well, converter. No gradient."""
        mean = self.electrons(photons.detach().to(torch.float64))
        collected = torch.poisson(mean.clamp(min=0), generator=generator).clamp(max=self.sensor.full_well_e)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device) * self.read_noise_e
        adu = self.offset_adu + self.sensor.gain_adu_per_e * (collected + noise)
        return adu.round().clamp(0, self.sensor.largest_adu)

    def surrogate(self, photons: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """A draw with gradients: Gaussian noise of the right variance, clipped like the camera."""
        noise = torch.randn(photons.shape, generator=generator, dtype=photons.dtype, device=photons.device)
        adu = self.mean_adu(photons) + torch.sqrt(self.variance_adu(photons)) * noise
        return adu.clamp(0, self.sensor.largest_adu)

    def log_likelihood(self, adu: Tensor, photons: Tensor) -> Tensor:
        """Log probability density of each number under the Gaussian with the model's mean and variance."""
        variance = self.variance_adu(photons)
        return -0.5 * ((adu - self.mean_adu(photons)) ** 2 / variance + torch.log(2 * math.pi * variance))

    def to_photons(self, adu: Tensor) -> Tensor:
        """The photons that numbers stand for: the inverse of `mean_adu`."""
        electrons = (adu - self.offset_adu) / self.sensor.gain_adu_per_e - self.dark_e
        return electrons / (self.sensor.quantum_efficiency * self.response)
