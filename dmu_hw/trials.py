"""The results of a folder of jobs as one table that any notebook reads, made anew from the files at any time."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmu_hw.files import write_whole
from dmu_hw.pool import Record, records

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
_ABOUT = ("error", "wall_s", "host", "version", "finished", "trial")
"""What every row has behind its settings and results."""
_LARGEST = 2**63 - 1


def rows(found: Iterable[Record], keys: Sequence[str] = ()) -> list[Row]:
    """One row a trial: the settings that differ between trials (and `keys` in any case), results, and how it went."""
    kept = list(found)
    settings = [_flat(record.config) for record in kept]
    varied = [key for key in _union(settings) if key in keys or _differs(key, settings)]
    results = [_flat(record.result or {}) for record in kept]
    named = {key: key if key not in (*varied, *_ABOUT) else f"result.{key}" for key in _union(results)}
    return [
        {key: setting.get(key) for key in varied}
        | {name: result.get(key) for key, name in named.items()}
        | dict(zip(_ABOUT, _about(record), strict=True))
        for record, setting, result in zip(kept, settings, results, strict=True)
    ]


def table(folder: Path, keys: Sequence[str] = ()) -> pa.Table:
    """The rows of all results in a folder, typed."""
    import pyarrow  # noqa: PLC0415 - large

    found = rows(records(folder), keys)
    return pyarrow.table({key: _column([row[key] for row in found]) for key in (found[0] if found else ())})


def write_table(folder: Path, keys: Sequence[str] = ()) -> Path:
    """FOLDER/trials.parquet, and the same as trials.csv."""
    import pyarrow as pa  # noqa: PLC0415 - large
    import pyarrow.parquet as pq  # noqa: PLC0415

    made = table(folder, keys)
    sink = pa.BufferOutputStream()
    pq.write_table(made, sink)
    path = folder / "trials.parquet"
    write_whole(path, sink.getvalue().to_pybytes())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(made.column_names)
    writer.writerows(zip(*(column.to_pylist() for column in made.columns), strict=True))
    write_whole(folder / "trials.csv", text.getvalue().encode())
    return path


def _about(record: Record) -> tuple[Any, ...]:
    error = None if record.error is None else str(record.error)
    return error, record.seconds, record.host, record.version, record.finished, record.job.key


def _flat(value: Mapping[str, Any], above: str = "") -> Row:
    """{a: {b: 1}} → {a.b: 1}; lists stay whole, as JSON."""
    flat: Row = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{above}{key}.")
        else:
            flat[above + key] = json.dumps(inner) if isinstance(inner, list) else inner
    return flat


def _union(flats: Sequence[Row]) -> list[str]:
    """All keys, in the order in which they come up."""
    return list(dict.fromkeys(key for flat in flats for key in flat))


def _differs(key: str, flats: Sequence[Row]) -> bool:
    """1 and true are not the same here, nor are nothing and a null."""
    return len({json.dumps(flat[key]) if key in flat else "" for flat in flats}) > 1


def _column(values: list[Any]) -> list[Any]:
    """Of one type: numbers if all are, else text if they are mixed or too large."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1 or any(isinstance(value, int) and abs(value) > _LARGEST for value in values):
        return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    return values
