"""Point-spread functions keep the light, stay in the middle and are as wide as optics says."""

from __future__ import annotations

import math

import pytest
import torch

from dmu_hw.physics import psf
from dmu_hw.physics.blur import bin_sum, blur, blur_adjoint, spread
from dmu_hw.physics.optics import AiryPsf, GaussianPsf

LENSES = {
    "gaussian": GaussianPsf(sigma_um=0.3),
    "narrow gaussian": GaussianPsf(sigma_um=0.05),
    "no blur": GaussianPsf(sigma_um=0.0),
    "dry lens": AiryPsf(na=0.5, wavelength_nm=600),
    "oil lens": AiryPsf(na=1.3, wavelength_nm=520, refractive_index=1.515),
}


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("pixel_um", [0.08, 0.1625, 0.325, 0.65])
@pytest.mark.parametrize("defocus_um", [0.0, -1.5])
def test_energy_centre_and_symmetry(lens: str, pixel_um: float, defocus_um: float) -> None:
    kernel = psf.kernel(LENSES[lens], pixel_um, defocus_um, dtype=torch.float64)
    assert kernel.shape[0] == kernel.shape[1]
    assert kernel.shape[0] % 2 == 1
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-12)
    assert float(kernel.min()) >= 0
    torch.testing.assert_close(kernel, kernel.flip((0, 1)))
    torch.testing.assert_close(kernel, kernel.T)


def test_the_airy_disc_has_its_first_dark_ring_where_theory_says() -> None:
    lens, pixel_um = AiryPsf(na=0.5, wavelength_nm=600), 0.02
    kernel = psf.kernel(lens, pixel_um, dtype=torch.float64)
    line = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2 :]
    first_dark = int((line.diff() > 0).nonzero()[0])
    assert first_dark * pixel_um == pytest.approx(0.61 * 0.6 / 0.5, abs=pixel_um)


def test_a_gaussian_has_its_width() -> None:
    kernel = psf.gaussian(torch.tensor(2.0, dtype=torch.float64))
    reach = kernel.shape[0] // 2
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    variance = float((kernel.sum(0) * place**2).sum())
    assert variance == pytest.approx(4 + 1 / 12, rel=1e-3)


def test_the_width_of_a_gaussian_has_a_gradient() -> None:
    width = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda sigma: psf.gaussian(sigma, radius_px=5), width)


def test_defocus_widens() -> None:
    for lens in (GaussianPsf(sigma_um=0.3), AiryPsf(na=0.5, wavelength_nm=600)):
        peaks = [float(psf.kernel(lens, 0.2, z, dtype=torch.float64).max()) for z in (0.0, 1.0, 3.0)]
        assert peaks[0] > peaks[1] > peaks[2]
        assert math.isclose(*(float(psf.kernel(lens, 0.2, z, dtype=torch.float64).max()) for z in (2.0, -2.0)))


@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("shape", [(9, 14), (4, 4), (1, 30)])
def test_blur_and_its_adjoint(shape: tuple[int, int], periodic: bool) -> None:
    """Also where the kernel is larger than the field, and for kernels that are not symmetric."""
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.rand(2, *shape, dtype=torch.float64, generator=generator) for _ in range(2))
    kernel = torch.rand(7, 5, dtype=torch.float64, generator=generator)
    left = (blur(a, kernel, periodic=periodic) * b).sum()
    torch.testing.assert_close(left, (a * blur_adjoint(b, kernel, periodic=periodic)).sum())
    if periodic:
        torch.testing.assert_close(blur(a, kernel, periodic=True).sum(), a.sum() * kernel.sum())


def test_binning_and_spreading_are_transposes() -> None:
    a, b = torch.rand(3, 12, 8, dtype=torch.float64), torch.rand(3, 3, 2, dtype=torch.float64)
    torch.testing.assert_close((bin_sum(a, 4) * b).sum(), (a * spread(b, 4)).sum())
