"""How far each pixel of an image may be off: a small network beside the inverse, which has seen what that errs by.

It looks at groups of object pixels and at the frames round them: errors are large at edges, where it is bright, and
where frames say little. What it gives is a standard deviation of good fields; of doubted bursts it says nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmu_hw.bundle import Weights
from dmu_hw.data import Layout

PREFIX = "spread."
"""What the weights of a bundle begin with that are read here."""
_GROUP_PX = 4
_MEASURED, _HIDDEN = 8, 16
_GAIN = 4.0
"""Brings what varies in an image to about one."""
_LEAST = 1e-4


class Spread(nn.Module):
    """Image and frames → standard deviation of the image's error."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.side = layout.camera_pixel
        self.group = math.gcd(_GROUP_PX, self.side)
        signals = layout.count * layout.phases[0] * layout.phases[1]
        self.phases = layout.phases
        self.measured = nn.Conv2d(signals, _MEASURED * layout.phases[0] * layout.phases[1], 3, padding=1)
        self.entry = nn.Conv2d(self.group**2 + _MEASURED, _HIDDEN, 3, padding=1)
        self.head = nn.Conv2d(_HIDDEN, self.group**2, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        self.unit: Tensor
        self.register_buffer("unit", torch.ones(()))
        """Mean signal of good fields."""
        self.scale: Tensor
        self.register_buffer("scale", torch.ones(()))
        """By what spreads are multiplied, so that as many errors stay within one as should."""

    @classmethod
    def of(cls, weights: Weights, layout: Layout) -> Spread:
        """The one whose weights these are."""
        found = cls(layout)
        found.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in weights.items()})
        found.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a quarter less time on a CPU
        return found.eval()

    def weights(self) -> Weights:
        """As a bundle keeps them."""
        return {key: value.detach().cpu().numpy().copy() for key, value in self.state_dict().items()}

    def logarithm(self, signal: Tensor, image: Tensor) -> Tensor:
        """Of the spread before it is scaled: (batch, y, x)."""
        (ny, nx), (rows, columns) = self.phases, signal.shape[-2:]
        missing = (-columns % nx, -rows % ny)
        frames = functional.pad(signal / self.unit - 1, (0, missing[0], 0, missing[1]))
        batch, count, tall, wide = frames.shape
        tiles = frames.reshape(batch, count, tall // ny, ny, wide // nx, nx).permute(0, 1, 3, 5, 2, 4)
        told = self.measured(tiles.reshape(batch, count * ny * nx, tall // ny, wide // nx))
        told = told.reshape(batch, _MEASURED, ny, nx, tall // ny, wide // nx).permute(0, 1, 4, 2, 5, 3)
        told = told.reshape(batch, _MEASURED, tall, wide)[..., :rows, :columns]
        told = functional.interpolate(told, scale_factor=self.side // self.group, mode="nearest")
        groups = functional.pixel_unshuffle(_GAIN * image[:, None], self.group)
        features = self.entry(torch.cat([groups, told], dim=1)).relu()
        return functional.pixel_shuffle(self.head(features), self.group)[:, 0]

    def forward(self, signal: Tensor, image: Tensor) -> Tensor:
        """Frames (batch, pattern, y, x) as signals and images (batch, y, x) → (batch, y, x)."""
        spread: Tensor = self.scale * self.logarithm(signal, image).exp().clamp(min=_LEAST)
        return spread
