"""A serial line whose other end is a function of the test."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def line(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """A pseudo-terminal whose other end answers whatever it likes."""
    import tty

    ours, theirs = os.openpty()
    tty.setraw(theirs)

    def serve() -> None:
        while command := os.read(ours, 1000):
            if command.endswith(b"end"):  # perhaps behind a command that nobody waits for any more
                return
            os.write(ours, answer(command))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield os.ttyname(theirs)
    finally:
        os.write(theirs, b"end")
        thread.join(5.0)
        os.close(ours)
        os.close(theirs)
