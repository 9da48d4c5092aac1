"""calibration/*.yaml: what is to be measured, in which order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import NAME_PATTERN, Document, FilePath, Name, Settings, parse_yaml, read_text, validate
from dmu_hw.routine import Routine, routine_of
from dmu_hw.store import Days


class Step(Settings):
    """One routine, and whatever its settings are."""

    model_config = ConfigDict(extra="allow")
    routine: Annotated[str, Field(min_length=1)]
    """A module of dmu_hw.routines, a dotted path, or a .py file beside this YAML."""
    valid_days: Days | None = None
    """How long its result is good for; null: as long as the routine says."""


class RecipeSettings(Settings):
    """A calibration."""

    kind: Literal["calibration"]
    name: Name
    rig: FilePath
    """The instrument."""
    results: FilePath | None = None
    """Folder that results go to; null: the one that the rig names, or `results` beside this file."""
    channels: tuple[Name, ...] | None = None
    """Which channels of the rig; null: all that it has."""
    steps: Annotated[tuple[Step, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Measure:
    """One step, checked: who measures, with which settings."""

    name: str
    """Of the routine, as results are filed under."""
    named: str
    """As the recipe names it."""
    routine: Routine
    settings: Settings
    valid_days: float


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read and checked, its routines' settings included."""

    path: Path
    settings: RecipeSettings
    measures: tuple[Measure, ...]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe; everything that is wrong with it at once."""
    document = parse_yaml(read_text(path), path)
    problems: list[Problem] = []
    settings: RecipeSettings | None = None
    try:
        settings = validate(document, RecipeSettings)
    except InputError as error:
        problems.extend(error.problems)
    measures: list[Measure] = []
    for place, step in _steps(document):
        try:
            measures.append(_measure(document, place, step))
        except InputError as error:
            problems.extend(error.problems)
    if problems or settings is None:
        raise InputError(problems)
    return Recipe(path, settings, tuple(measures))


def _steps(document: Document) -> Iterator[tuple[int, dict[str, Any]]]:
    """Those that name a routine, whatever else may be wrong with the file, and their places."""
    steps = document.value.get("steps") if isinstance(document.value, dict) else None
    for place, step in enumerate(steps if isinstance(steps, tuple) else ()):
        if isinstance(step, dict) and isinstance(step.get("routine"), str) and step["routine"]:
            yield place, step


def _measure(document: Document, place: int, step: dict[str, Any]) -> Measure:
    named = step["routine"]
    found = routine_of(named, document, document.where(("steps", place, "routine")))
    inner = document.inside(("steps", place), without=("routine", "valid_days"))
    whole = Document(inner.value, inner.lines, inner.path.absolute(), inner.root)
    settings = validate(whole, found.Settings)  # its paths are kept with the result, wherever that is read
    build: Any = found
    name = Path(named).stem if named.endswith(".py") else named.rpartition(".")[2]
    if not re.fullmatch(NAME_PATTERN, name):
        what = f"results are filed under {name!r}: call it by letters, digits, '-' and '_'"
        raise InputError([Problem(document.where(("steps", place, "routine")), what)])
    return Measure(name, named, build(settings), settings, step.get("valid_days") or found.valid_days)
