"""`dmu calibrate --again`: what was measured then, fitted by the routine as it is now."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from dmu_hw.calibrate import Outcome, fit_again
from dmu_hw.cli.calibrate import as_json, tell
from dmu_hw.cli.output import DONE, INCOMPLETE, Output
from dmu_hw.cli.session import outsiders
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, validate, write_whole
from dmu_hw.recipe import Measure, load_recipe
from dmu_hw.routine import routine_of
from dmu_hw.runfolder import new_run
from dmu_hw.store import Record, Result, Store, read_result, results_in


def fit_result(folder: Path, recipe: Path | None, output: Output, *, out: Path | None, keep: bool) -> None:
    """Say what is found otherwise than then; keep it as a new result if that is wanted."""
    result = read_result(folder)
    result.check()
    measure = _measure(result, recipe)
    store = _store(result) if keep else None
    with outsiders(f"{folder}: the routine {measure.name}"):
        finding, record = fit_again(measure, result)
    for line in _differences(result.record, record):
        output.say(line)
    output.known["changed"] = record.verdict != result.record.verdict or bool(list(_moved(result.record, record)))
    made = result if store is None else store.add(record, result.evidence(), finding.arrays if finding else {})
    outcome = Outcome(measure.name, record.key.channel, Result(made.folder, record, made.hash), finding, result)
    tell(outcome, output)
    if store is not None:
        output.say(f"{made.folder}: kept as a new result")
    if out is not None:
        output.known["report"] = str(_report(out, outcome))
    told = as_json(outcome) | {"then": result.record.model_dump(mode="json", include={"verdict", "why", "figures"})}
    output.finish(DONE if outcome.good else INCOMPLETE, outcomes=[told], kept=store is not None)


def _measure(result: Result, recipe: Path | None) -> Measure:
    """The routine with the settings of then, or with those of a recipe."""
    name, path = result.record.key.routine, result.folder / "result.yaml"
    if recipe is not None:
        with outsiders(str(recipe)):
            found = [measure for measure in load_recipe(recipe).measures if measure.name == name]
        if not found:
            raise InputError([Problem(str(recipe), f"has no routine {name}, which {result.folder} is of")])
        return found[0]
    named, where = result.record.named, f"{path}: named"
    if named.endswith(".py"):
        hint = f"{named} lies beside a recipe, which must be named: dmu calibrate RECIPE --again RESULT"
        raise InputError([Problem(where, hint)])
    document = Document({**result.record.settings}, {}, path, ("settings",))
    with outsiders(where):
        routine = routine_of(named, document, where)
        settings = validate(document, routine.Settings)
        return Measure(name, named, routine(settings), settings, result.record.valid_days)  # type: ignore[call-arg]


def _store(result: Result) -> Store:
    """The one that a result lies in, whose last one of its kind it is."""
    key, folder = result.record.key, result.folder.absolute()
    store = Store(folder.parents[4])
    paths = [path.parent for path in results_in(folder.parent)]
    if folder.parts[-5:-1] != (key.rig, key.objective, key.channel or "only", key.routine):
        raise InputError([Problem(str(folder), "does not lie in a folder of results, where another could be kept")])
    if folder != max(paths):
        what = f"was measured before {max(paths).name}, which is what counts: fit that one again to keep what is found"
        raise InputError([Problem(str(folder), what)])
    return store


def _differences(then: Record, now: Record) -> Iterator[str]:
    """Figure by figure."""
    if then.verdict != now.verdict or then.why != now.why:
        yield f"then {_verdict(then)}, now {_verdict(now)}"
    moved = list(_moved(then, now))
    for name, was, found in moved:
        by = "" if was is None or found is None else f" ({found - was:+.3g})"
        yield f"{name:>28}  {_told(was)} → {_told(found)}{by}"
    if not moved:
        yield f"all {len(now.figures)} figures are as they were"


def _moved(then: Record, now: Record) -> Iterator[tuple[str, float | None, float | None]]:
    """Figures that are others than then, beyond what another machine computes otherwise."""
    for name in dict.fromkeys([*then.figures, *now.figures]):
        was, found = then.figures.get(name), now.figures.get(name)
        if was is None or found is None or not math.isclose(was, found, rel_tol=1e-9, abs_tol=1e-99):
            yield name, was, found


def _told(value: float | None) -> str:
    return "not there" if value is None else f"{value:.6g}"


def _verdict(record: Record) -> str:
    return record.verdict + (f" ({record.why})" if record.why else "")


def _report(out: Path, outcome: Outcome) -> Path:
    from dmu_hw.view.calibration import Shown, calibration_page  # noqa: PLC0415 - matplotlib, Pillow

    run = new_run(out, f"{outcome.routine}-again")
    page = calibration_page(f"{outcome.routine}, fitted again", [Shown.again(outcome)], {})
    write_whole(run.report, page.encode())
    return run.report
