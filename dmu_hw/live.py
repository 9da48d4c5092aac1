"""Reconstruction while the run goes on: bursts wait in a bounded queue, one thread makes estimates of them, and whoever
subscribed is told.

To subscribe, before the run or while it goes on, from any thread:

    live.listen(listener)           # listener(outcome: Outcome) -> None

It is called from the thread of `Live` with one `Outcome` after the other, in the order of the bursts; it should hand on
quickly, for while it works nothing is reconstructed. What it raises is counted and goes no further. `live.counts` and
`live.latencies` may be looked at from any thread, and `live.told()` puts both in words for programs.

Nothing here can end a run, and it never holds up who saves; only with `policy: every` does the engine wait for room.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import torch

from dmu_hw import patience
from dmu_hw.counts import count_reason
from dmu_hw.data import Burst, Estimate, Uint16Array
from dmu_hw.lane import Lane, Pending
from dmu_hw.latency import Latencies
from dmu_hw.pursuit import Pursuit
from dmu_hw.waiting import Waiting

_WARMING_S = 300.0
_LOOK_S = 0.1
_LAST_S = 2.0
"""So long after the run, what waits is still made where the newest win."""
_MOST_THREADS = 8
log = logging.getLogger(__name__)


class Shown(Protocol):
    """What is told of a shot; a `plan.Shot` is one."""

    @property
    def index(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def position(self) -> int: ...
    @property
    def time(self) -> int: ...
    @property
    def z(self) -> int: ...
    @property
    def x_um(self) -> float | None: ...
    @property
    def y_um(self) -> float | None: ...
    @property
    def z_um(self) -> float | None: ...
    @property
    def channel(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of one burst."""

    shot: Shown
    channel: str
    """Its name; empty in a run that has one only."""
    estimate: Estimate
    latency_ms: float
    """From the moment at which the engine handed over the burst, its light off and its frames on their way to the disk,
    to the estimate."""
    frames: Uint16Array
    """(pattern, y, x), what it was made of."""


Listener = Callable[[Outcome], None]


@dataclass
class LiveCounts:
    """Of bursts that there is a reconstructor for."""

    bursts: int = 0
    made: int = 0
    dropped: int = 0
    """Left out, since others were waiting that are newer."""
    incomplete: int = 0
    """Frames are missing."""
    failed: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Why they failed."""
    deaf: int = 0
    """Times that a listener raised something."""

    def fail(self, reason: str, count: int) -> None:
        self.failed += count
        count_reason(self.reasons, reason, count)


Kind = tuple[str, str]
"""Channel and role of a shot."""


@dataclass(frozen=True, eq=False)
class _Item:
    """A burst in the queue."""

    shot: Shown
    burst: Burst
    since_s: float

    @property
    def kind(self) -> Kind:
        return self.shot.channel, self.shot.role


@dataclass(frozen=True, eq=False)
class _Batch:
    """Bursts that were submitted together."""

    items: list[_Item]
    frames: list[Uint16Array]
    lane: Lane
    pending: Pending


class Live:
    """As a context it has its thread: entering it returns when all is warm, leaving it when nothing waits any more."""

    def __init__(self, settings: Pursuit, lanes: Callable[[], Mapping[Kind, Lane]], kinds: Sequence[Kind]) -> None:
        """`lanes` makes what reconstructs bursts of those kinds; it is called in the thread."""
        self.settings = settings
        self.counts = LiveCounts()
        self.latencies = Latencies(settings.budget_ms)
        self._kinds = frozenset(kinds)
        self._make_lanes = lanes
        self._lanes: Mapping[Kind, Lane] = {}
        self._listeners: list[Listener] = []
        self._waiting: Waiting[_Item] = Waiting(settings.depth, newest=settings.policy == "newest")
        self._warm = threading.Event()
        self._thread = threading.Thread(target=self._live, name="live", daemon=True)
        self._useless = False
        """Whether there is nothing to reconstruct with."""

    def listen(self, listener: Listener) -> None:
        """Tell somebody every outcome from now on."""
        self._listeners = [*self._listeners, listener]

    def __enter__(self) -> Live:
        self._thread.start()
        until_s = time.monotonic() + _WARMING_S
        while not self._warm.wait(_LOOK_S) and time.monotonic() < until_s:
            pass  # so often Ctrl-C comes through, on every system
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """What waits is made; not where a failure is to be told, nor behind an inverse that hangs, and where the newest
        win, not for long: somebody else may want the instrument."""
        self._waiting.end(discard=error is not None)
        made, began_s = -1, time.monotonic()
        since_s = began_s
        while self._thread.is_alive():
            self._thread.join(_LOOK_S)
            if made != self.counts.made:
                made, since_s = self.counts.made, time.monotonic()
            if self._waiting.newest and time.monotonic() - began_s > _LAST_S:
                self._waiting.end(discard=True)
            if time.monotonic() - since_s > (1.0 if error is not None else patience.STALLED_S):
                self._waiting.end(discard=True)
                log.warning("the inverse hangs: it is left to itself")
                self._give_up()
                break
        self.counts.dropped = self._waiting.dropped

    def _give_up(self) -> None:
        """What was under way will not come any more."""
        counts, waiting = self.counts, self._waiting
        under_way = counts.bursts - counts.made - counts.incomplete - counts.failed - waiting.dropped
        if under_way > 0:
            counts.fail("the inverse hangs", under_way)

    def put(self, shot: Shown, burst: Burst, heed: Callable[[], None] | None = None) -> None:
        """Hand over a burst; one that nothing here reconstructs is passed over. Where every burst counts, this may wait
        for room, and `heed` is called meanwhile."""
        kind = (shot.channel, shot.role)
        if kind not in self._kinds:
            return
        self.counts.bursts += 1
        if self._useless:
            self.counts.failed += 1
            return
        if not burst.complete:
            self.counts.incomplete += 1
            return
        size_bytes = sum(frame.pixels.nbytes for frame in burst.frames)
        self._waiting.put(_Item(shot, burst, time.perf_counter()), kind, size_bytes, heed)
        self.counts.dropped = self._waiting.dropped

    def told(self) -> dict[str, Any]:
        """For manifests and programs."""
        lanes = {" ".join(filter(None, kind)): lane for kind, lane in self._lanes.items()}
        return {
            "policy": self.settings.policy,
            "device": next((str(lane.device) for lane in lanes.values()), None),
            **{
                name: getattr(self.counts, name)
                for name in ("bursts", "made", "dropped", "incomplete", "failed", "reasons")
            },
            "latency_ms": self.latencies.as_json(),
            "latencies": [[round(most_ms, 3), count] for most_ms, count in self.latencies.bars()],
            "budget_ms": self.settings.budget_ms,
            "budget_kept": self.latencies.kept,
            "late": self.latencies.late,
            "at_once": {name: lane.batch for name, lane in lanes.items()},
            "half_cost_db": {name: lane.half_cost_db for name, lane in lanes.items()},
        }

    # ---------------------------------------------------------------- in the thread

    def _live(self) -> None:
        with _threads():
            try:
                self._lanes = self._make_lanes()
                for lane in self._lanes.values():
                    lane.warm()
            except Exception as error:  # noqa: BLE001 - whatever an inverse does, the run goes on without it
                self._useless = True
                self._fail(error, 0)
            finally:
                self._warm.set()
            if not self._useless:
                self._reconstruct()

    def _reconstruct(self) -> None:
        """Until the run has ended and nothing is left."""
        under_way: deque[_Batch] = deque()
        while True:
            items = self._waiting.take(lambda kind: self._lanes[kind].batch, patient=not under_way)
            if not items and not under_way:
                return
            if items and (batch := self._begin(items)) is not None:
                under_way.append(batch)
            while under_way and (not items or len(under_way) > under_way[0].lane.ahead):
                self._end(under_way.popleft())

    def _begin(self, items: list[_Item]) -> _Batch | None:
        try:
            lane, frames = self._lanes[items[0].kind], [item.burst.stack() for item in items]
            lane.reconstructor.tells_spread = bool(self._listeners)
            return _Batch(items, frames, lane, lane.submit(frames))
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error, len(items))
            return None

    def _end(self, batch: _Batch) -> None:
        try:
            estimates = batch.lane.fetch(batch.pending)
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error, len(batch.items))
            return
        now_s = time.perf_counter()  # finer than the other one on Windows
        for item, frames, estimate in zip(batch.items, batch.frames, estimates, strict=True):
            latency_ms = (now_s - item.since_s) * 1e3
            self.counts.made += 1
            self.latencies.add(latency_ms)
            self._tell(Outcome(item.shot, item.shot.channel, estimate, latency_ms, frames))

    def _tell(self, outcome: Outcome) -> None:
        for listener in self._listeners:
            try:
                listener(outcome)
            except Exception:  # who only looks on cannot do any harm
                if not self.counts.deaf:
                    log.warning("somebody who listens to reconstructions failed", exc_info=True)
                self.counts.deaf += 1

    def _fail(self, error: Exception, count: int) -> None:
        reason = f"{type(error).__name__}: {error}"
        if reason not in self.counts.reasons:
            log.warning("live reconstruction failed: %s", reason)
        self.counts.fail(reason, count)


@contextmanager
def _threads() -> Iterator[None]:
    """Within, torch leaves a core to those who acquire and save where there are more than two: they need little of one.
    What it is told in one thread holds for that thread, and for threads that come later."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(_MOST_THREADS, before, max(2, (os.cpu_count() or 2) - 1)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
