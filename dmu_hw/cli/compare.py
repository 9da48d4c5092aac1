"""`dmu compare`: all trainings of a comparison, the verdict, and the report."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from dmu_hw.cli.learn import read_course
from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.compare import NAMES, Standing, finals, job_of, jobs, metric_of
from dmu_hw.contest import FIXED, Contest, Entry, Question, questions
from dmu_hw.course import Course
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import load_yaml, write_whole
from dmu_hw.pool import Done, Job, Local, Record, run
from dmu_hw.sweep import estimate
from dmu_hw.tally import Tally
from dmu_hw.view.amounts import digits, duration, plural

_TV = "dmu_hw.reference:outcome"
_PROBE = 12
"""Updates of a short training, from which the time of a whole one is told."""


@dataclass(frozen=True)
class Asked:
    """A comparison's protocol with all that it names, checked."""

    contest: Contest
    course: Course
    questions: tuple[Question, ...]

    @property
    def jobs(self) -> list[Job]:
        """As many as there will be; which ones of the finals is not known before the heats."""
        return jobs(entry for question in self.questions for entry in question.likely)


def read_contest(path: Path) -> Asked:
    """What is wrong with a comparison, its base or what that names, is said."""
    contest = load_yaml(path, Contest)
    course = read_course(contest.base)
    try:
        return Asked(contest, course, questions(contest, course))
    except InputError as error:
        raise InputError(Problem(f"{path}: {problem.where}", problem.what) for problem in error.problems) from None


def compare_arms(path: Path, out: Path, output: Output, *, dry_run: bool, again: bool) -> None:
    """Train all arms, or say how long that would take; what is done already is not done again."""
    asked = read_contest(path)
    folder = out / asked.contest.name
    output.known |= {"folder": str(folder), "trainings": len(asked.jobs)}
    if dry_run:
        _show_price(asked, folder / "trials", output)
    folder.mkdir(parents=True, exist_ok=True)
    output.remains = f"{folder} keeps what is done; the same command goes on from there"
    tally = _trained(asked, folder / "trials", output, again=again)
    output.remains = ""
    report = _keep(tally, path, folder)
    _show(tally, report, output)
    status = INCOMPLETE if tally.lost else DONE
    verdicts = [{"question": one.question.told, "verdict": one.verdict, "lead": one.lead} for one in tally.standings]
    output.finish(status, report=str(report), verdicts=verdicts, failed=[str(lost) for lost in tally.lost])


# ---------------------------------------------------------------- how long


def _show_price(asked: Asked, folder: Path, output: Output) -> None:
    told = estimate(asked.jobs, folder, asked.contest.engine)
    if told.seconds_each is None and told.left:
        output.say("no training has come to its end yet: a few updates tell how long they take …")
        told = replace(told, seconds_each=_probed_s(asked, output))
    for question in asked.questions:
        counts = Counter(entry.arm for entry in question.likely)
        arms = ", ".join(f"{arm} {counts[arm]}" for arm in asked.contest.arms if counts[arm])
        output.say(f"{question.kind}, {question.told}: trainings of {arms}")
    kept = f", {told.kept} of them there already" + (f" ({told.failed} failed)" if told.failed else "")
    seconds = told.seconds_left
    left = f"; about {duration(seconds)} more, {told.at_once} at a time" if seconds else ""
    output.say(f"{plural(told.trials, 'training')}{kept if told.kept else ''}{left}")
    output.finish(DONE, kept=told.kept, kept_failed=told.failed, left=told.left, seconds_left=seconds)


def _probed_s(asked: Asked, output: Output) -> float | None:
    """About how long a training takes in the mean: drafts of those that learn patterns, and updates."""
    entries = [entry for question in asked.questions for entry in question.entries]
    learned = next(entry for entry in entries if entry.arm == "learned")
    fixed = next(entry for entry in entries if entry.arm in FIXED)
    short = [_shortened(learned, 1), _shortened(fixed, 1), _shortened(fixed, _PROBE)]
    engine = asked.contest.engine if isinstance(asked.contest.engine, Local) else Local()
    with tempfile.TemporaryDirectory() as folder:
        took = {done.job.key: done.record for done in run(short, Path(folder), engine)}
    failed = [record.error for record in took.values() if record.error is not None]
    if failed:
        output.say(f"they fail: {failed[0]}")
        return None
    drafted, one, some = (took[job.key].result or {} for job in short)
    updating_s = some["seconds_to_learn"] - one["seconds_to_learn"]
    # a busy computer may take longer for one update than for some: then they tell no more than what they took
    each_s = updating_s / (_PROBE - 1) if updating_s > 0 else some["seconds_to_learn"] / _PROBE
    updates_s = each_s * asked.course.lesson.schedule.updates + one["seconds_to_learn"]
    drafts = sum(entry.arm not in FIXED for entry in entries) / len(entries)
    begin_s = drafts * drafted["seconds_to_begin"] + (1 - drafts) * one["seconds_to_begin"]
    seconds: float = begin_s + updates_s
    return seconds


def _shortened(entry: Entry, updates: int) -> Job:
    job = job_of(entry)
    return Job(job.call, {**job.config, "schedule": job.config["schedule"] | {"updates": updates}})


# ---------------------------------------------------------------- doing it


def _trained(asked: Asked, folder: Path, output: Output, *, again: bool) -> Tally:
    """Every training has a result, or a reason why not."""
    heats = [entry for question in asked.questions for entry in question.heats]
    records = _done(heats, folder, asked.contest, output, again=again)
    metric = metric_of(asked.course.lesson)
    chosen = tuple(finals(question, records, metric) for question in asked.questions)
    every = [entry for question in chosen for entry in question.entries]
    if left := [entry for entry in every if job_of(entry).key not in records]:
        records |= _done(left, folder, asked.contest, output, again=again)
    tally = Tally.of(asked.contest, asked.course, chosen, records)
    if "tv" not in asked.contest.references:
        return tally
    return replace(tally, references=_referred(tally, folder, output, again=again))


def _done(
    entries: Sequence[Entry], folder: Path, contest: Contest, output: Output, *, again: bool
) -> dict[str, Record]:
    """The record of every training among them."""
    whose, todo = {job_of(entry).key: entry for entry in entries}, jobs(entries)
    records: dict[str, Record] = {}
    coming = cast("Generator[Done]", run(todo, folder, contest.engine, again=again))
    with _following("training", len(todo), output) as tell, closing(coming):  # who stops here stops the workers
        for done in coming:
            records[done.job.key] = done.record
            tell(done, _who(whose[done.job.key]))
    return records


def _referred(tally: Tally, folder: Path, output: Output, *, again: bool) -> Mapping[str, Record]:
    """Total variation on the frames of one seed of each arm with its own best (T, d)."""
    keys = dict.fromkeys(result.trials[0] for one in tally.standings for result in one.best)
    todo = {key: Job(_TV, {"trial": key, "training": tally.records[key].config}) for key in keys}
    names = {job.key: key for key, job in todo.items()}
    found: dict[str, Record] = {}
    coming = cast("Generator[Done]", run(todo.values(), folder, tally.contest.engine, again=again))
    with _following("total variation", len(todo), output) as tell, closing(coming):
        for done in coming:
            key = names[done.job.key]
            found[key] = done.record
            tell(done, tally.records[key].config["name"])
    return found


@contextmanager
def _following(what: str, total: int, output: Output) -> Iterator[Any]:
    """A line for each that ends, with the time left, and a bar where somebody looks."""
    began, done, new = time.monotonic(), 0, 0
    with output.progress(what) as progress:

        def tell(one: Done, who: str) -> None:
            nonlocal done, new
            done, new = done + 1, new + (not one.kept)
            progress(done, total)
            if one.kept and not one.failed:
                return
            left = ""
            if new and done < total:
                seconds = max(1, round((time.monotonic() - began) / new * (total - done)))
                left = f"; about {duration(seconds)} left"
            how = f"FAILED, {one.record.error}" if one.failed else f"done in {duration(one.record.seconds)}"
            output.say(f"{what} {done} of {total}: {who}: {how}{left}")

        progress(0, total)
        yield tell
        if done > new:
            output.say(f"{done - new} of {total} were there already")


def _who(entry: Entry) -> str:
    return f"{entry.arm}, T {entry.choice.count}, d {entry.choice.camera_pixel}, seed {entry.seed}"


# ---------------------------------------------------------------- what came of it


def _keep(tally: Tally, path: Path, folder: Path) -> Path:
    from dmu_hw.view.contest import write_contest  # noqa: PLC0415 - plots and pictures take a second to load

    text = json.dumps(tally.facts(), indent=1, allow_nan=False, ensure_ascii=False)
    write_whole(folder / "compare.json", text.encode())
    report = folder / "report.html"
    write_contest(tally, path, folder / "trials", report)
    return report


def _show(tally: Tally, report: Path, output: Output) -> None:
    """The answers, in plain text."""
    for one in tally.standings:
        output.say(f"\n{one.question.kind}, {one.question.told}\n{one.verdict}")
        for line in _lines(tally, one):
            output.say(line)
    for lost in tally.lost:
        output.say(f"failed: {lost}")
    if tally.lost:
        output.say(f"{len(tally.lost)} of {len(tally.records)} trainings failed; --again tries them once more")
    output.say(f"\n{report}")


def _lines(tally: Tally, one: Standing) -> Iterator[str]:
    from dmu_hw.view.ranking import COLUMNS, classical_told, limit_told, power_of, scored  # noqa: PLC0415 - as above

    yield from (told for told in (limit_told(one), classical_told(tally, one)) if told is not None)
    power = power_of(one)
    rows = [("arm", "T", "d", power.named(COLUMNS[tally.metric.name]), power.named("ridge"), "light / ms")]
    for result in one.best:
        name = "limit" if result.arm == "limit" else NAMES[result.arm].removeprefix("the ")
        ridge = "–" if result.ridge_mse is None else digits(power.scaled(result.ridge_mse))
        choice = result.choice
        rows.append(
            (name, f"{choice.count}", f"{choice.camera_pixel}", scored(result, power), ridge, digits(result.light_ms))
        )
    for line in _aligned(rows):
        yield f"  {line}"


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        first, *rest = (
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join([first, *rest])
