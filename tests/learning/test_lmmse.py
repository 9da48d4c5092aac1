"""The linear estimate keeps what it promises: the error that it tells is the error that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from dmu_hw import lmmse
from dmu_hw.exposure import Exposure
from dmu_hw.lmmse import Design, Estimator, Statistics, magnitude
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.patterns import PatternSet

FIELD, EDGE, MANY = 96, 16, 64
MEAN, SPREAD = 1.0, 0.2


def power(size: int) -> Tensor:
    """Of specimens with details of some pixels."""
    fy, fx = torch.fft.fftfreq(size, dtype=torch.float64)[:, None], torch.fft.rfftfreq(size, dtype=torch.float64)
    shape = 1 / (1 + (6 * torch.sqrt(fy**2 + fx**2)) ** 4)
    return shape * SPREAD**2 / float(torch.fft.irfft2(shape, s=(size, size))[0, 0])


def specimens(count: int, size: int) -> Tensor:
    """Gaussian, the same everywhere."""
    noise = torch.randn(count, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    fields: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * power(size).sqrt(), s=(size, size))
    return (MEAN + fields).float()


def exposed_to(small: Any, patterns: Tensor, d: int, *, signed: bool = False) -> Exposure:
    what = {
        "count": len(patterns),
        "camera_pixel": d,
        "tile": patterns.shape[1] // d,
        "start": "noise",
        "binarisation": "signed" if signed else "hard",
    }
    return Exposure(small.lesson(what, {"crop_px": FIELD}), small.optics)


def random_tile(count: int, side: int) -> Tensor:
    return torch.rand(count, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def hadamard(d: int) -> Tensor:
    return torch.from_numpy(PatternSet(set="hadamard", count=4, camera_pixel=d).make().masks).double()


CASES = {
    "hadamard": (hadamard(8), 8, 1),
    "one frame": (torch.ones(1, 4, 4, dtype=torch.float64), 4, 2),
    "random, larger tile": ((random_tile(2, 8) > 0.5).double(), 4, 1),
    "signed": (random_tile(4, 8) * 2 - 1, 8, 1),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_that_is_told_is_the_error_that_is_made(small: Any, case: str) -> None:
    patterns, d, reach = CASES[case]
    exposed = exposed_to(small, patterns, d, signed=case == "signed")
    design = exposed.design(patterns, reach)
    estimator = lmmse.compute(design, Statistics(MEAN, power(design.torus_px())))
    fields = specimens(MANY, FIELD)
    seen = exposed.drawn(fields, patterns.float(), torch.Generator().manual_seed(2)).signal
    weights = {key: torch.from_numpy(value) for key, value in estimator.weights().items()}
    inner = slice(EDGE, FIELD - EDGE)  # beyond the border it is dark, which is not the same as everywhere
    missed = (lmmse.apply(seen, weights, d) - fields)[:, inner, inner].square().mean()
    assert float(estimator.error) == pytest.approx(float(missed), rel=0.04)
    assert float(estimator.error) < 0.95 * SPREAD**2


def test_nothing_else_that_is_linear_does_better(small: Any) -> None:
    patterns, d, reach = CASES["hadamard"]
    exposed = exposed_to(small, patterns, d)
    design = exposed.design(patterns, reach)
    weights = lmmse.compute(design, Statistics(MEAN, power(design.torus_px()))).weights()
    fields, generator = specimens(MANY, FIELD), torch.Generator().manual_seed(2)
    seen = exposed.drawn(fields, patterns.float(), generator).signal

    def missed(**changed: Any) -> float:
        tensors = {key: torch.from_numpy(value) for key, value in (weights | changed).items()}
        inner = slice(EDGE, FIELD - EDGE)
        return float((lmmse.apply(seen, tensors, d) - fields)[:, inner, inner].square().mean())

    best = missed()
    rng = np.random.default_rng(0)
    size = np.abs(weights["estimators"]).mean()
    for _ in range(3):
        other = weights["estimators"] + 0.3 * size * rng.standard_normal(weights["estimators"].shape, dtype=np.float32)
        assert missed(estimators=other) > best
    assert missed(mean=np.asarray(MEAN + 0.02, np.float32)) > best
    assert missed(estimators=0.95 * weights["estimators"]) > best


def tiny_optics(small: Any) -> Optics:
    psf = small.optics.excitation.model_copy(update={"sigma_um": 0.2})
    return small.optics.model_copy(update={"excitation": psf, "emission": psf})


def tiny(small: Any, patterns: Tensor, exposure_ms: float | Tensor = 1.0) -> Estimator:
    design = Design(patterns, 2, tiny_optics(small), 1.0, exposure_ms, 1)
    return lmmse.compute(design, Statistics(MEAN, power(design.torus_px())))


@pytest.mark.parametrize("low", [0.1, -0.9])
def test_gradients_in_the_patterns(small: Any, low: float) -> None:
    """Those that training and drafts go by, of patterns of one sign and of both, in light that depends on them."""
    patterns = (low + (0.9 - low) * random_tile(2, 4)).requires_grad_()

    def told(some: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        estimator = tiny(small, some, 2.0 / magnitude(some).mean())
        return estimator.error * 1e3, estimator.estimators[0, 0, 1], estimator.mean_signal

    assert torch.autograd.gradcheck(told, patterns, fast_mode=True, atol=1e-4)


def test_a_dark_mirror_feels_what_light_would_cost_and_give(small: Any) -> None:
    """At exactly 0 the slope is that towards more light."""
    dark = (random_tile(2, 4) > 0.5).double().requires_grad_()
    (slope,) = torch.autograd.grad(tiny(small, dark, 2.0 / magnitude(dark).mean()).error, dark)
    with torch.no_grad():
        for place in ((dark == 0).nonzero()[:3]).tolist():
            lit = dark.clone()
            lit[tuple(place)] = 1e-5
            towards = (
                tiny(small, lit, 2.0 / magnitude(lit).mean()).error
                - tiny(small, dark, 2.0 / magnitude(dark).mean()).error
            ) / 1e-5
            assert float(slope[tuple(place)]) == pytest.approx(float(towards), rel=0.01)


@pytest.mark.parametrize("tile", [1, 2])
def test_weights_can_be_kept(small: Any, tmp_path: Path, tile: int) -> None:
    weights = tiny(small, random_tile(3, 2 * tile)).weights()
    assert all(value.flags.c_contiguous and value.dtype == np.float32 for value in weights.values())
    save_file(dict(weights), tmp_path / "weights")
    again = load_file(tmp_path / "weights")
    assert all(np.array_equal(again[key], weights[key]) for key in weights)
    assert weights["mean_signal"].shape == (3, tile, tile)


def test_what_a_field_of_the_mean_gives_is_the_mean(small: Any) -> None:
    patterns, d, reach = CASES["random, larger tile"]
    design = exposed_to(small, patterns, d).design(patterns, reach)
    weights = lmmse.compute(design, Statistics(MEAN, power(design.torus_px()))).weights()
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    signal = tensors["mean_signal"].repeat(1, 4, 3)[None]
    estimate = lmmse.apply(signal, tensors, d)
    torch.testing.assert_close(estimate, torch.full((1, 8 * d, 6 * d), MEAN))


def test_statistics_are_those_of_the_specimen_and_not_of_its_borders() -> None:
    """Scenes are cut from larger ones and do not fit together at their borders, as images of specimens never do."""
    size, cut = 256, 64
    fy, fx = torch.fft.fftfreq(size, dtype=torch.float64)[:, None], torch.fft.rfftfreq(size, dtype=torch.float64)
    smooth = torch.exp(-((fy**2 + fx**2) * (2 * torch.pi * 4) ** 2))  # nothing finer than some four pixels
    noise = torch.randn(16, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    fields = torch.fft.irfft2(torch.fft.rfft2(noise) * smooth.sqrt(), s=(size, size))
    fields = MEAN + SPREAD * fields / fields.std()
    scenes = [
        np.ascontiguousarray(field[y : y + cut, x : x + cut], dtype=np.float32)
        for field in fields.numpy()
        for y in range(0, size, cut)
        for x in range(0, size, cut)
    ]
    found = Statistics.of(scenes)
    assert found.mean == pytest.approx(MEAN, rel=0.01)
    assert found.variance == pytest.approx(SPREAD**2, rel=0.1)
    fine = torch.fft.fftfreq(cut)[:, None].abs().maximum(torch.fft.rfftfreq(cut)) > 0.2
    assert float(found.power[fine].sum() / found.power.sum()) < 1e-4
