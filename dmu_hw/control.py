"""What people want of a run while it goes on: pause, go on, abort. Anybody may say it, from any thread or process."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

from dmu_hw.errors import RunError
from dmu_hw.files import write_whole
from dmu_hw.moves import move

State = Literal["running", "paused", "aborting"]
Word = Literal["pause", "go", "abort"]
"""What may stand in the control file of a run folder; after `abort` a reason may follow."""

_LOOK_S = 0.05
_ANSWER_S = 3.0
_LONGEST_REASON = 200
log = logging.getLogger(__name__)


class Aborted(RunError):  # noqa: N818 - what happened, not what went wrong
    """Carries an abort out of whatever the engine is doing; the engine itself takes it."""


class Control:
    """Thread-safe. The engine heeds it before each burst and while it waits; an abort also within a burst."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._state: State = "running"
        self._reason = ""

    @property
    def state(self) -> State:
        return self._state

    def pause(self) -> None:
        """Take no further burst until `resume`; light off and mirrors dark meanwhile."""
        self._go_to("paused")

    def resume(self) -> None:
        self._go_to("running")

    def abort(self, reason: str) -> None:
        """End the run at once, in the dark; nothing takes it back."""
        with self._changed:
            if self._state != "aborting":
                self._reason = reason
        self._go_to("aborting")

    def check(self) -> None:
        """Raise Aborted if that is what somebody wants."""
        if self._state == "aborting":
            raise Aborted(self._reason)

    def wait_while_paused(self) -> None:
        """Return when the pause has ended, in one way or the other. Wakes now and then, so that Ctrl-C comes through
        on every system."""
        with self._changed:
            while self._state == "paused":
                self._changed.wait(_LOOK_S)

    def _go_to(self, state: State) -> None:
        with self._changed:
            if self._state != "aborting":
                self._state = state
            self._changed.notify_all()


# ---------------------------------------------------------------- from other processes, through a file


@contextmanager
def listening(path: Path, control: Control) -> Iterator[None]:
    """Within, what is written into a file is passed on; that the file is gone says that it was obeyed. A thread of its
    own looks: a disk that hangs does not hold up the engine."""
    ended = threading.Event()
    listener = threading.Thread(target=_listen, args=(path, control, ended), name="control", daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join(timeout=1.0)


def send(path: Path, word: Word, reason: str = "", *, timeout_s: float = _ANSWER_S) -> bool:
    """Write an order and wait until it was obeyed; False, and nothing left behind, if nobody listens."""
    write_whole(path, f"{word} {reason}".strip().encode())
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if not path.exists() and not _in_hand(path).exists():
            return True
        time.sleep(_LOOK_S / 2)
    try:
        path.unlink()
    except FileNotFoundError:
        return True  # taken in the last moment
    return False


def _in_hand(path: Path) -> Path:
    """Where an order lies while it is obeyed: the sender can then no longer take it back."""
    return path.with_name(f"{path.name}.taken")


def _listen(path: Path, control: Control, ended: threading.Event) -> None:
    """A file that cannot be moved or read yet is looked at again."""
    taken = _in_hand(path)
    while not ended.wait(_LOOK_S):
        with contextlib.suppress(OSError):
            move(path, taken)
            _obey(taken.read_bytes()[: 2 * _LONGEST_REASON].decode(errors="replace"), control)
            taken.unlink()


def _obey(text: str, control: Control) -> None:
    word, _, reason = text.strip().partition(" ")
    match word:
        case "pause":
            control.pause()
        case "go":
            control.resume()
        case "abort":
            control.abort(reason[:_LONGEST_REASON] or "no reason given")
        case _:
            log.warning("the control file says %r; it may say: %s", word[:40], ", ".join(get_args(Word)))
