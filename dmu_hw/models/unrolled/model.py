"""Steps towards the data with the known optics, and a learned prior between them.

It begins at the linear estimate. Each step asks what the camera would have seen of the specimen so far, sends the
difference from what it did see back through the optics (each measurement weighed by its noise), and lets a small
network, which sees both, correct the specimen. Step sizes and corrections start at zero, so that it cannot begin
behind the linear estimate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dmu_hw import linear, lmmse
from dmu_hw.bundle import Weights
from dmu_hw.data import Layout
from dmu_hw.lmmse import Design, Estimator, Statistics
from dmu_hw.models.unrolled.optics import adjoint, image
from dmu_hw.models.unrolled.settings import UnrolledSettings

_GROUP_PX = 4
_GAIN = 4.0
"""Brings what varies in an image to about one."""


class Block(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        added: Tensor = self.second(self.first(features.relu()).relu())
        return features + added


class Prior(nn.Module):
    """Specimen and direction of the data → what to add, on groups of object pixels: full resolution is dear."""

    def __init__(self, group: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.group = group
        self.entry = nn.Conv2d(2 * group**2, channels, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(channels) for _ in range(blocks)))
        self.head = nn.Conv2d(channels, group**2, 3, padding=1)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, specimen: Tensor, direction: Tensor) -> Tensor:
        groups = functional.pixel_unshuffle(_GAIN * torch.stack([specimen, direction], dim=1), self.group)
        added = self.head(self.blocks(self.entry(groups)).relu())
        return functional.pixel_shuffle(added, self.group)[:, 0]


class Model(nn.Module):
    """Signals of T frames → specimen."""

    def __init__(self, weights: Weights, layout: Layout, device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.side = layout.camera_pixel
        self.linear = linear.Linear(weights, self.side)
        state = {key: torch.from_numpy(value.copy()) for key, value in weights.items() if key not in linear.KEYS}
        self.step_sizes = nn.Parameter(state["step_sizes"])
        self.kernels: Tensor
        self.register_buffer("kernels", state["kernels"])
        """What camera pixels collect, (phase y, phase x, pattern, window y, window x)."""
        self.damping: Tensor
        self.register_buffer("damping", state["damping"])
        """(phase y, phase x, pattern): noise of a measurement, against the specimen's own variance."""
        channels = weights["priors.0.entry.weight"].shape[0]
        blocks = sum(key.startswith("priors.0.") and key.endswith("first.weight") for key in weights)
        group = _group(layout)
        self.priors = nn.ModuleList(Prior(group, channels, blocks) for _ in self.step_sizes)
        self.load_state_dict(self.linear.state_dict(prefix="linear.") | state)
        self.to(device)
        self.eval()

    @classmethod
    def start(cls, settings: UnrolledSettings, design: Design, statistics: Statistics, seed: int) -> Weights:
        """Weights to train from: the linear estimate, and steps that do nothing yet."""
        kernels = design.kernels().detach()
        noise = design.noise_variance(statistics.mean * kernels.abs().sum(dim=(-2, -1)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            group = _group(design.layout)
            priors = nn.ModuleList(Prior(group, settings.channels, settings.blocks) for _ in range(settings.steps))
        state = {f"priors.{key}": value for key, value in priors.state_dict().items()}
        state |= {
            "kernels": kernels,
            "damping": noise / statistics.variance,
            "step_sizes": torch.zeros(settings.steps),
        }
        own = {key: value.to(torch.float32).numpy().copy() for key, value in state.items()}
        return lmmse.compute(design, statistics).weights() | own

    def tune(self, estimator: Estimator) -> None:
        """Begin from the linear estimate that goes with other patterns."""
        self.linear.tune(estimator)

    def weights(self) -> Weights:
        """What a bundle keeps."""
        own = {key: value for key, value in self.state_dict().items() if not key.startswith("linear.")}
        return self.linear.weights() | {key: value.cpu().numpy().copy() for key, value in own.items()}

    def see(self, kernels: Tensor) -> None:
        """What the optics are from now on; their gradients serve the next pass only."""
        self.kernels = kernels.to(self.damping)

    def forward(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) in units of object pixels of brightness 1 → (batch, y, x) on the object grid."""
        kernels, self.kernels = self.kernels, self.kernels.detach()
        weights = self._weights_of(signal, kernels)
        specimen: Tensor = self.linear(signal)
        for size, prior in zip(self.step_sizes, self.priors, strict=True):
            missing = weights * (signal - image(specimen, kernels, self.side))
            direction = adjoint(missing, kernels, self.side)
            specimen = specimen + size * direction + prior(specimen - self.linear.mean, direction)
        return specimen

    def _weights_of(self, signal: Tensor, kernels: Tensor) -> Tensor:
        """(pattern, y, x): how far a step along one measurement's kernel alone would go to meet it."""
        (ny, nx), (rows, columns) = kernels.shape[:2], signal.shape[-2:]
        weights = 1 / (kernels.square().sum(dim=(-2, -1)) + self.damping)
        return weights.permute(2, 0, 1).repeat(1, rows // ny, columns // nx)


def _group(layout: Layout) -> int:
    return math.gcd(_GROUP_PX, *layout.tile_px)
