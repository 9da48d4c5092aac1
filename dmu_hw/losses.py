"""What training brings down: differences of images, and of the maps of objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw.errors import InputError, Problem

Loss = Callable[[Tensor, Tensor], Tensor]
"""(batch, y, x) and its truth → a number."""

_WINDOW_SIGMA_PX, _WINDOW_REACH_PX = 1.5, 5
_C1, _C2 = 0.01**2, 0.03**2
"""Of structural similarity, for values from 0 to 1."""


def image_loss(weights: Mapping[str, float]) -> Loss:
    """The weighted sum of some of `IMAGE_LOSSES`."""
    problems = [
        Problem(f"loss.{name}", f"unknown loss; allowed: {', '.join(IMAGE_LOSSES)}")
        for name in weights
        if name not in IMAGE_LOSSES
    ]
    problems += [
        Problem(f"loss.{name}", f"a weight must not be negative, given {weight:g}")
        for name, weight in weights.items()
        if not weight >= 0
    ]
    if not any(weights.values()):
        problems.append(Problem("loss", f"nothing to bring down; give a weight to some of {', '.join(IMAGE_LOSSES)}"))
    if problems:
        raise InputError(problems)
    terms = [(weight, IMAGE_LOSSES[name]) for name, weight in weights.items() if weight]

    def loss(image: Tensor, truth: Tensor) -> Tensor:
        return torch.stack([weight * term(image, truth) for weight, term in terms]).sum()

    return loss


def dissimilarity(image: Tensor, truth: Tensor) -> Tensor:
    """1 - structural similarity, as `metrics.ssim` has it; images need 11 pixels a side."""
    with torch.autocast(image.device.type, enabled=False):  # differences of squares need all their digits
        a, b = image, truth.to(image.dtype)
        mean_a, mean_b, squares, product = _windowed(torch.stack([a, b, a * a + b * b, a * b]))
        means, mean_squares = mean_a * mean_b, mean_a * mean_a + mean_b * mean_b
        alike = (2 * means + _C1) * (2 * (product - means) + _C2)
        similarity = alike / ((mean_squares + _C1) * (squares - mean_squares + _C2))
        mean: Tensor = similarity.mean()
        return 1 - mean


def _windowed(images: Tensor) -> Tensor:
    """Means under a Gaussian window wherever it fits; as products with two band matrices, ten times as fast on a CPU
    as convolutions of one channel."""
    rows, columns = (_window_matrix(images, side) for side in images.shape[-2:])
    return rows @ images @ columns.T


def _window_matrix(like: Tensor, side: int) -> Tensor:
    width = 2 * _WINDOW_REACH_PX + 1
    if side < width:
        raise ValueError(f"structural similarity needs {width} pixels a side, given {side}")
    places = torch.arange(side, device=like.device)
    distance = places - (places[: side - width + 1, None] + _WINDOW_REACH_PX)
    window = torch.exp(-(distance.to(like.dtype) ** 2) / (2 * _WINDOW_SIGMA_PX**2))
    window = window * (distance.abs() <= _WINDOW_REACH_PX)
    normalised: Tensor = window / window.sum(dim=1, keepdim=True)
    return normalised


IMAGE_LOSSES: dict[str, Loss] = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "ssim": dissimilarity,
}


def segment_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Of maps (batch, map, y, x) as `segments.targets` makes them: cross-entropy of each, and 1 - Dice of the
    foreground, so that few nuclei count as much as many."""
    entropy = functional.binary_cross_entropy_with_logits(logits, targets) * logits.shape[1]
    found, true = logits[:, 0].sigmoid(), targets[:, 0]
    shared = (found * true).sum(dim=(1, 2))
    overlap = (2 * shared + 1) / (found.sum(dim=(1, 2)) + true.sum(dim=(1, 2)) + 1)
    return entropy + 1 - overlap.mean()
