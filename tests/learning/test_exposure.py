"""How a specimen is seen: as the physics says, with the noise of the camera, in the light that was asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmu_hw.exposure import Exposure, shifted
from dmu_hw.lesson import Variation
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.mirrors import leak
from dmu_hw.physics.optics import GaussianProfile, GaussianPsf, Optics, Sensor
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.sensor import SensorModel

D, FIELD, DRAWS = 4, 20, 1500


def exposure(
    small: Any, optics: Optics | None = None, *, patterns: dict[str, Any] | None = None, **more: Any
) -> Exposure:
    what = {"count": 2, "camera_pixel": D, "start": "noise"} | (patterns or {})
    side = D * what.get("tile", 1)
    crop = FIELD if FIELD % side == 0 else 2 * side
    return Exposure(small.lesson(what, {"crop_px": crop}, **more), optics or small.optics)


def bright(small: Any) -> Optics:
    """So much light that there is no noise to speak of."""
    dye = small.optics.dye.model_copy(update={"photons_per_um2_mw_ms": 1e8})
    return small.optics.model_copy(update={"dye": dye, "sensor": Sensor(gain_adu_per_e=1e-5, full_well_e=1e12)})


def tile_of(count: int, side: int) -> Tensor:
    return (torch.rand(count, side, side, generator=torch.Generator().manual_seed(1)) > 0.5).float()


def specimen_of(exposed: Exposure) -> Tensor:
    return torch.rand(exposed.side_px, exposed.side_px, generator=torch.Generator().manual_seed(2))


def whole_field(tile: Tensor, side_px: int) -> Tensor:
    times = side_px // tile.shape[-1]
    return tile.repeat(1, times, times)


@pytest.mark.parametrize("seen_as", ["drawn", "varied"])
@pytest.mark.parametrize("tile", [1, 2, 5])
def test_frames_are_those_of_the_physics(small: Any, tile: int, seen_as: str) -> None:
    """Mean and variance of many draws against the general path, with the noise of the sensor."""
    exposed = exposure(small, patterns={"tile": tile})
    patterns, specimen = tile_of(2, D * tile), specimen_of(exposed)
    many, generator = specimen.expand(DRAWS, -1, -1), torch.Generator().manual_seed(3)
    if seen_as == "drawn":
        signal = exposed.drawn(many, patterns, generator).signal
    else:
        signal = exposed.varied(many, patterns, Variation(), generator).signal
    forward = Forward(small.optics, (exposed.side_px, exposed.side_px), D)
    mean = forward.image(specimen[None], forward.illuminate(whole_field(patterns, exposed.side_px), 1.0))[0]
    sensor = SensorModel.at(small.optics.sensor, D)
    photons = forward.photons(mean, 1.0, 1.0)
    slope = forward.photons(torch.tensor(1.0), 1.0, 1.0) - forward.photons(torch.tensor(0.0), 1.0, 1.0)
    adu_per_signal = small.optics.sensor.gain_adu_per_e * small.optics.sensor.quantum_efficiency * slope
    variance = sensor.variance_adu(photons) / adu_per_signal**2
    off = (signal.mean(dim=0) - mean) / (variance / DRAWS).sqrt()
    assert float(off.abs().max()) < 5
    assert float(off.abs().mean()) == pytest.approx(math.sqrt(2 / math.pi), abs=0.25)
    torch.testing.assert_close(signal.var(dim=0), variance, rtol=6 * math.sqrt(2 / DRAWS), atol=0.0)
    assert float(signal.var(dim=0).mean() / variance.mean()) == pytest.approx(1, abs=0.03)


def test_many_phases_are_seen_as_few_are(small: Any) -> None:
    """Fields are blurred whole where tiles have more than 16 phases; what is seen is the same."""
    exposed = exposure(small, patterns={"tile": 5})
    patterns, specimen = tile_of(2, D * 5), specimen_of(exposed)[None]
    signal, lit, kernels = exposed._collected(specimen, patterns)
    assert kernels is None
    assert lit is signal
    aligned = Aligned(Forward(small.optics, (FIELD, FIELD), D), patterns, 1.0)
    torch.testing.assert_close(signal, aligned.image(specimen), rtol=1e-4, atol=1e-4)
    few = exposure(small, patterns={"tile": 4})
    assert few._collected(specimen_of(few)[None], tile_of(2, D * 4))[2] is not None


def test_uneven_light_is_divided_out(small: Any) -> None:
    uneven = small.optics.model_copy(update={"profile": GaussianProfile(sigma_um=3.0)})
    one, other = (exposure(small, optics) for optics in (small.optics, uneven))
    seen = [
        some.drawn(specimen_of(some)[None], tile_of(2, D), torch.Generator().manual_seed(0)) for some in (one, other)
    ]
    assert torch.equal(seen[0].signal, seen[1].signal)


# ---------------------------------------------------------------- light


@pytest.mark.parametrize(
    ("light", "frame_ms"), [({}, 1.0), ({"total_exposure_ms": 6.0}, 3.0), ({"dose_ms": 6.0}, 6.0 / (2 * 0.51))]
)
def test_time_of_a_frame(small: Any, light: dict[str, float], frame_ms: float) -> None:
    """Of two patterns that light half of the pixels and leak 2 % of the rest."""
    half = torch.zeros(2, D, D)
    half[:, : D // 2] = 1
    assert float(exposure(small, **light).frame_ms(half)) == pytest.approx(frame_ms)


@pytest.mark.parametrize("name", ["uniform", "blocks", "hadamard", "random"])
def test_equal_dose_on_the_mean_object_pixel(small: Any, name: Any) -> None:
    count = 1 if name == "uniform" else 4
    exposed = exposure(small, patterns={"count": count}, dose_ms=10.0)
    masks = torch.from_numpy(PatternSet(set=name, count=count, camera_pixel=D).make().masks).float()
    frames_ms = leak(masks, small.optics.mirrors.leakage) * exposed.frame_ms(masks)
    assert float(frames_ms.sum(dim=0).mean()) == pytest.approx(10.0)


def test_dose_has_a_gradient(small: Any) -> None:
    """That of mirrors that are off too: they must feel what it would cost to light them."""
    exposed = exposure(small, dose_ms=10.0)
    grey = (0.1 + 0.8 * tile_of(2, D)).double().requires_grad_()
    assert torch.autograd.gradcheck(exposed.frame_ms, grey)
    patterns = tile_of(2, D).requires_grad_()
    (gradient,) = torch.autograd.grad(exposed.frame_ms(patterns), patterns)
    assert (gradient < 0).all()
    torch.testing.assert_close(gradient, gradient[0, 0, 0].expand_as(gradient))


@pytest.mark.parametrize("kind", ["noise of the signal", "signal"])
def test_what_is_seen_has_a_gradient_in_the_patterns(small: Any, kind: str) -> None:
    exposed = exposure(small, dose_ms=10.0)
    patterns = (0.2 + 0.6 * torch.rand(2, D, D, generator=torch.Generator().manual_seed(0))).requires_grad_()
    specimen = specimen_of(exposed)[None]

    def told(some: Tensor) -> Tensor:
        signal = exposed.varied(specimen, some, Variation(photons=0.2), torch.Generator().manual_seed(5)).signal
        return signal.sum() if kind == "signal" else signal.square().sum()

    (gradient,) = torch.autograd.grad(told(patterns), patterns)
    step = torch.randn(2, D, D, generator=torch.Generator().manual_seed(6))
    with torch.no_grad():
        slope = (told(patterns + 1e-2 * step) - told(patterns - 1e-2 * step)) / 2e-2
    assert float((gradient * step).sum()) == pytest.approx(float(slope), rel=0.02)


# ---------------------------------------------------------------- patterns that no mirror shows


@pytest.mark.parametrize("seen_as", ["drawn", "varied"])
def test_signed_patterns_keep_their_sign_and_pay_for_their_light(small: Any, seen_as: str) -> None:
    exposed = exposure(small, patterns={"binarisation": "signed"})
    minus = -torch.ones(2, D, D)
    minus[1] = 1
    many, generator = specimen_of(exposed).expand(DRAWS, -1, -1), torch.Generator().manual_seed(3)
    if seen_as == "drawn":
        signal = exposed.drawn(many, minus, generator).signal
    else:
        signal = exposed.varied(many, minus, Variation(), generator).signal
    leakage = small.optics.mirrors.leakage
    spread = signal.std(dim=0)
    ratio = -(1 - 2 * leakage)
    torch.testing.assert_close(signal.mean(dim=0)[0], ratio * signal.mean(dim=0)[1], rtol=0.05, atol=0.1)
    assert float(spread[0].mean()) == pytest.approx(float(spread[1].mean()), rel=0.02)


def test_signed_patterns_cost_the_dose_of_their_absolute_values(small: Any) -> None:
    exposed = exposure(small, patterns={"binarisation": "signed"}, dose_ms=10.0)
    patterns = tile_of(2, D) * 2 - 1
    assert float(exposed.frame_ms(patterns)) == float(exposed.frame_ms(torch.ones(2, D, D)))


# ---------------------------------------------------------------- what varies


def test_the_level_of_light_varies_and_the_inverse_is_not_told(small: Any) -> None:
    exposed = exposure(small, bright(small))
    specimen, patterns = specimen_of(exposed)[None], tile_of(2, D)
    steady = exposed.varied(specimen, patterns, Variation(), torch.Generator().manual_seed(0)).signal
    factors = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        signal = exposed.varied(specimen, patterns, Variation(photons=0.1), generator).signal
        factors.append(math.log(float(signal.mean() / steady.mean())))
    assert np.std(factors) == pytest.approx(0.1, rel=0.2)


def test_the_offset_varies(small: Any) -> None:
    exposed = exposure(small)
    specimen, patterns = specimen_of(exposed)[None], tile_of(2, D)
    sensor = small.optics.sensor
    adu_per_signal = small.optics.photons_per_pixel(1.0, 1.0) * sensor.quantum_efficiency * sensor.gain_adu_per_e
    offsets = []
    for seed in range(200):
        seen = [
            exposed.varied(specimen, patterns, vary, torch.Generator().manual_seed(seed)).signal
            for vary in (Variation(), Variation(offset_adu=5.0))
        ]
        offsets.append(float((seen[1] - seen[0]).mean()) * adu_per_signal)
    assert np.std(offsets) == pytest.approx(5.0, rel=0.2)


def test_a_shift_moves_the_light_and_is_kept_from_the_inverse(small: Any) -> None:
    exposed = exposure(small, bright(small), dose_ms=1.0)
    specimen, patterns = specimen_of(exposed)[None], tile_of(2, D)
    generator = torch.Generator().manual_seed(4)
    dx, dy = (0.7 * draw for draw in torch.randn(4, generator=torch.Generator().manual_seed(4)).tolist()[2:])
    seen = exposed.varied(specimen, patterns, Variation(shift_px=0.7), generator)
    moved, _, moved_kernels = exposed._collected(specimen, shifted(patterns, dx, dy))
    still, _, kernels = exposed._collected(specimen, patterns)
    torch.testing.assert_close(seen.signal, moved, rtol=0.01, atol=0.01)
    assert float((still - moved).abs().max()) > 0.1
    assert seen.kernels is not None
    assert kernels is not None
    assert moved_kernels is not None
    assert torch.equal(seen.kernels, kernels)
    assert not torch.equal(seen.kernels, moved_kernels)


def test_sharp_patterns_that_ring_have_noise_all_the_same(small: Any) -> None:
    """Shifted by half a pixel, dark between bright is darker than dark."""
    sharp = small.optics.model_copy(
        update={
            "excitation": GaussianPsf(sigma_um=0.0),
            "emission": GaussianPsf(sigma_um=0.0),
            "sensor": Sensor(read_noise_e=0.0, gain_adu_per_e=1.0),
            "dye": small.optics.dye.model_copy(
                update={"photons_per_um2_mw_ms": 1e4, "background_photons_per_um2_mw_ms": 0.0}
            ),
            "mirrors": small.optics.mirrors.model_copy(update={"leakage": 0.0}),
        }
    )
    exposed = exposure(small, sharp)
    patterns = torch.zeros(2, D, D)
    patterns[:, :, 1] = 1
    specimen = torch.zeros(1, FIELD, FIELD)
    specimen[:, :, 3::4] = 1
    signals = [
        exposed.varied(specimen, patterns, Variation(shift_px=0.5), torch.Generator().manual_seed(seed)).signal
        for seed in range(20)
    ]
    assert min(float(signal.min()) for signal in signals) < -0.05
    assert all(bool(signal.isfinite().all()) for signal in signals)


def test_shifting_by_parts_of_a_pixel_adds_up() -> None:
    tile = torch.rand(2, 6, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(shifted(tile, 2.0, -1.0), tile.roll((-1, 2), (-2, -1)))
    smooth = torch.cos(2 * math.pi * torch.arange(8) / 8).expand(1, 8, 8)
    expected = torch.cos(2 * math.pi * (torch.arange(8) - 0.3) / 8).expand(1, 8, 8)
    torch.testing.assert_close(shifted(smooth, 0.3, 0.4), expected)


def test_the_most_lit_place_gets_the_dose_that_is_given(small: Any) -> None:
    """And patterns that light nothing do not ask for light for ever."""
    lesson = small.lesson(exposure_ms=None, peak_ms=8.0)
    exposure = Exposure(lesson, small.optics)
    masks = torch.zeros(4, 8, 8)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[2, 4, 4] = 1.0
    leakage = small.optics.mirrors.leakage
    most = 2 + 2 * leakage
    assert float(exposure.frame_ms(masks)) == pytest.approx(8.0 / most)
    assert float(exposure.frame_ms(torch.zeros(4, 8, 8))) <= 8.0 / 1e-3
