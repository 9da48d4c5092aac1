"""Convolution of whole fields by FFT, dark or periodic beyond the border, and its adjoint."""

from __future__ import annotations

import torch
from torch import Tensor


def blur(field: Tensor, kernel: Tensor, *, periodic: bool = False) -> Tensor:
    """Convolve the last two axes with an odd kernel; the result has the shape of the field."""
    if kernel.shape == (1, 1):
        return field * kernel[0, 0]
    rows, columns = field.shape[-2:]
    reach_y, reach_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    size = (rows, columns) if periodic else (_fast(rows + 2 * reach_y), _fast(columns + 2 * reach_x))
    spectrum = torch.fft.rfft2(field, s=size) * torch.fft.rfft2(_centred_at_origin(kernel, size))
    blurred: Tensor = torch.fft.irfft2(spectrum, s=size)[..., :rows, :columns]
    return blurred


def blur_adjoint(field: Tensor, kernel: Tensor, *, periodic: bool = False) -> Tensor:
    """The transpose of `blur`: convolution with the kernel turned by half a turn."""
    return blur(field, kernel.flip((-2, -1)), periodic=periodic)


def bin_sum(field: Tensor, side: int) -> Tensor:
    """Sum over side×side blocks of the last two axes."""
    rows, columns = field.shape[-2:]
    return field.reshape(*field.shape[:-2], rows // side, side, columns // side, side).sum(dim=(-3, -1))


def spread(field: Tensor, side: int) -> Tensor:
    """The transpose of `bin_sum`: every value repeated over its block."""
    return field.repeat_interleave(side, dim=-2).repeat_interleave(side, dim=-1)


def _centred_at_origin(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """The kernel with its middle at index (0, 0), folded where it is larger than the period."""
    rows = (torch.arange(kernel.shape[0], device=kernel.device) - kernel.shape[0] // 2) % size[0]
    columns = (torch.arange(kernel.shape[1], device=kernel.device) - kernel.shape[1] // 2) % size[1]
    flat = (rows[:, None] * size[1] + columns[None, :]).reshape(-1)
    empty = torch.zeros(size[0] * size[1], dtype=kernel.dtype, device=kernel.device)
    return empty.index_add(0, flat, kernel.reshape(-1)).reshape(size)


def _fast(length: int) -> int:
    """The next length that has only the factors 2, 3 and 5."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
