"""`dmu check` and `dmu schema`."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from dmu_hw.belief import believe
from dmu_hw.cli.calibrate import open_job
from dmu_hw.cli.compare import read_contest
from dmu_hw.cli.learn import read_course
from dmu_hw.cli.output import DONE, FAILED, REFUSED, Output
from dmu_hw.cli.runs import known_run
from dmu_hw.cli.session import load_bundle, load_instrument, open_session
from dmu_hw.cli.sweep import read_sweep
from dmu_hw.contest import Contest
from dmu_hw.errors import DeviceError, InputError, Problem, SeveralDevicesError
from dmu_hw.files import parse_yaml, read_text
from dmu_hw.lesson import Lesson
from dmu_hw.lock import rig_held
from dmu_hw.protocol import AnyProtocol
from dmu_hw.recipe import RecipeSettings
from dmu_hw.rig import Rig, RigSettings
from dmu_hw.runfolder import RunFolder
from dmu_hw.store import Result, cut_in, read_result, results_in
from dmu_hw.sweep import Sweep
from dmu_hw.verify import verify
from dmu_hw.view.amounts import plural

SCHEMAS: dict[str, Any] = {
    "rig": RigSettings,
    "run": AnyProtocol,
    "train": Lesson,
    "compare": Contest,
    "sweep": Sweep,
    "calibration": RecipeSettings,
}


def check_files(files: list[Path], output: Output, *, connect: bool) -> None:
    """Look at each file by what it is; say all that is wrong with any of them."""
    problems: list[str] = []
    unreachable: list[str] = []
    for path in files:
        try:
            what, rig = _checked(path)
            if connect and rig is not None:
                what += ", its devices answer"
                with rig_held(rig.file), rig.opened():
                    pass
            if rig is not None:
                believe(rig)  # last, so that devices can be tried before anything was calibrated
        except InputError as error:
            problems.extend(str(problem) for problem in error.problems)
        except DeviceError as error:
            each = error.errors if isinstance(error, SeveralDevicesError) else [error]
            unreachable.extend(f"{path}: {one}" for one in each)
        else:
            output.say(f"{path}: sound, {what}")
    if problems or unreachable:
        output.fail(REFUSED if problems else FAILED, [*problems, *unreachable])
    output.finish(DONE, problems=[])


def _checked(path: Path) -> tuple[str, Rig | None]:
    """What a file is, and the rig of what has one; refuses what is not sound."""
    if path.is_dir():
        return (_checked_results(path) if _holds_results(path) else _checked_run(path)), None
    if path.suffix == ".dmu":
        header = load_bundle(path).header
        does = " that segments" if header.task == "segment" else ""
        patterns = f"{len(header.pattern_hashes)} {header.patterns_name} patterns"
        return f"a bundle of {patterns} for {header.model}{does}", None
    document = parse_yaml(read_text(path), path)
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if kind == "rig":
        return "a rig", load_instrument(path)
    if kind == "run":
        return "a protocol", open_session(path).rig
    if isinstance(kind, str) and kind in _WITHOUT_RIG:
        return _WITHOUT_RIG[kind](path), None
    allowed = ", ".join(SCHEMAS)
    given = "is missing" if kind is None else f"is {str(kind)[:60]!r}"
    raise InputError([Problem(document.where(("kind",)), f"key 'kind' {given}; allowed: {allowed}")])


_WITHOUT_RIG: dict[str, Callable[[Path], str]] = {
    "calibration": lambda path: f"a calibration of {plural(len(open_job(path).steps), 'step')}",
    "calibration-result": lambda path: _checked_results(path.parent),
    "train": lambda path: f"a training of {read_course(path).lesson.schedule.updates} updates",
    "compare": lambda path: f"a comparison by {len(read_contest(path).jobs)} trainings",
    "sweep": lambda path: f"a sweep of {plural(len(read_sweep(path)[1].jobs), 'trial')}",
}
"""What a file says of itself whose devices nobody opens here; whatever stands against it is refused."""


def _holds_results(path: Path) -> bool:
    return not RunFolder(path).journal.exists() and next(results_in(path), None) is not None


def _checked_results(folder: Path) -> str:
    """A store of results, or a part of it: every file is what was stored; what of it is stale by now."""
    problems: list[Problem] = []
    last: dict[Path, Result] = {}
    count = 0
    for path in results_in(folder):
        count += 1
        try:
            result = read_result(path.parent)
            result.check()
            last[path.parent.parent] = result
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(problems)
    now, told = datetime.now(UTC), f"{plural(count, 'result')} of calibrations"
    stale = [
        f"{one.record.key.routine} since {one.record.good_until:%Y-%m-%d}"
        for one in last.values()
        if one.record.is_stale(now)
    ]
    refused = [one.record.key.routine for one in last.values() if one.record.verdict == "refuse"]
    told += f"; failed: {', '.join(refused)}" if refused else ""
    told += f"; stale: {', '.join(stale)}" if stale else ""
    cut = sum(1 for _ in cut_in(folder))
    return told + (f"; {cut} more were cut while they were stored, and hold none" if cut else "")


def _checked_run(path: Path) -> str:
    findings = verify(known_run(path))
    problems = [*findings.damage, *(["the run was cut before its end"] if findings.cut and not findings.damage else [])]
    if problems:
        raise InputError([Problem("" if what.startswith(str(path)) else str(path), what) for what in problems])
    missing = f", {findings.missing:,} of them missing" if findings.missing else ""
    return f"a run of {findings.frames + findings.missing:,} frames{missing}"


def print_schema(kind: str, output: Output) -> None:
    """The JSON schema, on standard output."""
    if kind not in SCHEMAS:
        raise InputError(f"there is no schema of {kind!r}; allowed: {', '.join(SCHEMAS)}")
    schema = schema_of(kind)
    if not output.as_json:
        output.print(json.dumps(schema, indent=1))
    output.finish(DONE, schema=schema)


def schema_of(kind: str) -> dict[str, Any]:
    """For editors."""
    schema = TypeAdapter(SCHEMAS[kind]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, **schema}
