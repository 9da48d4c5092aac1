"""What a command says: people read standard error, programs read one object on standard output."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, NoReturn, Protocol, TextIO

from dmu_hw.cli.stop import poll
from dmu_hw.errors import DmuError, InputError

DONE, FAILED, REFUSED, INCOMPLETE = 0, 1, 2, 3


class Audience(Protocol):
    """Who hears what people are told, beside the terminal."""

    def say(self, text: str) -> None: ...

    def stage(self, what: str, done: int = 0, total: int = 0) -> None: ...


class Output:
    """One command's voice. As a context it tells every failure in one message and a status, never in a traceback."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.known: dict[str, Any] = {}
        """Facts that programs are told however the command ends."""
        self.lights = False
        """Whether the command has a light to speak of."""
        self.remains = ""
        """What people are told to be left over when the command fails."""
        self.audience: Audience | None = None

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception | KeyboardInterrupt) and not os.environ.get("DMU_TRACEBACK"):
            status, problems = _told(error, lights=self.lights)
            self.fail(status, [*problems, *getattr(error, "__notes__", ())])

    def say(self, text: str) -> None:
        """A line for people. A run goes on when nobody listens any more."""
        _written(sys.stderr, text)
        if self.audience is not None:
            self.audience.say(text)

    def fail(self, status: int, problems: Sequence[str]) -> NoReturn:
        """The end of a command that could not do what it was asked to."""
        for problem in problems:
            self.say(f"error: {problem}")
        if self.remains:
            self.say(self.remains)
        self.finish(status, problems=list(problems))

    def finish(self, status: int, **facts: Any) -> NoReturn:
        """The end: one object for programs, and the exit status."""
        if self.as_json:
            text = json.dumps({"status": status, **self.known, **facts}, allow_nan=False, default=str)
            self.print(text)
        raise SystemExit(status)

    def print(self, text: str) -> None:
        """A result on standard output; that it could not be delivered is a failure."""
        if not _written(sys.stdout, text):
            self.say("error: nobody reads standard output any more")
            raise SystemExit(FAILED)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar with rate and time left, where a person can see it; and a place to stop at. Programs see none."""
        audience = self.audience
        if audience is not None:
            audience.stage(what)

        def told(done: int, total: int) -> None:
            poll()
            if audience is not None:
                audience.stage(what, done, total)

        if self.as_json or sys.stderr is None or not sys.stderr.isatty():
            yield told
            return
        from dmu_hw.cli.bars import bars  # noqa: PLC0415 - rich, only where somebody looks

        with bars() as shown:
            bar = shown.add_task(what, total=None)

            def advance(done: int, total: int) -> None:
                told(done, total)
                shown.update(bar, completed=done, total=total)

            yield advance


def _written(stream: TextIO | None, text: str) -> bool:
    """Whether a line went out. A pipe that broke stays broken: what still waits in its buffer is thrown away here,
    so that Python does not stumble over it at the end."""
    if stream is None:  # it was closed before we were started; print would take the other one
        return False
    try:
        print(text, file=stream, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        return False
    return True


def _told(error: BaseException, *, lights: bool) -> tuple[int, list[str]]:
    """A failure as exit status and messages."""
    match error:
        case InputError():
            return REFUSED, [str(problem) for problem in error.problems]
        case DmuError():
            return FAILED, [str(error)]
        case KeyboardInterrupt():
            return FAILED, [f"stopped by {str(error) or 'Ctrl-C'}" + ("; the light is off" if lights else "")]
        case OSError():
            why = error.strerror or str(error)
            return FAILED, [f"{error.filename}: {why}" if error.filename is not None else why]
        case _:
            return FAILED, [f"unexpected: {origin(error)} (DMU_TRACEBACK=1 shows the way there)"]


def origin(error: BaseException) -> str:
    """File and line where a failure arose, and what it says, for those who can mend it."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return f"{place}{type(error).__name__}: {error}".rstrip(": ")
