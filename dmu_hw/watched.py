"""What drifted in a run, from its journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dmu_hw.journal import RESUMED, Line, read_journal
from dmu_hw.physics.warp import Warp
from dmu_hw.plan import Plan

_MOST_POINTS = 300


def drifts_of(journal: Path, plan: Plan) -> dict[str, Any]:
    """For the manifest: of each drift the worst and how often it was beyond its limit, its course over time, and how
    far the mirrors' light was laid back."""
    drifts: dict[str, dict[str, Any]] = {}
    courses: dict[str, list[tuple[float, float]]] = {}
    looks = blind = laid_back = 0
    laid = Warp()
    for line in _counted(journal):
        for drift in line["drifts"]:
            _count(drifts.setdefault(drift["name"], _none(drift)), drift, line["shot"])
            courses.setdefault(drift["name"], []).append((line["at_s"], drift["value"]))
        if line["kind"] == "look":
            looks, blind = looks + 1, blind + (line["shift_px"] is None)
            before, laid = laid, _laid(line)
            laid_back += laid != before
    x_um, y_um = plan.centre_um
    moved_um = laid.apply(x_um, y_um)
    pixel_um = next(iter(plan.parts.values())).channel.optics.sensor_pixel_um
    return {
        "looks": looks,
        "looks_without_place": blind,
        "laid_back": laid_back,
        "laid_px": [(moved_um[0] - x_um) / pixel_um, (moved_um[1] - y_um) / pixel_um],
        "drifts": drifts,
        "over_time": {name: _thinned(course) for name, course in courses.items()},
    }


def _counted(journal: Path) -> Iterator[Line]:
    """Looks and glances of bursts that came to the disk, and those after which the run ended; not those that were lost
    with their burst and taken again."""
    zero_ms: float | None = None
    waiting: dict[int, list[Line]] = {}
    for line in read_journal(journal):
        match line["kind"]:
            case "started":
                zero_ms = line["zero_ms"] if zero_ms is None else zero_ms
            case "look" | "glance":
                at_s = (line["at_ms"] - (zero_ms or 0.0)) / 1e3
                waiting.setdefault(line["shot"], []).append({**line, "at_s": at_s})
            case "sealed":
                for shot in line["shots"]:
                    yield from waiting.pop(shot, [])
            case kind if kind == RESUMED:
                waiting.clear()
    for lines in waiting.values():
        yield from lines


def _laid(line: Line) -> Warp:
    (a, b), (c, d) = line["laid"]["matrix"]
    x, y = line["laid"]["shift_um"]
    return Warp(matrix=((a, b), (c, d)), shift=(x, y))


def _none(drift: dict[str, Any]) -> dict[str, Any]:
    return {"worst": 0.0, "limit": drift["limit"], "times": 0, "beyond": 0, "first_shot": None}


def _count(so_far: dict[str, Any], drift: dict[str, Any], shot: int) -> None:
    so_far["times"] += 1
    if abs(drift["value"]) > abs(so_far["worst"]):
        so_far["worst"] = drift["value"]
    if drift["beyond"]:
        so_far["beyond"] += 1
        so_far["first_shot"] = shot if so_far["first_shot"] is None else so_far["first_shot"]


def _thinned(course: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """No more points than a plot can show."""
    step = -(-len(course) // _MOST_POINTS)
    return course[::step]
