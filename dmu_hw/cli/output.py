"""What a command says: people read standard error, programs read one object on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

DONE, FAILED, REFUSED, INCOMPLETE = 0, 1, 2, 3


class Output:
    """One command's voice."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def say(self, text: str) -> None:
        """A line for people."""
        print(text, file=sys.stderr)  # noqa: T201

    def finish(self, status: int, **facts: Any) -> NoReturn:
        """The end: one object for programs, and the exit status."""
        if self.as_json:
            print(json.dumps({"status": status, **facts}, allow_nan=False, default=str))  # noqa: T201
        raise SystemExit(status)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A bar with the time left, where a person can see it."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _done, _total: None
            return
        from rich.console import Console  # noqa: PLC0415 - only where somebody looks
        from rich.progress import Progress  # noqa: PLC0415

        with Progress(console=Console(stderr=True)) as bars:
            bar = bars.add_task(what, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
