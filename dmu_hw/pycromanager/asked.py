"""What a script asked pycromanager for, and what of it was saved. Its engine says neither."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from dmu_hw.errors import InputError, Problem

PATTERN: Final = "pattern"
"""The axis along which the frames of a burst lie."""
Axes = dict[str, int | str]
Place = frozenset[tuple[str, int | str]]
"""Axes that can be looked up: of a frame, or of a burst without its pattern."""
_KEPT: Final = frozenset({"x", "y", "z", "min_start_time", "config_group"})
"""What pycromanager's engine honours of the events of a burst."""
_LOST: Final = {
    "exposure": "the protocol says it, and the camera is set to it",
    "slm_pattern": "pycromanager's engine does not show it",
    "properties": "pycromanager's engine leaves them out of a burst without a word",
    "stage_positions": "pycromanager's engine leaves them out of a burst without a word",
    "tags": "pycromanager's engine hangs when it meets them",
    "camera": "the rig says which camera it is",
    "timeout_ms": "pycromanager takes it for seconds; `Learned` watches the time itself",
}
_TOLD: Final = 8


class Asked:
    """All bursts for which events were made, and how often each of their frames was saved."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        """Of a burst, its marker included."""
        self.bursts: dict[Place, Axes] = {}
        self._saved: Counter[Place] = Counter()

    def events(self, axes: Mapping[str, Any] | None, where: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Those of one burst; refused if pycromanager would not do as they say, or frames would overwrite others."""
        clean = _clean(axes or {})
        problems = [
            Problem(f"event key {key!r}", _LOST.get(key, f"is not known; allowed: {', '.join(sorted(_KEPT))}"))
            for key in where
            if key not in _KEPT
        ]
        if place_of(clean) in self.bursts:
            problems.append(Problem("axes", f"{told(clean)} was asked for before: its frames would overwrite those"))
        first = next(iter(self.bursts.values()), clean)
        if first.keys() != clean.keys():
            same = ", ".join(first) or "none"
            problems.append(Problem("axes", f"every burst must have the same ones, {same}; given {told(clean)}"))
        if problems:
            raise InputError(problems)
        self.bursts[place_of(clean)] = clean
        return [{**where, "axes": {**clean, PATTERN: pattern}} for pattern in range(self.frames)]

    @property
    def total(self) -> int:
        """Frames that were asked for."""
        return len(self.bursts) * self.frames

    def saved(self, axes: Mapping[str, Any]) -> None:
        """A frame was."""
        self._saved[place_of(axes)] += 1

    def unseen(self, sums: Mapping[Place, str]) -> list[Axes]:
        """Frames that were asked for and went through no hook."""
        return [axes for axes in self.frames_asked() if place_of(axes) not in sums]

    def missing(self, dataset: Any) -> list[Axes]:
        """Frames that were asked for and that a dataset has not."""
        return [axes for axes in self.frames_asked() if not dataset.has_image(**axes)]

    def doubled(self) -> list[Axes]:
        """Frames that were saved more than once: who knows which of them is there."""
        return [axes for axes in self.frames_asked() if self._saved[place_of(axes)] > 1]

    def frames_asked(self) -> Iterator[Axes]:
        for axes in self.bursts.values():
            yield from ({**axes, PATTERN: pattern} for pattern in range(self.frames))


def _clean(axes: Mapping[str, Any]) -> Axes:
    """Whole numbers of any kind as Python's own: those of numpy cannot be written into a dataset's index."""
    found: Axes = {}
    for name, value in axes.items():
        if name == PATTERN:
            raise InputError([Problem("axes", f"{PATTERN!r} is what events() counts itself")])
        try:
            found[name] = value if isinstance(value, str) else operator.index(value)
        except TypeError:
            what = f"should be a whole number or a text, given {value!r}"
            raise InputError([Problem(f"axes, {name!r}", what)]) from None
    return found


def place_of(axes: Mapping[str, Any]) -> Place:
    return frozenset(axes.items())


def burst_of(axes: Mapping[str, Any]) -> Place:
    """The burst that a frame belongs to."""
    return frozenset((name, value) for name, value in axes.items() if name != PATTERN)


def told(axes: Mapping[str, Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in axes.items()) or "the only burst"


def listed(frames: Iterable[Mapping[str, Any]]) -> str:
    """Some of them for people."""
    every = [told(axes) for axes in frames]
    return "; ".join(every[:_TOLD]) + (f"; and {len(every) - _TOLD} more" if len(every) > _TOLD else "")
