"""Scores: known cases, what an empty image gives, and what no score may depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dmu_hw.metrics import average_precision, count_error, dice, mse, psnr_db, ssim

LABELS = arrays(np.int32, (6, 7), elements=st.sampled_from([0, 1, 2, 5]))
EMPTY = np.zeros((6, 7), np.int32)


def squares(*places: tuple[int, int, int]) -> np.ndarray:
    """Squares of 10 pixels a side at (row, column) with a number."""
    labels = np.zeros((64, 64), np.int32)
    for row, column, number in places:
        labels[row : row + 10, column : column + 10] = number
    return labels


def by_hand(labels: np.ndarray, truth: np.ndarray, iou: float) -> float:
    """The definition, one pair after the other."""
    ours = [labels == number for number in np.unique(labels[labels != 0])]
    theirs = [truth == number for number in np.unique(truth[truth != 0])]
    found = sum((a & b).sum() > iou * (a | b).sum() for a in ours for b in theirs)
    false, missed = len(ours) - found, len(theirs) - found
    return float(found / (found + false + missed)) if ours or theirs else 1.0


def test_error_of_an_image() -> None:
    truth = np.zeros((8, 8), np.float32)
    assert mse(truth + 0.1, truth) == pytest.approx(0.01)
    assert psnr_db(truth + 0.1, truth) == pytest.approx(20)
    assert psnr_db(truth, truth) == np.inf


def test_similarity_knows_structure_from_noise() -> None:
    rng = np.random.default_rng(0)
    truth = np.kron(rng.random((8, 8)), np.ones((8, 8))).astype(np.float32)
    noise = 0.1 * rng.standard_normal(truth.shape).astype(np.float32)
    assert ssim(truth, truth) == pytest.approx(1)
    assert ssim(truth + 0.1, truth) > ssim(truth + noise, truth)
    assert ssim(truth + noise, truth) == pytest.approx(ssim(truth, truth + noise))


def test_dice() -> None:
    one, shifted = squares((0, 0, 1)) > 0, squares((0, 5, 1)) > 0
    assert dice(one, one) == 1
    assert dice(one, shifted) == 0.5
    assert dice(one, EMPTY[:1, :1] > 0) == 0
    assert dice(EMPTY > 0, EMPTY > 0) == 1


def test_precision_counts_found_false_and_missed() -> None:
    truth = squares((0, 0, 1), (0, 30, 2), (30, 0, 3))
    labels = squares((0, 0, 9), (0, 33, 4), (30, 30, 7))
    # found, found (70 of 130 shared), false, and one missed
    assert average_precision(labels, truth) == 2 / 4
    assert average_precision(labels, truth, 0.6) == 1 / 5


def test_an_object_in_halves_is_not_found() -> None:
    truth = squares((0, 0, 1))
    halves = truth.copy()
    halves[:5, :10] = 2
    assert average_precision(halves, truth) == 0


@settings(deadline=None)
@given(LABELS, LABELS, st.sampled_from([0.5, 0.7, 0.9]))
def test_precision_is_its_definition(labels: np.ndarray, truth: np.ndarray, iou: float) -> None:
    assert average_precision(labels, truth, iou) == by_hand(labels, truth, iou)
    assert average_precision(labels, truth, iou) == average_precision(truth, labels, iou)
    assert average_precision(labels * 100, labels, iou) == 1


def test_precision_of_empty_images() -> None:
    something = EMPTY.copy()
    something[2:4] = 3
    assert average_precision(EMPTY, EMPTY) == 1
    assert average_precision(something, EMPTY) == 0
    assert average_precision(EMPTY, something) == 0


@pytest.mark.parametrize("iou", [0.49, 1.0])
def test_precision_where_a_match_is_not_unique(iou: float) -> None:
    with pytest.raises(ValueError, match=r"at least 0\.5"):
        average_precision(EMPTY, EMPTY, iou)


def test_counts() -> None:
    truth = squares((0, 0, 1), (0, 30, 200), (30, 0, 3), (30, 30, 40))
    assert count_error(truth, truth) == 0
    assert count_error(squares((0, 0, 8)), truth) == 0.75
    assert count_error(truth, EMPTY) == 4
    assert count_error(EMPTY, truth) == 1
    assert count_error(EMPTY, EMPTY) == 0
