"""`dmu calibrate`: from a recipe to results that are believed, with a page that a person can judge them by."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dmu_hw.belief import Beliefs
from dmu_hw.calibrate import Calibration, Outcome, sample_put_back
from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.cli.session import load_instrument, outsiders
from dmu_hw.cli.stop import poll
from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.files import parse_yaml, read_text, write_whole
from dmu_hw.guard import Guard
from dmu_hw.hours import HourMeter
from dmu_hw.lock import rig_held
from dmu_hw.ports import Holder
from dmu_hw.recipe import Measure, Recipe, load_recipe
from dmu_hw.rig import Rig
from dmu_hw.room import check_room
from dmu_hw.routine import SAMPLES, Sample
from dmu_hw.runfolder import RunFolder, new_run
from dmu_hw.store import ALL_CHANNELS, CheckRecord, Store

_FRAMES = 100
"""Of the whole chip, that a routine may well keep."""
_SAID = {"pass": "good", "warn": "good, with warnings", "refuse": "FAILED"}


@dataclass(frozen=True)
class Wish:
    """What was asked for on the command line."""

    rig: Path | None = None
    channels: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    yes: bool = False
    """Whether the sample lies there already."""
    out: Path = Path("runs")


@dataclass(frozen=True)
class Job:
    """A recipe on a rig, checked; nothing is opened."""

    recipe: Recipe
    rig: Rig
    store: Store
    steps: tuple[tuple[Measure, str], ...]
    """What is measured, and in which channel."""

    @property
    def samples(self) -> tuple[Sample, ...]:
        """That somebody has to put under the objective, in the order in which they are needed."""
        holders = [link for link in self.rig.connections if isinstance(link, Holder)]
        held = {"any", *(["specimen"] if holders else []), *(name for link in holders for name in link.holds)}
        wanted = dict.fromkeys(measure.routine.sample for measure, _ in self.steps)
        return tuple(sample for sample in wanted if sample not in held)


def calibrate_rig(path: Path, wish: Wish, output: Output) -> None:
    """Measure, fit, judge and store, step by step. What can be refused is refused before there is light."""
    output.lights = True
    job = open_job(path, wish)
    _check_hands(job, wish)
    _check_disk(job, wish.out, len(job.steps))
    for caution in _cautions(job):
        output.say(f"caution: {caution}")
    outcomes: list[Outcome] = []
    with ExitStack() as instrument:
        instrument.enter_context(rig_held(job.rig.file))
        instrument.enter_context(job.rig.opened())
        instrument.enter_context(sample_put_back(job.rig))
        output.remains = f"{job.store.folder} holds what was measured so far"
        for outcome in _measured(job, wish, output):
            outcomes.append(outcome)
            tell(outcome, output)
    run = new_run(wish.out, job.recipe.settings.name)
    write_report(run, job, outcomes)
    output.remains = ""
    _finish(run, job, outcomes, output)


# ---------------------------------------------------------------- before there is light


def open_job(path: Path, wish: Wish | None = None) -> Job:
    """Read a recipe and its rig; every problem of both at once."""
    wish = wish or Wish()
    document = parse_yaml(read_text(path), path)
    problems: list[Problem] = []
    recipe: Recipe | None = None
    rig: Rig | None = None
    try:
        with outsiders(str(path)):
            recipe = load_recipe(path)
    except InputError as error:
        problems.extend(error.problems)
    try:
        named = document.value.get("rig") if isinstance(document.value, dict) else None
        if wish.rig is not None or isinstance(named, str):
            rig = load_instrument(wish.rig or path.parent / str(named))
    except InputError as error:
        problems.extend(error.problems)
    if recipe is None or rig is None or problems:
        raise InputError(problems)
    store, steps = Store(_results(recipe, rig)), tuple(_steps(recipe, rig, wish, problems))
    job = Job(recipe, rig, store, steps)
    problems.extend(_unfounded(job))
    if problems:
        raise InputError(problems)
    return job


def _results(recipe: Recipe, rig: Rig) -> Path:
    """Where they go: as the recipe says, else as the rig says, else beside the recipe."""
    if recipe.settings.results is not None:
        return recipe.settings.results
    calibration = rig.settings.calibration
    return recipe.path.parent / "results" if calibration is None else calibration.results


def _steps(recipe: Recipe, rig: Rig, wish: Wish, problems: list[Problem]) -> Iterator[tuple[Measure, str]]:
    """Each routine in each channel, or once where the channel makes no difference."""
    known = ", ".join(name for name in rig.channels if name) or "none by name"
    channels = wish.channels or recipe.settings.channels or tuple(rig.channels)
    where = "--channel" if wish.channels else f"{recipe.path}: channels"
    problems.extend(Problem(where, f"there is no {n!r}; there are: {known}") for n in channels if n not in rig.channels)
    names = [measure.name for measure in recipe.measures]
    lacking = [name for name in wish.only if name not in names]
    problems.extend(Problem("--only", f"the recipe has no {name!r}; it has: {', '.join(names)}") for name in lacking)
    for measure in recipe.measures:
        if not wish.only or measure.name in wish.only:
            for channel in channels if measure.routine.per_channel else channels[:1]:
                if channel in rig.channels:
                    yield measure, channel


def _unfounded(job: Job) -> Iterator[Problem]:
    """Routines that need what is neither measured before them nor known."""
    beliefs = Beliefs(job.rig, job.store, datetime.now(UTC))
    known = {name: set(beliefs.of_chip(name).results) for name in dict.fromkeys(name for _, name in job.steps)}
    for measure, channel in job.steps:
        lacking = [name for name in measure.routine.needs if name not in known[channel]]
        if lacking:
            what = f"{measure.name} needs a good result of {' and '.join(lacking)}{_of(channel)}"
            yield Problem(str(job.recipe.path), f"{what}: {job.store.folder} has none, and no step before it")
        for other in known if not measure.routine.per_channel else (channel,):
            known[other].add(measure.name)


def _check_hands(job: Job, wish: Wish) -> None:
    """Somebody has to put samples in place, or have done so."""
    samples = job.samples
    if wish.yes and len(samples) > 1:
        what = (
            f"says that one sample lies there, the recipe needs {' and '.join(samples)}: take one at a time by --only"
        )
        raise InputError([Problem("--yes", what)])
    if samples and not wish.yes and not _somebody_is_there():
        told = "; ".join(f"{sample} ({SAMPLES[sample]})" for sample in samples)
        what = f"needs {told}, and there is no terminal to ask at: put it in place and say so by --yes"
        raise InputError([Problem(str(job.recipe.path), what)])


def _somebody_is_there() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _check_disk(job: Job, out: Path, steps: int) -> None:
    each = 2 * math.prod(job.rig.camera.sensor_shape) * _FRAMES
    check_room(job.store.folder, steps * each)
    check_room(out, 0)


def _cautions(job: Job) -> Iterator[str]:
    calibration, path = job.rig.settings.calibration, job.rig.file.path
    if calibration is None:
        yield f"{path} names no results, so that no run will believe these: add `calibration: {{results: FOLDER}}`"
    elif calibration.results.absolute() != job.store.folder.absolute():
        yield f"{path} believes the results in {calibration.results}; these go to {job.store.folder}"


# ---------------------------------------------------------------- light


def _measured(job: Job, wish: Wish, output: Output) -> Iterator[Outcome]:
    """Each step in turn; what fails keeps only those from being tried that need it."""
    clock, meter = job.rig.clock, HourMeter(job.rig.file)
    woke_ms, guard = clock.now_ms(), Guard(job.rig)
    work = Calibration(job.rig, job.store, guard, _asker(wish, output))
    try:
        for done, (measure, channel) in enumerate(job.steps):
            _check_disk(job, wish.out, len(job.steps) - done)
            with _bar(f"{measure.name}{_of(channel)}", output) as progress:
                outcome = work.run(measure, channel, progress)
            meter.count(work.light_on_ms, clock.now_ms() - woke_ms)
            yield outcome
    finally:
        guard.off()
        meter.count(work.light_on_ms, clock.now_ms() - woke_ms, ended=True)


def _asker(wish: Wish, output: Output) -> Callable[[Sample], None]:
    def ask(sample: Sample) -> None:
        if wish.yes:
            return
        output.say(f"put in place: {SAMPLES[sample]}. The light is off. Then press Enter; Ctrl-C ends.")
        if not sys.stdin.readline():
            raise RunError(f"nobody says that {sample} is in place: standard input has ended")
        poll()

    return ask


@contextmanager
def _bar(what: str, output: Output) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is not there before something is measured: people may be asked for something first."""
    with ExitStack() as shown:
        bars: list[Callable[[int, int], None]] = []

        def progress(done: int, total: int) -> None:
            if not bars:
                bars.append(shown.enter_context(output.progress(what)))
            bars[0](done, total)

        yield progress


# ---------------------------------------------------------------- for people


def _of(channel: str) -> str:
    return f" of {channel}" if channel not in ("", ALL_CHANNELS) else ""


def tell(outcome: Outcome, output: Output) -> None:
    """A verdict, with the checks that say so."""
    name = f"{outcome.routine}{_of(outcome.channel)}"
    if outcome.result is None:
        output.say(f"{name}: NO RESULT: {outcome.skipped}")
        return
    record = outcome.result.record
    output.say(f"{name}: {_SAID[record.verdict]}{f': {record.why}' if record.why else ''}")
    for check in record.checks:
        if check.said != "pass":
            output.say(f"{check.said:>10}  {told_check(check)}")


def told_check(check: CheckRecord) -> str:
    """With its limit, and what to do."""
    allowed = "at most" if check.refuses >= check.warns else "at least"
    value = "no number" if check.value is None else f"{check.value:.4g}"
    told = f"{check.name} is {value}, should be {allowed} {check.warns:.4g} (refused beyond {check.refuses:.4g})"
    return f"{told}; {check.advice}" if check.advice else told


def write_report(run: RunFolder, job: Job, outcomes: list[Outcome]) -> None:
    """The page of this calibration, and one beside each result."""
    from dmu_hw.view.calibration import Shown, calibration_page  # noqa: PLC0415 - matplotlib, Pillow

    recipe = read_text(job.recipe.path)
    write_whole(run.path / "recipe.yaml", recipe.encode())
    write_whole(run.rig, job.rig.file.text.encode())
    shown = [Shown.of(outcome, job.store) for outcome in outcomes]
    texts = {"recipe.yaml": recipe, "rig.yaml": job.rig.file.text}
    write_whole(run.report, calibration_page(job.recipe.settings.name, shown, texts).encode())
    for outcome, one in zip(outcomes, shown, strict=True):
        if outcome.result is not None:
            page = calibration_page(one.title, [one], {})
            write_whole(outcome.result.folder / "report.html", page.encode())


def as_json(outcome: Outcome) -> dict[str, Any]:
    """For programs."""
    told: dict[str, Any] = {"routine": outcome.routine, "channel": outcome.channel, "skipped": outcome.skipped or None}
    if outcome.result is not None:
        record = outcome.result.record
        told |= {"folder": str(outcome.result.folder), "hash": outcome.result.hash}
        told |= record.model_dump(mode="json", include={"at", "verdict", "why", "figures", "checks", "dose_mj_cm2"})
    return told


def _finish(run: RunFolder, job: Job, outcomes: list[Outcome], output: Output) -> None:
    bad = [f"{outcome.routine}{_of(outcome.channel)}" for outcome in outcomes if not outcome.good]
    good = len(outcomes) - len(bad)
    output.say(f"{good} of {len(outcomes)} good" + (f"; not: {', '.join(bad)}" if bad else ""))
    output.say(f"{run.report}: figures, pictures and what has changed; results are in {job.store.folder}")
    output.finish(
        INCOMPLETE if bad else DONE,
        outcomes=[as_json(outcome) for outcome in outcomes],
        failed=bad,
        report=str(run.report),
        results=str(job.store.folder),
    )
