"""Shots → bursts → frames. Moves, books the dose, takes the burst, hands it to a thread that writes.

The light never waits for the disk: it is off before a burst is handed over.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np

from dmu_hw.burst import REPEATED, BurstTaker
from dmu_hw.control import Aborted, Control
from dmu_hw.counts import Counts
from dmu_hw.data import Burst, Missing
from dmu_hw.focuser import Focuser
from dmu_hw.guard import Guard
from dmu_hw.ledger import Ledger
from dmu_hw.pace import Pace
from dmu_hw.past import Past
from dmu_hw.plan import Plan, Shot, Take
from dmu_hw.ports import CameraMode
from dmu_hw.proof import Verdict
from dmu_hw.rig import Rig
from dmu_hw.saver import Saver
from dmu_hw.spool import Spool
from dmu_hw.survey import Survey
from dmu_hw.suspicion import DOUBTED
from dmu_hw.watcher import Watcher
from dmu_hw.wheels import Wheels

_MOVE_MARGIN_MS = 5000.0
_LATE_MS = 1.0
"""What is less is no lateness."""
log = logging.getLogger(__name__)


class Engine:
    """Runs one plan on one opened rig."""

    def __init__(
        self,
        plan: Plan,
        rig: Rig,
        spool: Spool,
        watch: Callable[[Shot, Burst], None] | None = None,
        control: Control | None = None,
        *,
        past: Past | None = None,
        elapsed_ms: float = 0.0,
        memory: Callable[[], dict[str, Any]] = dict,
        survey: Survey | None = None,
    ) -> None:
        """`watch` is called with every burst after its light is off; `control` pauses and aborts. Of a run that was cut
        before, `past` says what is done and `elapsed_ms` how far its time has come; `memory` is noted with every burst
        for those who go on."""
        self.control = control or Control()
        self.plan = plan
        self.rig = rig
        self.spool = spool
        self.watch = watch
        self.past = past or Past()
        self.elapsed_ms = elapsed_ms
        self.memory = memory
        self.survey = survey
        self.counts = self.past.counts
        self.counts.expected = plan.price.frames
        self._mode: CameraMode | None = None
        self.ledger = Ledger(spool.journal, plan, rig.settings, self.counts.dose_mj_cm2, self.past.given)
        self.wheels = Wheels(rig)
        largest = max(take.stack.count * 2 * math.prod(take.mode.shape) for take in plan.all_takes)
        self.saver = Saver(spool, largest)
        self.guard: Guard | None = None
        """Of the lights, while it runs; whoever must have darkness may call its `off`."""

    def run(self) -> Counts:
        """Take all shots; returns when every frame is on the disk."""
        guard = self.guard = Guard(self.rig)
        taker = BurstTaker(self.rig, guard, self.plan.protocol.frame_timeout_ms, self._heed)
        watcher = Watcher(
            self.plan,
            self.rig,
            self.spool.journal,
            expose=lambda shot, take: self._look(taker, shot, take),
            go=self._move,
            given=self.ledger.given,
            now_ms=lambda: self.rig.clock.now_ms() + self.spool.offset_ms,
            past=self.past,
        )
        self.rig.dmd.load(watcher.frames())
        pace = Pace(self.rig.clock, self.control, self.spool.journal, lambda: self._darken(guard))
        pace.elapsed(self.elapsed_ms)
        self.spool.journal.add("started", zero_ms=pace.zero_ms + self.spool.offset_ms)
        self.spool.journal.add("guarded", **guarded(self.plan, self.rig))
        for name, part in self.plan.parts.items():
            if part.channel.name:
                self.spool.journal.add("channel", channel=name, means=part.channel.as_json())
        with self.saver, ExitStack() as ending:
            ending.callback(self.ledger.give_back)
            ending.callback(guard.off)
            try:
                self._take_all(taker, pace, watcher)
            except Aborted as stop:
                self.counts.aborted = str(stop)
        self.saver.raise_failure()
        self.counts.saved += self.saver.saved
        if self.counts.aborted:
            self.counts.missing = self.counts.expected - self.counts.saved
            self.spool.journal.add("aborted", reason=self.counts.aborted)
        return self.counts

    def _heed(self) -> None:
        """While frames are waited for: with the light on, the disk has time for the dose of the next burst."""
        self.ledger.book_next()
        self.control.check()

    def _darken(self, guard: Guard) -> None:
        """For a pause: whatever lit it, no light reaches the sample."""
        guard.off()
        self.rig.dmd.show(None)

    def _take_all(self, taker: BurstTaker, pace: Pace, watcher: Watcher) -> None:
        loop = None
        focuser = Focuser(
            self.plan,
            self.rig,
            self.spool.journal,
            lambda shot, take: self._look(taker, shot, take),
            self._move,
            self.past.focus,
        )
        for shot, following in _with_next(shot for shot in self.plan.shots if shot.index not in self.past.sealed):
            if self.survey is not None and not self.survey.wants(shot, self.control.check):
                self.counts.expected -= self.plan.take_of(shot).stack.count
                continue
            self.saver.raise_failure()
            if shot.time != loop:
                self._note_lateness(shot, pace.late_ms(shot))
                loop = shot.time
            pace.wait(shot)
            aimed = focuser.aim(shot)
            self._move(aimed)
            watcher.before(aimed)
            self._prepare(self.plan.take_of(shot))
            burst = self._take(taker, shot, following)
            watcher.after(shot, burst)
            self.saver.put(burst)
            if self.survey is not None:
                self.survey.look(shot, burst, self.control.check)
            if self.watch is not None:
                self.watch(shot, burst)

    def _prepare(self, take: Take) -> None:
        """In the dark: nothing turns while there is light."""
        self.wheels.select(self.plan.parts[take.channel].channel)
        if take.mode != self._mode:
            self.rig.camera.configure(take.mode)
            self._mode = take.mode

    def _expose(self, taker: BurstTaker, shot: Shot, take: Take, *, heeding: bool = False) -> Burst:
        """No frame is kept that may have been exposed through another filter."""
        burst = taker.take(shot, take, heeding=heeding)
        self.wheels.confirm(self.plan.parts[take.channel].channel)
        return burst

    def _look(self, taker: BurstTaker, shot: Shot, take: Take) -> Burst | None:
        """A burst for the autofocus: its dose is booked as any other's, and its frames are not kept."""
        if self.ledger.refusal(shot, take):
            return None
        self._prepare(take)
        self.ledger.book(shot, 0, take)
        self.counts.light_on_ms += take.burst_ms
        return self._expose(taker, shot, take)

    def _take(self, taker: BurstTaker, shot: Shot, following: Shot | None) -> Burst:
        """A burst, taken again if it came back damaged. The dose is on the disk before the light goes on; where there
        must not be more of it, there is no light."""
        take = self.plan.take_of(shot)
        burst: Burst | None = None
        said: list[str] = []
        for attempt in range(self.plan.protocol.retries + 1):
            refusal = self.ledger.refusal(shot, take)
            if refusal:
                burst = _not_taken(shot, take, burst, refusal)
                break
            self.ledger.book(shot, attempt, take)
            if attempt == 0 and following is not None:
                self._expect(following, shot, take)
            self.counts.retaken_bursts += attempt > 0
            self.counts.light_on_ms += take.burst_ms
            again = attempt < self.plan.protocol.retries and not self.ledger.refusal(shot, take)
            heeding = again and self.past.suspicion.heeds and DOUBTED not in said
            burst = self._expose(taker, shot, take, heeding=heeding)
            self._note_taken(shot, attempt, burst, taker)
            said += [taker.verdict.said] if taker.verdict is not None else []
            if burst.complete:
                break
        self.past.suspicion.note(said)
        assert burst is not None  # noqa: S101 - there is one attempt at least
        for missing in burst.missing:
            self.counts.miss(missing.reason)
        if burst.frames and not taker.proven:
            self._note_unproven(shot, taker.verdict)
        return burst

    def _expect(self, shot: Shot, before: Shot, take: Take) -> None:
        """To be booked ahead, but for what may never come: fields that are still to be chosen. What the burst before it
        may need to be taken again is left to it."""
        if shot.role != "chosen":
            kept = self.plan.protocol.retries * take.dose_mj_cm2 if shot.position == before.position else 0.0
            self.ledger.expect(shot, self.plan.take_of(shot), kept)

    def _note_taken(self, shot: Shot, attempt: int, burst: Burst, taker: BurstTaker) -> None:
        """What came of the light, and what a simulated world needs to know when the run is resumed."""
        received, at_ms = len(burst.frames), self.rig.clock.now_ms()
        duplicates = sum(missing.reason == REPEATED for missing in burst.missing)
        self.counts.received += received
        self.counts.duplicates += duplicates
        facts: dict[str, Any] = {"attempt": attempt, "received": received, "duplicates": duplicates}
        if burst.frames:
            facts["rests_on"] = taker.rests_on
        if taker.verdict is not None:
            facts["proof"] = taker.verdict.as_json()
        self.spool.journal.add("taken", shot=shot.index, **facts, at_ms=at_ms + self.spool.offset_ms, **self.memory())

    def _note_lateness(self, shot: Shot, late_ms: float) -> None:
        """A time point that should have begun before now; without intervals there is nothing to be late for."""
        if shot.due_s > 0 and late_ms > _LATE_MS:
            self.counts.come_late(late_ms / 1e3)
            self.spool.journal.add("late", shot=shot.index, late_s=late_ms / 1e3)

    def _note_unproven(self, shot: Shot, verdict: Verdict | None) -> None:
        why = "" if verdict is None else f", and {verdict.why}"
        if not self.counts.unproven_bursts:
            log.warning("the DMD cannot tell which patterns it showed%s: a wrong one may go unnoticed", why)
        self.counts.unproven_bursts += 1
        self.spool.journal.add("unproven", shot=shot.index)

    def _move(self, shot: Shot) -> None:
        stage, focus = self.rig.stage, self.rig.focus
        if stage is not None and shot.x_um is not None and shot.y_um is not None:
            (x_low, _), (y_low, _) = stage.limits_um
            ways = self.rig.mechanics.ways(stage.position_um(), (shot.x_um, shot.y_um), (x_low, y_low))
            for x_um, y_um in ways:
                x, y = stage.position_um()
                travel_ms = stage.travel_ms(float(np.hypot(x_um - x, y_um - y)))
                stage.move_um(x_um, y_um, 2 * travel_ms + _MOVE_MARGIN_MS)
        if focus is not None and shot.z_um is not None:
            travel_ms = focus.travel_ms(abs(shot.z_um - focus.position_um()))
            focus.move_um(shot.z_um, 2 * travel_ms + _MOVE_MARGIN_MS)


def _with_next(shots: Iterable[Shot]) -> Iterator[tuple[Shot, Shot | None]]:
    """Each with the one that comes after it."""
    before: Shot | None = None
    for shot in shots:
        if before is not None:
            yield before, shot
        before = shot
    if before is not None:
        yield before, None


def guarded(plan: Plan, rig: Rig) -> dict[str, Any]:
    """What puts the lights of a run off if this computer dies."""
    lights = dict.fromkeys(part.channel.light for part in plan.parts.values())
    watchdogs = {name: rig.lights[name].watchdog_ms for name in lights}
    if len(watchdogs) > 1:
        return {"watchdogs_ms": watchdogs, "unwatched_accepted": rig.unwatched_light}
    return {"watchdog_ms": next(iter(watchdogs.values())), "unwatched_accepted": rig.unwatched_light}


def _not_taken(shot: Shot, take: Take, before: Burst | None, refusal: str) -> Burst:
    """A burst that may have no light, or none once more: then what came of it before is all that there is."""
    if before is None:
        return Burst(shot.index, (), tuple(Missing(pattern, refusal) for pattern in range(take.stack.count)))
    missing = (Missing(gap.pattern, f"{gap.reason}; not taken again: {refusal}") for gap in before.missing)
    return Burst(shot.index, before.frames, tuple(missing))
