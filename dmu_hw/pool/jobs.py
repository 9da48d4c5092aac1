"""A job, what became of it, and the file that says so."""

from __future__ import annotations

import importlib
import json
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dmu_hw import __version__
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Settings, content_hash, write_whole

KEY_LENGTH = 24
"""Hex digits; ten million jobs meet with a chance of 10⁻¹⁵."""
_CALL = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_OUTPUT = "output.txt"
_TAIL_BYTES = 4000


@dataclass(frozen=True, eq=False)
class Job:
    """One call of a pure function `package.module:function`.

    It is given the configuration and a folder of its own, which outlives a kill, and returns a dict for JSON."""

    call: str
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not _CALL.fullmatch(self.call):
            raise InputError([Problem(self.call, "is no 'package.module:function'")])

    @cached_property
    def key(self) -> str:
        return content_hash({"call": self.call, "config": self.config})[:KEY_LENGTH]


class Failure(Settings):
    """Why a job has no result."""

    type: str
    message: str
    traceback: str

    def __str__(self) -> str:
        return f"{self.type}: {self.message}"


class Record(Settings):
    """What became of a job: the content of its file FOLDER/KEY.json."""

    call: str
    config: dict[str, Any]
    result: dict[str, Any] | None
    error: Failure | None
    seconds: float
    host: str
    version: str
    """Of this package."""
    finished: str

    @property
    def job(self) -> Job:
        return Job(self.call, self.config)

    @classmethod
    def now(cls, job: Job, result: dict[str, Any] | None, error: Failure | None, seconds: float) -> Record:
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(
            call=job.call,
            config=dict(job.config),
            result=result,
            error=error,
            seconds=round(seconds, 6),
            host=socket.gethostname(),
            version=__version__,
            finished=finished,
        )


@dataclass(frozen=True)
class Done:
    """A job that has come to its end."""

    job: Job
    record: Record
    kept: bool
    """It was there already."""

    @property
    def failed(self) -> bool:
        return self.record.error is not None


# ---------------------------------------------------------------- files


def path_of(job: Job, folder: Path) -> Path:
    return folder / f"{job.key}.json"


def find(job: Job, folder: Path) -> Record | None:
    """The record of a job; None if there is none, or if it is damaged."""
    return _read(path_of(job, folder))


def records(folder: Path) -> Iterator[Record]:
    """All sound records of a folder, by name."""
    for path in sorted(folder.glob(f"{'[0-9a-f]' * KEY_LENGTH}.json")):
        record = _read(path)
        if record is not None:
            yield record


def _read(path: Path) -> Record | None:
    try:
        record = Record.model_validate_json(path.read_bytes())
        sound = record.job.key == path.stem
    except (FileNotFoundError, ValidationError, InputError):
        return None
    return record if sound else None


def keep(record: Record, folder: Path) -> None:
    write_whole(path_of(record.job, folder), record.model_dump_json(indent=1).encode())


# ---------------------------------------------------------------- doing it


def perform(job: Job, folder: Path) -> Record:
    """Run a job here and keep its record. What has a record already is not run: somebody else may have been faster."""
    if (found := find(job, folder)) is not None:
        return found
    own = folder / job.key
    own.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    result: dict[str, Any] | None = None
    error: Failure | None = None
    try:
        with _printing_to(own / _OUTPUT):
            result = _checked(_function(job.call)(dict(job.config), own))
    except (Exception, SystemExit) as failure:  # noqa: BLE001 - whatever goes wrong in one of thousands is its result
        text = "".join(traceback.format_exception(failure))
        error = Failure(type=type(failure).__name__, message=_sound(str(failure)), traceback=_sound(text))
    record = Record.now(job, result, error, time.monotonic() - started)
    keep(record, folder)
    return record


def give_up(job: Job, folder: Path, why: str, tries: int) -> Record:
    """The record of a job that never came to its end."""
    message = f"{why}; tried {tries} times" if tries > 1 else why
    record = Record.now(job, None, Failure(type="Lost", message=message, traceback=_last_words(job, folder)), 0.0)
    keep(record, folder)
    return record


def _function(call: str) -> Callable[[dict[str, Any], Path], Any]:
    module, _, name = call.partition(":")
    found: Callable[[dict[str, Any], Path], Any] = getattr(importlib.import_module(module), name)
    return found


def _checked(result: Any) -> dict[str, Any]:
    """As it will be read again. Not a number is no result: a training that diverged has failed."""
    if not isinstance(result, dict):
        raise TypeError(f"a job must return a dict, not {type(result).__name__}")
    plain: dict[str, Any] = json.loads(json.dumps(result, allow_nan=False, ensure_ascii=False).encode())
    return plain


def _sound(text: str) -> str:
    """File names may hold what is no character."""
    return text.encode(errors="replace").decode()


def _last_words(job: Job, folder: Path) -> str:
    try:
        text = (folder / job.key / _OUTPUT).read_bytes()
    except FileNotFoundError:
        return ""
    return text[-_TAIL_BYTES:].decode(errors="replace")


@contextmanager
def _printing_to(path: Path) -> Iterator[None]:
    """Within, everything that goes to standard output or error, from libraries in C too, goes to a file."""
    _flush()
    before = [os.dup(number) for number in (1, 2)]
    try:
        with open(path, "ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        yield
    finally:
        _flush()
        for number, old in zip((1, 2), before, strict=True):
            os.dup2(old, number)
            os.close(old)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
