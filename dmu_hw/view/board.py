"""The latest state of what is viewed. Whoever works puts it here and goes on; viewers look when they have time.

Nobody is woken and nothing is queued: to put something costs the same whether nobody looks or many do, and a slow
viewer finds the newest when he comes. What costs time (making thumbnails, bytes) is done when the first viewer asks for
it, and once for all of them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Literal

from dmu_hw.view.wire import Pixels, packed

Level = Literal["note", "caution", "error"]
Made = tuple[Mapping[str, Any], Pixels | None]
_MESSAGES = 50


@dataclass(frozen=True, eq=False)
class Post:
    """One kind of news, the newest of it."""

    kind: str
    number: int
    """Counts all that was put."""
    make: Callable[[], Made]
    every_s: float
    """To one viewer not more often."""
    at: float
    """When it was put, seconds since 1970."""

    def encoded(self) -> bytes:
        """As it is sent, made once for all viewers."""
        return self._message

    @cached_property
    def _message(self) -> bytes:
        header, pixels = self.make()
        return packed({"kind": self.kind, "at": self.at, **header}, pixels)


@dataclass
class Seen:
    """What one viewer has had of each kind: its number, and when."""

    numbers: dict[str, int] = field(default_factory=dict)
    sent_s: dict[str, float] = field(default_factory=dict)

    def note(self, post: Post, now_s: float) -> None:
        self.numbers[post.kind] = post.number
        self.sent_s[post.kind] = now_s


class Board:
    """Thread-safe."""

    def __init__(self) -> None:
        self.viewers = 0
        """How many look now."""
        self._lock = threading.Lock()
        self._posts: dict[str, Post] = {}
        self._number = 0
        self._said: deque[dict[str, Any]] = deque(maxlen=_MESSAGES)

    def put(self, kind: str, make: Callable[[], Made], every_s: float = 0.0) -> None:
        """The newest of a kind. `make` is called later, or never, in another thread: what it reads must not change."""
        with self._lock:
            self._number += 1
            self._posts[kind] = Post(kind, self._number, make, every_s, _today_s())

    def tell(self, kind: str, header: Mapping[str, Any]) -> None:
        """The same of a few words or numbers."""
        self.put(kind, lambda: (header, None))

    def say(self, text: str, level: Level = "note") -> None:
        """A line for people; the last few are kept."""
        with self._lock:
            self._said.append({"at": _today_s(), "level": level, "text": text})
            lines = list(self._said)
        self.tell("messages", {"lines": lines})

    def next(self, seen: Seen, now_s: float) -> Post | None:
        """What a viewer has not seen and waits for longest."""
        with self._lock:
            posts = list(self._posts.values())
        new = (
            post
            for post in posts
            if post.number > seen.numbers.get(post.kind, 0) and now_s >= seen.sent_s.get(post.kind, -1e9) + post.every_s
        )
        return min(new, key=lambda post: post.number, default=None)


def _today_s() -> float:
    """The moment as people's clocks tell it."""
    return datetime.now(UTC).timestamp()
