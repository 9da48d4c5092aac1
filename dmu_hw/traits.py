"""What a burst and its image are like, in some tens of numbers that do not grow with the field.

Frames hold far fewer numbers than the image that is made of them, so that an image may explain them well and yet be
invented. What gives wrong images away are their statistics: how bright frames are, how alike their neighbours, how much
patterns differ and how that goes with the gradients of the light, and what the image leaves of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BORDER = 1
"""Camera pixels round a field that lack neighbours: nothing is said of them."""
LEAST_SIDE = 6
"""Camera pixels along the side of a part that can be judged."""
_MOST_WAYS = 4
"""Ways in which patterns differ that are looked at; those that matter most."""
_LEAST = 1e-3
"""Brightness below which a part is as dark as this."""
_STEPS_PX = (1, 2, 4, 8, 16)
_BRIGHT = (0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Looks:
    """Parts of fields, all of one size: what the camera gave, and what was made of it."""

    frames: Tensor
    """(part, pattern, y, x) on camera pixels; 1 is even light on dye of brightness 1."""
    left: Tensor | None
    """The same of what the image does not explain; None where there is no image, but what a segmenter looks at."""
    misfit: Tensor | None
    """What is left, squared, in units of what noise leaves."""
    image: Tensor | None
    """(part, y, x) on object pixels, even light, nowhere darker than dark."""


def ways(frames: Tensor) -> Tensor:
    """(way, pattern): how patterns differ in many parts of fields, the most important first; orthonormal, and none of
    them is brightness."""
    count = frames.shape[1]
    differences = (frames - frames.mean(dim=1, keepdim=True)).transpose(0, 1).reshape(count, -1)
    _, vectors = torch.linalg.eigh(differences.double() @ differences.double().T)
    found: Tensor = vectors.T.flip(0)[: min(count - 1, _MOST_WAYS)].to(frames.dtype)
    return found


def traits(looks: Looks, directions: Tensor) -> Tensor:
    """(part, trait), from parts and from what `ways` found in many of them."""
    frames = looks.frames
    mean = frames.mean(dim=1)
    level = mean.mean(dim=(1, 2)).clamp(min=_LEAST)
    mean = mean / level[:, None, None]
    found = [level.log(), _log(mean.var(dim=(1, 2))), _skew(mean)]
    found += [(_alike(mean, 0, step) + _alike(mean, step, 0)) / 2 for step in (1, 2)] + [_alike(mean, 1, 1)]
    if len(directions):
        found += _differences(_along(directions, frames) / level[:, None, None, None], mean)
    if looks.left is not None and looks.misfit is not None and looks.image is not None:
        found += _left(looks.left / level[:, None, None, None], looks.misfit, directions)
        found += _image(looks.image)
    return torch.stack(found, dim=1)


def content(looks: Looks) -> Tensor:
    """(part,): on how many camera pixels there is anything. Of few, traits are known less well."""
    mean = looks.frames.mean(dim=1).clamp(min=0)
    return mean.sum(dim=(1, 2)).square() / mean.square().sum(dim=(1, 2)).clamp(min=_LEAST**2)


def _differences(apart: Tensor, mean: Tensor) -> list[Tensor]:
    """Of (part, way, y, x): how large, how alike, and how they go with the gradients of the light, here and there: what
    is beside its place gives itself away by these."""
    count = apart.shape[1]
    spread = apart.var(dim=(2, 3))
    found = [*_log(spread).T, *apart.mean(dim=(2, 3)).T]
    found += [(_alike(apart[:, k], 0, 1) + _alike(apart[:, k], 1, 0)) / 2 for k in range(count)]
    root = spread.clamp(min=_LEAST**2).sqrt()
    centred = apart - apart.mean(dim=(2, 3), keepdim=True)
    for k in range(count):
        found += [(centred[:, k] * centred[:, j]).mean(dim=(1, 2)) / (root[:, k] * root[:, j]) for j in range(k)]
    down = (mean[:, 2:, 1:-1] - mean[:, :-2, 1:-1]) / 2
    across = (mean[:, 1:-1, 2:] - mean[:, 1:-1, :-2]) / 2
    inner = apart[:, :, 1:-1, 1:-1]
    rows, columns = (torch.linspace(-1, 1, side, dtype=mean.dtype, device=mean.device) for side in inner.shape[2:])
    for slope in (down, across):
        with_slope = inner * slope[:, None]
        strength = slope.square().mean(dim=(1, 2)).clamp(min=_LEAST**2)[:, None]
        for where in (1.0, rows[:, None], columns[None, :]):
            found += [*((with_slope * where).mean(dim=(2, 3)) / strength).T]
    return found


def _left(left: Tensor, misfit: Tensor, directions: Tensor) -> list[Tensor]:
    """Of what the image does not explain."""
    mean = left.mean(dim=1)
    parts = torch.cat([mean[:, None], _along(directions, left)], dim=1)
    found = [_log(misfit.mean(dim=(1, 2, 3))), _log(misfit.flatten(1).median(dim=1).values)]
    found += [*_log(parts.var(dim=(2, 3))).T, *parts.mean(dim=(2, 3)).T]
    return [*found, (_alike(mean, 0, 1) + _alike(mean, 1, 0)) / 2]


def _image(image: Tensor) -> list[Tensor]:
    """Of the image itself: how rough from fine to coarse, and how much of it is bright."""
    level = image.mean(dim=(1, 2)).clamp(min=_LEAST)
    found = []
    for step in (step for step in _STEPS_PX if step < image.shape[1]):
        squares = (image[:, step:] - image[:, :-step]).square().mean(dim=(1, 2))
        squares = squares + (image[:, :, step:] - image[:, :, :-step]).square().mean(dim=(1, 2))
        found.append(_log(squares / level**2))
    found += [(image > factor * level[:, None, None]).to(image.dtype).mean(dim=(1, 2)) for factor in _BRIGHT]
    return found


def _along(directions: Tensor, frames: Tensor) -> Tensor:
    return torch.einsum("wt,ptyx->pwyx", directions, frames)


def _log(values: Tensor) -> Tensor:
    return values.clamp(min=1e-9).log()


def _skew(values: Tensor) -> Tensor:
    centred = values - values.mean(dim=(1, 2), keepdim=True)
    spread = centred.square().mean(dim=(1, 2)).clamp(min=_LEAST**2)
    return (centred**3).mean(dim=(1, 2)) / spread**1.5


def _alike(values: Tensor, down: int, across: int) -> Tensor:
    """How (part, y, x) goes with itself so many pixels on."""
    rows, columns = values.shape[1:]
    centred = values - values.mean(dim=(1, 2), keepdim=True)
    products = centred[:, : rows - down, : columns - across] * centred[:, down:, across:]
    return products.mean(dim=(1, 2)) / centred.square().mean(dim=(1, 2)).clamp(min=_LEAST**2)
