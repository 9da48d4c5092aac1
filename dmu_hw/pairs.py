"""Bursts and full-resolution references of the same fields, taken on an instrument: what simulation cannot know.

A reference is what the camera sees of the field in even light: the specimen blurred by the lens. So an estimate is
blurred in the same way before it is compared; nobody has to know the specimen itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dmu_hw.bundle import Weights
from dmu_hw.data import PatternStack, Uint16Array
from dmu_hw.physics import psf
from dmu_hw.physics.blur import bin_sum, blur
from dmu_hw.reconstruct import Calibrated, Window

_HELD_BACK = 4
"""Every so manyth field is for judging."""
_BATCH = 2
_LEAST = 4
"""Fields that are needed at least."""


@dataclass(frozen=True, eq=False)
class Taken:
    """One field: a burst (pattern, y, x) and its reference (y, x), as the camera gave them."""

    burst: Uint16Array
    reference: Uint16Array


class TakenPairs:
    """All of them, seen through the same windows."""

    def __init__(
        self,
        taken: Sequence[Taken],
        stack: PatternStack,
        burst_window: Window,
        reference_window: Window,
        reference_pixel: int,
        margin_px: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        """`reference_pixel` is the side of a pixel of the references in object pixels."""
        if len(taken) < _LEAST:
            raise ValueError(f"{len(taken)} fields are too few to learn from and to judge by, {_LEAST} are needed")
        bursts = Calibrated(burst_window, stack.camera_pixel, device)
        references = Calibrated(reference_window, reference_pixel, device)
        self.side = reference_pixel
        self.margin = -(-margin_px // reference_pixel)
        self.emission = psf.kernel(
            burst_window.optics.emission, burst_window.optics.object_pixel_um, device=bursts.forward.device
        )
        self.signals = torch.stack([bursts.signal(pair.burst) for pair in taken])
        seen = torch.stack([references.signal(pair.reference[None])[0] for pair in taken])
        self.references = seen / reference_pixel**2
        """Mean brightness of the specimen, blurred and in uneven light, over each pixel."""
        self.held_back = [place for place in range(len(taken)) if place % _HELD_BACK == _HELD_BACK - 1]
        self.learned = [place for place in range(len(taken)) if place not in self.held_back]
        self.gain, self.offset = self._gains(stack, bursts)
        self.raw = self.signals
        self.signals = (self.raw - self.offset) / self.gain

    @property
    def count(self) -> int:
        return len(self.references)

    def correction(self) -> Weights:
        """Gain and offset of each pattern, for a bundle."""
        return {"gain": self.gain.flatten().cpu().numpy(), "offset": self.offset.flatten().cpu().numpy()}

    def loss(self, model: nn.Module, generator: torch.Generator) -> Tensor:
        """Of some of the fields that are learned from."""
        picks = torch.randint(len(self.learned), (_BATCH,), generator=generator).tolist()
        return self._misfit(model, self.signals, [self.learned[pick] for pick in picks])

    @torch.no_grad()
    def error(self, model: nn.Module) -> float:
        """Of those that are held back."""
        return float(np.mean([float(self._misfit(model, self.signals, [place])) for place in self.held_back]))

    @torch.no_grad()
    def uncorrected_error(self, model: nn.Module) -> float:
        """The same with gains and offsets as they were believed to be."""
        return float(np.mean([float(self._misfit(model, self.raw, [place])) for place in self.held_back]))

    def _misfit(self, model: nn.Module, signals: Tensor, places: list[int]) -> Tensor:
        estimate: Tensor = model(signals[places]).float()
        seen = bin_sum(blur(estimate, self.emission), self.side) / self.side**2
        difference = seen - self.references[places]
        rows, columns = difference.shape[-2:]
        inner = difference[..., self.margin : rows - self.margin, self.margin : columns - self.margin]
        return inner.square().mean()

    def _gains(self, stack: PatternStack, bursts: Calibrated) -> tuple[Tensor, Tensor]:
        """What each pattern sent against what it should have sent, over the fields that are learned from: a line
        through what was collected against what the references say should have been."""
        shape = bursts.forward.shape_px
        masks = torch.from_numpy(stack.over(shape)).to(self.references)
        light = bursts.forward.deliver(masks)
        field = self.references[self.learned].repeat_interleave(self.side, dim=-2).repeat_interleave(self.side, dim=-1)
        expected = bin_sum(field[:, None] * light[None], stack.camera_pixel)
        seen = self.signals[self.learned]
        means = expected.mean(dim=(0, 2, 3), keepdim=True), seen.mean(dim=(0, 2, 3), keepdim=True)
        spread = expected - means[0]
        slope = (spread * (seen - means[1])).mean(dim=(0, 2, 3)) / spread.square().mean(dim=(0, 2, 3)).clamp(min=1e-12)
        gain = slope[:, None, None]
        return gain, means[1][0] - gain * means[0][0]
