"""What waits to be reconstructed: bounded in number and in bytes, with one answer to what happens when it is full."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dmu_hw import patience

MOST_BYTES = 256_000_000
_LOOK_S = 0.05

T = TypeVar("T")


@dataclass(frozen=True)
class _Item(Generic[T]):
    value: T
    kind: Hashable
    size_bytes: int


class Waiting(Generic[T]):
    """A queue between two threads."""

    def __init__(self, depth: int, *, newest: bool, most_bytes: int = MOST_BYTES) -> None:
        """`newest`: when it is full, what has waited longest goes; else, who puts waits for room."""
        self.depth = depth
        self.newest = newest
        self.most_bytes = most_bytes
        self.dropped = 0
        self._items: deque[_Item[T]] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._ended = False
        self._taken_s = time.monotonic()

    def __len__(self) -> int:
        return len(self._items)

    def put(self, value: T, kind: Hashable, size_bytes: int, heed: Callable[[], None] | None = None) -> None:
        """Put at the end. Who waits for room calls `heed` meanwhile, which may raise; where nothing was taken for a
        minute, nothing will be, and what is put is dropped."""
        with self._changed:
            if not self.newest:
                while self._is_full(size_bytes) and not self._ended:
                    if heed is not None:
                        heed()
                    if time.monotonic() - self._taken_s > patience.STALLED_S:
                        self.dropped += 1
                        return
                    self._changed.wait(_LOOK_S)
            if self._ended:
                self.dropped += 1
                return
            while self._is_full(size_bytes):
                self._bytes -= self._items.popleft().size_bytes
                self.dropped += 1
            if not self._items:
                self._taken_s = time.monotonic()  # nobody can be late for what was not there
            self._items.append(_Item(value, kind, size_bytes))
            self._bytes += size_bytes
            self._changed.notify_all()

    def _is_full(self, size_bytes: int) -> bool:
        return bool(self._items) and (len(self._items) >= self.depth or self._bytes + size_bytes > self.most_bytes)

    def take(self, most: Callable[[Any], int], *, patient: bool) -> list[T]:
        """Those that have waited longest, of one kind, as many of it as `most` says; none when it has ended, or at once
        if there are none and nobody is patient."""
        with self._changed:
            while patient and not self._items and not self._ended:
                self._changed.wait(_LOOK_S)
            taken: list[T] = []
            kind = self._items[0].kind if self._items else None
            while self._items and self._items[0].kind == kind and len(taken) < most(kind):
                item = self._items.popleft()
                self._bytes -= item.size_bytes
                taken.append(item.value)
            self._taken_s = time.monotonic()
            self._changed.notify_all()
            return taken

    def end(self, *, discard: bool) -> None:
        """Nothing more comes; what waits may still be taken, unless it is discarded."""
        with self._changed:
            self._ended = True
            if discard:
                self.dropped += len(self._items)
                self._items.clear()
                self._bytes = 0
            self._changed.notify_all()
