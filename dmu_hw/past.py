"""What became of a run before it was cut, read from its journal: what is sealed, what was lit, what is still to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from dmu_hw.counts import Counts
from dmu_hw.journal import RESUMED, Line, read_journal
from dmu_hw.suspicion import Suspicion

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
    channel_dose_mj_cm2: dict[str, dict[int, float]] = field(default_factory=dict)
    """What each channel has of the dose of each field; a channel that is the only one has no name."""
    given: dict[tuple[str, float], dict[int, int]] = field(default_factory=dict)
    """By channel and dose of a burst: how many of them each field has had."""
    looks: dict[tuple[int, int], Line] = field(default_factory=dict)
    """The first look at each field and plane, or beside all of them."""
    look: Line | None = None
    """The last one."""
    glances: dict[tuple[str, int, int], Line] = field(default_factory=dict)
    """What the first burst of each field and plane in each channel told of drifts."""
    sealed: set[int] = field(default_factory=set)
    """Shots that are on the disk."""
    unsaved: list[Line] = field(default_factory=list)
    """Lines of light whose bursts never came to the disk; the journal does not say so yet."""
    gaps: list[Line] = field(default_factory=list)
    """The first frames that are missing."""
    scores: dict[int, float] = field(default_factory=dict)
    """What a survey gave to its shots, of time points whose fields were not chosen yet."""
    chosen: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """Fields that were chosen at each time point."""
    suspicion: Suspicion = field(default_factory=Suspicion)
    """How far doubts of frames are heeded."""
    focus: Line | None = None
    """What the autofocus found last."""
    taken: Line | None = None
    """What was noted after the last sealed burst."""
    times_ms: dict[int, float] = field(default_factory=dict)
    """When the first bursts ended, on the rig's clock."""
    zero_ms: float | None = None
    """When the run's time began, on the rig's clock."""
    last_ms: float = 0.0
    """The latest moment that the journal tells of, on the rig's clock."""


def read_past(journal: Path) -> Past:
    """In one pass; lines of bursts that wait for their seal are all that is held beside the result."""
    past = Past()
    waiting: dict[int, list[Line]] = {}
    for line in read_journal(journal):
        if "shot" in line:
            waiting.setdefault(line["shot"], []).append(line)
        match line["kind"]:
            case "sealed":
                for shot in line["shots"]:
                    _seal(past, shot, waiting.pop(shot, []))
            case "unlit":
                _undo(past, line)
                waiting[line["shot"]] = [other for other in waiting[line["shot"]] if not other.get("ahead")]
            case "unsaved":
                past.counts.unsaved_bursts += line["bursts"]
                del waiting[line["shot"]]
            case kind if kind == RESUMED:
                past.resumed.append(line["at"])
                waiting.clear()
            case _:
                _note(past, line)
    past.unsaved = [line for lines in waiting.values() for line in lines if line["kind"] == "light"]
    return past


def _undo(past: Past, line: Line) -> None:
    """No light came of a burst that was booked ahead."""
    _book(past, line, -line["dose_mj_cm2"])
    past.counts.light_on_ms -= line["light_ms"]


def _note(past: Past, line: Line) -> None:
    """What counts whether or not its burst is sealed."""
    counts = past.counts
    match line["kind"]:
        case "run":
            past.began, past.last_ms = line, line["clock_ms"]
        case "started":
            past.zero_ms = line["zero_ms"]
        case "went_on":
            past.zero_ms = (past.zero_ms or 0.0) + line["paused_ms"]
        case "light":
            _book(past, line, line["dose_mj_cm2"])
            counts.light_on_ms += line["light_ms"]
            counts.retaken_bursts += line["attempt"] > 0
        case "taken":
            counts.received += line["received"]
            counts.duplicates += line["duplicates"]
            past.last_ms = line["at_ms"]
        case "late":
            counts.come_late(line["late_s"])
        case _:
            _note_course(past, line)


def _book(past: Past, line: Line, dose_mj_cm2: float) -> None:
    """On the field, and on what its channel has given it."""
    for doses in (past.counts.dose_mj_cm2, past.channel_dose_mj_cm2.setdefault(line.get("channel", ""), {})):
        doses[line["field"]] = doses.get(line["field"], 0.0) + dose_mj_cm2
    bursts = past.given.setdefault((line.get("channel", ""), line["dose_mj_cm2"]), {})
    bursts[line["field"]] = bursts.get(line["field"], 0) + (1 if dose_mj_cm2 > 0 else -1)


def _note_course(past: Past, line: Line) -> None:
    """What decides how the run goes on, or that it does not."""
    match line["kind"]:
        case "focus":
            past.focus = line
        case "scored":
            past.scores[line["burst"]] = line["score"]
        case "chosen":
            past.scores.clear()
            past.chosen[line["time"]] = tuple(line["fields"])
        case "end":
            past.ended = True
        case "aborted":
            past.ended, past.counts.aborted = True, line["reason"]


def _seal(past: Past, shot: int, lines: list[Line]) -> None:
    """What counts of a burst that is on the disk."""
    counts = past.counts
    past.sealed.add(shot)
    proofs = (line["proof"] for line in lines if line["kind"] == "taken" and "proof" in line)
    past.suspicion.note([proof["said"] for proof in proofs])
    for line in lines:
        match line["kind"]:
            case "frame":
                counts.saved += 1
            case "missing":
                counts.miss(line["reason"])
                past.gaps.extend([line][: _KEPT_GAPS - len(past.gaps)])
            case "taken":
                past.taken = line
                if shot in past.times_ms or len(past.times_ms) < _KEPT_TIMES:
                    past.times_ms[shot] = line["at_ms"]
            case "look":
                past.look = line
                if line["light"]:
                    past.looks.setdefault((line["where"][0], line["where"][1]), line)
            case "glance":
                past.glances.setdefault((line["channel"], line["field"], line["z"]), line)
    counts.unproven_bursts += any(line["kind"] == "unproven" for line in lines)
