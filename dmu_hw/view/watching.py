"""What drifted while a run went on, in the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dmu_hw.view.amounts import digits, plural
from dmu_hw.view.canvas import BLUE, LINE, ORANGE, grid_of, svg
from dmu_hw.view.page import Html, Section, paragraph, table

_NAMES = {
    "registration": "registration: camera pixels off",
    "power": "power: change / %",
    "bleaching": "bleaching: beyond belief / %",
    "focus": "focus: contrast / %",
    "brightness": "brightness: change / %",
}
_COLUMNS = 3


def watching_section(facts: dict[str, Any]) -> Section:
    """From the facts of the manifest."""
    told = f"{plural(facts['looks'], 'look')} at fringes" if facts["looks"] else "By the bursts of the run themselves"
    if facts["looks_without_place"]:
        told += f"; {facts['looks_without_place']:,} did not tell the registration"
    if facts["laid_back"]:
        x, y = facts["laid_px"]
        told += (
            f"; the mirrors' light was laid back {plural(facts['laid_back'], 'time')}, by ({x:+.2f}, {y:+.2f}) camera"
        )
        told += " pixels in all"
    rows = [_row(name, drift) for name, drift in facts["drifts"].items()]
    inside = [table("Worst, and how often beyond the limit", ("", "worst", "limit", "beyond"), rows)] if rows else []
    plots = [_plot(facts)] if any(len(course) > 1 for course in facts["over_time"].values()) else []
    return Section("drift", "Drift", (*inside, *plots, paragraph(f"{told}.", class_="note")))


def drift_cautions(facts: dict[str, Any] | None) -> Iterator[str]:
    """Of what was beyond its limit."""
    for name, drift in (facts or {"drifts": {}})["drifts"].items():
        if drift["beyond"]:
            _, worst, limit, _ = _row(name, drift)
            laid = (
                "; the mirrors' light was laid back" if name == "registration" and facts and facts["laid_back"] else ""
            )
            yield f"{name} drifted: {worst} at the worst, allowed is {limit}{laid}."


def _row(name: str, drift: dict[str, Any]) -> tuple[str, str, str, str]:
    beyond = f"{drift['beyond']:,} of {drift['times']:,}"
    if name == "registration":
        return name, f"{drift['worst']:.2f} px", f"{digits(drift['limit'])} px", beyond
    return name, f"{100 * drift['worst']:+.1f} %", f"{digits(100 * drift['limit'])} %", beyond


def _plot(facts: dict[str, Any]) -> Html:
    """Each over time, with its limits."""
    courses = {name: course for name, course in facts["over_time"].items() if len(course) > 1}
    rows = -(-len(courses) // _COLUMNS)
    figure, every = grid_of(10.0, 2.4 * rows, rows, min(_COLUMNS, len(courses)))
    for axes in every[len(courses) :]:
        axes.set_visible(False)
    for axes, (name, course) in zip(every, courses.items(), strict=False):
        scale = 1.0 if name == "registration" else 100.0
        limit = facts["drifts"][name]["limit"] * scale
        lows = (limit,) if name == "registration" else (-limit, limit)
        axes.plot([s / 60 for s, _ in course], [value * scale for _, value in course], ".-", color=BLUE, linewidth=1.2)
        for low in lows:
            axes.axhline(low, color=ORANGE, linestyle="--", linewidth=1.0)
        axes.grid(color=LINE, linewidth=0.6)
        axes.set_title(_NAMES[name], fontsize="medium", color=axes.xaxis.label.get_color())
        axes.set_xlabel("time / min")
    return svg(figure, "Drifts over the time of the run, with their limits")
