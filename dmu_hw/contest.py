"""What to compare: learned patterns and their rivals, at equal light, on the same images, with the same inverse."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from dmu_hw.course import Course, course_of
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Count, FilePath, Name, Settings
from dmu_hw.lesson import DoseCap, Learned
from dmu_hw.physics.patterns import PatternSet, SetName
from dmu_hw.pool.settings import Engine, Local

Arm = Literal["learned", "random", "hadamard", "blocks", "uniform", "limit"]
FIXED: tuple[SetName, ...] = ("random", "hadamard", "blocks", "uniform")
ARMS: tuple[Arm, ...] = ("learned", *FIXED, "limit")
_LEAST_PIXELS = 3
"""Camera pixels along a crop: with fewer, none has all its neighbours."""


class Choice(Settings):
    """T frames on camera pixels of d object pixels."""

    count: Count
    camera_pixel: Count

    @property
    def compression(self) -> float:
        return self.camera_pixel**2 / self.count


class Contest(Settings):
    """One comparison. Both questions may be asked of the same specimens at once."""

    kind: Literal["compare"]
    name: Name
    base: FilePath
    """The training protocol of the learned arm; the others differ from it in their patterns only."""
    same_camera: tuple[Choice, ...] = ()
    """The sensor fixes d, and T frames are spent: with which patterns?"""
    same_data: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Compressions: so much data may be taken, with any T and d. The plain camera with small pixels is a rival."""
    counts: tuple[Count, ...] = (1, 4, 16)
    """T that every arm may choose from for the same data."""
    arms: tuple[Arm, ...] = ARMS
    equal: Literal["peak", "dose", "time"] = "peak"
    """What all arms spend alike, at the same power, as much as the base protocol would with all mirrors on.

    peak: dose of the most lit object pixel, so that no place gets more, and the mean of all places no more either;
    learned patterns light each place in one frame, unless the base caps them otherwise. dose: dose of the mean object
    pixel, which lets patterns put all of it where they sample. time: time under light, whatever dose comes of it."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    finalists: bool = True
    """true: T and d are chosen by the first seed, and the others are spent on what was chosen; false: on all."""
    references: tuple[Literal["ridge", "tv"], ...] = ("ridge",)
    """Classical estimates from the same frames: the best linear one, and total variation (minutes more)."""
    engine: Engine = Local()

    @field_validator("arms")
    @classmethod
    def _learned_has_rivals(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        if "learned" not in arms or not set(arms) & set(FIXED):
            raise ValueError(f"arms must hold learned and one of {', '.join(FIXED)}, given {', '.join(arms)}")
        return arms

    @model_validator(mode="after")
    def _asks_something(self) -> Contest:
        if not self.same_camera and not self.same_data:
            raise ValueError("same_camera or same_data is wanted, or both")
        return self


@dataclass(frozen=True)
class Entry:
    """One training of a contest."""

    arm: Arm
    choice: Choice
    seed: int
    config: dict[str, Any]


@dataclass(frozen=True)
class Question:
    """What is asked, and who may answer with what."""

    kind: Literal["same camera", "same data"]
    told: str
    compression: float
    entries: tuple[Entry, ...]
    choosing_seeds: int = 1
    """Seeds of every (T, d), by which each arm's own is chosen."""

    @property
    def heats(self) -> tuple[Entry, ...]:
        """What has to be done before anything can be chosen; who has no choice has no need to wait."""
        choices = {arm: len({entry.choice for entry in self.of(arm)}) for arm in ARMS}
        return tuple(one for one in self.entries if one.seed < self.choosing_seeds or choices[one.arm] == 1)

    @property
    def likely(self) -> tuple[Entry, ...]:
        """As many as there will be, whichever (T, d) are chosen."""
        firsts: dict[Arm, Choice] = {}
        for entry in self.entries:
            firsts.setdefault(entry.arm, entry.choice)
        return tuple(one for one in self.entries if one.seed < self.choosing_seeds or one.choice == firsts[one.arm])

    def of(self, arm: Arm) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.arm == arm)


def questions(contest: Contest, course: Course) -> tuple[Question, ...]:
    """All that a contest asks; InputError lists what does not fit the base protocol."""
    found: list[Question] = []
    choosing = 1 if contest.finalists else contest.seeds
    for choice in contest.same_camera:
        told = f"{choice.count} frames, camera pixels of {choice.camera_pixel} object pixels"
        entries = tuple(_entries(contest, course, choice, same_camera=True))
        found.append(Question("same camera", told, choice.compression, entries, choosing))
    for compression in contest.same_data:
        choices = [Choice(count=count, camera_pixel=d) for count in contest.counts if (d := _side(compression, count))]
        entries = tuple(entry for choice in choices for entry in _entries(contest, course, choice, same_camera=False))
        found.append(Question("same data", f"1/{compression} of the data", compression, entries, choosing))
    problems = [problem for question in found for problem in _problems(question, course)]
    if problems:
        raise InputError(Problem(contest.name, problem) for problem in problems)
    return tuple(found)


def _problems(question: Question, course: Course) -> Iterator[str]:
    """What keeps a question from being answered."""
    if not question.of("learned"):
        yield f"{question.told}: no camera pixel fits crops of {course.lesson.schedule.crop_px}, three along a side"
    elif not any(question.of(arm) for arm in FIXED):
        yield f"{question.told}: learned patterns have no rival, no fixed set that was asked for exists"
    for one in {(entry.arm, entry.choice): entry for entry in question.entries}.values():
        try:
            course_of(one.config)
        except InputError as error:
            shape = f"{one.choice.count} frames on {one.choice.camera_pixel} object pixels"
            yield from (f"{one.arm}, {shape}: {problem.what}" for problem in error.problems)


def _side(compression: int, count: int) -> int | None:
    """d of a compression with T frames, where there is one."""
    side = math.isqrt(compression * count)
    return side if side**2 == compression * count else None


def _entries(contest: Contest, course: Course, choice: Choice, *, same_camera: bool) -> Iterator[Entry]:
    """Everybody who can answer with a choice."""
    for arm in contest.arms:
        own = choice
        if arm == "uniform" and same_camera:
            own = Choice(count=1, camera_pixel=choice.camera_pixel)
        for seed in range(contest.seeds):
            config = _config(contest, course, arm, own, seed)
            if config is not None:
                yield Entry(arm, own, seed, config)


def _config(contest: Contest, course: Course, arm: Arm, choice: Choice, seed: int) -> dict[str, Any] | None:
    """The base protocol with an arm's patterns and the same light in all frames together; None if there is no such
    set, or if camera pixels do not fit."""
    lesson = course.lesson
    given_ms = (lesson.peak_ms, lesson.dose_ms, lesson.total_exposure_ms)
    light_ms = next(filter(None, given_ms), (lesson.exposure_ms or 0.0) * lesson.patterns.count)
    patterns = _patterns(lesson.patterns, arm, choice)
    if patterns is not None and arm == "learned" and contest.equal == "peak":
        patterns = _once(patterns)
    side = choice.camera_pixel * (patterns.tile if patterns is not None else 1)
    crop_px = lesson.schedule.crop_px
    if patterns is None or crop_px % side or choice.camera_pixel % course.optics.sensor_ratio:
        return None
    if crop_px < _LEAST_PIXELS * choice.camera_pixel:
        return None
    seeded = lesson.schedule.model_copy(update={"seed": lesson.schedule.seed + seed})
    changed = {
        "name": f"{arm}-{choice.count}x{choice.camera_pixel}",
        "patterns": patterns,
        "exposure_ms": None,
        "peak_ms": light_ms if contest.equal == "peak" else None,
        "dose_ms": light_ms if contest.equal == "dose" else None,
        "total_exposure_ms": light_ms if contest.equal == "time" else None,
        "schedule": seeded,
    }
    return Course(lesson.model_copy(update=changed), course.network, course.optics).config


def _once(learned: Learned) -> Learned:
    """Each place lit in one frame at most: the most lit place sets the exposure, and others lose by its second one."""
    if learned.cap != DoseCap() or learned.frozen or not learned.binary:
        return learned
    return learned.model_copy(update={"cap": DoseCap(peak=1)})


def _patterns(base: Learned, arm: Arm, choice: Choice) -> Learned | None:
    shape = {"count": choice.count, "camera_pixel": choice.camera_pixel}
    if arm == "learned":
        return base.model_copy(update=shape)
    if arm == "limit":
        free = {"binarisation": "signed", "frozen": False, "superpixel": 1, "cap": DoseCap()}
        return base.model_copy(update=shape | free)
    if choice.count == 1 and arm in ("hadamard", "blocks"):
        return None  # one pattern of these is even light: the plain camera's
    try:
        PatternSet(set=arm, count=choice.count, camera_pixel=choice.camera_pixel)
    except ValidationError:
        return None
    frozen = {"start": arm, "frozen": True, "noise": 0.0, "parametrisation": "spatial", "binarisation": "hard"}
    return base.model_copy(update=shape | frozen | {"superpixel": 1, "tile": 1, "cap": DoseCap()})
