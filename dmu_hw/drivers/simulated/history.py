"""What mirrors, light and stage did and when: what an exposure gathers is read off afterwards."""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from dmu_hw.data import BoolArray


@dataclass(frozen=True)
class MirrorFrame:
    """States of all mirrors. Frames with the same key are the same, whenever they were loaded."""

    key: str
    on: BoolArray = field(compare=False, repr=False)


Shown = tuple[tuple[MirrorFrame | None, float], ...]
"""Frames on the mirrors with their parts; None is the dark array."""
DARK: Shown = ((None, 1.0),)
Place = tuple[float, float, float]
"""Stage x and y and focus z in µm."""
StateT = TypeVar("StateT")


@dataclass(frozen=True)
class Light:
    """Energy that one mirror frame sent for a while, the power it was sent at, and where the sample stood."""

    frame: MirrorFrame | None
    power_mw: float
    place_um: Place
    duration_ms: float


class Timeline(Generic[StateT]):
    """A state that changes at moments and stands in between."""

    def __init__(self, state: StateT) -> None:
        self._times_ms = [-math.inf]
        self._states = [state]

    def set(self, time_ms: float, state: StateT) -> None:
        """From then on it is this, whatever was planned for later."""
        first = bisect.bisect_left(self._times_ms, time_ms)
        self._times_ms[first:] = [time_ms]
        self._states[first:] = [state]

    def at(self, time_ms: float) -> StateT:
        return self._states[bisect.bisect_right(self._times_ms, time_ms) - 1]

    def changes(self, start_ms: float, stop_ms: float) -> list[float]:
        """The moments of change between two moments."""
        first = bisect.bisect_right(self._times_ms, start_ms)
        return self._times_ms[first : bisect.bisect_left(self._times_ms, stop_ms)]

    def forget_before(self, time_ms: float) -> None:
        """What stood at that moment counts from ever."""
        first = bisect.bisect_right(self._times_ms, time_ms) - 1
        self._times_ms[: first + 1] = [-math.inf]
        del self._states[:first]


class History:
    """All that light at the sample depends on."""

    def __init__(self) -> None:
        self.mirrors: Timeline[Shown] = Timeline(DARK)
        self.power_mw: Timeline[float] = Timeline(0.0)
        self.place_um: Timeline[Place] = Timeline((0.0, 0.0, 0.0))

    def forget_before(self, time_ms: float) -> None:
        """Drop what no exposure will ask for, so that a long run needs no more memory than a short one."""
        for line in self._lines():
            line.forget_before(time_ms)

    def light(self, start_ms: float, stop_ms: float) -> list[Light]:
        """What reached the sample between two moments, one entry for each frame, power and place."""
        changes = {time_ms for line in self._lines() for time_ms in line.changes(start_ms, stop_ms)}
        gathered: defaultdict[tuple[MirrorFrame | None, float, Place], float] = defaultdict(float)
        for begin, end in itertools.pairwise(sorted({start_ms, stop_ms} | changes)):
            power_mw = self.power_mw.at(begin)
            if power_mw > 0:
                for frame, part in self.mirrors.at(begin):
                    gathered[frame, power_mw, self.place_um.at(begin)] += part * (end - begin)
        return [Light(*how, duration_ms) for how, duration_ms in gathered.items()]

    def _lines(self) -> tuple[Timeline[Any], ...]:
        return self.mirrors, self.power_mw, self.place_um
