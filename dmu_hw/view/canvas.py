"""What plots are drawn on: figures that become SVG within a page, in its colours, light or dark."""

from __future__ import annotations

import io
import re
from typing import Any

from dmu_hw.view.page import Html, tag

_THEME = {"#010203": "var(--text)", "#020304": "var(--quiet)", "#030405": "var(--line)"}
"""Colours that the page decides."""
TEXT, QUIET, LINE = _THEME
BLUE, ORANGE, GREEN = "#56b4e9", "#e69f00", "#009e73"
"""By Okabe and Ito."""
WIDTH_IN = 9.0


def figure_of(height_in: float, count: int = 1) -> tuple[Any, list[Any]]:
    """So many axes beside one another."""
    return grid_of(WIDTH_IN * (1 + 0.2 * (count - 1)), height_in, 1, count)


def grid_of(width_in: float, height_in: float, rows: int, columns: int, **how: Any) -> tuple[Any, list[Any]]:
    """Axes in rows."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a third of a second

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    every = list(figure.subplots(rows, columns, squeeze=False, **how).ravel())
    for axes in every:
        axes.set_facecolor("none")
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(QUIET)
        axes.tick_params(which="both", color=QUIET, labelcolor=QUIET)
        axes.xaxis.label.set_color(TEXT)
        axes.yaxis.label.set_color(TEXT)
    return figure, every


def svg(figure: Any, told: str) -> Html:
    """As an element of the page: its text stays text, its colours are those of the page."""
    from matplotlib import rc_context  # noqa: PLC0415 - heavy

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
