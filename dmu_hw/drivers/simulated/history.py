"""What mirrors, lights, filters and stage did and when: what an exposure gathers is read off afterwards."""

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
Filters = tuple[tuple[str, str], ...]
"""Device and position; between two positions that is BETWEEN."""
BETWEEN = ""
StateT = TypeVar("StateT")


@dataclass(frozen=True)
class Light:
    """Energy that one mirror frame sent for a while, the power it was sent at and by whom, where the sample stood, and
    what was in the way to the camera."""

    frame: MirrorFrame | None
    power_mw: float
    place_um: Place
    duration_ms: float
    source: str = "light"
    filters: Filters = ()
    creep_um: tuple[float, float] = (0.0, 0.0)
    """How far the mirrors have moved by then."""


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
    """All that light at the sample depends on, and on its way from there to the camera."""

    def __init__(self) -> None:
        self.mirrors: Timeline[Shown] = Timeline(DARK)
        self.power_mw: defaultdict[str, Timeline[float]] = defaultdict(lambda: Timeline(0.0))
        """Of each light."""
        self.shutter: Timeline[bool] = Timeline(True)
        """Whether it lets light through; where there is none, nothing closes it."""
        self.filters: dict[str, Timeline[str]] = {}
        """Where each stands."""
        self.place_um: Timeline[Place] = Timeline((0.0, 0.0, 0.0))

    def forget_before(self, time_ms: float) -> None:
        """Drop what no exposure will ask for, so that a long run needs no more memory than a short one."""
        for line in self._lines():
            line.forget_before(time_ms)

    def light(self, start_ms: float, stop_ms: float) -> list[Light]:
        """What reached the sample between two moments, one entry for each frame, power, place, source and filters."""
        changes = {time_ms for line in self._lines() for time_ms in line.changes(start_ms, stop_ms)}
        gathered: defaultdict[tuple[MirrorFrame | None, float, Place, str, Filters], float] = defaultdict(float)
        for begin, end in itertools.pairwise(sorted({start_ms, stop_ms} | changes)):
            filters = tuple((name, line.at(begin)) for name, line in self.filters.items())
            for source, power_mw in self._shining(begin):
                for frame, part in self.mirrors.at(begin):
                    gathered[frame, power_mw, self.place_um.at(begin), source, filters] += part * (end - begin)
        return [
            Light(frame, power_mw, place_um, duration_ms, source, filters)
            for (frame, power_mw, place_um, source, filters), duration_ms in gathered.items()
        ]

    def _shining(self, time_ms: float) -> list[tuple[str, float]]:
        """The lights that reach the mirrors' light path at a moment, and their power."""
        if not self.shutter.at(time_ms):
            return []
        powers = ((name, line.at(time_ms)) for name, line in self.power_mw.items())
        return [(name, power_mw) for name, power_mw in powers if power_mw > 0]

    def _lines(self) -> tuple[Timeline[Any], ...]:
        return self.mirrors, *self.power_mw.values(), self.shutter, *self.filters.values(), self.place_um
