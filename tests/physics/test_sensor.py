"""The camera's numbers: moments against many draws, clipping, likelihood, maps."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal

from dmu_hw.physics.optics import Sensor
from dmu_hw.physics.sensor import SensorMaps, SensorModel

DRAWS = 10_000


@pytest.mark.parametrize("photons", [0.0, 0.7, 12.0, 300.0, 20_000.0])
@pytest.mark.parametrize("binning", ["charge", "digital"])
def test_mean_and_variance_against_ten_thousand_draws(photons: float, binning: str) -> None:
    model = SensorModel.at(Sensor.model_validate({"binning": binning, "gain_adu_per_e": 1.7}), 4)
    light = torch.tensor(photons, dtype=torch.float64)
    adu = model.draw(light.expand(DRAWS), torch.Generator().manual_seed(7))
    mean, variance = float(model.mean_adu(light)), float(model.variance_adu(light))
    assert float(adu.mean()) == pytest.approx(mean, abs=5 * (variance / DRAWS) ** 0.5)
    # the variance of a variance: excess kurtosis of a Poisson is 1/mean, at most that of these electrons
    spread = variance * ((2 + 1 / max(1.0, photons * 0.8)) / DRAWS) ** 0.5
    assert float(adu.var()) == pytest.approx(variance, abs=5 * spread)
    read_noise = 8.0 if binning == "digital" else 2.0
    assert variance == pytest.approx(1.7**2 * (0.8 * photons + read_noise**2) + 1 / 12)


def test_the_surrogate_has_the_moments_and_a_gradient() -> None:
    model = SensorModel.at(Sensor(), 1)
    light = torch.full((DRAWS,), 50.0, dtype=torch.float64, requires_grad=True)
    adu = model.surrogate(light, torch.Generator().manual_seed(1))
    mean, variance = (float(f(light.detach()[0])) for f in (model.mean_adu, model.variance_adu))
    assert float(adu.detach().mean()) == pytest.approx(mean, abs=5 * (variance / DRAWS) ** 0.5)
    assert float(adu.detach().var()) == pytest.approx(variance, rel=0.08)
    adu.sum().backward()
    assert light.grad is not None
    assert float(light.grad.mean()) == pytest.approx(0.8 * 0.25, rel=0.02)


def test_the_surrogate_gradient_against_finite_differences() -> None:
    model = SensorModel.at(Sensor(), 1)
    light = torch.tensor([3.0, 40.0, 900.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: model.surrogate(x, torch.Generator().manual_seed(2)), light)


def test_full_well_and_converter_clip() -> None:
    generator = torch.Generator().manual_seed(0)
    bright = torch.full((100,), 1e7, dtype=torch.float64)
    converter = SensorModel.at(Sensor(bits=12), 1)
    assert set(converter.draw(bright, generator).tolist()) == {4095.0}
    well = SensorModel.at(Sensor(full_well_e=1000, read_noise_e=0), 1)
    assert set(well.draw(bright, generator).tolist()) == {350.0}
    dark = SensorModel.at(Sensor(offset_adu=0), 1)
    assert float(dark.draw(torch.zeros(1000, dtype=torch.float64), generator).min()) == 0


def test_the_likelihood_is_a_normal_density() -> None:
    model = SensorModel.at(Sensor(), 2)
    photons = torch.tensor([1.0, 100.0, 3000.0], dtype=torch.float64)
    adu = torch.tensor([101.0, 118.0, 720.0], dtype=torch.float64)
    expected = Normal(model.mean_adu(photons), model.variance_adu(photons).sqrt()).log_prob(adu)
    torch.testing.assert_close(model.log_likelihood(adu, photons), expected)


def test_numbers_and_photons_are_inverse() -> None:
    model = SensorModel.at(Sensor(), 1)
    photons = torch.tensor([0.0, 17.0, 5000.0], dtype=torch.float64)
    torch.testing.assert_close(model.to_photons(model.mean_adu(photons)), photons)


def test_a_chip_is_its_seed() -> None:
    sensor = Sensor(gain_spread=0.01, offset_spread_adu=2.0, dead_fraction=0.01, hot_fraction=0.02)
    one, same, other = (SensorMaps.draw(sensor, (200, 300), seed) for seed in (1, 1, 2))
    assert torch.equal(one.response, same.response)
    assert not torch.equal(one.response, other.response)
    assert float((one.response == 0).double().mean()) == pytest.approx(0.01, abs=0.002)
    assert float((one.dark_e_per_ms > 0).double().mean()) == pytest.approx(0.02, abs=0.003)
    assert float(one.offset_adu.std()) == pytest.approx(2.0, rel=0.02)
