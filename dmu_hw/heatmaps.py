"""Pictures of a sweep: one metric against two settings, side by side for each value of a third."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dmu_hw.errors import InputError, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

_NAMES = {
    "patterns.count": "T / frames",
    "patterns.camera_pixel": "d / object pixels",
    "optics.dye.photons_per_um2_mw_ms": "dye / photons/(µm² mW ms)",
}
_UNITS = {
    "mw": "mW", "ms": "ms", "s": "s", "um": "µm", "nm": "nm", "px": "px", "db": "dB", "e": "e⁻", "adu": "ADU",
    "rad": "rad", "mj_cm2": "mJ/cm²",
}  # fmt: skip
_COLOURS = "cividis"
"""Looks the same to eyes that see red and green alike, and still orders values in grey print."""
_DECADES = 1.0
"""Positive values that span more than so many powers of ten get a logarithmic scale."""
_CELL_IN = 0.95


@dataclass(frozen=True)
class Cell:
    """All trials that share the two settings."""

    mean: float
    spread: float
    """Sample standard deviation; nan for one trial."""
    count: int
    failed: int

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], metric: str) -> Cell:
        values = [float(row[metric]) for row in rows if row[metric] is not None]
        mean = float(np.mean(values)) if values else math.nan
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        return cls(mean, spread, len(values), len(rows) - len(values))

    def __str__(self) -> str:
        lines = [f"{self.mean:.3g}"] if self.count else []
        if self.count > 1:
            lines.append(f"± {self.spread:.1g}")
        if self.failed:
            lines.append(f"{self.failed} failed")
        return "\n".join(lines)


def heat_maps(rows: Sequence[Mapping[str, Any]], metric: str, x: str, y: str, over: str | None = None) -> Figure:
    """A map for each value of `over`, all in one scale; whatever else differs (seeds) is averaged in a cell."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a third of a second

    known = list(rows[0]) if rows else []
    unknown = [key for key in (metric, x, y, over) if key is not None and key not in known]
    if unknown:
        columns = ", ".join(known) or "none"
        raise InputError([Problem("heat map", f"there is no column {key!r}; there are: {columns}") for key in unknown])
    panels = _values(rows, over) if over is not None else [None]
    xs, ys = _values(rows, x), _values(rows, y)
    grids = [
        _cells([row for row in rows if over is None or row[over] == panel], metric, (x, xs), (y, ys))
        for panel in panels
    ]
    scale = _scale([cell.mean for grid in grids for cell in grid.values() if cell.count])
    size = (len(panels) * (len(xs) * _CELL_IN + 0.4) + 2.2, len(ys) * _CELL_IN * 0.7 + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for place, panel, grid in zip(axes, panels, grids, strict=True):
        image = _draw(place, grid, (len(ys), len(xs)), scale)
        place.set_xticks(range(len(xs)), [_shown(value) for value in xs])
        place.set_yticks(range(len(ys)), [_shown(value) for value in ys])
        place.set_xlabel(label(x))
        if over is not None:
            place.set_title(f"{label(over)}: {_shown(panel)}", fontsize="medium")
    axes[0].set_ylabel(label(y))
    figure.colorbar(image, ax=list(axes), label=label(metric))
    return figure


def label(key: str) -> str:
    """A setting or a metric for people, with its unit: exposure_ms → exposure / ms."""
    if key in _NAMES:
        return _NAMES[key]
    for ending, unit in sorted(_UNITS.items(), key=lambda item: -len(item[0])):
        if key.endswith(f"_{ending}"):
            return f"{_words(key.removesuffix(f'_{ending}'))} / {unit}"
    return _words(key)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """In order: numbers by size, then the rest by name, then none at all."""
    found = {row[key] for row in rows}
    numbers = sorted(value for value in found if isinstance(value, int | float))
    words = sorted(str(value) for value in found if isinstance(value, str))
    return [*numbers, *words, *([None] if None in found else [])]


def _cells(
    rows: Sequence[Mapping[str, Any]], metric: str, x: tuple[str, list[Any]], y: tuple[str, list[Any]]
) -> dict[tuple[int, int], Cell]:
    """By row and column; those without any trial are missing."""
    shared: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        shared.setdefault((y[1].index(row[y[0]]), x[1].index(row[x[0]])), []).append(row)
    return {place: Cell.of(some, metric) for place, some in shared.items()}


def _scale(values: Sequence[float]) -> Normalize:
    from matplotlib.colors import LogNorm, Normalize  # noqa: PLC0415

    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if low > 0 and math.log10(high / low) > _DECADES:
        return LogNorm(low, high)
    return Normalize(low, high if high > low else low + 1)


def _draw(axes: Axes, grid: Mapping[tuple[int, int], Cell], shape: tuple[int, int], scale: Normalize) -> Any:
    values = np.full(shape, np.nan)
    for place, cell in grid.items():
        values[place] = cell.mean
    axes.set_facecolor("0.9")
    image = axes.imshow(values, norm=scale, cmap=_COLOURS, origin="lower", aspect="auto")
    for (row, column), cell in grid.items():
        red, green, blue, _ = image.cmap(image.norm(np.array(cell.mean)))
        dark = cell.count and 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        axes.text(
            column, row, str(cell), ha="center", va="center", fontsize="small", color="white" if dark else "black"
        )
    return image


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
