"""How long things took: a histogram whose memory does not grow with the run."""

from __future__ import annotations

import math

_FIRST_MS, _RATIO, _BINS = 0.01, 1.02, 1000
"""From 10 µs to an hour; what is told is at most 2 % too long, and never too short."""


class Latencies:
    """Counts of durations, in bins that grow by a fixed ratio."""

    def __init__(self, budget_ms: float | None = None) -> None:
        self.budget_ms = budget_ms
        self.count = 0
        self.late = 0
        """Those beyond the budget."""
        self.worst_ms = 0.0
        self._bins = [0] * _BINS

    def add(self, duration_ms: float) -> None:
        steps = math.ceil(math.log(max(duration_ms, _FIRST_MS) / _FIRST_MS) / math.log(_RATIO))
        self._bins[min(steps, _BINS - 1)] += 1
        self.count += 1
        self.worst_ms = max(self.worst_ms, duration_ms)
        self.late += self.budget_ms is not None and duration_ms > self.budget_ms

    def quantile_ms(self, part: float) -> float | None:
        """So long at most took that part of them; None if there were none."""
        wanted, seen = part * self.count, 0
        for step, count in enumerate(self._bins):
            seen += count
            if count and seen >= wanted:
                return min(_FIRST_MS * _RATIO**step, self.worst_ms) if step < _BINS - 1 else self.worst_ms
        return None

    @property
    def kept(self) -> bool | None:
        """Whether 99 of 100 were within the budget; None without a budget, or without anything to judge."""
        return None if self.budget_ms is None or not self.count else 100 * self.late <= self.count

    def as_json(self) -> dict[str, float | None]:
        """In milliseconds."""
        parts = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
        return {name: self.quantile_ms(part) for name, part in parts.items()} | {
            "worst": self.worst_ms if self.count else None
        }

    def bars(self) -> list[tuple[float, int]]:
        """(longest duration of a bin in ms, how many) of all bins that are not empty."""
        return [(_FIRST_MS * _RATIO**step, count) for step, count in enumerate(self._bins) if count]
