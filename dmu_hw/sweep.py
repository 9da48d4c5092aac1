"""What to sweep: a training protocol with some of its settings varied, by a grid, by points, at random, over seeds.

The search is random, not adaptive: all trials are known before the first one runs, so they can be checked, counted and
priced, run in any order on any number of computers, and taken up again by nothing but their files.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from dmu_hw.course import open_course
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import MAX_PROBLEMS, Document, FilePath, Name, Settings, parse_yaml, read_text
from dmu_hw.physics.optics import Optics
from dmu_hw.pool import Engine, Job, Local, Slurm, find, run
from dmu_hw.pool.settings import cores

CALL = "dmu_hw.trial:outcome"
MOST_TRIALS = 100_000
_SEED = "schedule.seed"

Key = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*(\.[a-z_][a-z0-9_]*)*$")]
"""A setting of the base protocol, its steps joined by dots: `patterns.count`. `optics.…` also where it names a rig."""
Point = dict[str, Any]
"""Values by key."""


class Range(Settings):
    """Numbers to draw from."""

    low: float
    high: float
    log: bool = False
    """true: all orders of magnitude are as likely."""
    whole: bool = False
    """true: whole numbers, both ends included."""

    @model_validator(mode="after")
    def _holds_numbers(self) -> Range:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low must be below high{' and above 0' if self.log else ''}")
        if self.whole and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError("low and high must be whole")
        return self

    def at(self, part: float) -> float:
        """The number below which a part of all draws lies, to four digits."""
        top = self.high + self.whole
        number = self.low * (top / self.low) ** part if self.log else self.low + part * (top - self.low)
        rounded: float = math.floor(number) if self.whole else float(f"{number:.4g}")
        return min(max(rounded, type(rounded)(self.low)), type(rounded)(self.high))


class Search(Settings):
    """Settings drawn at random. More trials later leave those that were drawn as they are."""

    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS)]
    """For each point of the grid."""
    ranges: Annotated[dict[Key, Range], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)] = 0

    def points(self) -> Iterator[Point]:
        for trial in range(self.trials):
            yield {
                key: between.at(random.Random(f"{self.seed}/{trial}/{key}").random())  # noqa: S311 - no secret
                for key, between in self.ranges.items()
            }


class Sweep(Settings):
    """Many trainings: every combination of `grid`, `points`, `search` and `seeds`."""

    kind: Literal["sweep"]
    name: Name
    base: FilePath
    """The training protocol; paths among the values are relative to it."""
    grid: dict[Key, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Values to try of each setting, all with all."""
    points: tuple[Annotated[dict[Key, Any], Field(min_length=1)], ...] = ()
    """Settings that go together, such as {patterns.count: 4, patterns.camera_pixel: 16}."""
    search: Search | None = None
    seeds: Annotated[int, Field(ge=1, le=1000)] = 1
    """Repetitions with other random numbers: schedule.seed is 0, 1, ... in place of the base's."""
    invalid: Literal["refuse", "leave out"] = "refuse"
    """What happens to combinations that the protocol does not allow."""
    engine: Engine = Local()

    @property
    def keys(self) -> tuple[str, ...]:
        """All settings that are varied."""
        listed = [key for point in self.points for key in point]
        drawn = list(self.search.ranges) if self.search else []
        return tuple(dict.fromkeys([*self.grid, *listed, *drawn, *([_SEED] if self.seeds > 1 else [])]))

    @property
    def count(self) -> int:
        grid = math.prod(len(values) for values in self.grid.values())
        return grid * max(1, len(self.points)) * (self.search.trials if self.search else 1) * self.seeds

    @model_validator(mode="after")
    def _varies_each_setting_once(self) -> Sweep:
        listed = {key for point in self.points for key in point}
        drawn = set(self.search.ranges) if self.search else set()
        seeded = {_SEED} if self.seeds > 1 else set()
        for one, other in itertools.permutations([set(self.grid), listed, drawn, seeded], 2):
            if one & other:
                raise ValueError(f"{min(one & other)} is varied in two ways")
        for key in self.keys:
            for other_key in self.keys:
                if other_key.startswith(f"{key}."):
                    raise ValueError(f"{other_key} is a part of {key}, which is varied too")
        if self.count > MOST_TRIALS:
            raise ValueError(f"{self.count:,} trials are more than {MOST_TRIALS:,}")
        return self

    def trials(self) -> Iterator[Point]:
        """Every combination; seeds vary fastest."""
        grid = (dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values()))
        drawn = list(self.search.points()) if self.search else [{}]
        for one, other, more, seed in itertools.product(grid, self.points or ({},), drawn, range(self.seeds)):
            yield {**one, **other, **more, **({_SEED: seed} if self.seeds > 1 else {})}


# ---------------------------------------------------------------- trials as jobs


@dataclass(frozen=True)
class Expansion:
    """All trials of a sweep, each checked like a training protocol of its own."""

    jobs: tuple[Job, ...]
    left_out: tuple[Problem, ...]
    """Why combinations were left out, with how many they are."""
    left_out_count: int = 0


def expand(sweep: Sweep, optics_of: Callable[[Path], Optics]) -> Expansion:
    """Every trial as a job; `optics_of` knows the optics of a rig's file. Refuses whatever could not run."""
    base = _Base(sweep, functools.cache(optics_of))
    jobs: dict[str, Job] = {}
    refused: dict[Problem, list[Point]] = {}
    count = 0
    for point in sweep.trials():
        try:
            job = Job(CALL, open_course(base.at(point), base.optics_of).config)
        except InputError as error:
            count += 1
            for problem in error.problems:
                refused.setdefault(problem, []).append(point)
        else:
            jobs[job.key] = job
    problems = [Problem(problem.where, f"{problem.what} {_told(points)}") for problem, points in refused.items()]
    if problems and (sweep.invalid == "refuse" or not jobs):
        raise InputError(problems[:MAX_PROBLEMS])
    return Expansion(tuple(jobs.values()), tuple(problems), count)


class _Base:
    """The training protocol that is varied."""

    def __init__(self, sweep: Sweep, optics_of: Callable[[Path], Optics]) -> None:
        self.document = parse_yaml(read_text(sweep.base), sweep.base)
        self.optics_of = optics_of
        value = self.document.value
        if not isinstance(value, dict) or value.get("kind") != "train":
            raise InputError([Problem(self.document.where(("kind",)), "the base of a sweep must be of kind 'train'")])
        if any(key.split(".")[0] == "optics" for key in sweep.keys) and isinstance(value.get("rig"), str):
            # single values of the optics can be varied only where they stand in the protocol itself
            optics = optics_of(sweep.base.parent / value["rig"]).model_dump()
            value = {key: inner for key, inner in value.items() if key != "rig"} | {"optics": optics}
        self.value = value

    def at(self, point: Point) -> Document:
        """The protocol with the values of a point."""
        changed = copy.deepcopy(self.value)
        for key, value in point.items():
            self._put(changed, key, value)
        return Document(changed, self.document.lines, self.document.path)

    def _put(self, place: dict[str, Any], key: str, value: Any) -> None:
        *steps, last = key.split(".")
        for step in steps:
            place = place.setdefault(step, {})
            if not isinstance(place, dict):
                raise InputError([Problem(self.document.where(tuple(steps)), f"{key}: {step} holds no settings")])
        place[last] = copy.deepcopy(value)


def _told(points: Sequence[Point]) -> str:
    first = ", ".join(f"{key} {value}" for key, value in points[0].items())
    more = f" and {len(points) - 1:,} more" if len(points) > 1 else ""
    return f"(with {first or 'nothing varied'}{more})"


# ---------------------------------------------------------------- how long


@dataclass(frozen=True)
class Estimate:
    """What a sweep still costs."""

    trials: int
    kept: int
    """With a result already."""
    failed: int
    """Of those kept."""
    seconds_each: float | None
    """A trial's mean; None if none has come to its end."""
    at_once: int

    @property
    def left(self) -> int:
        return self.trials - self.kept

    @property
    def seconds_left(self) -> float | None:
        if self.seconds_each is None:
            return None
        return math.ceil(self.left / self.at_once) * self.seconds_each


def estimate(jobs: Sequence[Job], folder: Path, engine: Engine, *, time_one: bool = False) -> Estimate:
    """From the trials that are done; with none, `time_one` runs one of them here, and its result is kept."""
    if time_one and jobs and not any(find(job, folder) for job in jobs):
        here = engine if isinstance(engine, Local) else Local(workers=max(1, int(cores() // engine.cpus)))
        list(run([jobs[len(jobs) // 2]], folder, here))
    kept = [record for job in jobs if (record := find(job, folder)) is not None]
    seconds = [record.seconds for record in kept if record.error is None]
    failed = len(kept) - len(seconds)
    return Estimate(len(jobs), len(kept), failed, sum(seconds) / len(seconds) if seconds else None, _at_once(engine))


def _at_once(engine: Engine) -> int:
    """Trials that run side by side; a cluster behind Ray is counted as this computer."""
    if isinstance(engine, Local):
        return engine.crew
    return engine.at_once if isinstance(engine, Slurm) else max(1, int(cores() // engine.cpus))
