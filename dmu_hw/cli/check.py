"""`dmu check` and `dmu schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dmu_hw.bundle import Bundle
from dmu_hw.cli.output import DONE, FAILED, REFUSED, Output
from dmu_hw.cli.session import open_session
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.files import parse_yaml, read_text
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig, RigSettings, load_rig
from dmu_hw.runfolder import open_run
from dmu_hw.verify import verify

SCHEMAS: dict[str, type[RigSettings] | type[Protocol]] = {"rig": RigSettings, "run": Protocol}


def check_files(files: list[Path], output: Output, *, connect: bool) -> None:
    """Look at each file by what it is; say all that is wrong with any of them."""
    problems: list[str] = []
    unreachable: list[str] = []
    for path in files:
        try:
            rig = _check(path)
            if connect and rig is not None:
                rig.open()
                rig.close()
        except InputError as error:
            problems.extend(str(problem) for problem in error.problems)
        except DeviceError as error:
            unreachable.append(f"{path}: {error}")
        else:
            output.say(f"{path}: sound")
    for problem in (*problems, *unreachable):
        output.say(f"error: {problem}")
    output.finish(REFUSED if problems else FAILED if unreachable else DONE, problems=[*problems, *unreachable])


def _check(path: Path) -> Rig | None:
    """Refuses what is not sound; the rig of what has one."""
    if path.is_dir():
        findings = verify(open_run(path))
        if findings.damage or findings.cut:
            raise InputError([Problem(str(path), what) for what in findings.damage or ["the run was cut"]])
        return None
    if path.suffix == ".dmu":
        Bundle.load(path)
        return None
    document = parse_yaml(read_text(path), path)
    kind = document.value.get("kind") if isinstance(document.value, dict) else None
    if kind == "rig":
        return Rig(load_rig(path))
    if kind == "run":
        session = open_session(path)
        _ = session.plan
        return session.rig
    allowed = ", ".join(SCHEMAS)
    raise InputError([Problem(document.where(("kind",)), f"kind must be one of: {allowed}; given {kind!r}")])


def print_schema(kind: str) -> None:
    """The JSON schema, on standard output."""
    if kind not in SCHEMAS:
        raise InputError(f"kind must be one of: {', '.join(SCHEMAS)}; given {kind!r}")
    schema: dict[str, Any] = SCHEMAS[kind].model_json_schema()
    print(json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1))  # noqa: T201
