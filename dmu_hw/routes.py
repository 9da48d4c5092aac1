"""Where to image: places on the stage, and in which order the fields of a grid are visited."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from dmu_hw.files import Count, Name, Settings

Cell = tuple[int, int]
"""Row and column of a grid."""


class Place(NamedTuple):
    """Where a field is; None: where stage or focus stand."""

    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None
    name: str | None = None


class Position(Settings):
    """A place on the stage."""

    x_um: float
    y_um: float
    focus_um: float | None = None
    """Focus position of this field; null: that of the protocol."""
    name: Name | None = None


class Grid(Settings):
    """Fields side by side around a centre, or around each of the positions."""

    rows: Count
    columns: Count
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of a field that it shares with its neighbour."""
    centre_um: tuple[float, float] | None = None
    """null: the origin of the stage, or each of the positions."""
    walk: Literal["snake", "rows", "spiral"] = "snake"
    """Row by row and every other one backwards, each row from its begin, or from the centre outwards."""

    def places(
        self, field_um: tuple[float, float], centre_um: tuple[float, float] = (0.0, 0.0)
    ) -> list[tuple[float, float]]:
        """Centres of the fields in their order; `field_um` is (width, height)."""
        centre_x, centre_y = self.centre_um or centre_um
        step_x, step_y = (side * (1 - self.overlap) for side in field_um)
        cells = {"snake": _snake, "rows": _rows, "spiral": _spiral}[self.walk](self.rows, self.columns)
        return [
            (
                centre_x + (column - (self.columns - 1) / 2) * step_x,
                centre_y + (row - (self.rows - 1) / 2) * step_y,
            )
            for row, column in cells
        ]


def _rows(rows: int, columns: int) -> Iterator[Cell]:
    return ((row, column) for row in range(rows) for column in range(columns))


def _snake(rows: int, columns: int) -> Iterator[Cell]:
    for row in range(rows):
        yield from ((row, column) for column in range(columns)[:: -1 if row % 2 else 1])


def _spiral(rows: int, columns: int) -> Iterator[Cell]:
    """Ring round ring; what lies beyond the grid is left out a side at a time, so that long thin grids stay cheap."""
    middle_row, middle_column = (rows - 1) // 2, (columns - 1) // 2
    yield middle_row, middle_column
    for ring in range(1, max(rows, columns)):
        top, bottom = middle_row - ring, middle_row + ring
        left, right = middle_column - ring, middle_column + ring
        if right < columns:
            yield from ((row, right) for row in _clipped(top + 1, bottom, rows))
        if bottom < rows:
            yield from ((bottom, column) for column in reversed(_clipped(left, right - 1, columns)))
        if left >= 0:
            yield from ((row, left) for row in reversed(_clipped(top, bottom - 1, rows)))
        if top >= 0:
            yield from ((top, column) for column in _clipped(left + 1, right, columns))


def _clipped(first: int, last: int, count: int) -> range:
    """The numbers from first to last that lie within 0 … count - 1."""
    return range(max(first, 0), min(last, count - 1) + 1)
