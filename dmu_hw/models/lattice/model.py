"""A network on a lattice of sites of 8×8 object pixels, whatever the camera pixel, with weights shared by all tiles, so
that any field size will do and every pattern set is decoded with the same effort.

It begins as the linear estimate and learns what that cannot: a site sees its part of the estimate and features of the
measurements round it; blocks of convolutions make of them what is to be added, which is laid out by a pixel shuffle. A
small network on groups of 4×4 object pixels smooths the seams: at full resolution every layer is dear. Both start at
zero, so that a network cannot begin behind the linear estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmu_hw import lmmse
from dmu_hw.bundle import Weights
from dmu_hw.data import Layout
from dmu_hw.linear import KEYS, Linear
from dmu_hw.lmmse import Design, Estimator, Statistics
from dmu_hw.models.lattice.settings import LatticeSettings

_ZERO_AT_START = ("head.weight", "head.bias", "fine.4.weight", "fine.4.bias")
_SITE_PX = 8
_GROUP_PX = 4
_GAIN = 4.0
"""Brings what varies in an image to about one."""


class Block(nn.Module):
    """Two convolutions beside the identity, the first of them reaching further."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.second(functional.relu(self.first(functional.relu(features))))
        return features + added


def _parts(layout: Layout, channels: int, measured: int, blocks: int, fine: int) -> nn.ModuleDict:
    """The layers for one layout; `measured` features of the measurements come to each site."""
    tile_px = layout.tile_px[0]
    site, group = math.gcd(_SITE_PX, tile_px), math.gcd(_GROUP_PX, tile_px)
    signals = layout.count * layout.phases[0] ** 2
    return nn.ModuleDict(
        {
            "measured": nn.Conv2d(signals, measured * (tile_px // site) ** 2, 3, padding=1),
            "entry": nn.Conv2d(site**2 + measured, channels, 3, padding=1),
            "blocks": nn.Sequential(*(Block(channels, 1 + block % 3) for block in range(blocks))),
            "head": nn.Conv2d(channels, site**2, 1),
            "fine": nn.Sequential(
                nn.Conv2d(group**2, fine, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(fine, fine, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(fine, group**2, 3, padding=1),
            ),
        }
    )


class Model(nn.Module):
    """Signals of T frames → specimen."""

    def __init__(self, weights: Weights, layout: Layout, device: torch.device | str = "cpu") -> None:
        super().__init__()
        if layout.phases[0] != layout.phases[1]:
            raise ValueError(f"lattice needs square tiles, given {layout.phases} camera pixels")
        self.layout = layout
        self.site = math.gcd(_SITE_PX, layout.tile_px[0])
        self.group = math.gcd(_GROUP_PX, layout.tile_px[0])
        self.linear = Linear(weights, layout.camera_pixel)
        channels, inputs = weights["entry.weight"].shape[:2]
        measured, fine = inputs - self.site**2, weights["fine.0.weight"].shape[0]
        self.parts = _parts(layout, channels, measured, _blocks_in(weights), fine)
        self.parts.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items() if k not in KEYS})
        self.to(device)
        self.eval()

    @classmethod
    def start(cls, settings: LatticeSettings, design: Design, statistics: Statistics, seed: int) -> Weights:
        """Weights to train from: the linear estimate, and nothing added to it yet."""
        weights = lmmse.compute(design, statistics).weights()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = settings.channels, settings.measured_channels, settings.blocks, settings.fine_channels
            state = _parts(design.layout, *sizes).state_dict()
        for key in _ZERO_AT_START:
            state[key] = torch.zeros_like(state[key])
        return weights | {key: value.numpy().copy() for key, value in state.items()}

    def tune(self, estimator: Estimator) -> None:
        """Begin from the linear estimate that goes with other patterns."""
        self.linear.tune(estimator)

    def weights(self) -> Weights:
        """What a bundle keeps."""
        return self.linear.weights() | {k: v.cpu().numpy().copy() for k, v in self.parts.state_dict().items()}

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) in units of object pixels of brightness 1 → (batch, y, x) on the object grid."""
        layout, parts, mean = self.layout, self.parts, self.linear.mean.detach()
        estimate = self.linear(signal)[:, None]
        scaled = signal / (self.linear.mean_signal.detach().abs().mean() * self.linear.unit) - 1
        measured = parts["measured"](functional.pixel_unshuffle(scaled, layout.phases[0]))
        measured = functional.pixel_shuffle(measured, layout.tile_px[0] // self.site)
        guess = functional.pixel_unshuffle(_GAIN * (estimate - mean), self.site)
        features = parts["blocks"](parts["entry"](torch.cat([guess, measured], dim=1)))
        coarse = estimate + functional.pixel_shuffle(parts["head"](functional.relu(features)), self.site)
        groups = functional.pixel_unshuffle(_GAIN * (coarse - mean), self.group)
        image: Tensor = (coarse + functional.pixel_shuffle(parts["fine"](groups), self.group))[:, 0]
        return image


def _blocks_in(keys: Iterable[str]) -> int:
    return sum(key.startswith("blocks.") and key.endswith("first.weight") for key in keys)
