"""What mirrors and light did and when: the light that an exposure gathers is read off afterwards."""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import TypeVar

Shown = tuple[tuple[str | None, float], ...]
"""Frames on the mirrors with their parts; None is the dark array."""
DARK: Shown = ((None, 1.0),)
StateT = TypeVar("StateT")


@dataclass(frozen=True)
class Light:
    """Energy that one mirror frame sent during an exposure, and the power it was sent at."""

    frame: str | None
    power_mw: float
    duration_ms: float


class History:
    """Piecewise constant states over time."""

    def __init__(self) -> None:
        self._mirrors: list[tuple[float, Shown]] = [(-1e30, DARK)]
        self._power: list[tuple[float, float]] = [(-1e30, 0.0)]

    def set_mirrors(self, time_ms: float, shown: Shown) -> None:
        """From then on the mirrors show this, whatever was planned for later."""
        self._mirrors = [event for event in self._mirrors if event[0] < time_ms] + [(time_ms, shown)]

    def set_power(self, time_ms: float, power_mw: float) -> None:
        self._power = [event for event in self._power if event[0] < time_ms] + [(time_ms, power_mw)]

    def mirrors_at(self, time_ms: float) -> Shown:
        return self._mirrors[bisect.bisect_right(self._mirrors, time_ms, key=lambda event: event[0]) - 1][1]

    def forget_before(self, time_ms: float) -> None:
        """Drop what no exposure will ask for, so that a long run needs no more memory than a short one."""
        self._mirrors = _tail(self._mirrors, time_ms)
        self._power = _tail(self._power, time_ms)

    def light(self, start_ms: float, stop_ms: float) -> list[Light]:
        """What reached the sample between two moments, one entry for each frame and power."""
        cuts = sorted({start_ms, stop_ms, *(t for t, _ in (*self._mirrors, *self._power) if start_ms < t < stop_ms)})
        gathered: defaultdict[tuple[str | None, float], float] = defaultdict(float)
        for begin, end in itertools.pairwise(cuts):
            power = self._power[bisect.bisect_right(self._power, begin, key=lambda event: event[0]) - 1][1]
            if power > 0:
                for frame, part in self.mirrors_at(begin):
                    gathered[frame, power] += part * (end - begin)
        return [Light(frame, power, duration) for (frame, power), duration in gathered.items()]


def _tail(events: list[tuple[float, StateT]], time_ms: float) -> list[tuple[float, StateT]]:
    first = bisect.bisect_right(events, time_ms, key=lambda event: event[0]) - 1
    return events[first:]
