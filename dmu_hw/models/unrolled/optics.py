"""What camera pixels collect from a field of any size, and the way back, by kernels that change as patterns learn."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def image(specimen: Tensor, kernels: Tensor, side: int) -> Tensor:
    """Specimen (batch, y, x) → (batch, pattern, y, x) on camera pixels; it is dark beyond the field."""
    ny, nx, _, window, _ = kernels.shape
    padded = functional.pad(specimen[:, None], ((window - side) // 2,) * 4)
    lines = []
    for i in range(ny):
        phases = [
            functional.conv2d(
                padded[..., i * side :, j * side :], kernels[i, j][:, None], stride=(ny * side, nx * side)
            )
            for j in range(nx)
        ]
        lines.append(torch.stack(phases, dim=-1).flatten(-2))
    return torch.stack(lines, dim=-2).flatten(-3, -2)


def adjoint(frames: Tensor, kernels: Tensor, side: int) -> Tensor:
    """The transpose of `image`: frames (batch, pattern, y, x) → (batch, y, x)."""
    ny, nx, _, window, _ = kernels.shape
    reach = (window - side) // 2
    parts = []
    for i in range(ny):
        for j in range(nx):
            given, weight = frames[..., i::ny, j::nx], kernels[i, j][:, None]
            spread = functional.conv_transpose2d(given, weight, stride=(ny * side, nx * side))
            places = (j * side, (nx - 1 - j) * side, i * side, (ny - 1 - i) * side)
            parts.append(functional.pad(spread[:, 0], places))
    back = torch.stack(parts).sum(dim=0) if len(parts) > 1 else parts[0]
    return back[:, reach : back.shape[1] - reach, reach : back.shape[2] - reach]
