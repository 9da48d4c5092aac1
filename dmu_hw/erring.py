"""Learning how far images are off: a small network, from fields whose truth is known, beside an inverse that stays as
it is."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from dmu_hw.grounds import Grounds
from dmu_hw.images import Split
from dmu_hw.spread import Spread

_FIELDS, _HELD_BACK = 0.32, 0.12
"""As parts of those that good fields are learned from."""
_BATCH, _RATE = 4, 3e-3
_LEAST_LOG = -9.0
_WITHIN = 0.683
"""Part of the errors that stay within one spread."""
_ENOUGH = 1_000_000
"""Pixels that a quantile is taken of."""

Fields = tuple[Tensor, Tensor, Tensor]
"""Specimens, signals and images."""


def learn_spread(grounds: Grounds, seed: int = 100) -> tuple[Spread, dict[str, float]]:
    """On training images, scaled on `val`; and how many errors stay within one and two spreads on `test`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = Spread(grounds.bundle.patterns.layout)
    _learn(found, grounds, _drawn(grounds, "train", _FIELDS, seed), seed)
    errors = _in_spreads(found, grounds, _drawn(grounds, "val", _HELD_BACK, seed + 1))
    found.scale.fill_(_quantile(errors, _WITHIN))
    errors = _in_spreads(found, grounds, _drawn(grounds, "test", _HELD_BACK, seed + 2))
    covered = {f"spread_within_{count}": float((errors < count).float().mean()) for count in (1, 2)}
    return found.eval(), covered


@torch.no_grad()
def _drawn(grounds: Grounds, split: Split, part: float, seed: int) -> Fields:
    truths, signals, images = (
        torch.cat(every) for every in zip(*grounds.good(split, grounds.fields(part), seed), strict=True)
    )
    return truths, signals, images


def _learn(found: Spread, grounds: Grounds, fields: Fields, seed: int) -> None:
    """By the likelihood of errors that are Gaussian, each with its own spread."""
    truths, signals, images = fields
    with torch.no_grad():
        found.unit.fill_(float(signals.mean().clamp(min=1e-9)))
        cast("Tensor", found.head.bias).fill_(0.5 * math.log(max(1e-8, float((images - truths).square().mean()))))
    generator, updates = torch.Generator().manual_seed(seed), grounds.trust.updates
    optimiser = torch.optim.Adam(found.parameters(), _RATE)
    for update in range(updates):
        for group in optimiser.param_groups:
            group["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * update / updates))
        pick = torch.randint(len(images), (_BATCH,), generator=generator)
        logarithm = grounds.inner(found.logarithm(signals[pick], images[pick])).clamp(min=_LEAST_LOG)
        error = grounds.inner(images[pick] - truths[pick])
        loss = (logarithm + 0.5 * error.square() * torch.exp(-2 * logarithm)).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()


@torch.no_grad()
def _in_spreads(found: Spread, grounds: Grounds, fields: Fields) -> Tensor:
    """Errors of all pixels, in spreads."""
    truths, signals, images = fields
    parts = [
        grounds.inner((image - truth).abs() / found(signal[None], image[None])[0]).flatten()
        for truth, signal, image in zip(truths, signals, images, strict=True)
    ]
    return torch.cat(parts)


def _quantile(values: Tensor, part: float) -> float:
    some = values[:: max(1, len(values) // _ENOUGH)]
    return float(some.kthvalue(max(1, math.ceil(part * len(some)))).values)
