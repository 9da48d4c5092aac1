"""The network behind an inverse model that finds objects in its image.

Nearly all of it works at a quarter of the resolution and below, where a convolution costs a sixteenth and reaches four
times as far; a thin layer on the object grid draws the outlines. It does not normalise over the field, so that what it
says of a place depends on what is near, not on how large the field is.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmu_hw.bundle import Weights
from dmu_hw.segmenter.settings import SegmenterSettings
from dmu_hw.segments import MAPS

_STRIDE = 4
_VIEWS = 2
_DIM = 0.03
"""Brightness up to which the second view is linear."""


def _conv(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


class Block(nn.Module):
    """Two convolutions beside the identity, which it begins as."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(channels, channels), _conv(channels, channels)
        _begin_at_zero(self.second)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.second(functional.gelu(self.first(functional.gelu(features))))
        return features + added


class Segmenter(nn.Module):
    """Image → logits of the maps in `segments.MAPS`."""

    def __init__(self, settings: SegmenterSettings) -> None:
        super().__init__()
        widths = [settings.channels * (level + 1) for level in range(settings.levels)]
        steps = list(itertools.pairwise(widths))
        self.side = _STRIDE * 2 ** (settings.levels - 1)
        """Fields are filled up to multiples of this."""
        self.entry = _conv(_VIEWS * _STRIDE**2, widths[0])
        self.falling = nn.ModuleList(nn.Sequential(*(Block(width) for _ in range(settings.blocks))) for width in widths)
        self.shrink = nn.ModuleList(_conv(4 * fine, coarse, size=1) for fine, coarse in steps)
        self.enlarge = nn.ModuleList(_conv(coarse, 4 * fine, size=1) for fine, coarse in steps)
        self.rising = nn.ModuleList(Block(fine) for fine, _ in steps)
        self.head = _conv(widths[0], len(MAPS) * _STRIDE**2, size=1)
        self.fine = nn.Sequential(
            _conv(len(MAPS) + _VIEWS, settings.fine_channels), nn.GELU(), _conv(settings.fine_channels, len(MAPS))
        )
        _begin_at_zero(self.fine[-1])
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time on a CPU

    @classmethod
    def start(cls, settings: SegmenterSettings, seed: int) -> Segmenter:
        """One to train."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(settings)

    @classmethod
    def of(cls, weights: Weights) -> Segmenter:
        """The one whose weights these are; their shapes say how large it is."""
        falling = [key for key in weights if key.startswith("falling.") and key.endswith(".first.weight")]
        levels = len({key.split(".")[1] for key in falling})
        settings = SegmenterSettings(
            channels=weights["entry.weight"].shape[0],
            blocks=len(falling) // levels,
            levels=levels,
            fine_channels=weights["fine.0.weight"].shape[0],
        )
        segmenter = cls(settings)
        segmenter.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        return segmenter.eval()

    def weights(self) -> Weights:
        """What a bundle keeps."""
        return {key: value.cpu().contiguous().numpy().copy() for key, value in self.state_dict().items()}

    def forward(self, image: Tensor) -> Tensor:
        """(batch, y, x), 1 the brightest dye → logits (batch, map, y, x)."""
        rows, columns = image.shape[-2:]
        seen = torch.stack([image, torch.asinh(image / _DIM) / 4], dim=1)
        seen = functional.pad(seen, (0, -columns % self.side, 0, -rows % self.side), mode="replicate")
        coarse = functional.pixel_shuffle(self.head(functional.gelu(self._features(seen))), _STRIDE)
        maps: Tensor = coarse + self.fine(torch.cat([coarse, seen], dim=1))
        return maps[:, :, :rows, :columns]

    def _features(self, seen: Tensor) -> Tensor:
        """Down to the coarsest level and up again, at a quarter of the resolution."""
        levels: list[Tensor] = []
        features: Tensor = self.entry(
            functional.pixel_unshuffle(seen, _STRIDE).contiguous(memory_format=torch.channels_last)
        )
        for level, blocks in enumerate(self.falling):
            if level:
                features = self.shrink[level - 1](functional.pixel_unshuffle(functional.gelu(features), 2))
            features = blocks(features)
            levels.append(features)
        for level in reversed(range(len(self.rising))):
            finer = functional.pixel_shuffle(self.enlarge[level](functional.gelu(features)), 2)
            features = self.rising[level](levels[level] + finer)
        return features


def _begin_at_zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
