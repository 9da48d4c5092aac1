"""What was asked for and what came."""

from __future__ import annotations

from dataclasses import dataclass, field

_MANY_REASONS = 100
_OTHERS = "other reasons, told in the journal"


@dataclass
class Counts:
    """Of a whole run: of one that was resumed, all its lives together."""

    expected: int = 0
    received: int = 0
    """Good frames, those of bursts that were taken again included."""
    saved: int = 0
    missing: int = 0
    duplicates: int = 0
    """Frames that the camera gave once more; none is saved."""
    retaken_bursts: int = 0
    unproven_bursts: int = 0
    """Stepped in hardware by a DMD that cannot tell what it showed, and whose light does not tell either: counts and
    times alone speak for the order."""
    unsaved_bursts: int = 0
    """Had light and were lost when the run was cut; they were taken again, and their dose stays booked."""
    late_bursts: int = 0
    """Time points that began later than asked for."""
    worst_late_s: float = 0.0
    light_on_ms: float = 0.0
    dose_mj_cm2: dict[int, float] = field(default_factory=dict)
    """Booked dose of each field."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why frames are missing, and how many of each."""
    aborted: str = ""
    """Why somebody ended the run before its time; empty if nobody did."""

    def miss(self, reason: str) -> None:
        """One frame that is not there."""
        self.missing += 1
        count_reason(self.reasons, reason, 1)

    def come_late(self, late_s: float) -> None:
        """One time point that had to wait for those before it."""
        self.late_bursts += 1
        self.worst_late_s = max(self.worst_late_s, late_s)


def count_reason(reasons: dict[str, int], reason: str, count: int) -> None:
    """So many more for that reason; of very many different ones, the later are counted together."""
    kept = reason if reason in reasons or len(reasons) < _MANY_REASONS else _OTHERS
    reasons[kept] = reasons.get(kept, 0) + count
