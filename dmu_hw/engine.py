"""Shots → bursts → frames. Moves, books the dose, takes the burst, hands it to a thread that writes.

The light never waits for the disk: it is off before a burst is handed over.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from dmu_hw.burst import BurstTaker
from dmu_hw.data import Burst
from dmu_hw.guard import Guard
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.plan import Plan, Shot
from dmu_hw.rig import Rig
from dmu_hw.saver import Saver
from dmu_hw.spool import Spool

_MOVE_MARGIN_MS = 5000.0
log = logging.getLogger(__name__)


@dataclass
class Counts:
    """What was asked for and what came."""

    expected: int = 0
    received: int = 0
    """Good frames, those of bursts that were taken again included."""
    saved: int = 0
    missing: int = 0
    retaken_bursts: int = 0
    unproven_bursts: int = 0
    """Stepped in hardware by a DMD that cannot tell what it showed: counts and times alone speak for the order."""
    light_on_ms: float = 0.0
    dose_mj_cm2: dict[int, float] = field(default_factory=dict)
    """Booked dose of each field."""


class Engine:
    """Runs one plan on one opened rig."""

    def __init__(self, plan: Plan, rig: Rig, spool: Spool, watch: Callable[[Shot, Burst], None] | None = None) -> None:
        """`watch` is called with every burst after its light is off."""
        self.plan = plan
        self.rig = rig
        self.spool = spool
        self.watch = watch
        self.counts = Counts(expected=plan.price.frames)
        largest = max(take.stack.count * 2 * math.prod(take.mode.shape) for take in plan.takes.values())
        self.saver = Saver(spool, largest)

    def run(self) -> Counts:
        """Take all shots; returns when every frame is on the disk."""
        guard = Guard(self.rig.light)
        self._load_patterns()
        taker = BurstTaker(self.rig, guard, self.plan.protocol.frame_timeout_ms)
        with self.saver, ExitStack() as ending:
            ending.callback(guard.off)
            self._take_all(taker)
        self.saver.raise_failure()
        self.counts.saved = self.saver.saved
        return self.counts

    def _load_patterns(self) -> None:
        """All patterns go into the DMD's memory once for the whole run, uniform light for references behind them."""
        frames = onto_mirrors(self.plan.stack, self.plan.optics, self.plan.corner_um)
        if len(self.plan.takes) > 1:
            frames = np.concatenate([frames, np.ones((1, *frames.shape[1:]), dtype=bool)])
        self.rig.dmd.load(frames)

    def _take_all(self, taker: BurstTaker) -> None:
        began_ms = self.rig.clock.now_ms()
        configured = None
        for shot in self.plan.shots:
            self.saver.raise_failure()
            self.rig.clock.sleep_ms(began_ms + shot.due_s * 1e3 - self.rig.clock.now_ms())
            self._move(shot)
            mode = self.plan.takes[shot.role].mode
            if mode != configured:
                self.rig.camera.configure(mode)
                configured = mode
            burst = self._take(taker, shot)
            self.saver.put(burst)
            if self.watch is not None:
                self.watch(shot, burst)

    def _take(self, taker: BurstTaker, shot: Shot) -> Burst:
        """A burst, taken again if it came back damaged. The dose is on the disk before the light goes on."""
        take = self.plan.takes[shot.role]
        for attempt in range(self.plan.protocol.retries + 1):
            self.spool.journal.add("light", shot=shot.index, attempt=attempt, dose_mj_cm2=take.dose_mj_cm2)
            self.spool.journal.sync()
            doses = self.counts.dose_mj_cm2
            doses[shot.position] = doses.get(shot.position, 0.0) + take.dose_mj_cm2
            self.counts.retaken_bursts += attempt > 0
            self.counts.light_on_ms += take.burst_ms
            burst = taker.take(shot, take)
            self.counts.received += len(burst.frames)
            if burst.complete:
                break
        self.counts.missing += len(burst.missing)
        if not taker.read_back:
            self._note_unproven(shot)
        return burst

    def _note_unproven(self, shot: Shot) -> None:
        if not self.counts.unproven_bursts:
            log.warning("the DMD cannot tell which patterns it showed: a trigger that it misses may go unnoticed")
        self.counts.unproven_bursts += 1
        self.spool.journal.add("unproven", shot=shot.index)

    def _move(self, shot: Shot) -> None:
        stage, focus = self.rig.stage, self.rig.focus
        if stage is not None and shot.x_um is not None and shot.y_um is not None:
            x, y = stage.position_um()
            travel_ms = stage.travel_ms(float(np.hypot(shot.x_um - x, shot.y_um - y)))
            stage.move_um(shot.x_um, shot.y_um, 2 * travel_ms + _MOVE_MARGIN_MS)
        if focus is not None and shot.z_um is not None:
            travel_ms = focus.travel_ms(abs(shot.z_um - focus.position_um()))
            focus.move_um(shot.z_um, 2 * travel_ms + _MOVE_MARGIN_MS)
