"""Patterns that learn: what the mirrors show, and which way the gradient points."""

from __future__ import annotations

import pytest
import torch

from dmu_hw.physics.dye import bleached, saturated
from dmu_hw.physics.mirrors import LearnedPatterns, leak, soft, straight_through
from dmu_hw.physics.optics import Dye


@pytest.mark.parametrize("parametrisation", ["spatial", "fourier"])
@pytest.mark.parametrize("superpixel", [1, 2, 4])
def test_hard_patterns_are_binary_and_equal_their_masks(parametrisation: str, superpixel: int) -> None:
    learned = LearnedPatterns(3, (16, 8), superpixel=superpixel, parametrisation=parametrisation)  # type: ignore[arg-type]
    shown = learned()
    assert set(shown.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(shown.detach().bool(), torch.from_numpy(learned.masks()))
    blocks = shown.detach().reshape(3, 16 // superpixel, superpixel, 8 // superpixel, superpixel)
    assert torch.equal(blocks.amax(dim=(2, 4)), blocks.amin(dim=(2, 4)))


def test_both_parametrisations_begin_at_the_same_patterns() -> None:
    start = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(4))
    spatial, fourier = (LearnedPatterns(2, (8, 8), parametrisation=p, start=start) for p in ("spatial", "fourier"))  # type: ignore[arg-type]
    torch.testing.assert_close(fourier.logits(), start)
    assert (spatial.masks() == fourier.masks()).all()


def test_the_straight_through_gradient_is_the_sigmoids() -> None:
    logits = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    straight_through(logits, slope=2.0).sum().backward()
    hard = logits.grad.clone()  # type: ignore[union-attr]
    logits.grad = None
    soft(logits, slope=2.0).sum().backward()
    torch.testing.assert_close(hard, logits.grad)


@pytest.mark.parametrize("parametrisation", ["spatial", "fourier"])
def test_descent_finds_a_pattern(parametrisation: str) -> None:
    """Ask for a given pattern by least squares: descent through the straight-through gradient gets there."""
    wanted = (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(9)) > 0.5).float()
    learned = LearnedPatterns(1, (8, 8), parametrisation=parametrisation, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(learned.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        torch.mean((learned() - wanted) ** 2).backward()
        optimiser.step()
    assert (learned.masks() == wanted.bool().numpy()).all()


def test_leakage_lifts_the_dark_and_keeps_the_bright() -> None:
    assert leak(torch.tensor([0.0, 0.5, 1.0]), 0.1).tolist() == pytest.approx([0.1, 0.55, 1.0])


def test_an_odd_superpixel_is_refused() -> None:
    with pytest.raises(ValueError, match="super-pixel 3"):
        LearnedPatterns(1, (8, 8), superpixel=3)


def test_saturation_halves_at_its_power_and_bleaching_falls_to_1_over_e() -> None:
    dye = Dye(photons_per_um2_mw_ms=1.0, saturation_mw=5.0, bleach_dose_mj_cm2=100.0)
    one = torch.ones(1, dtype=torch.float64)
    assert float(saturated(one, 5.0, dye)) == pytest.approx(0.5)
    assert float(saturated(one * 1e-6, 5.0, dye)) == pytest.approx(1e-6, rel=1e-5)
    assert float(bleached(one, one * 100.0, dye)) == pytest.approx(0.36788, rel=1e-4)
    plain = Dye(photons_per_um2_mw_ms=1.0)
    assert torch.equal(saturated(one, 5.0, plain), one)
    assert torch.equal(bleached(one, one * 1e9, plain), one)
