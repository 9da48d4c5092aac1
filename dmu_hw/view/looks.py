"""Pictures and curves of a finding, for people to judge by eye."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import fill

import numpy as np

from dmu_hw.routine import Array, Curve, Finding
from dmu_hw.view.amounts import digits
from dmu_hw.view.canvas import BLUE, LINE, ORANGE, QUIET, grid_of, svg
from dmu_hw.view.page import Html, join, tag
from dmu_hw.view.pictures import Scale, arrows, picture

_LARGEST_PX = 800
_BLOCKY_PX = 160
_MOST_POINTS = 4000


def looks(finding: Finding, title: str) -> Iterator[Html]:
    """Pictures with their marks, then curves with what the fit makes of them."""
    blank = {name: np.zeros(_extent(marks)) for name, marks in finding.marks.items() if name not in finding.pictures}
    pictures = {**finding.pictures, **blank}
    shown = [_picture(name, image, finding.marks.get(name)) for name, image in pictures.items()]
    shown += [_curve(name, curve, f"{title}: {name}") for name, curve in finding.curves.items()]
    if shown:
        yield tag("div", *shown, class_="looks")


def _extent(marks: Array) -> tuple[int, int]:
    return (int(marks[:, 1].max()) + 1, int(marks[:, 0].max()) + 1) if len(marks) else (1, 1)


def _picture(name: str, image: Array, marks: Array | None) -> Html:
    small, step = _reduced(np.asarray(image, np.float64))
    scale = Scale.of_map(small)
    legend = f"{digits(scale.low)} ", tag("span", class_="gradient", style=_gradient(scale)), f" {digits(scale.high)}"
    caption: list[object] = [tag("b", name), tag("br"), *legend]
    over = None
    if marks is not None and len(marks):
        over, factor = arrows(small.shape, np.asarray(marks, np.float64) / step)
        caption += [f" · arrows × {digits(factor, 1)}"]
    rows, columns = small.shape
    return picture(
        scale.png(small),
        name,
        join(caption),
        shape=(rows, columns),
        width_um=None,
        blocky=columns <= _BLOCKY_PX,
        over=over,
    )


def _gradient(scale: Scale) -> str:
    return f"background: linear-gradient(90deg, {', '.join(f'#{colour}' for colour in scale.colours)})"


def _reduced(image: Array) -> tuple[Array, int]:
    """Means of square blocks, as few as leave it small enough for a page; what is lost at the borders is no block."""
    step = max(1, -(-max(image.shape) // _LARGEST_PX))
    rows, columns = (length // step for length in image.shape)
    if step == 1 or not rows or not columns:
        return image, 1
    blocks = image[: rows * step, : columns * step].reshape(rows, step, columns, step)
    return blocks.mean(axis=(1, 3)), step


def _curve(name: str, curve: Curve, told: str) -> Html:
    """Points and the fit, and below it what the fit leaves."""
    x, y = np.ravel(curve.x).astype(float), np.ravel(curve.y).astype(float)
    some = slice(None, None, max(1, len(x) // _MOST_POINTS))
    fitted = None if curve.fitted is None else np.ravel(curve.fitted).astype(float)
    heights = {} if fitted is None else {"height_ratios": (3, 1)}
    figure, axes = grid_of(4.1, 3.2 if fitted is None else 3.7, 1 if fitted is None else 2, 1, sharex=True, **heights)
    style = {"color": BLUE, "markersize": 4 if len(x) < 200 else 2, "linestyle": "none", "marker": "o"}
    axes[0].plot(x[some], y[some], **style, label="measured")
    if fitted is not None:
        order = np.argsort(x, kind="stable")
        axes[0].plot(x[order], fitted[order], color=ORANGE, linewidth=1.6, label="fit")
        axes[1].plot(x[some], (y - fitted)[some], **style)
        axes[1].axhline(0, color=ORANGE, linewidth=1.2)
        axes[1].set_ylabel("left over")
        axes[0].legend(frameon=False, labelcolor=QUIET, loc="best")
    axes[0].set_ylabel(fill(curve.y_label, 34))
    axes[-1].set_xlabel(fill(curve.x_label, 50))
    for one in axes:
        one.grid(color=LINE, linewidth=0.6)
        one.set_axisbelow(True)
    return tag("figure", svg(figure, told), tag("figcaption", tag("b", name)), class_="curve")
