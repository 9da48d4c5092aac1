"""Plots within a page: SVG in its own colours, light or dark, safe for the colour-blind, each line with its name on it."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmu_hw.compare import NAMES, Metric, Standing
from dmu_hw.contest import Arm, Question
from dmu_hw.view.page import Html

COLOURS: dict[Arm, str] = {
    "learned": "#e69f00",
    "random": "#cc79a7",
    "hadamard": "#009e73",
    "blocks": "#d55e00",
    "uniform": "#56b4e9",
    "limit": "#808080",
}
"""By Okabe and Ito."""
_MARKERS: dict[Arm, str] = {
    "learned": "o",
    "random": "s",
    "hadamard": "^",
    "blocks": "D",
    "uniform": "v",
    "limit": "*",
}
_THEME = {"#010203": "var(--text)", "#020304": "var(--quiet)", "#030405": "var(--line)"}
"""Colours that the page decides."""
_TEXT, _QUIET, _LINE = _THEME
_WIDTH_IN = 9.0
_LABEL_PT = 13.0


@dataclass(frozen=True)
class Mark:
    """A result without training, in the plot of the arms."""

    name: str
    marker: str
    values: tuple[float | None, ...]
    """One an arm; None where there is none."""


def arms_plot(standing: Standing, marks: Sequence[Mark] = ()) -> Html:
    """A row an arm, best on top: the mean, every seed, and the spread."""
    figure, axes = _figure(0.42 * len(standing.best) + 1.0)
    results = standing.best[::-1]
    for row, result in enumerate(results):
        colour = COLOURS[result.arm]
        spread = result.spread if len(result.values) > 1 else None
        axes.errorbar(
            result.mean, row, xerr=spread, fmt=_MARKERS[result.arm], color=colour, markersize=9, capsize=5, zorder=3
        )
        axes.plot(result.values, [row] * len(result.values), "|", color=colour, markersize=13, alpha=0.8)
        name = "limit" if result.arm == "limit" else NAMES[result.arm].removeprefix("the ")
        choice = result.choice
        axes.annotate(
            f"{name}  T {choice.count}, d {choice.camera_pixel}",
            (0, row), xycoords=("axes fraction", "data"), xytext=(-8, 0), textcoords="offset points",
            ha="right", va="center", color=_TEXT,
        )  # fmt: skip
    for mark in marks:
        rows = [(value, len(results) - 1 - k) for k, value in enumerate(mark.values) if value is not None]
        axes.plot(*zip(*rows, strict=True), mark.marker, label=mark.name, color=_QUIET, markersize=8, fillstyle="none")
    axes.set_yticks([])
    axes.set_ylim(-0.6, len(results) - 0.4)
    axes.grid(axis="x", color=_LINE, linewidth=0.6)
    axes.set_xlabel(_label(standing.metric))
    if marks:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(marks), frameon=False, labelcolor=_QUIET)
    return _svg(figure, f"{standing.question.told}: {_label(standing.metric)} of each arm")


def compression_plot(kind: Question, standings: Sequence[Standing]) -> Html:
    """The metric against compression, a line an arm with its name at its end."""
    metric = standings[0].metric
    figure, axes = _figure(4.6)
    ends: list[tuple[float, float, Arm]] = []
    for arm, marker in _MARKERS.items():
        found = [(one.question.compression, result) for one in standings if (result := one.of(arm)) is not None]
        found.sort(key=lambda pair: pair[0])
        if not found:
            continue
        xs, ys = [x for x, _ in found], [result.mean for _, result in found]
        spreads = [result.spread for _, result in found]
        style = "--" if arm == "limit" else "-"
        axes.errorbar(
            xs, ys, yerr=spreads, fmt=marker + style, color=COLOURS[arm], markersize=7, capsize=4, linewidth=1.8
        )
        ends.append((xs[-1], ys[-1], arm))
    axes.set_xscale("log", base=2)
    if metric.better == "lower":
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    compressions = sorted({one.question.compression for one in standings})
    axes.set_xticks(compressions, [f"×{c:g}" for c in compressions])
    axes.minorticks_off() if metric.better != "lower" else axes.xaxis.minorticks_off()
    axes.grid(color=_LINE, linewidth=0.6)
    axes.set_xlabel("compression: object pixels for each number that the camera reads")
    axes.set_ylabel(_label(metric))
    _name_lines(axes, ends)
    return _svg(figure, f"{kind.kind}: {_label(metric)} against compression")


def _name_lines(axes: Any, ends: list[tuple[float, float, Arm]]) -> None:
    """Names to the right of all, none over another, each tied to the end of its line."""
    axes.figure.canvas.draw()
    right = max(x for x, _, _ in ends)
    places = [(float(axes.transData.transform((x, y))[1]) * 72 / axes.figure.dpi, x, y, arm) for x, y, arm in ends]
    places.sort(key=lambda place: place[0])
    heights = _apart([height for height, *_ in places])
    for (height, x, y, arm), wanted in zip(places, heights, strict=True):
        name = "limit" if arm == "limit" else NAMES[arm].removeprefix("the ")
        axes.annotate(
            name, (x, y), xytext=(24 if x == right else 10, wanted - height), textcoords="offset points", va="center",
            color=COLOURS[arm], arrowprops={"arrowstyle": "-", "color": COLOURS[arm], "alpha": 0.5, "linewidth": 0.8},
            annotation_clip=False,
        )  # fmt: skip


def _apart(heights: Sequence[float]) -> list[float]:
    """Rising heights moved as little as possible, so that each is a line of text above the one before: neighbours
    that would meet become a block round their middle."""
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _bottom(blocks[-1]) < _bottom(blocks[-2]) + len(blocks[-2]) * _LABEL_PT:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block) + k * _LABEL_PT for block in blocks for k in range(len(block))]


def _bottom(block: Sequence[float]) -> float:
    return float(np.mean([height - k * _LABEL_PT for k, height in enumerate(block)]))


def _label(metric: Metric) -> str:
    return f"{metric.told} ({metric.better} is better)"


def _plain_ticks(axis: Any) -> None:
    """1, 2 and 5 of each power of ten, as decimals."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - heavy

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6f}".rstrip("0")))
    axis.set_minor_formatter(NullFormatter())


def _figure(height_in: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a third of a second

    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("none")
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(_QUIET)
    axes.tick_params(which="both", color=_QUIET, labelcolor=_QUIET)
    axes.xaxis.label.set_color(_TEXT)
    axes.yaxis.label.set_color(_TEXT)
    return figure, axes


def _svg(figure: Any, told: str) -> Html:
    """As an element of the page: its text stays text, its colours are those of the page."""
    from matplotlib import rc_context  # noqa: PLC0415 - heavy

    from dmu_hw.view.page import tag  # noqa: PLC0415

    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": told, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for colour, variable in _THEME.items():
        text = text.replace(colour, variable)
    return tag("div", Html(text), class_="plot", role="img", aria_label=told)
