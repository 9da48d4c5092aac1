"""A first draft of patterns: those that a linear decoder reads best, found in seconds without training anything.

The mean squared error of the best linear estimate is known in closed form for any patterns, and so is its gradient.
Descent on it from several sets ends well ahead of every fixed one, and any inverse can learn on from there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dmu_hw import lmmse
from dmu_hw.lmmse import Design, Statistics
from dmu_hw.physics.mirrors import LearnedPatterns

_RATE = 0.1
_HEAT = 15
"""Updates that every start gets before the best of them goes on alone."""
_UPDATES = 70
_LOGIT = 0.3
"""Mean size of a draft's logits, so that training can still turn them."""


@dataclass(frozen=True, eq=False)
class Draft:
    """What was found."""

    start: str
    logits: Tensor
    error: float
    """Of the best linear estimate."""


def draft(starts: Mapping[str, LearnedPatterns], design: Callable[[Tensor], Design], statistics: Statistics) -> Draft:
    """The best of what descent reaches; `design` says what an estimate is computed for with given patterns."""
    heats = {name: _Descent(name, patterns, design, statistics) for name, patterns in starts.items()}
    for heat in heats.values():
        heat.go(_HEAT if len(heats) > 1 else 0)
    best = min(heats.values(), key=lambda heat: heat.best.error)
    best.go(_UPDATES)
    return best.best


class _Descent:
    """Descent from one start, with the best patterns that it came by."""

    def __init__(
        self, name: str, patterns: LearnedPatterns, design: Callable[[Tensor], Design], statistics: Statistics
    ) -> None:
        self.patterns = copy.deepcopy(patterns).to(torch.float64).requires_grad_(True)
        self.design = design
        self.statistics = statistics
        self.best = Draft(name, self.patterns.logits().detach(), math.inf)

    def go(self, updates: int) -> None:
        """So many updates more; the patterns before and after them are judged too."""
        optimiser = torch.optim.Adam(self.patterns.parameters(), lr=_RATE)
        for update in range(updates + 1):
            error = lmmse.compute(self.design(self.patterns()), self.statistics).error
            self._keep(float(error.detach()))
            if update < updates:
                optimiser.param_groups[0]["lr"] = _RATE * 0.5 * (1 + math.cos(math.pi * update / updates))
                optimiser.zero_grad()
                torch.autograd.backward(error)
                optimiser.step()

    def _keep(self, error: float) -> None:
        if error < self.best.error:
            logits = self.patterns.logits().detach().to(torch.float32)
            if self.patterns.binarisation != "signed":  # whose values are the patterns themselves
                logits = logits * (_LOGIT / logits.abs().mean().clamp(min=1e-9))
            self.best = Draft(self.best.start, logits, error)
