"""How many objects each field holds, of a run that segments."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from dmu_hw.omezarr import Labels
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.amounts import digits, plural
from dmu_hw.view.page import Section, paragraph, table

MAX_FIELDS = 100


def objects_section(run: RunFolder, objects: dict[str, Any]) -> Section:
    """A line for each field, and the mean; `objects` are those of the manifest."""
    fields = len(objects["fields"])
    told = f"{_mean(objects['mean'])} objects in a field on average, over {plural(objects['bursts'], 'whole burst')}."
    if fields > MAX_FIELDS:
        told += f" Of {fields:,} fields the first {MAX_FIELDS} are listed; all are in manifest.json."
    columns = ("field", "objects") + (("true objects", "bursts with known truth") if run.truth.exists() else ())
    counted = table("Objects of each field, on average over its times and planes", columns, _rows(run, objects))
    where = "Which object each pixel belongs to is in reconstruction.ome.zarr/FIELD/labels/objects."
    return Section("objects", "Objects", (paragraph(told), counted, paragraph(where, class_="note")))


def _rows(run: RunFolder, objects: dict[str, Any]) -> Iterator[tuple[object, ...]]:
    images = Labels(run.reconstruction)
    truth = Labels(run.truth) if run.truth.exists() else None
    for field, mean in enumerate(objects["fields"][:MAX_FIELDS]):
        name = images.image(field).name
        row = (name if name == f"field {field}" else f"field {field}: {name}", _mean(mean))
        if truth is None:
            yield row
        else:
            counts = np.asarray(truth.counts(field))
            known = counts[counts >= 0]
            yield (*row, _mean(known.mean() if known.size else None), f"{known.size:,}")


def _mean(value: float | None) -> str:
    return "–" if value is None else digits(value)
