"""Point-spread functions from optical numbers: odd, centred, integrated over the pixel, with a sum of one."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dmu_hw.physics.optics import AiryPsf, GaussianPsf

_GAUSSIAN_REACH = 4.5
_AIRY_REACH_V = 32.0
"""Radius in optical units 2π·NA·r/λ at which the Airy pattern is cut: 98 % of its energy lies within."""
_SUBSAMPLES = 5
_PUPIL_RINGS = 400


def kernel(
    psf: GaussianPsf | AiryPsf,
    pixel_um: float,
    defocus_um: float = 0.0,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """The blur of a lens on a grid of square pixels, (y, x)."""
    if isinstance(psf, GaussianPsf):
        sigma_um = math.hypot(psf.sigma_um, psf.defocus_slope * defocus_um)
        values = gaussian(torch.tensor(sigma_um / pixel_um, dtype=torch.float64))
    else:
        values = airy(psf, pixel_um, defocus_um)
    return values.to(dtype=dtype, device=device)


def gaussian(sigma_px: Tensor, radius_px: int | None = None) -> Tensor:
    """A Gaussian integrated over each pixel; differentiable in its width."""
    width = float(sigma_px.detach())
    if width == 0:
        return torch.ones(1, 1, dtype=sigma_px.dtype, device=sigma_px.device)
    radius = math.ceil(_GAUSSIAN_REACH * width) if radius_px is None else radius_px
    edges = torch.arange(-radius, radius + 2, dtype=sigma_px.dtype, device=sigma_px.device) - 0.5
    line: Tensor = torch.special.erf(edges / (sigma_px * math.sqrt(2))).diff()
    line = line / line.sum()
    return line[:, None] * line[None, :]


def airy(psf: AiryPsf, pixel_um: float, defocus_um: float = 0.0) -> Tensor:
    """|∫ J₀(kρr) exp(ikz√(n²-ρ²)) ρ dρ|² over the pupil ρ ≤ NA, averaged over each pixel."""
    wavelength_um = psf.wavelength_nm * 1e-3
    wavenumber = 2 * math.pi / wavelength_um
    cone = psf.na / math.sqrt(psf.refractive_index**2 - psf.na**2)
    reach_um = _AIRY_REACH_V / (wavenumber * psf.na) + abs(defocus_um) * cone
    radius = math.ceil(reach_um / pixel_um)

    ring = (torch.arange(_PUPIL_RINGS, dtype=torch.float64) + 0.5) / _PUPIL_RINGS * psf.na
    phase = wavenumber * defocus_um * torch.sqrt(psf.refractive_index**2 - ring**2)
    step_um = pixel_um / (2 * _SUBSAMPLES)
    table_r = (
        torch.arange(math.ceil((radius + 1) * math.sqrt(2) * pixel_um / step_um) + 2, dtype=torch.float64) * step_um
    )
    bessel = torch.special.bessel_j0(wavenumber * table_r[:, None] * ring[None, :]) * ring
    table = (bessel @ torch.cos(phase)) ** 2 + (bessel @ torch.sin(phase)) ** 2

    fine = (torch.arange((2 * radius + 1) * _SUBSAMPLES, dtype=torch.float64) + 0.5) / _SUBSAMPLES - (radius + 0.5)
    distance = torch.hypot(fine[:, None], fine[None, :]) * pixel_um / step_um
    below = distance.floor().long()
    values = torch.lerp(table[below], table[below + 1], distance - below)
    side = 2 * radius + 1
    values = values.reshape(side, _SUBSAMPLES, side, _SUBSAMPLES).sum(dim=(1, 3))
    return values / values.sum()
