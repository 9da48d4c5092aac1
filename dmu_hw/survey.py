"""What a survey saw decides what is imaged once more. Estimates are made in a thread while the rig goes on in the dark
between its bursts; a few bursts may wait for it, and saving waits for none."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

import numpy as np

from dmu_hw.choosing import Chooser, Seen
from dmu_hw.data import Burst, Estimate, Uint16Array
from dmu_hw.errors import RunError
from dmu_hw.journal import Journal
from dmu_hw.plan import Plan, Shot
from dmu_hw.spool import SpoolReader
from dmu_hw.writer import bursts

_WAITING = 4
"""Bursts whose estimate may be waited for; the next one is held up, dark, until there is room."""
_HEED_S = 0.05


class Survey:
    """Keeps scores and choices of a run, and repeats those of an earlier life of it. As a context it has its thread."""

    def __init__(
        self,
        plan: Plan,
        chooser: Chooser,
        estimate: Callable[[Uint16Array], Estimate],
        journal: Journal,
        scores: Mapping[int, float],
        chosen: Mapping[int, tuple[int, ...]],
    ) -> None:
        """`plan` is that of the channel that is looked at; `scores` by shot and `chosen` fields by time point are what
        the journal tells of before."""
        self.plan = plan
        self.chooser = chooser
        self.chosen: dict[int, tuple[int, ...]] = dict(chosen)
        self._estimate = estimate
        self._journal = journal
        self._scores = dict(scores)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="survey")
        self._room = threading.Semaphore(_WAITING)
        self._pending: list[Future[None]] = []

    def __enter__(self) -> Survey:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self, shot: Shot, burst: Burst, heed: Callable[[], None]) -> None:
        """Have a burst of the survey scored; one that is not whole gets no score."""
        if not self._surveys(shot) or not burst.complete:
            return
        while not self._room.acquire(timeout=_HEED_S):
            heed()
        self._pending = [work for work in self._pending if not work.done() or work.exception() is not None]
        self._pending.append(self._pool.submit(self._score_and_make_room, shot, burst))

    def catch_up(self, journal: Path, spool: Path) -> None:
        """Score what was sealed before the run was cut and has no score yet."""
        reader = SpoolReader(spool)
        try:
            for lines in bursts(journal):
                shot = self.plan.shots[lines[0]["shot"]]
                if not self._surveys(shot) or shot.time in self.chosen or shot.index in self._scores:
                    continue
                if all(line["kind"] == "frame" for line in lines):
                    ordered = sorted(lines, key=lambda line: int(line["pattern"]))
                    self._score(shot, np.stack([reader.frame(line) for line in ordered]))
        finally:
            reader.close()

    def wants(self, shot: Shot, heed: Callable[[], None]) -> bool:
        """Whether a shot is to be taken; the first that depends on it waits for all scores of its time point."""
        if shot.role != "chosen":
            return True
        if shot.time not in self.chosen:
            self._finish(heed)
            self._choose(shot.time)
        return shot.position in self.chosen[shot.time]

    def _surveys(self, shot: Shot) -> bool:
        return shot.role == "patterns" and self.plan.concerns(shot)

    def _finish(self, heed: Callable[[], None]) -> None:
        for work in self._pending:
            while True:
                heed()
                try:
                    work.result(timeout=_HEED_S)
                except TimeoutError:
                    if work.done():
                        raise
                    continue
                break
        self._pending = []

    def _score_and_make_room(self, shot: Shot, burst: Burst) -> None:
        try:
            self._score(shot, burst.stack())
        finally:
            self._room.release()

    def _score(self, shot: Shot, frames: Uint16Array) -> None:
        try:
            estimate = self._estimate(frames)
            seen = Seen(shot.time, shot.position, shot.z, shot.x_um, shot.y_um)
            score = float(self.chooser.score(estimate, seen))
        except Exception as error:
            raise RunError(f"the survey of field {shot.position} failed: {type(error).__name__}: {error}") from error
        if not math.isfinite(score):
            raise RunError(f"the chooser gave {score} for field {shot.position}: that is no score")
        self._scores[shot.index] = score
        self._journal.add("scored", burst=shot.index, score=score)

    def _choose(self, time: int) -> None:
        """On the disk before the first burst that follows from it, so that a run that is resumed chooses the same."""
        scores: dict[int, list[float]] = {}
        for index, score in sorted(self._scores.items()):
            shot = self.plan.shots[index]
            if shot.time == time:
                scores.setdefault(shot.position, []).append(score)
        try:
            fields = sorted({int(field) for field in self.chooser.choose(scores)})
        except Exception as error:
            raise RunError(f"choosing at time {time} failed: {type(error).__name__}: {error}") from error
        if fields and not (fields[0] >= 0 and fields[-1] < self.plan.positions):
            raise RunError(f"the chooser chose field {fields[-1]}; there are 0 to {self.plan.positions - 1}")
        self.chosen[time] = tuple(fields)
        self._scores = {}
        self._journal.add("chosen", time=time, fields=fields)
        self._journal.sync()
