"""Keeps a run in focus: compares planes now and then, and moves all that follow to where it was sharpest."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from dmu_hw.autofocus import Autofocus, Peak, Plane, Sharpness, peak, plane_through, sharpness
from dmu_hw.data import Burst
from dmu_hw.journal import Journal, Line
from dmu_hw.loops import Stop
from dmu_hw.plan import Plan, Shot, Take
from dmu_hw.rig import Rig

log = logging.getLogger(__name__)
Expose = Callable[[Shot, Take], Burst | None]
"""Takes a burst that is not kept; None where its light is refused."""


class Focuser:
    """What it found is a shift of all planes. Where it cannot tell, the focus stays, and the journal says why."""

    def __init__(
        self, plan: Plan, rig: Rig, journal: Journal, expose: Expose, go: Callable[[Shot], None], before: Line | None
    ) -> None:
        """`before` is what an earlier life of the run noted last."""
        self.plan = plan
        self.rig = rig
        self.shift_um: float = 0.0 if before is None else before["shift_um"]
        self._journal = journal
        self._expose = expose
        self._go = go
        self._visit = -1 if before is None else int(before["visit"])
        self._searched_ms: float | None = None
        self._found_um: dict[int, float] = {}
        """Shift of each field that was focused in this time point."""
        self._time = -1
        self._tilt: Plane | None = None

    def aim(self, shot: Shot) -> Shot:
        """The shot at the height where it is sharp."""
        settings, take = self.plan.protocol.autofocus, self.plan.focus_take
        if settings is None or take is None or shot.z_um is None:
            return shot
        if self._is_due(shot, settings):
            self._search(shot, settings, take)
        return replace(shot, z_um=self._within(shot.z_um + self._shift_of(shot)))

    def _is_due(self, shot: Shot, settings: Autofocus) -> bool:
        visit = self.plan.shots.loops.visit(Stop(shot.time, shot.position, shot.z, shot.role, shot.channel))
        if visit <= self._visit:
            return False
        self._visit = visit
        if settings.every_min is None:
            return visit % settings.fields == 0
        now_ms = self.rig.clock.now_ms()
        if self._searched_ms is not None and now_ms - self._searched_ms < settings.every_min * 60e3:
            return False
        self._searched_ms = now_ms
        return True

    def _search(self, shot: Shot, settings: Autofocus, take: Take) -> None:
        nominal_um = self.plan.shots.places[shot.position].z_um or 0.0
        around_um = nominal_um + self._shift_of(shot)
        planes_um = [around_um + offset for offset in settings.offsets_um()]
        planes_um = [z_um for z_um in planes_um if z_um == self._within(z_um)]
        found: list[Sharpness | None] = []
        refused = False
        for z_um in planes_um:
            self._go(replace(shot, z_um=z_um))
            burst = self._expose(shot, take)
            refused = burst is None
            if refused:
                break
            found.append(self._look(burst, take))
        best = Peak(None, "its light would exceed what the field may have") if refused else peak(planes_um, found)
        if best.z_um is not None:
            self._take_over(shot, best.z_um - nominal_um)
        else:
            log.warning("field %d: the focus stays at %.4g µm: %s", shot.position, around_um, best.why)
        self._note(shot, planes_um, found, best)

    def _look(self, burst: Burst | None, take: Take) -> Sharpness | None:
        if burst is None or not burst.complete:
            return None
        optics, seen = self.plan.parts[take.channel].channel.optics, take.stack.masks.mean(axis=(1, 2))
        lit = np.asarray(seen + (1 - seen) * optics.mirrors.leakage, dtype=np.float64)
        return sharpness(burst.stack(), lit, optics.sensor, take.mode.binning)

    def _take_over(self, shot: Shot, shift_um: float) -> None:
        if shot.time != self._time:
            self._time, self._found_um = shot.time, {}
        self._found_um[shot.position] = shift_um
        self.shift_um = shift_um
        settings = self.plan.protocol.autofocus
        if settings is not None and settings.tilt:
            places = ((self.plan.shots.places[field], shift) for field, shift in self._found_um.items())
            points = [(place.x_um, place.y_um, shift) for place, shift in places]
            known = [(x, y, shift) for x, y, shift in points if x is not None and y is not None]
            self._tilt = plane_through(known) or self._tilt

    def _shift_of(self, shot: Shot) -> float:
        """That of the plane through all that was found, moved to what was found last; else the last one."""
        if self._tilt is None or shot.x_um is None or shot.y_um is None or shot.position in self._found_um:
            return self._found_um.get(shot.position, self.shift_um) if shot.time == self._time else self.shift_um
        return self._tilt.at(shot.x_um, shot.y_um)

    def _within(self, z_um: float) -> float:
        """As far as the drive goes."""
        assert self.rig.focus is not None  # noqa: S101 - the plan has refused rigs without
        low, high = self.rig.focus.limits_um
        return min(max(z_um, low), high)

    def _note(self, shot: Shot, planes_um: list[float], found: list[Sharpness | None], best: Peak) -> None:
        self._journal.add(
            "focus",
            shot=shot.index,
            visit=self._visit,
            planes_um=planes_um[: len(found)],
            sharpness=[None if sharp is None else sharp.value for sharp in found],
            z_um=best.z_um,
            why=best.why,
            shift_um=self.shift_um,
        )
