"""A disk that hangs is waited for, but not for ever: who waits can still be stopped, and gives up in the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from dmu_hw.errors import RunError

STALLED_S = 60.0
"""So long a disk may take over one thing."""


def hung(path: Path, limit_s: float) -> RunError:
    """That a disk has been waited for long enough."""
    return RunError(f"{path}: nothing could be written for {limit_s:g} s: the disk hangs")


def in_the_background(work: Callable[[], None], name: str) -> Future[None]:
    """Do something in a thread that the end of the program does not wait for."""
    done: Future[None] = Future()

    def body() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told, whatever it is
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=body, name=name, daemon=True).start()
    return done


def patiently(work: Callable[[], None], path: Path) -> None:
    """Do what waits for the disk of a path; after a minute it is left to itself, and that is an error."""
    awaited(in_the_background(work, "disk"), path)


def awaited(done: Future[None], path: Path) -> None:
    """The end of what was begun in the background, waited for as long."""
    limit_s = STALLED_S
    try:
        done.result(limit_s)
    except TimeoutError:
        if done.done():
            raise  # the work itself said so
        raise hung(path, limit_s) from None
