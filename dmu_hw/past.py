"""What became of a run before it was cut, read from its journal: what is sealed, what was lit, what is still to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dmu_hw.counts import Counts
from dmu_hw.journal import RESUMED, Line, read_journal

_KEPT_GAPS = 10
_KEPT_TIMES = 256


@dataclass
class Past:
    """A run so far; of one that has not begun all is nothing."""

    began: Line | None = None
    """The line that the run began with."""
    ended: bool = False
    """All its bursts were taken."""
    resumed: list[str] = field(default_factory=list)
    """When it was resumed."""
    counts: Counts = field(default_factory=Counts)
    """Of what is sealed, and of all light."""
    sealed: set[int] = field(default_factory=set)
    """Shots that are on the disk."""
    unsaved: list[int] = field(default_factory=list)
    """Shots that had light and never came to the disk, as often as that happened; not yet told in the journal."""
    gaps: list[Line] = field(default_factory=list)
    """The first frames that are missing."""
    taken: Line | None = None
    """What was noted after the last sealed burst."""
    times_ms: dict[int, float] = field(default_factory=dict)
    """When the first bursts ended, on the rig's clock."""
    last_ms: float = 0.0
    """The latest moment that the journal tells of, on the rig's clock."""


def read_past(journal: Path) -> Past:
    """In one pass; bursts that wait for their seal are all that is held beside the result."""
    past, waiting = Past(), _Waiting()
    for line in read_journal(journal):
        match line["kind"]:
            case "run":
                past.began = line
                past.last_ms = line["clock_ms"]
            case "light":
                _book(past, line)
                waiting.of(line).append(line)
            case "taken":
                past.counts.received += line["received"]
                past.counts.duplicates += line["duplicates"]
                past.last_ms = line["at_ms"]
                waiting.of(line).append(line)
            case "frame" | "missing" | "unproven":
                waiting.of(line).append(line)
            case "late":
                past.counts.come_late(line["late_s"])
            case "sealed":
                for shot in line["shots"]:
                    _seal(past, shot, waiting.bursts.pop(shot, []))
            case "unsaved":
                past.counts.unsaved_bursts += 1
            case "end":
                past.ended = True
            case kind if kind == RESUMED:
                past.resumed.append(line["at"])
                waiting.bursts.clear()
    past.unsaved = sorted(
        line["shot"] for lines in waiting.bursts.values() for line in lines if line["kind"] == "light"
    )
    return past


class _Waiting:
    """Lines of bursts that are not sealed yet."""

    def __init__(self) -> None:
        self.bursts: dict[int, list[Line]] = {}

    def of(self, line: Line) -> list[Line]:
        return self.bursts.setdefault(line["shot"], [])


def _book(past: Past, line: Line) -> None:
    counts, field_ = past.counts, line["field"]
    counts.dose_mj_cm2[field_] = counts.dose_mj_cm2.get(field_, 0.0) + line["dose_mj_cm2"]
    counts.light_on_ms += line["light_ms"]
    counts.retaken_bursts += line["attempt"] > 0


def _seal(past: Past, shot: int, lines: list[Line]) -> None:
    past.sealed.add(shot)
    for line in lines:
        match line["kind"]:
            case "frame":
                past.counts.saved += 1
            case "missing":
                past.counts.miss(line["reason"])
                past.gaps.extend([line][: _KEPT_GAPS - len(past.gaps)])
            case "taken":
                past.taken = line
    past.counts.unproven_bursts += any(line["kind"] == "unproven" for line in lines)
    if past.taken is not None and past.taken["shot"] == shot and len(past.times_ms) < _KEPT_TIMES:
        past.times_ms[shot] = past.taken["at_ms"]
