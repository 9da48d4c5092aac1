"""When time points are due: one phase of equal intervals after the other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from dmu_hw.files import Count, NonNegative, Settings


class TimePoints(Settings):
    """The whole set of fields again and again."""

    loops: Count
    interval_s: NonNegative = 0.0
    """From the start of one loop to the start of the next."""


@dataclass(frozen=True)
class Timing:
    """Each time point is followed by the interval of its phase."""

    phases: tuple[TimePoints, ...] = (TimePoints(loops=1),)

    @property
    def count(self) -> int:
        return sum(phase.loops for phase in self.phases)

    @property
    def has_intervals(self) -> bool:
        return any(phase.interval_s for phase in self.phases)

    def due_s(self, time: int) -> float:
        """When a time point is due, from the first."""
        due_s = 0.0
        for phase in self.phases:
            if time < phase.loops:
                return due_s + time * phase.interval_s
            due_s += phase.loops * phase.interval_s
            time -= phase.loops
        raise IndexError(time)

    @property
    def step_s(self) -> float:
        """The mean interval, for formats that know one only; 1 where there is none."""
        return (self.due_s(self.count - 1) / (self.count - 1) if self.count > 1 else self.phases[0].interval_s) or 1.0


def phases_of(due_s: list[float]) -> tuple[TimePoints, ...]:
    """Time points given one by one, as phases."""
    intervals = [round(later - sooner, 9) for sooner, later in pairwise(due_s)]
    phases: list[list[float]] = []
    for interval_s in [*intervals, intervals[-1] if intervals else 0.0]:
        if phases and phases[-1][1] == interval_s:
            phases[-1][0] += 1
        else:
            phases.append([1, interval_s])
    return tuple(TimePoints(loops=int(loops), interval_s=interval_s) for loops, interval_s in phases)
