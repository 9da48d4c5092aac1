"""Losses: the right numbers, the right gradients, and a plain word for what is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmu_hw import metrics
from dmu_hw.errors import InputError
from dmu_hw.losses import dissimilarity, image_loss, segment_loss


def pair(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.rand(shape, generator=generator, dtype=dtype)
    return truth + 0.2 * torch.randn(shape, generator=generator, dtype=dtype), truth


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(11, 40), st.integers(11, 40))
def test_similarity_is_that_of_scikit_image(seed: int, rows: int, columns: int) -> None:
    image, truth = pair(seed, 2, rows, columns)
    expected = np.mean([metrics.ssim(a, b) for a, b in zip(image.numpy(), truth.numpy(), strict=True)])
    assert 1 - float(dissimilarity(image, truth)) == pytest.approx(expected, abs=1e-4)


def test_similarity_of_a_faint_image_keeps_its_digits() -> None:
    """Variances are differences of squares; half precision would lose them."""
    image, truth = (0.5 + 0.01 * values for values in pair(0, 1, 32, 32))
    with torch.autocast("cpu", torch.bfloat16):
        found = dissimilarity(image, truth)
    assert 1 - float(found) == pytest.approx(metrics.ssim(image[0].numpy(), truth[0].numpy()), abs=1e-3)


def test_similarity_has_its_gradient() -> None:
    image, truth = pair(1, 2, 12, 13, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: dissimilarity(x, truth), (image.requires_grad_(),))


def test_an_image_too_small_for_the_window() -> None:
    with pytest.raises(ValueError, match="11 pixels a side, given 10"):
        dissimilarity(*pair(0, 1, 10, 12))


def test_weights_are_summed() -> None:
    image, truth = pair(2, 2, 16, 16)
    expected = 2 * (image - truth).square().mean() + 0.5 * (image - truth).abs().mean()
    expected = expected + 0.1 * dissimilarity(image, truth)
    torch.testing.assert_close(image_loss({"mse": 2, "l1": 0.5, "ssim": 0.1})(image, truth), expected)
    torch.testing.assert_close(image_loss({"mse": 1, "l1": 0})(image, truth), (image - truth).square().mean())


def test_every_wrong_weight_is_named() -> None:
    with pytest.raises(InputError) as caught:
        image_loss({"psnr": 1.0, "l1": -2.0, "ssim": float("nan")})
    assert [problem.where for problem in caught.value.problems] == ["loss.psnr", "loss.l1", "loss.ssim"]
    assert "mse, l1, ssim" in str(caught.value)
    for nothing in ({}, {"mse": 0.0}):
        with pytest.raises(InputError, match="nothing to bring down"):
            image_loss(nothing)


def test_segmentation_is_best_at_the_truth() -> None:
    targets = (pair(3, 2, 2, 8, 8)[1] > 0.5).float()
    sure = segment_loss(40 * (2 * targets - 1), targets)
    assert float(sure) == pytest.approx(0, abs=1e-6)
    assert segment_loss(torch.zeros_like(targets), targets) > 1
    assert segment_loss(-40 * (2 * targets - 1), targets) > 40


def test_few_nuclei_count_as_much_as_many() -> None:
    """A missed nucleus in an empty field is lost in the mean of the cross-entropy; the overlap sees it."""
    one = torch.zeros(1, 2, 64, 64)
    one[0, :, 10:14, 10:14] = 1
    missed = torch.full_like(one, -9.0)
    found = torch.where(one > 0, 9.0, -9.0)
    assert segment_loss(missed, one) - segment_loss(found, one) > 0.8


def test_an_empty_field_is_no_division_by_zero() -> None:
    empty = torch.zeros(1, 2, 8, 8)
    assert float(segment_loss(torch.full_like(empty, -40.0), empty)) == pytest.approx(0, abs=1e-6)


def test_segmentation_has_its_gradient() -> None:
    targets = pair(4, 2, 2, 3, 4, dtype=torch.float64)[1]
    logits = pair(5, 2, 2, 3, 4, dtype=torch.float64)[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: segment_loss(x, targets), (logits,))
