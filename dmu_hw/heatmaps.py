"""Pictures of a sweep: one metric against two settings, side by side for each value of a third."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorbar import Colorbar
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

X, Y = "patterns.camera_pixel", "patterns.count"
METRICS = ("test_mse", "test_psnr_db", "test_ssim", "test_ap50", "test_dice", "test_count_error")
"""Those that are drawn, of a task that has them."""
MAX_PANELS = 24
NEEDS = f"patterns.count and patterns.camera_pixel must both vary, with at most {MAX_PANELS} combinations of all else"
_ACROSS = 4
_SEED = "schedule.seed"
_PANEL = "panel"
"""The column of what else differs, in words."""
_NAMES = {
    "test_mse": "test MSE",
    "test_psnr_db": "test PSNR / dB",
    "test_ssim": "test SSIM",
    "test_ap50": "test AP@0.5",
    "test_dice": "test Dice",
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
_DECADES = 0.5
"""Positive values that span more than so many powers of ten get a logarithmic scale."""
_SMALL, _LARGE = -2, 4
"""Powers of ten below and from which the unit holds one."""
_CELL_IN = 0.95


def write_heat_maps(rows: Sequence[Mapping[str, Any]], varied: Sequence[str], folder: Path) -> list[Path]:
    """FOLDER/METRIC.png and .svg: T × d for each of the main metrics, with a panel for every combination of all else
    that was `varied` but seeds. None where T and d do not both differ, or where there would be too many panels."""
    if not all(key in row for key in (X, Y) for row in rows) or min(len(_values(rows, key)) for key in (X, Y)) < 2:
        return []
    others = [
        key
        for key in rows[0]
        if any(f"{key}.".startswith(f"{step}.") for step in varied) and key not in (X, Y, _SEED)
        if len(_values(rows, key)) > 1
    ]
    panelled = [{**row, _PANEL: ", ".join(_told(key, row[key]) for key in others)} for row in rows]
    if len(_values(panelled, _PANEL)) > MAX_PANELS:
        return []
    drawn = [metric for metric in METRICS if any(row.get(metric) is not None for row in rows)]
    return [
        path
        for metric in drawn
        for path in _save(heat_maps(panelled, metric, X, Y, over=_PANEL if others else None), folder / metric)
    ]


def _save(figure: Figure, path: Path) -> list[Path]:
    written = []
    for ending, settings in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending[1:], **settings)
        written.append(path.with_suffix(ending))
        write_whole(written[-1], buffer.getvalue())
    return written


def _told(key: str, value: Any) -> str:
    """A setting in a few words; whether patterns are frozen is whether they learn."""
    name, _, unit = label(key.rpartition(".")[2]).partition(" / ")
    if key == "patterns.frozen":
        return "frozen" if value else "learned"
    if isinstance(value, bool):
        return name if value else f"not {name}"
    return f"{name} {_shown(value)} {unit}".rstrip()


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
        mean = f"{self.mean:#.3g}".rstrip(".") if abs(self.mean) < 1000 else f"{self.mean:,.0f}"
        lines = [mean] if self.count else []
        if self.count > 1:
            lines.append(f"± {self.spread:.1g}")
        if self.failed:
            lines.append(f"{self.failed} failed")
        return "\n".join(lines)

    def over(self, unit: float) -> Cell:
        return replace(self, mean=self.mean / unit, spread=self.spread / unit)


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
    power = _power([cell.mean for grid in grids for cell in grid.values() if cell.count])
    grids = [{place: cell.over(10.0**power) for place, cell in grid.items()} for grid in grids]
    scale = _scale([cell.mean for grid in grids for cell in grid.values() if cell.count])
    down = -(-len(panels) // _ACROSS)
    across = -(-len(panels) // down)
    size = (across * (len(xs) * _CELL_IN + 0.4) + 2.2, down * (len(ys) * _CELL_IN * 0.7 + 0.7) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(down, across, squeeze=False)
    axes = places.ravel()[: len(panels)]
    for empty in places.ravel()[len(panels) :]:
        empty.set_axis_off()
    for place, panel, grid in zip(axes, panels, grids, strict=True):
        image = _draw(place, grid, (len(ys), len(xs)), scale)
        place.set_xticks(range(len(xs)), [_shown(value) for value in xs])
        place.set_yticks(range(len(ys)), [_shown(value) for value in ys])
        place.set_xlabel(label(x))
        if over is not None:
            told = _shown(panel) if over == _PANEL else f"{label(over)}: {_shown(panel)}"
            place.set_title(told, fontsize="medium", wrap=True)
    for place in places[:, 0]:
        place.set_ylabel(label(y))
    bar = figure.colorbar(image, ax=places, label=label(metric) + (f" / $10^{{{power}}}$" if power else ""))
    if type(scale).__name__ == "LogNorm":
        _tick_plainly(bar)
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


def _power(values: Sequence[float]) -> int:
    """Of ten, to be told once in place of zeros in every cell; 0 for numbers that are read as they are."""
    middle = float(np.median(np.abs(values))) if values else 0.0
    power = math.floor(math.log10(middle)) if middle else 0
    return 0 if _SMALL <= power < _LARGE else power


def _tick_plainly(bar: Colorbar) -> None:
    """1, 2 and 5 on a logarithmic scale, as numbers."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator  # noqa: PLC0415

    bar.locator, bar.formatter = LogLocator(subs=(1, 2, 5)), FormatStrFormatter("%g")
    bar.minorticks_off()
    bar.update_ticks()


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
