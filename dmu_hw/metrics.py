"""How near an image, or what was found in it, is to the truth."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.data import BoolArray, Float32Array

Labels = NDArray[np.integer[Any]]
"""(y, x); 0 is background, any other number one object."""


def mse(image: Float32Array, truth: Float32Array) -> float:
    """Mean squared error."""
    return float(np.mean((image.astype(np.float64) - truth) ** 2))


def psnr_db(image: Float32Array, truth: Float32Array) -> float:
    """Peak signal to noise ratio against a peak of 1, the brightest dye of the model."""
    error = mse(image, truth)
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(image: Float32Array, truth: Float32Array) -> float:
    """Structural similarity as Wang et al. (2004) define it, by scikit-image: a Gaussian window of 1.5 pixels, values
    from 0 to 1, without a border of 5 pixels. Images need 11 pixels a side."""
    from skimage.metrics import structural_similarity  # noqa: PLC0415 - takes half a second, for some commands only

    similarity = structural_similarity(
        image, truth, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
    )
    return float(similarity)


def dice(mask: BoolArray, truth: BoolArray) -> float:
    """Twice the shared area by the sum of both areas; 1 where both are empty."""
    both, either = int(np.count_nonzero(mask & truth)), int(np.count_nonzero(mask)) + int(np.count_nonzero(truth))
    return 2 * both / either if either else 1.0


def average_precision(labels: Labels, truth: Labels, iou: float = 0.5) -> float:
    """TP / (TP + FP + FN) as in the Data Science Bowl of 2018: an object is found (TP) where it shares more than `iou`
    of the union with a true one, all others are false (FP) or missed (FN). 1 where there is nothing and nothing was
    found, 0 where something was found in an empty image."""
    if not 0.5 <= iou < 1:
        # below ½ one object could be matched twice
        raise ValueError(f"iou must be at least 0.5 and below 1, given {iou:g}")
    ours, theirs = _numbered(labels), _numbered(truth)
    shape = (int(ours.max(initial=0)) + 1, int(theirs.max(initial=0)) + 1)
    shared = np.bincount((ours * shape[1] + theirs).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0, keepdims=True) - shared
    found = int(np.count_nonzero(shared[1:, 1:] > iou * union[1:, 1:]))
    objects = sum(shape) - 2
    return found / (objects - found) if objects else 1.0


def count_error(labels: Labels, truth: Labels) -> float:
    """How far the number of objects is off, as a part of the true number; an empty image counts as one object."""
    count, true_count = _count(labels), _count(truth)
    return abs(count - true_count) / max(1, true_count)


def _numbered(labels: Labels) -> NDArray[np.intp]:
    """The same objects as 1, 2, 3, ... with 0 for the background."""
    numbers, places = np.unique(labels, return_inverse=True)
    numbered: NDArray[np.intp] = np.cumsum(numbers != 0)[places.reshape(labels.shape)] * (labels != 0)
    return numbered


def _count(labels: Labels) -> int:
    return int(np.count_nonzero(np.unique(labels)))
