"""Learned patterns as a mirror array can show them: super-pixels, binary with a gradient, leakage."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dmu_hw.data import BoolArray
from dmu_hw.physics.blur import spread


def straight_through(logits: Tensor, slope: float = 1.0) -> Tensor:
    """1 where the logit is positive, else 0; its gradient is that of the sigmoid."""
    smooth = torch.sigmoid(slope * logits)
    hard = (logits > 0).to(logits.dtype)
    return hard + (smooth - smooth.detach())


def soft(logits: Tensor, slope: float = 1.0) -> Tensor:
    """The published relaxation: a sigmoid whose slope is raised during training."""
    return torch.sigmoid(slope * logits)


def leak(patterns: Tensor, leakage: float) -> Tensor:
    """What a mirror array delivers: mirrors that are off still send `leakage` of the light."""
    return leakage + (1 - leakage) * patterns


class LearnedPatterns(nn.Module):
    """T patterns of one tile, held as logits in space or as their Fourier coefficients."""

    def __init__(
        self,
        count: int,
        tile_px: tuple[int, int],
        *,
        superpixel: int = 1,
        parametrisation: Literal["spatial", "fourier"] = "spatial",
        binarisation: Literal["hard", "soft"] = "hard",
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if tile_px[0] % superpixel or tile_px[1] % superpixel:
            raise ValueError(f"tile {tile_px} is not a multiple of the super-pixel {superpixel}")
        self.superpixel = superpixel
        self.binarisation = binarisation
        self.parametrisation = parametrisation
        shape = (count, tile_px[0] // superpixel, tile_px[1] // superpixel)
        logits = torch.randn(shape, generator=generator) if start is None else start.reshape(shape).clone()
        if parametrisation == "fourier":
            logits = torch.view_as_real(torch.fft.fft2(logits, norm="ortho")).contiguous()
        self.weights = nn.Parameter(logits)

    def logits(self) -> Tensor:
        """One value a super-pixel, (pattern, y, x)."""
        if self.parametrisation == "fourier":
            logits: Tensor = torch.fft.ifft2(torch.view_as_complex(self.weights), norm="ortho").real
            return logits
        return self.weights

    def forward(self, slope: float = 1.0) -> Tensor:
        """Patterns on the object grid, (pattern, y, x), with gradients."""
        shaped = (straight_through if self.binarisation == "hard" else soft)(self.logits(), slope)
        return spread(shaped, self.superpixel)

    @torch.no_grad()
    def masks(self) -> BoolArray:
        """The patterns as they go onto the mirrors."""
        masks: BoolArray = spread((self.logits() > 0).to(torch.uint8), self.superpixel).bool().cpu().numpy()
        return masks
