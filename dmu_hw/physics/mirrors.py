"""Learned patterns as a mirror array can show them: super-pixels, binary with a gradient, leakage, a cap on light."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dmu_hw.data import BoolArray
from dmu_hw.physics.blur import spread

Binarisation = Literal["hard", "soft", "signed"]


def straight_through(logits: Tensor, slope: float = 1.0) -> Tensor:
    """1 where the logit is positive, else 0; its gradient is that of the sigmoid."""
    smooth = torch.sigmoid(slope * logits)
    hard = (logits > 0).to(logits.dtype)
    return hard + (smooth - smooth.detach())


def soft(logits: Tensor, slope: float = 1.0) -> Tensor:
    """The published relaxation: a sigmoid whose slope is raised during training."""
    return torch.sigmoid(slope * logits)


def signed(logits: Tensor, slope: float = 1.0) -> Tensor:
    """Any value from -1 to 1: no mirror can show it."""
    return torch.tanh(slope * logits)


_SHAPES = {"hard": straight_through, "soft": soft, "signed": signed}


def leak(patterns: Tensor, leakage: float) -> Tensor:
    """What a mirror array delivers: mirrors that are off still send `leakage` of the light."""
    return leakage + (1 - leakage) * patterns


def capped(logits: Tensor, sum_lit: float | None, peak_lit: int | None) -> Tensor:
    """Logits (pattern, y, x) of which so few are positive that a cap on light is kept: at most `peak_lit` patterns at
    any place, and `sum_lit` patterns over the mean of all places. The largest stay."""
    count = logits.shape[0]
    if peak_lit is not None and peak_lit < count:
        logits = logits - logits.detach().sort(dim=0, descending=True).values[peak_lit].clamp(min=0)
    if sum_lit is not None and sum_lit < count:
        most = int(sum_lit * logits[0].numel())
        logits = logits - logits.detach().flatten().sort(descending=True).values[most].clamp(min=0)
    return logits


class LearnedPatterns(nn.Module):
    """T patterns of one tile, held as logits in space or as their Fourier coefficients."""

    def __init__(
        self,
        start: Tensor,
        *,
        superpixel: int = 1,
        parametrisation: Literal["spatial", "fourier"] = "spatial",
        binarisation: Binarisation = "hard",
        sum_lit: float | None = None,
        peak_lit: int | None = None,
    ) -> None:
        """`start` holds one logit a super-pixel, (pattern, y, x)."""
        super().__init__()
        if start.ndim != 3:
            raise ValueError(f"logits must be (pattern, y, x), given {tuple(start.shape)}")
        self.superpixel = superpixel
        self.binarisation = binarisation
        self.parametrisation = parametrisation
        self.sum_lit, self.peak_lit = sum_lit, peak_lit
        self.weights = nn.Parameter(start.clone())
        self.begin(start)

    @torch.no_grad()
    def begin(self, logits: Tensor) -> None:
        """Take other logits."""
        if self.parametrisation == "fourier":
            logits = torch.view_as_real(torch.fft.fft2(logits, norm="ortho"))
        self.weights = nn.Parameter(logits.clone().contiguous(), requires_grad=self.weights.requires_grad)

    def logits(self) -> Tensor:
        """One value a super-pixel, (pattern, y, x)."""
        logits: Tensor = self.weights
        if self.parametrisation == "fourier":
            logits = torch.fft.ifft2(torch.view_as_complex(self.weights), norm="ortho").real
        return capped(logits, self.sum_lit, self.peak_lit)

    def forward(self, slope: float = 1.0) -> Tensor:
        """Patterns on the object grid, (pattern, y, x), with gradients."""
        return spread(_SHAPES[self.binarisation](self.logits(), slope), self.superpixel)

    @torch.no_grad()
    def masks(self) -> BoolArray:
        """The patterns as they go onto the mirrors."""
        masks: BoolArray = spread((self.logits() > 0).to(torch.uint8), self.superpixel).bool().cpu().numpy()
        return masks
