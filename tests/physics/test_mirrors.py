"""Patterns that learn: what the mirrors show, and which way the gradient points."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.physics.dye import bleached, saturated
from dmu_hw.physics.mirrors import LearnedPatterns, capped, leak, soft, straight_through
from dmu_hw.physics.optics import Dye


@pytest.mark.parametrize("parametrisation", ["spatial", "fourier"])
@pytest.mark.parametrize("superpixel", [1, 2, 4])
def test_hard_patterns_are_binary_and_equal_their_masks(parametrisation: str, superpixel: int) -> None:
    start = torch.randn(3, 16 // superpixel, 8 // superpixel, generator=torch.Generator().manual_seed(2))
    learned = LearnedPatterns(start, superpixel=superpixel, parametrisation=parametrisation)  # type: ignore[arg-type]
    shown = learned()
    assert set(shown.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(shown.detach().bool(), torch.from_numpy(learned.masks()))
    blocks = shown.detach().reshape(3, 16 // superpixel, superpixel, 8 // superpixel, superpixel)
    assert torch.equal(blocks.amax(dim=(2, 4)), blocks.amin(dim=(2, 4)))


def test_both_parametrisations_begin_at_the_same_patterns() -> None:
    start = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(4))
    spatial, fourier = (LearnedPatterns(start, parametrisation=p) for p in ("spatial", "fourier"))  # type: ignore[arg-type]
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
    start = torch.randn(1, 8, 8, generator=torch.Generator().manual_seed(1))
    learned = LearnedPatterns(start, parametrisation=parametrisation)  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(learned.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        torch.mean((learned() - wanted) ** 2).backward()
        optimiser.step()
    assert (learned.masks() == wanted.bool().numpy()).all()


def test_leakage_lifts_the_dark_and_keeps_the_bright() -> None:
    assert leak(torch.tensor([0.0, 0.5, 1.0]), 0.1).tolist() == pytest.approx([0.1, 0.55, 1.0])


@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0.01, 6),
    st.integers(0, 1000),
    st.sampled_from(["spatial", "fourier"]),
)
def test_a_cap_on_light_is_kept(count: int, peak: int, most: float, seed: int, parametrisation: str) -> None:
    start = torch.randn(count, 6, 5, generator=torch.Generator().manual_seed(seed)) + 1
    learned = LearnedPatterns(start, parametrisation=parametrisation, sum_lit=most, peak_lit=peak)  # type: ignore[arg-type]
    masks = learned.masks()
    assert masks.sum(axis=0).max() <= peak
    assert masks.sum() <= most * masks[0].size
    assert torch.equal(learned().detach().bool(), torch.from_numpy(masks))


def test_a_cap_leaves_the_largest_and_one_that_is_kept_anyway_changes_nothing() -> None:
    start = torch.tensor([[[3.0, -1.0]], [[2.0, 1.0]], [[-1.0, 4.0]]])
    assert LearnedPatterns(start, peak_lit=1).masks().tolist() == [[[True, False]], [[False, False]], [[False, True]]]
    assert LearnedPatterns(start, sum_lit=1.0).masks().sum() == 2
    assert torch.equal(capped(start, 3.0, 3), start)


def test_signed_patterns_go_both_ways() -> None:
    assert LearnedPatterns(torch.tensor([[[-9.0, 0.0, 9.0]]]), binarisation="signed")().tolist() == [
        [pytest.approx([-1.0, 0.0, 1.0], abs=1e-6)]
    ]


def test_saturation_halves_at_its_power_and_bleaching_falls_to_1_over_e() -> None:
    dye = Dye(photons_per_um2_mw_ms=1.0, saturation_mw=5.0, bleach_dose_mj_cm2=100.0)
    one = torch.ones(1, dtype=torch.float64)
    assert float(saturated(one, 5.0, dye)) == pytest.approx(0.5)
    assert float(saturated(one * 1e-6, 5.0, dye)) == pytest.approx(1e-6, rel=1e-5)
    assert float(bleached(one, one * 100.0, dye)) == pytest.approx(0.36788, rel=1e-4)
    plain = Dye(photons_per_um2_mw_ms=1.0)
    assert torch.equal(saturated(one, 5.0, plain), one)
    assert torch.equal(bleached(one, one * 1e9, plain), one)
