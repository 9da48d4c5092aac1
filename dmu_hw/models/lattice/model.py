"""A network that works at camera resolution, with weights shared by all tiles, so that any field size will do.

It begins as the linear estimate and learns what that cannot: features of the tile's measurements and its neighbours
become the d×d block of object pixels by a pixel shuffle, and a small network on the object grid smooths the seams.
Both start at zero, so that a network cannot begin behind the linear estimate.

At full resolution every layer is dear: the small network therefore works on groups of 4×4 object pixels, one channel
each, which sees further and costs a seventh.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmu_hw import lmmse
from dmu_hw.bundle import Weights
from dmu_hw.data import Layout
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.models.lattice.settings import LatticeSettings

_LINEAR = ("mean", "mean_signal", "estimators")
_GROUP = 4


def _conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2, padding_mode="replicate" if size > 1 else "zeros")


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.second(functional.gelu(self.first(functional.gelu(features))))
        return features + added


def _fine(group: int, channels: int) -> nn.Sequential:
    """On groups of object pixels; the last layer is number 4."""
    return nn.Sequential(
        nn.Conv2d(group**2, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, group**2, 3, padding=1),
    )


class Model(nn.Module):
    """Signals of T frames → specimen."""

    def __init__(self, weights: Weights, layout: Layout, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.side = layout.camera_pixel
        self.tile = layout.phases
        if self.tile[0] != self.tile[1]:
            raise ValueError(f"lattice needs square tiles, given {self.tile[0]}×{self.tile[1]} camera pixels")
        self.linear = nn.ParameterDict({key: torch.from_numpy(weights[key]) for key in _LINEAR})
        channels, measured = weights["entry.weight"].shape[:2]
        blocks = sum(key.endswith("first.weight") for key in weights)
        self.group = math.gcd(_GROUP, self.side * self.tile[0])
        self.entry = _conv(measured, channels)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.head = _conv(channels, (self.side * self.tile[0]) ** 2, size=1)
        self.fine = _fine(self.group, weights["fine.0.weight"].shape[0])
        own = {key: torch.from_numpy(value) for key, value in weights.items() if key not in _LINEAR}
        self.load_state_dict({f"linear.{key}": self.linear[key].detach() for key in _LINEAR} | own)
        self.to(device)
        self.eval()

    @classmethod
    def start(cls, settings: LatticeSettings, design: Design, statistics: Statistics, seed: int) -> Weights:
        """Weights to train from: the linear estimate, and nothing added to it yet."""
        weights = lmmse.compute(design, statistics).weights()
        layout = design.layout
        tile = layout.phases[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            parts = nn.ModuleDict(
                {
                    "entry": _conv(layout.count * tile**2, settings.channels),
                    "blocks": nn.Sequential(*(Block(settings.channels) for _ in range(settings.blocks))),
                    "head": _conv(settings.channels, (layout.camera_pixel * tile) ** 2, size=1),
                    "fine": _fine(math.gcd(_GROUP, layout.camera_pixel * tile), settings.fine_channels),
                }
            )
        state = parts.state_dict()
        for key in ("head.weight", "head.bias", "fine.4.weight", "fine.4.bias"):
            state[key] = torch.zeros_like(state[key])
        return weights | {key: value.numpy().copy() for key, value in state.items()}

    def weights(self) -> Weights:
        """What a bundle keeps."""
        return {key.removeprefix("linear."): value.cpu().numpy().copy() for key, value in self.state_dict().items()}

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) in units of object pixels of brightness 1 → (batch, y, x) on the object grid."""
        estimate = lmmse.apply(signal, dict(self.linear), self.side)[:, None]
        scaled = signal / self.linear["mean_signal"].detach().mean() - 1
        features = self.blocks(self.entry(functional.pixel_unshuffle(scaled, self.tile[0])))
        block = functional.pixel_shuffle(self.head(functional.gelu(features)), self.side * self.tile[0])
        coarse = estimate + block
        groups = functional.pixel_unshuffle(coarse - self.linear["mean"].detach(), self.group)
        image = (coarse + functional.pixel_shuffle(self.fine(groups), self.group))[:, 0]
        return image if self.training else image.clamp(min=0)
