"""Ctrl-C and its like: one way out, through which every `finally` puts the light off."""

from __future__ import annotations

import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "the end of its terminal", "SIGBREAK": "Ctrl-Break"}
"""Those that a platform has, and how people know them."""


class Stopped(KeyboardInterrupt):
    """Somebody asked the program to end. No Exception, so that nothing on the way takes it for a failure."""


class _Wish:
    """That the program end, and the exception that carries it out."""

    def __init__(self) -> None:
        self.why = ""
        self.carrier: Callable[[], Stopped | None] = lambda: None

    def carry_out(self) -> None:
        """Raise, unless an exception is on its way already: that must not be disturbed while it puts the light off.
        One that somebody's bare `except` has swallowed is no more, and is raised again."""
        if self.why and self.carrier() is None:
            carrier = Stopped(self.why)
            self.carrier = weakref.ref(carrier)
            try:
                raise carrier
            finally:
                del carrier  # this frame is in its traceback: it would keep itself alive


_wishes: list[_Wish] = []
"""That of the command that runs; none outside of commands."""


def poll() -> None:
    """Raise Stopped if that was asked for and did not come through. Long work calls it now and then."""
    for wish in _wishes:
        wish.carry_out()


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, signals raise Stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wish = _Wish()

    def stop(number: int, _frame: FrameType | None) -> None:
        wish.why = _SIGNALS[signal.Signals(number).name]
        wish.carry_out()

    found = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    # who started us with a signal ignored (nohup, a background job) wants it to stay so
    before = {number: signal.signal(number, stop) for number in found if signal.getsignal(number) != signal.SIG_IGN}
    _wishes.append(wish)
    try:
        yield
    finally:
        _wishes.remove(wish)
        for number, handler in before.items():
            signal.signal(number, handler)
