"""The linear estimate as the first layer of a network."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dmu_hw import lmmse
from dmu_hw.bundle import Weights
from dmu_hw.lmmse import Estimator

KEYS = ("mean", "mean_signal", "estimators")
"""What of a model's weights it consists of."""


class Linear(nn.Module):
    """Signals of T frames → specimen, by `lmmse.apply`.

    It does not learn by itself: where patterns learn, it is tuned to those of every update, and stays the best linear
    estimate of what they give. Signals are taken in units in which they are near 1; the unit is a power of two, so that
    nothing is rounded."""

    def __init__(self, weights: Weights, side: int) -> None:
        super().__init__()
        self.side = side
        mean, mean_signal, estimators = (torch.from_numpy(weights[key]) for key in KEYS)
        brightest = float(mean_signal.abs().max())
        unit = 2.0 ** round(math.log2(brightest)) if brightest > 0 else 1.0
        self.unit: Tensor
        self.register_buffer("unit", torch.tensor(unit))
        self.mean: Tensor
        self.mean_signal: Tensor
        self.estimators: Tensor
        self.register_buffer("mean", mean.clone())
        self.register_buffer("mean_signal", (mean_signal / unit).contiguous())
        self.register_buffer("estimators", (estimators * unit).contiguous())
        self._tuned: dict[str, Tensor] | None = None

    def tune(self, estimator: Estimator) -> None:
        """Become another estimate; its gradients serve the next pass."""
        self._tuned = {
            "mean": self.mean,
            "mean_signal": (estimator.mean_signal / self.unit).to(self.mean_signal),
            "estimators": (estimator.estimators * self.unit).to(self.estimators),
        }
        for key in ("mean_signal", "estimators"):
            getattr(self, key).copy_(self._tuned[key].detach())

    def weights(self) -> Weights:
        """As `lmmse.Estimator` gives them."""
        parts = (self.mean, self.mean_signal * self.unit, self.estimators / self.unit)
        return {key: value.detach().cpu().numpy().copy() for key, value in zip(KEYS, parts, strict=True)}

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) → (batch, y, x) on the object grid."""
        parts = self._tuned or dict(zip(KEYS, (self.mean, self.mean_signal, self.estimators), strict=True))
        self._tuned = None
        return lmmse.apply(signal / self.unit, parts, self.side)
