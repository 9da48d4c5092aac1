"""How figures went from result to result, with the limits that they were judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dmu_hw.store import CheckRecord, Record
from dmu_hw.view.amounts import named
from dmu_hw.view.canvas import BLUE, LINE, ORANGE, QUIET, TEXT, grid_of, svg
from dmu_hw.view.page import Html

_COLUMNS = 3
_MOST = 12
"""Plots; the figures of all are in the table."""
_BAD = "#d55e00"
_MARKS = {"pass": ("o", BLUE), "warn": ("s", ORANGE), "refuse": ("x", _BAD)}


@dataclass(frozen=True)
class _Course:
    """One figure over time."""

    name: str
    points: tuple[tuple[datetime, float, str], ...]
    """When, what, and what was said of it."""
    check: CheckRecord | None
    """The limits that it was judged by last."""


def drift_plot(history: Sequence[Record], title: str) -> Html | None:
    """A small plot of each figure that was found more than once; None: there is none."""
    courses = [course for course in _courses(history) if len(course.points) > 1][:_MOST]
    if not courses:
        return None
    rows = -(-len(courses) // _COLUMNS)
    figure, every = grid_of(9.9, 2.1 * rows + 0.1, rows, _COLUMNS)
    for axes, course in zip(every, courses, strict=False):
        _draw(axes, course)
    for axes in every[len(courses) :]:
        axes.set_axis_off()
    return svg(figure, f"{title}: drift over {len(history)} results")


def _courses(history: Sequence[Record]) -> list[_Course]:
    """Those that are judged first."""
    last = history[-1] if history else None
    limits = {check.name: check for check in (last.checks if last else ())}
    names = dict.fromkeys([*limits, *(last.figures if last else ())])
    return [_Course(name, tuple(_points(history, name)), limits.get(name)) for name in names]


def _points(history: Sequence[Record], name: str) -> list[tuple[datetime, float, str]]:
    found: list[tuple[datetime, float, str]] = []
    for record in history:
        checks = {check.name: check for check in record.checks}
        value = checks[name].value if name in checks else record.figures.get(name)
        if value is not None:
            found.append((record.at, value, checks[name].said if name in checks else record.verdict))
    return found


def _draw(axes: Any, course: _Course) -> None:
    from matplotlib import dates  # noqa: PLC0415 - heavy

    times = [at for at, _, _ in course.points]
    axes.plot(times, [value for _, value, _ in course.points], color=LINE, linewidth=1.0, zorder=1)
    for said, (marker, colour) in _MARKS.items():
        points = [(at, value) for at, value, here in course.points if here == said]
        if points:
            axes.plot(*zip(*points, strict=True), marker, color=colour, markersize=5, zorder=3)
    at, value, _ = course.points[-1]
    axes.plot([at], [value], "o", markersize=11, fillstyle="none", color=TEXT, zorder=4)
    if course.check is not None:
        axes.axhline(course.check.warns, color=ORANGE, linewidth=1.0, linestyle="--")
        axes.axhline(course.check.refuses, color=_BAD, linewidth=1.0)
    label, unit = named(course.name)
    axes.set_title(f"{label} / {unit}" if unit else label, loc="left", fontsize="medium", color=TEXT)
    kit: Any = dates
    locator = kit.AutoDateLocator(minticks=2, maxticks=5)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(kit.ConciseDateFormatter(locator))
    axes.xaxis.get_offset_text().set_color(QUIET)
    axes.yaxis.get_offset_text().set_color(QUIET)
    axes.margins(x=0.08, y=0.15)
    axes.grid(axis="y", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
