"""Which frames of a run did not come, and why, as its journal tells."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from dmu_hw.journal import read_journal
from dmu_hw.plan import Plan
from dmu_hw.view.amounts import plural, span
from dmu_hw.view.page import Section, table

_MAX_REASONS = 20
_MAX_PLACES = 6


def gaps_section(journal: Path, plan: Plan) -> Section:
    """Which frames did not come, and why."""
    counts: Counter[str] = Counter()
    places: defaultdict[str, dict[int, list[int]]] = defaultdict(dict)
    for line in read_journal(journal):
        if line["kind"] == "missing":
            reason, shot = line["reason"], line["shot"]
            counts[reason] += 1
            if shot in places[reason] or len(places[reason]) < _MAX_PLACES:
                places[reason].setdefault(shot, []).append(line["pattern"])
    rows = [
        (reason, f"{count:,}", _where(plan, places[reason], count))
        for reason, count in counts.most_common(_MAX_REASONS)
    ]
    if (others := len(counts) - len(rows)) > 0:
        rest = counts.total() - sum(counts[reason] for reason, *_ in rows)
        rows.append((plural(others, "other reason"), f"{rest:,}", ""))
    body = table("Missing frames, as the journal has them", ("reason", "frames", "where"), rows, numbers=False)
    return Section("missing", "What is missing", (body,))


def _where(plan: Plan, patterns_of: dict[int, list[int]], count: int) -> str:
    """The bursts that a reason struck, and which of their patterns."""
    shown = [_burst(plan, shot, patterns) for shot, patterns in patterns_of.items()]
    return "; ".join(shown) + (" …" if count > sum(map(len, patterns_of.values())) else "")


def _burst(plan: Plan, index: int, patterns: list[int]) -> str:
    shot = plan.shots[index]
    parts = [f"field {shot.position}", *([shot.channel] if shot.channel else [])]
    if plan.times > 1:
        parts.append(f"time {shot.time}")
    if plan.planes > 1:
        parts.append(f"plane {shot.z}")
    one = "pattern" if len(patterns) == 1 else "patterns"
    parts.append(f"{one} {span(patterns)}" if shot.role == "patterns" else f"{shot.role} reference")
    return ", ".join(parts)
