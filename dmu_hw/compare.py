"""The result of a comparison: who came how far with what, and what it means for a user. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from dmu_hw.contest import FIXED, Arm, Choice, Entry, Question
from dmu_hw.lesson import Lesson
from dmu_hw.pool import Job, Record

CALL = "dmu_hw.trial:outcome"
_LEVEL = 0.02
"""Differences up to this part count as none."""
Outcome = Literal["learned", "plain", "even", "rival"]
"""Who is better: learned patterns; nobody, so take a plain camera; nobody; a fixed set."""


@dataclass(frozen=True)
class Metric:
    """What arms are ranked by."""

    name: str
    told: str
    better: Literal["lower", "higher"]


MSE = Metric("mse", "mean squared error", "lower")
AP50 = Metric("ap50", "average precision at IoU 0.5", "higher")


@dataclass(frozen=True)
class Result:
    """What an arm reached on the test split with one (T, d)."""

    arm: Arm
    choice: Choice
    values: tuple[float, ...]
    """One a seed."""
    val: float
    """Mean on the validation split over the seeds by which (T, d) is chosen."""
    ridge_mse: float | None
    """Of the best linear estimate from the same frames."""
    also: Mapping[str, float]
    """Means of all else that was measured on the test split."""
    light_ms: float
    """Time under light of all frames."""
    trials: tuple[str, ...]
    """Keys of the trainings."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 of a single one."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


@dataclass(frozen=True)
class Standing:
    """The answer to one question."""

    question: Question
    metric: Metric
    best: tuple[Result, ...]
    """Each arm with its own best (T, d), best first; the limit is among them."""
    all: tuple[Result, ...]
    failed: int
    """Trainings without a result."""

    def of(self, arm: Arm) -> Result | None:
        return next((result for result in self.best if result.arm == arm), None)

    @property
    def rival(self) -> Result | None:
        """The best of the fixed sets."""
        return next((result for result in self.best if result.arm in FIXED), None)

    @property
    def lead(self) -> float | None:
        """By which part learned is better than its best rival; negative if it is behind."""
        learned, rival = self.of("learned"), self.rival
        return None if learned is None or rival is None else self.gain(learned, rival)

    def gain(self, one: Result, other: Result) -> float:
        """By which part one is better than the other; negative if it is worse. Of scores that are all 0, none."""
        gained = other.mean - one.mean if self.metric.better == "lower" else one.mean - other.mean
        return gained / (other.mean or one.mean or 1.0)

    def beats(self, one: Result, other: Result) -> bool:
        """Whether one is better by more than counts as nothing and by more than seeds make of it."""
        return self.gain(one, other) > _LEVEL and abs(one.mean - other.mean) > max(one.spread, other.spread)

    @property
    def beyond_spread(self) -> bool:
        """Whether the difference is larger than what seeds make of it."""
        learned, rival = self.of("learned"), self.rival
        if learned is None or rival is None:
            return False
        return abs(learned.mean - rival.mean) > max(learned.spread, rival.spread)

    @property
    def left(self) -> float | None:
        """By which part the limit is better than the best rival."""
        limit, rival = self.of("limit"), self.rival
        return None if limit is None or rival is None else self.gain(limit, rival)

    @property
    def closed(self) -> float | None:
        """Part of the distance from the best rival to the limit that learned patterns cover."""
        learned, rival, limit = self.of("learned"), self.rival, self.of("limit")
        if learned is None or rival is None or limit is None:
            return None
        there = rival.mean - limit.mean if self.metric.better == "lower" else limit.mean - rival.mean
        if there <= 0:
            return None
        return (rival.mean - learned.mean if self.metric.better == "lower" else learned.mean - rival.mean) / there

    @property
    def outcome(self) -> Outcome | None:
        """None without an answer. The plain camera, which is the simplest, has the benefit of the doubt."""
        learned, rival, plain = self.of("learned"), self.rival, self.of("uniform")
        if learned is None or rival is None:
            return None
        if self.beats(learned, rival):
            return "learned"
        if plain is not None and not any(
            self.beats(one, other) for one, other in ((rival, plain), (plain, learned), (learned, plain))
        ):
            return "plain"
        return "rival" if self.beats(rival, learned) else "even"

    @property
    def verdict(self) -> str:
        """One sentence for a user."""
        learned, rival, plain, lead = self.of("learned"), self.rival, self.of("uniform"), self.lead
        if learned is None or rival is None or lead is None:
            return "Too many trainings failed for an answer."
        ours, theirs, metric = told(learned), told(rival), self.metric.told
        match self.outcome:
            case "learned":
                return f"{_capital(ours)} earn their light: {_percent(lead)} better than {theirs} in {metric}."
            case "rival":
                return f"{_capital(theirs)} is better here: {ours} are {_percent(-lead)} behind in {metric}."
            case "plain" if plain is not None:
                ahead = _signed(self.gain(learned, plain), metric)
                return f"A plain camera is as good here: {ours} are {ahead}."
            case _:
                return f"{_capital(theirs)} is as good here: {ours} are {_signed(lead, metric)}."


NAMES: dict[Arm, str] = {
    "learned": "learned patterns",
    "random": "random patterns",
    "hadamard": "the Hadamard set",
    "blocks": "one block after the other",
    "uniform": "the plain camera",
    "limit": "signed patterns that no mirror can show",
}


def told(result: Result) -> str:
    """Whose result it is, in a sentence."""
    return NAMES[result.arm] + _with(result.choice)


def metric_of(lesson: Lesson) -> Metric:
    """What arms of a task are ranked by."""
    return AP50 if lesson.task.kind == "segment" else MSE


def jobs(entries: Iterable[Entry]) -> list[Job]:
    """All trainings, each once, though several questions may need it."""
    return list({job.key: job for job in map(job_of, entries)}.values())


def job_of(entry: Entry) -> Job:
    return Job(CALL, entry.config)


def finals(question: Question, records: Mapping[str, Record], metric: Metric) -> Question:
    """What is left to be done once each arm's (T, d) is chosen: the other seeds of those alone."""
    heats = question.heats
    chosen = {(one.arm, one.choice) for one in standing(replace(question, entries=heats), records, metric).best}
    rest = (one for one in question.entries if one not in heats and (one.arm, one.choice) in chosen)
    return replace(question, entries=(*heats, *rest))


def standing(question: Question, records: Mapping[str, Record], metric: Metric) -> Standing:
    """Choose each arm's (T, d) on the validation split, rank by the test split."""
    grouped: dict[tuple[Arm, Choice], list[Entry]] = {}
    for entry in question.entries:
        grouped.setdefault((entry.arm, entry.choice), []).append(entry)
    found: list[Result] = []
    failed = 0
    for (arm, choice), entries in grouped.items():
        found_of = {job_of(entry).key: (entry, records[job_of(entry).key].result) for entry in entries}
        good = {key: result for key, (_, result) in found_of.items() if result is not None}
        heats = {key for key in good if found_of[key][0].seed < question.choosing_seeds}
        failed += len(found_of) - len(good)
        if good:
            found.append(_result(arm, choice, good, heats or set(good), metric))
    sign = 1 if metric.better == "lower" else -1
    chosen: dict[Arm, Result] = {}
    for result in found:
        if result.arm not in chosen or sign * result.val < sign * chosen[result.arm].val:
            chosen[result.arm] = result
    best = tuple(sorted(chosen.values(), key=lambda result: sign * result.mean))
    return Standing(question, metric, best, tuple(found), failed)


def _result(
    arm: Arm, choice: Choice, by_key: Mapping[str, Mapping[str, Any]], heats: set[str], metric: Metric
) -> Result:
    values = list(by_key.values())
    names = [key.removeprefix("test_") for key in values[0] if key.startswith("test_")]
    also = {name: float(np.mean([value[f"test_{name}"] for value in values])) for name in names}
    return Result(
        arm,
        choice,
        tuple(value[f"test_{metric.name}"] for value in values),
        float(np.mean([by_key[key][f"val_{metric.name}"] for key in heats])),
        also.get("ridge_mse"),
        also,
        float(np.mean([value["frame_ms"] for value in values])) * choice.count,
        tuple(by_key),
    )


def _with(choice: Choice) -> str:
    return f" (T {choice.count}, d {choice.camera_pixel})"


def _signed(part: float, metric: str) -> str:
    return f"{_percent(abs(part))} {'ahead' if part >= 0 else 'behind'} in {metric}, which counts as nothing"


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
