"""What goes wrong in a hook: pycromanager's engine would lose it."""

from __future__ import annotations

import threading
from types import TracebackType


class Faults:
    """As a context it keeps whatever is raised in it; from several threads."""

    def __init__(self) -> None:
        self._kept: list[BaseException] = []
        self._told = 0
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._kept)

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.keep(error)
        return isinstance(error, Exception)

    def keep(self, error: BaseException) -> None:
        with self._lock:
            self._kept.append(error)

    def fresh(self) -> list[str]:
        """Those that were not told yet. They go on to count."""
        with self._lock:
            found, self._told = self._kept[self._told :], len(self._kept)
        return [str(error) or type(error).__name__ for error in found]
