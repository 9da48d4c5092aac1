"""All that came of a comparison, put together from the records of its trainings: compare.json. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dmu_hw.compare import Metric, Result, Standing, job_of, metric_of, standing
from dmu_hw.contest import Contest, Entry, Question
from dmu_hw.course import Course
from dmu_hw.pool import Record


@dataclass(frozen=True)
class Lost:
    """A training without a result, and why."""

    key: str
    entry: Entry
    why: str

    def __str__(self) -> str:
        choice = self.entry.choice
        who = f"{self.entry.arm}, T {choice.count}, d {choice.camera_pixel}, seed {self.entry.seed}"
        return f"{who}: {self.why}"


@dataclass(frozen=True)
class Tally:
    """The answers to all questions of a contest, and what they were made from."""

    contest: Contest
    course: Course
    standings: tuple[Standing, ...]
    records: Mapping[str, Record]
    lost: tuple[Lost, ...]
    references: Mapping[str, Record] = field(default_factory=dict)
    """Of total variation, by the key of the training whose frames they used."""

    @classmethod
    def of(
        cls,
        contest: Contest,
        course: Course,
        asked: tuple[Question, ...],
        records: Mapping[str, Record],
    ) -> Tally:
        metric = metric_of(course.lesson)
        standings = tuple(standing(question, records, metric) for question in asked)
        return cls(contest, course, standings, records, tuple(_lost(asked, records).values()))

    @property
    def metric(self) -> Metric:
        return metric_of(self.course.lesson)

    def runs(self, result: Result) -> list[Record]:
        """The trainings of a result."""
        return [self.records[key] for key in result.trials]

    def budget(self, result: Result) -> dict[str, float]:
        """What one training of an arm had, in the mean over its seeds."""
        told = [record.result for record in self.runs(result) if record.result is not None]
        schedule = self.course.lesson.schedule

        def mean(name: str) -> float:
            return float(sum(one[name] for one in told) / len(told))

        return {
            "updates": mean("updates"),
            "best_update": mean("best_update"),
            "batch": schedule.batch,
            "seconds": mean("seconds_to_begin") + mean("seconds_to_learn"),
            "parameters": mean("parameters"),
        }

    def dose_ms(self, result: Result) -> float:
        """Full light that gives the mean object pixel the same dose."""
        told = [record.result for record in self.runs(result) if record.result is not None]
        return float(sum(one["lit"] * one["frame_ms"] for one in told) / len(told))

    def reference(self, result: Result) -> dict[str, Any] | None:
        """What total variation made of the frames of an arm."""
        found = [self.references[key].result for key in result.trials if key in self.references]
        return next((one for one in found if one is not None), None)

    def facts(self) -> dict[str, Any]:
        """All numbers, for programs."""
        contest = self.contest
        return {
            "name": contest.name,
            "base": self.course.lesson.name,
            "metric": self.metric.name,
            "better": self.metric.better,
            "equal": contest.equal,
            "seeds": contest.seeds,
            "trainings": len(self.records),
            "failed": [{"trial": lost.key, "arm": lost.entry.arm, "why": str(lost)} for lost in self.lost],
            "questions": [self._question(one) for one in self.standings],
        }

    def _question(self, one: Standing) -> dict[str, Any]:
        return {
            "kind": one.question.kind,
            "told": one.question.told,
            "compression": one.question.compression,
            "verdict": one.verdict,
            "outcome": one.outcome,
            "lead": one.lead,
            "beyond_spread": one.beyond_spread,
            "left": one.left,
            "closed": one.closed,
            "failed": one.failed,
            "arms": [self._arm(result) for result in one.best],
            "all": [self._arm(result) for result in one.all],
        }

    def _arm(self, result: Result) -> dict[str, Any]:
        return {
            "arm": result.arm,
            "T": result.choice.count,
            "d": result.choice.camera_pixel,
            "compression": result.choice.compression,
            "values": list(result.values),
            "mean": result.mean,
            "spread": result.spread,
            "val": result.val,
            "ridge_mse": result.ridge_mse,
            "tv": self.reference(result),
            "test": dict(result.also),
            "light_ms": result.light_ms,
            "dose_ms": self.dose_ms(result),
            "budget": self.budget(result),
            "trials": [
                {"key": key, "seed": self.records[key].config["schedule"]["seed"], self.metric.name: value}
                for key, value in zip(result.trials, result.values, strict=True)
            ],
        }


def _lost(asked: tuple[Question, ...], records: Mapping[str, Record]) -> dict[str, Lost]:
    """Each once, though several questions may need it."""
    return {key: Lost(key, entry, why) for key, entry, why in _failures(asked, records)}


def _failures(asked: tuple[Question, ...], records: Mapping[str, Record]) -> Iterator[tuple[str, Entry, str]]:
    for question in asked:
        for entry in question.entries:
            key = job_of(entry).key
            if (error := records[key].error) is not None:
                yield key, entry, str(error)
