"""Ctrl-C and its like: one way out, through which every `finally` puts the light off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

_SIGNALS = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "the end of its terminal", "SIGBREAK": "Ctrl-Break"}
"""Those that a platform has, and how people know them."""


class Stopped(KeyboardInterrupt):
    """Somebody asked the program to end. No Exception, so that nothing on the way takes it for a failure."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within, the first signal raises Stopped; later ones must not disturb those who are putting the light off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if not asked:
            asked = True
            _stop(number)

    found = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    # who started us with a signal ignored (nohup, a background job) wants it to stay so
    before = {number: signal.signal(number, stop) for number in found if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop(number: int) -> NoReturn:
    raise Stopped(_SIGNALS[signal.Signals(number).name])
