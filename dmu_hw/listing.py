"""Positions from a file of their own: YAML as in a protocol, or CSV as a spreadsheet writes it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Loc, Settings, parse_yaml, validate
from dmu_hw.protocol import MAX_FIELDS
from dmu_hw.routes import Position

MAX_BYTES = 10_000_000
_MAX_CELL = 200


class PositionsFile(Settings):
    """What the file says."""

    positions: Annotated[tuple[Position, ...], Field(max_length=MAX_FIELDS)]


def read_positions(text: str, path: Path) -> tuple[Position, ...]:
    """All positions, or everything that is wrong with them by line and column."""
    document = _table(text, path) if path.suffix.lower() == ".csv" else parse_yaml(text, path)
    positions = validate(document, PositionsFile).positions
    if not positions:
        raise InputError([Problem(str(path), "holds no positions")])
    return positions


def _table(text: str, path: Path) -> Document:
    """A CSV file as if it were YAML: its lines and columns are found again in what is said of it."""
    reader = csv.reader(text.removeprefix("\ufeff").splitlines())
    columns = [column.strip() for column in next(reader, [])]
    if sorted(set(columns)) != sorted(columns) or not columns:
        raise InputError([Problem(f"{path}:1", "the first line should name each column once, such as x_um,y_um,name")])
    positions: list[dict[str, object]] = []
    lines: dict[Loc, int] = {(): 1, ("positions",): 1}
    problems: list[Problem] = []
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(columns):
            what = f"has {len(row)} columns, the first line has {len(columns)}"
            problems.append(Problem(f"{path}:{reader.line_num}", what))
        place: Loc = ("positions", len(positions))
        lines |= {place: reader.line_num} | {(*place, column): reader.line_num for column in columns}
        cells = zip(columns, row, strict=False)
        positions.append({column: _value(column, cell.strip()) for column, cell in cells if cell.strip()})
    if problems:
        raise InputError(problems[:100])
    return Document({"positions": tuple(positions)}, lines, path)


def _value(column: str, cell: str) -> object:
    """A number where one can be meant; what is none is told where the position is checked."""
    if column == "name":
        return cell
    try:
        return float(cell)
    except ValueError:
        return cell[:_MAX_CELL]
