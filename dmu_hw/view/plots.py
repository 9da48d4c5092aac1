"""Plots within a page: SVG in its colours, light or dark, safe for the colour-blind, each line with its name on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmu_hw.compare import NAMES, Metric, Result, Standing
from dmu_hw.contest import Arm, Question
from dmu_hw.view.canvas import LINE, QUIET, TEXT, figure_of, svg
from dmu_hw.view.page import Html
from dmu_hw.view.powers import Power

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
_LABEL_PT = 13.0


@dataclass(frozen=True)
class Mark:
    """A result without training, in the plot of the arms."""

    name: str
    marker: str
    values: tuple[float | None, ...]
    """One an arm; None where there is none."""


def arms_plot(standing: Standing, marks: Sequence[Mark] = ()) -> Html:
    """A row an arm, best on top: the mean with its spread, and below it every seed."""
    figure, (axes,) = figure_of(0.42 * len(standing.best) + 1.0)
    results = standing.best[::-1]
    power = _power(standing.metric, [result.mean for result in results])
    for row, result in enumerate(results):
        colour = COLOURS[result.arm]
        spread = power.scaled(result.spread) if len(result.values) > 1 else None
        axes.errorbar(
            power.scaled(result.mean), row, xerr=spread, fmt=_MARKERS[result.arm], color=colour, markersize=9,
            capsize=5, zorder=3,
        )  # fmt: skip
        seeds = [power.scaled(value) for value in result.values] if len(result.values) > 1 else []
        axes.plot(seeds, [row - 0.3] * len(seeds), ".", color=colour, markersize=5)
    for mark in marks:
        rows = [(power.scaled(x), len(results) - 1 - k) for k, x in enumerate(mark.values) if x is not None]
        axes.plot(*zip(*rows, strict=True), mark.marker, label=mark.name, color=QUIET, markersize=8, fillstyle="none")
    axes.set_yticks(range(len(results)), [_arm(result) for result in results])
    axes.tick_params(axis="y", length=0, labelcolor=TEXT)
    axes.set_ylim(-0.7, len(results) - 0.4)
    axes.grid(axis="x", color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(power.named(_label(standing.metric)))
    if marks:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(marks), frameon=False, labelcolor=QUIET)
    return svg(figure, f"{standing.question.told}: {_label(standing.metric)} of each arm")


def _arm(result: Result) -> str:
    name = "limit" if result.arm == "limit" else NAMES[result.arm].removeprefix("the ")
    return f"{name},  T {result.choice.count}, d {result.choice.camera_pixel}"


def compression_plot(kind: Question, standings: Sequence[Standing]) -> Html:
    """The metric against compression, a line an arm with its name at its end; and how far each is from the plain
    camera, where there is one."""
    metric = standings[0].metric
    power = _power(metric, [result.mean for one in standings for result in one.best])
    compared = all((plain := one.of("uniform")) is not None and plain.mean for one in standings)
    figure, (axes, *more) = figure_of(4.4, 2 if compared else 1)
    names = _lines(axes, standings, lambda _, value: power.scaled(value))
    if metric.better == "lower":
        axes.set_yscale("log")
        _plain_ticks(axes.yaxis)
    axes.set_ylabel(power.named(_label(metric)))
    for other in more:
        names = _lines(other, standings, _from_plain)
        _percent_ticks(other)
        other.set_ylabel("difference from the plain camera / %")
    _name_lines((axes, *more)[-1], names)
    figure.supxlabel("compression: object pixels for each number that the camera reads", color=TEXT, fontsize="medium")
    return svg(figure, f"{kind.kind}: {_label(metric)} against compression")


def _from_plain(one: Standing, value: float) -> float:
    plain = one.of("uniform")
    return 100 * (value / plain.mean - 1) if plain is not None else 0.0


def _lines(
    axes: Any, standings: Sequence[Standing], shown: Callable[[Standing, float], float]
) -> list[tuple[float, float, Arm]]:
    """A line an arm; returns where each ends."""
    ends: list[tuple[float, float, Arm]] = []
    for arm, marker in _MARKERS.items():
        found = [(one, result) for one in standings if (result := one.of(arm)) is not None]
        found.sort(key=lambda pair: pair[0].question.compression)
        if not found:
            continue
        xs, ys = [one.question.compression for one, _ in found], [shown(one, result.mean) for one, result in found]
        low = [y - shown(one, result.mean - result.spread) for y, (one, result) in zip(ys, found, strict=True)]
        style = f"{marker}--" if arm == "limit" else f"{marker}-"
        axes.errorbar(xs, ys, yerr=low, fmt=style, color=COLOURS[arm], markersize=7, capsize=4, linewidth=1.8)
        ends.append((xs[-1], ys[-1], arm))
    compressions = sorted({one.question.compression for one in standings})
    axes.set_xscale("log", base=2)
    axes.set_xticks(compressions, [f"×{compression:g}" for compression in compressions])
    axes.xaxis.minorticks_off()
    axes.margins(x=0.08)
    axes.grid(color=LINE, linewidth=0.6)
    return ends


def _name_lines(axes: Any, ends: list[tuple[float, float, Arm]]) -> None:
    """Names to the right of all, none over another, each tied to the end of its line."""
    axes.figure.canvas.draw()
    right = axes.get_window_extent().x1
    to_points = 72 / axes.figure.dpi
    places = [(axes.transData.transform((x, y)), (x, y), arm) for x, y, arm in ends]
    places.sort(key=lambda place: float(place[0][1]))
    heights = _apart([float(at[1]) * to_points for at, _, _ in places])
    for (at, end, arm), height in zip(places, heights, strict=True):
        name = "limit" if arm == "limit" else NAMES[arm].removeprefix("the ")
        offset = ((right - at[0]) * to_points + 10, height - float(at[1]) * to_points)
        axes.annotate(
            name, end, xytext=offset, textcoords="offset points", va="center", color=COLOURS[arm],
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": COLOURS[arm], "alpha": 0.5, "linewidth": 0.8},
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


def _power(metric: Metric, values: Sequence[float]) -> Power:
    return Power.of(values) if metric.name == "mse" else Power(0)


def _percent_ticks(axes: Any) -> None:
    """Fine near 0, coarse far from it."""
    axes.set_yscale("symlog", linthresh=5.0, linscale=1.0)
    low, high = axes.get_ylim()
    ticks = [sign * tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) for sign in (-1, 1)]
    seen = sorted({tick for tick in ticks if low <= tick <= high})
    axes.set_yticks(seen, [f"{tick:+d}".replace("-", "−") if tick else "0" for tick in seen])
    axes.yaxis.minorticks_off()


def _plain_ticks(axis: Any) -> None:
    """1, 2 and 5 of each power of ten, as decimals."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415 - heavy

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6f}".rstrip("0").rstrip(".")))
    axis.set_minor_formatter(NullFormatter())
