"""Arrays → PNG pictures within a page, each with its scale bar."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dmu_hw.data import BoolArray, Int32Array
from dmu_hw.view.amounts import digits
from dmu_hw.view.page import Html, tag

# viridis by Smith and van der Walt, CC0: as bright in grey as in colour, and safe for the colour-blind
_VIRIDIS = ("440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
_GREY = ("000000", "ffffff")
# RdBu of ColorBrewer by Brewer, Apache 2.0: what is above and below nothing, safe for the colour-blind
_SIGNED = ("2166ac", "67a9cf", "d1e5f0", "f7f7f7", "fddbc7", "ef8a62", "b2182b")


@dataclass(frozen=True)
class Scale:
    """Which value is shown how; pictures that share one can be compared."""

    low: float
    high: float
    unit: str
    colours: tuple[str, ...] = _GREY

    @classmethod
    def over(cls, images: Iterable[NDArray[Any]], low: float, unit: str, percent: float = 99.9) -> Scale:
        """White at a round value that all but a few pixels stay under."""
        highest = max((float(np.nanpercentile(image, percent)) for image in images), default=low)
        return cls(low, low + _rounded_up(max(highest - low, 1e-6)), unit)

    @classmethod
    def of_map(cls, image: NDArray[Any], unit: str = "") -> Scale:
        """One picture alone: what has both signs is shown by its sign, a few extreme pixels do not count."""
        seen = np.asarray(image, np.float64)
        seen = seen[np.isfinite(seen)]
        low, high = np.percentile(seen, (0.2, 99.8)) if seen.size else (0.0, 0.0)
        if low == high and seen.size:  # a few pixels are all that there is to see
            low, high = seen.min(), seen.max()
        if low < 0 < high and min(-low, high) > 0.05 * max(-low, high):
            most = float(max(-low, high))
            return cls(-most, most, unit, _SIGNED)
        return cls(float(low), float(high if high > low else low + max(abs(low), 1.0) * 1e-6), unit, _VIRIDIS)

    def coloured(self) -> Scale:
        return replace(self, colours=_VIRIDIS)

    def legend(self, what: str) -> Html:
        """The scale itself, with its ends."""
        colours = ", ".join(f"#{colour}" for colour in self.colours)
        bar = tag("span", class_="gradient", style=f"background: linear-gradient(90deg, {colours})")
        return tag("li", tag("b", what), " ", digits(self.low), " ", bar, f" {digits(self.high)} {self.unit}")

    def png(self, image: NDArray[Any]) -> str:
        """An 8-bit picture as data URI; what is not a number is black."""
        part = np.clip((np.asarray(image, np.float64) - self.low) / (self.high - self.low), 0, 1)
        picture = Image.fromarray(np.round(255 * np.nan_to_num(part)).astype(np.uint8))
        if self.colours != _GREY:
            picture.putpalette(self._palette())
        return _uri(picture)

    def _palette(self) -> list[int]:
        stops = np.array([list(bytes.fromhex(colour)) for colour in self.colours], float)
        places = np.linspace(0, len(stops) - 1, 256)
        channels = [np.interp(places, np.arange(len(stops)), stops[:, channel]) for channel in range(3)]
        return [int(value) for value in np.round(np.stack(channels, axis=1)).ravel()]


def bilevel(mask: BoolArray) -> str:
    """A black and white picture as data URI."""
    return _uri(Image.fromarray(mask))


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def picture(
    uri: str,
    alt: str,
    caption: object,
    *,
    shape: tuple[int, int],
    width_um: float | None,
    blocky: bool = False,
    over: Html | None = None,
) -> Html:
    """A figure that is enlarged while it has the focus. Without a width there is no scale
    bar; `blocky` leaves its pixels square; `over` is drawn on top."""
    image = tag("img", src=uri, alt=alt, width=shape[1], height=shape[0], class_="blocky" if blocky else None)
    sheet = tag("div", image, over, None if width_um is None else _scale_bar(width_um), class_="sheet")
    return tag(
        "figure", tag("div", sheet, class_="frame"), tag("figcaption", caption), tabindex="0", style=_ratio(shape)
    )


def absent(caption: object, *, shape: tuple[int, int], why: str = "missing") -> Html:
    """The place of a picture that is not there."""
    return tag("figure", tag("div", why, class_="frame absent"), tag("figcaption", caption), style=_ratio(shape))


def lattice(shape: tuple[int, int], side: int) -> Html:
    """The borders of camera pixels of `side` pixels, over a picture."""
    rows, columns = shape
    lines = [f"M{x} 0V{rows}" for x in range(side, columns, side)] + [
        f"M0 {y}H{columns}" for y in range(side, rows, side)
    ]
    return tag("svg", tag("path", d="".join(lines)), viewBox=f"0 0 {columns} {rows}", aria_hidden="true")


def outline(shape: tuple[int, int], part: tuple[slice, slice]) -> Html:
    """A frame round a part of a picture."""
    y, x = part
    path = f"M{x.start} {y.start}H{x.stop}V{y.stop}H{x.start}Z"
    return tag("svg", tag("path", d=path), viewBox=f"0 0 {shape[1]} {shape[0]}", aria_hidden="true")


def arrows(shape: tuple[int, int], marks: NDArray[Any], longest: float = 0.08) -> tuple[Html, float]:
    """Points with arrows (x, y, dx, dy) over a picture, so much larger than they are that all but a few are shorter
    than that part of the picture; and how much that is."""
    rows, columns = shape
    apart = math.sqrt(rows * columns / max(1, len(marks))) / max(shape)
    longest = min(longest, apart)  # so that few lie over each other
    lengths = np.hypot(marks[:, 2], marks[:, 3])
    long = float(np.percentile(lengths, 98)) if len(lengths) else 0.0
    factor = longest * max(shape) / long if long > 0 else 1.0
    factor = _rounded_down(factor)
    lines = []
    for x, y, dx, dy in marks.astype(float):
        tip_x, tip_y = x + factor * dx, y + factor * dy
        size, turn = 0.3 * factor * math.hypot(dx, dy), math.atan2(dy, dx)
        barbs = [(tip_x - size * math.cos(turn + s), tip_y - size * math.sin(turn + s)) for s in (-0.45, 0.45)]
        lines.append(f"M{x:.1f} {y:.1f}L{tip_x:.1f} {tip_y:.1f}")
        lines.append(
            f"M{barbs[0][0]:.1f} {barbs[0][1]:.1f}L{tip_x:.1f} {tip_y:.1f}L{barbs[1][0]:.1f} {barbs[1][1]:.1f}"
        )
    paths = (tag("g", tag("path", d="".join(lines)), class_=layer) for layer in ("under", None))
    return tag("svg", *paths, viewBox=f"0 0 {columns} {rows}", class_="arrows", aria_hidden="true"), factor


def outlines(labels: Int32Array) -> Html:
    """The borders of objects, over a picture of as many pixels."""
    lines = [f"M{start} {y}H{stop}" for y, start, stop in _runs(labels[1:] != labels[:-1])]
    lines += [f"M{x} {start}V{stop}" for x, start, stop in _runs((labels[:, 1:] != labels[:, :-1]).T)]
    rows, columns = labels.shape
    return tag("svg", tag("path", d="".join(lines)), viewBox=f"0 0 {columns} {rows}", aria_hidden="true")


def _runs(differs: BoolArray) -> Iterator[tuple[int, int, int]]:
    """Where neighbouring lines differ: number of the second one, and from where to where."""
    steps = np.diff(np.pad(differs, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    for (line, start), (_, stop) in zip(np.argwhere(steps > 0), np.argwhere(steps < 0), strict=True):
        yield int(line) + 1, int(start), int(stop)


def bar_length_um(width_um: float) -> float:
    """The longest round length that is no more than a third of a picture."""
    decade = 10.0 ** math.floor(math.log10(width_um / 3))
    return max(step * decade for step in (1, 2, 5) if step * decade <= width_um / 3 * (1 + 1e-9))


def _scale_bar(width_um: float) -> Html:
    length_um = bar_length_um(width_um)
    return tag("span", f"{digits(length_um)} µm", class_="bar", style=f"width: {100 * length_um / width_um:.2f}%")


def _ratio(shape: tuple[int, int]) -> str:
    return f"--ratio: {shape[1] / shape[0]:.4f}"


def _rounded_down(value: float) -> float:
    """To one digit."""
    unit = 10.0 ** math.floor(math.log10(value))
    return math.floor(value / unit + 1e-9) * unit


def _rounded_up(value: float) -> float:
    """To two digits."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return math.ceil(value / unit - 1e-9) * unit
