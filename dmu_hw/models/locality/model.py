"""The published inverse (arXiv 2203.14945): every camera pixel of the tile has its own linear map from its T values to
its d×d object pixels; two layers with batch norm and a small network on the object grid follow.

Where one tile is the whole field, this is the published model: tied to places on the detector. A smaller tile shares
its maps over the field; then any field of whole tiles will do.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from dmu_hw import lmmse
from dmu_hw.bundle import Weights
from dmu_hw.data import Layout
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.models.locality.settings import LocalitySettings


class Model(nn.Module):
    """Signals of T frames → specimen."""

    def __init__(self, weights: Weights, layout: Layout, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.side, self.phases = layout.camera_pixel, layout.phases
        self.maps = nn.Parameter(torch.from_numpy(weights["maps"].copy()))
        """(phase, pattern, pixel of the block), for signals in units of `mean_signal`."""
        self.bias = nn.Parameter(torch.from_numpy(weights["bias"].copy()))
        """(phase, 1, pixel of the block)."""
        self.mean_signal: Tensor
        """(phase, 1, pattern)."""
        self.register_buffer("mean_signal", torch.from_numpy(weights["mean_signal"].copy()))
        self.residual = bool(weights["residual"])
        normed = weights["normed.0.weight"].shape[0]
        layers = sum(key.startswith("network.") and key.endswith(".weight") for key in weights)
        widths = [weights[f"network.{2 * layer}.weight"].shape[0] for layer in range(layers - 1)]
        self.normed, self.network = _normed(normed), _network(normed, widths)
        self.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in weights.items() if k != "residual"})
        self.to(device)
        self.eval()

    @classmethod
    def start(cls, settings: LocalitySettings, design: Design, statistics: Statistics, seed: int) -> Weights:
        """Weights to train from."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            maps = {"transposed": _transposed, "random": _random, "linear": _linear}[settings.start](design, statistics)
            normed, network = _normed(settings.normed_channels), _network(settings.normed_channels, settings.widths)
        state = {f"normed.{key}": value for key, value in normed.state_dict().items()}
        state |= {f"network.{key}": value for key, value in network.state_dict().items()}
        # the sigmoid begins where a dark specimen is dark: in the middle of its range half of all seeds never learn
        last = f"network.{2 * len(settings.widths)}"
        gain, level = (0.0, 0.0) if settings.residual else (2.0, -2.0)
        state |= {f"{last}.weight": gain * state[f"{last}.weight"], f"{last}.bias": state[f"{last}.bias"] + level}
        own = {key: value.numpy().copy() for key, value in (maps | state).items()}
        return own | {"residual": np.asarray(settings.residual)}

    def weights(self) -> Weights:
        """What a bundle keeps."""
        own = {key: value.cpu().numpy().copy() for key, value in self.state_dict().items()}
        return own | {"residual": np.asarray(self.residual)}

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) in units of object pixels of brightness 1 → (batch, y, x) on the object grid."""
        mapped = self._mapped(signal)[:, None]
        added = self.network(self.normed(mapped))
        image: Tensor = (mapped + added if self.residual else added.sigmoid())[:, 0]
        return image

    def _mapped(self, signal: Tensor) -> Tensor:
        """Each camera pixel by the map of its phase, (batch, y, x) on the object grid."""
        (ny, nx), side = self.phases, self.side
        batch, count, rows, columns = signal.shape
        tiles = (rows // ny, columns // nx)
        sites = signal.reshape(batch, count, tiles[0], ny, tiles[1], nx).permute(3, 5, 0, 2, 4, 1)
        scaled = sites.reshape(ny * nx, -1, count) / self.mean_signal
        blocks = torch.baddbmm(self.bias, scaled, self.maps).reshape(ny, nx, batch, *tiles, side, side)
        return blocks.permute(2, 3, 0, 5, 4, 1, 6).reshape(batch, rows * side, columns * side)


# ---------------------------------------------------------------- layers


def _normed(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (1, channels):
        layers += [_conv(inputs, channels), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)


def _network(inputs: int, widths: tuple[int, ...] | list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for one, next_one in pairwise((inputs, *widths)):
        layers += [_conv(one, next_one), nn.ReLU()]
    return nn.Sequential(*layers, _conv(widths[-1], 1))


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Begins by handing its channels on, and a little of everything: with torch's own start, two or four channels are
    soon all below zero, where a ReLU lets nothing through and nothing learns."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    with torch.no_grad():
        noise = 0.3 * layer.weight
        layer.weight.copy_(nn.init.dirac_(torch.empty_like(noise)) + noise)
        layer.bias = nn.Parameter(torch.zeros(outputs))
    return layer


# ---------------------------------------------------------------- first maps


def _mean_signal(design: Design, statistics: Statistics) -> Tensor:
    """(phase, 1, pattern)."""
    kernels = design.kernels().flatten(0, 1)
    return statistics.mean * kernels.abs().sum(dim=(-2, -1))[:, None]


def _transposed(design: Design, statistics: Statistics) -> dict[str, Tensor]:
    """What lit a pixel gives back its share, and where nothing did, all give the same; an even specimen comes out as
    it is."""
    (ny, nx), side = design.layout.phases, design.camera_pixel
    count = design.layout.count
    patterns = design.patterns.detach().reshape(count, ny, side, nx, side).permute(1, 3, 0, 2, 4)
    patterns = patterns.reshape(ny * nx, count, side**2)
    lit = patterns.abs().sum(dim=1, keepdim=True)
    maps = statistics.mean * torch.where(lit > 0, patterns / lit, 1 / count)
    return _as_maps(maps, torch.zeros_like(lit), _mean_signal(design, statistics))


def _random(design: Design, statistics: Statistics) -> dict[str, Tensor]:
    """As torch begins a linear layer."""
    (ny, nx), pixels, count = design.layout.phases, design.camera_pixel**2, design.layout.count
    spread = count**-0.5
    maps = torch.empty(ny * nx, count, pixels).uniform_(-spread, spread)
    bias = torch.empty(ny * nx, 1, pixels).uniform_(-spread, spread)
    return _as_maps(maps, bias, _mean_signal(design, statistics))


def _linear(design: Design, statistics: Statistics) -> dict[str, Tensor]:
    """The linear estimate of a camera pixel from its own frames."""
    found = lmmse.compute(replace(design, reach=0), statistics)
    estimators = found.estimators.flatten(0, 1)[..., 0, 0].transpose(1, 2)
    mean_signal = _mean_signal(design, statistics)
    offset = found.mean_signal.flatten(1).T[:, None] @ estimators
    return _as_maps(estimators * mean_signal.transpose(1, 2), found.mean - offset, mean_signal)


def _as_maps(maps: Tensor, bias: Tensor, mean_signal: Tensor) -> dict[str, Tensor]:
    parts = {"maps": maps, "bias": bias, "mean_signal": mean_signal}
    return {key: value.detach().to(torch.float32).contiguous() for key, value in parts.items()}
