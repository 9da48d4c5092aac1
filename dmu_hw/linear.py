"""The linear estimate as the first layer of a network, to go on learning with it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dmu_hw import lmmse
from dmu_hw.bundle import Weights

KEYS = ("mean", "mean_signal", "estimators")
"""What of a model's weights it consists of."""


class Linear(nn.Module):
    """Signals of T frames → specimen, by `lmmse.apply`.

    It learns in units in which signals are near 1: Adam moves every number by the same step, and one that is to be
    multiplied by hundreds of photons would jump. The unit is a power of two, so that nothing is rounded."""

    def __init__(self, weights: Weights, side: int) -> None:
        super().__init__()
        self.side = side
        mean, mean_signal, estimators = (torch.from_numpy(weights[key]) for key in KEYS)
        brightest = float(mean_signal.abs().max())
        unit = 2.0 ** round(math.log2(brightest)) if brightest > 0 else 1.0
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(unit))
        self.mean = nn.Parameter(mean.clone())
        self.mean_signal = nn.Parameter((mean_signal / unit).contiguous())
        self.estimators = nn.Parameter((estimators * unit).contiguous())

    def weights(self) -> Weights:
        """As `lmmse.Estimator` gives them."""
        parts = (self.mean, self.mean_signal * self.unit, self.estimators / self.unit)
        return {key: value.detach().cpu().numpy().copy() for key, value in zip(KEYS, parts, strict=True)}

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) → (batch, y, x) on the object grid."""
        parts: dict[str, Tensor] = dict(zip(KEYS, (self.mean, self.mean_signal, self.estimators), strict=True))
        return lmmse.apply(signal / self.unit, parts, self.side)
