"""To make it dark: something is told, asked, and told again, in a thread of its own. No Ctrl-C reaches such threads,
and a driver that hangs keeps nobody waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_TRIES = 3
OFF_S = 0.3
"""All tries together, beside the time that a device needs by itself."""
log = logging.getLogger(__name__)


class Source:
    """Something that light comes from, or comes through: a light, a shutter."""

    def __init__(
        self, name: str, put_off: Callable[[], object], is_on: Callable[[], bool], needs_s: float = 0.0
    ) -> None:
        """`needs_s` is what it takes to obey once."""
        self.name = name
        self.put_off = put_off
        self.is_on = is_on
        self.patience_s = OFF_S + _TRIES * needs_s
        self.dark = threading.Event()
        """Set whenever it is found dark; whoever waits for that puts a new one here first."""
        self.turn = threading.Lock()


@dataclass
class Attempt:
    """To put one source off. What counts is what is read back, whatever became of the command."""

    source: Source
    begun: bool = False
    over: threading.Event = field(default_factory=threading.Event)
    dark: bool = False
    tries: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def work(self) -> None:
        """Thread. A second one of the same attempt finds it done."""
        self.begun = True
        with self.source.turn:
            while not self.dark and self.tries < _TRIES:
                self._tell()
            if self.dark:
                self.source.dark.set()
        self.over.set()

    def _tell(self) -> None:
        self.tries += 1
        try:
            self.source.put_off()
        except BaseException as error:  # noqa: BLE001 - whatever a driver raises, the light is asked and told again
            self.failures.append(error)
        try:
            self.dark = not self.source.is_on()
        except BaseException as error:  # noqa: BLE001 - the same
            self.failures.append(error)


def put_off(attempts: Sequence[Attempt], more_s: float = 0.0) -> list[Attempt]:
    """All at once; those that failed, or did not end in their time and `more_s`. Called again after an interrupt it
    goes on where it was."""
    for attempt in attempts:
        if not attempt.begun:
            begin(attempt.work)
    began_s = time.monotonic()
    for attempt in attempts:
        attempt.over.wait(max(0.0, began_s + attempt.source.patience_s + more_s - time.monotonic()))
    return [attempt for attempt in attempts if not attempt.dark]


@dataclass
class Way:
    """Another way to keep light from the sample, tried for a moment."""

    name: str
    block: Callable[[], object]
    begun: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)

    def begin(self) -> None:
        """Once; waits for nothing."""
        if not self.begun:
            begin(self._work)

    def waited(self) -> bool:
        """Whether it has come to its end, and went well."""
        return self.over.wait(OFF_S) and not self.failures

    def worked(self) -> bool:
        """The same, for those who have no other hope."""
        if self.waited():
            return True
        why = self.failures[0] if self.failures else "no answer"
        log.critical("%s cannot keep the light away either: %s", self.name, why)
        return False

    def _work(self) -> None:
        """Thread. A second one finds it done."""
        self.begun = True
        with self.turn:
            if self.over.is_set():
                return
            try:
                self.block()
            except BaseException as error:  # noqa: BLE001 - the other ways must get their turn
                self.failures.append(error)
            self.over.set()


def begin(work: Callable[[], None]) -> None:
    """In a thread of its own; where the system gives none any more, here."""
    try:
        threading.Thread(target=work, daemon=True).start()
    except RuntimeError:
        work()
