"""Watches a run: looks at fringes now and then, or at its own bursts, names what drifts, and lays the mirrors' light
back where it belongs if it may."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from dmu_hw.autofocus import sharpness
from dmu_hw.control import Aborted
from dmu_hw.data import BoolArray, Burst
from dmu_hw.focuser import Expose
from dmu_hw.fringes import Place, Sight
from dmu_hw.journal import Journal, Line
from dmu_hw.loops import Stop
from dmu_hw.marker import Readings
from dmu_hw.past import Past
from dmu_hw.physics.warp import Warp
from dmu_hw.plan import Plan, Shot, Take
from dmu_hw.rig import Rig
from dmu_hw.upload import mirror_frames
from dmu_hw.watch import Drift, Level, Watch, focus_drift, light_drifts, registration_drift

Given = Mapping[tuple[str, float], Mapping[int, int]]
"""By channel and dose of a burst: how many of them each field has had."""
Contrast = tuple[float, float]
_SURE = 5.0
log = logging.getLogger(__name__)


class Watcher:
    """What it measures is in the journal, and so is what it did. Where it cannot tell, nothing is moved."""

    def __init__(
        self,
        plan: Plan,
        rig: Rig,
        journal: Journal,
        expose: Expose,
        given: Given,
        now_ms: Callable[[], float],
        past: Past,
    ) -> None:
        """`given` is kept up to date by others; `past` is what earlier lives of the run have seen."""
        self.plan = plan
        self.rig = rig
        self.laid = Warp()
        """What lies over the believed map of the mirrors."""
        self._journal = journal
        self._expose = expose
        self._given = given
        self._now_ms = now_ms
        self._settings: Watch | None = plan.protocol.watch
        self._parts = _parts(plan)
        self._warned: set[str] = set()
        self._visit = -1
        self._looked: dict[tuple[int, int], tuple[Contrast, tuple[Level, ...]]] = {}
        """The first look at each field and plane."""
        self._glanced: dict[tuple[str, int, int], tuple[Contrast, Level]] = {}
        """The first burst of each field and plane in each channel."""
        self._recall(past)

    def _recall(self, past: Past) -> None:
        if past.look is not None:
            self._visit = int(past.look["visit"])
            (a, b), (c, d) = past.look["laid"]["matrix"]
            x, y = past.look["laid"]["shift_um"]
            self.laid = Warp(matrix=((a, b), (c, d)), shift=(x, y))
        for (field, plane), line in past.looks.items():
            self._looked[field, plane] = (line["contrast"], line["contrast_error"]), _levels(line)
        for key, line in past.glances.items():
            self._glanced[key] = (line["sharpness"], line["sharpness_error"]), _levels(line)[0]

    # ---------------------------------------------------------------- mirrors

    def frames(self) -> BoolArray:
        """All that the DMD is to hold, as the mirrors lie by all that is known."""
        plan = self.plan if self.laid.is_identity else _laid_over(self.plan, self.laid)
        frames = mirror_frames(plan)
        take = plan.watch_take
        if take is not None and take.fringes is not None:
            optics = plan.parts[take.channel].channel.optics
            self._told = take.fringes.told(frames[list(take.memory)], optics, plan.corner_um, plan.size_um)
        return frames

    # ---------------------------------------------------------------- looks

    def before(self, shot: Shot) -> None:
        """To be called where a shot is about to be taken, and with the light off: looks, if it is time."""
        settings, take = self._settings, self.plan.watch_take
        if settings is None or take is None or not self._is_due(shot, settings):
            return
        levels = tuple(self._dose(take.channel, shot.position, part) for part in range(len(self._parts_of(take))))
        sight = self._sight(shot, take)
        first = self._looked.get((shot.position, shot.z))
        found = list(self._drifts(settings, take, sight, first, levels))
        self._answer(settings, take, sight, found)
        if first is None and sight.light:
            now = tuple(Level(*one) for one in zip(sight.light, sight.light_error, levels, strict=True))
            self._looked[shot.position, shot.z] = (sight.contrast, sight.contrast_error), now
        self._note(shot, take, sight, levels, found)
        self._tell(settings, found, sight.place)
        if sight.why and "" not in self._warned:
            self._warned.add("")
            log.warning("watch: a look at field %d does not tell the registration: %s", shot.position, sight.why)

    def _is_due(self, shot: Shot, settings: Watch) -> bool:
        visit = self.plan.shots.loops.visit(Stop(shot.time, shot.position, shot.z, shot.role, shot.channel))
        if visit <= self._visit:
            return False
        self._visit = visit
        return visit % settings.every == 0

    def _sight(self, shot: Shot, take: Take) -> Sight:
        burst = self._expose(shot, take)
        if burst is None:
            return Sight(None, "its light would exceed what the field may have")
        if not burst.complete:
            return Sight(None, burst.missing[0].reason)
        assert take.fringes is not None  # noqa: S101 - a look's take has them
        optics = self.plan.parts[take.channel].channel.optics
        return take.fringes.read(burst.stack(), self._told, optics, self.plan.corner_um)

    def _drifts(
        self,
        settings: Watch,
        take: Take,
        sight: Sight,
        first: tuple[Contrast, tuple[Level, ...]] | None,
        doses: tuple[float, ...],
    ) -> Iterator[Drift]:
        optics = self.plan.parts[take.channel].channel.optics
        blurred = False
        if first is not None and sight.light:
            contrast, levels = first
            focus = focus_drift(settings, contrast, (sight.contrast, sight.contrast_error))
            blurred = focus.beyond
            yield focus
            now = tuple(Level(*one) for one in zip(sight.light, sight.light_error, doses, strict=True))
            yield from light_drifts(settings, levels, now, optics.dye.bleach_dose_mj_cm2)
        if sight.place is not None and not blurred:  # what is blurred, light from beside the field can pull aside
            pixel_um = optics.sensor_pixel_um
            largest_px = sight.place.largest_um(self.plan.size_um) / pixel_um
            yield registration_drift(settings, largest_px, sight.place.error_um / pixel_um)

    def _answer(self, settings: Watch, take: Take, sight: Sight, found: Iterable[Drift]) -> None:
        """Light that lies beside its place is laid back, if it may be and is no more than a fringe away: what is
        farther may be farther by whole fringes."""
        away = next((drift for drift in found if drift.name == "registration" and drift.beyond), None)
        if away is None or settings.beyond != "register" or sight.place is None or not self._is_near(away, take):
            return
        (a, b), (c, d) = sight.place.matrix
        (x, y), (shift_x, shift_y) = self.plan.centre_um, sight.place.shift_um
        shift = shift_x - a * x - b * y, shift_y - c * x - d * y
        self.laid = self.laid.moved(((1 + a, b), (c, 1 + d)), shift)
        self.rig.dmd.load(self.frames())

    def _is_near(self, away: Drift, take: Take) -> bool:
        ratio = self.plan.parts[take.channel].channel.optics.sensor_ratio
        return take.fringes is not None and away.value * ratio <= take.fringes.period_px

    def _note(self, shot: Shot, take: Take, sight: Sight, doses: tuple[float, ...], found: Iterable[Drift]) -> None:
        pixel_um = self.plan.parts[take.channel].channel.optics.sensor_pixel_um
        place = sight.place
        self._journal.add(
            "look",
            shot=shot.index,
            visit=self._visit,
            field=shot.position,
            z=shot.z,
            at_ms=self._now_ms(),
            shift_px=None if place is None else [value / pixel_um for value in place.shift_um],
            matrix=None if place is None else place.matrix,
            why=sight.why,
            contrast=sight.contrast,
            contrast_error=sight.contrast_error,
            light=sight.light,
            light_error=sight.light_error,
            doses_mj_cm2=doses,
            drifts=[drift.as_json() for drift in found],
            laid={"matrix": self.laid.matrix, "shift_um": self.laid.shift},
        )

    # ---------------------------------------------------------------- glances

    def after(self, shot: Shot, burst: Burst) -> None:
        """To be called with every burst: without looks, it is all that there is to tell by."""
        settings = self._settings
        if settings is None or settings.every or shot.role != "patterns" or not burst.complete:
            return
        take, part = self.plan.take_of(shot), self.plan.parts[shot.channel]
        optics = part.channel.optics
        readings = Readings.of(optics, take.mode, take.stack.camera_pixel, take.power_mw)
        frames, seen = burst.stack(), take.stack.masks.mean(axis=(1, 2))
        lit = np.asarray(seen + (1 - seen) * optics.mirrors.leakage, dtype=np.float64)
        sharp = sharpness(frames, lit, optics.sensor, take.mode.binning)
        adu = frames.astype(np.float64) - readings.offset_adu
        light = float(adu.sum() - readings.dark_adu * adu.size) / readings.gain_adu_per_e
        noise = max(0.0, float(adu.sum())) / readings.gain_adu_per_e
        noise += readings.read_variance * adu.size / readings.gain_adu_per_e**2
        if not (light > _SURE * math.sqrt(noise) and math.isfinite(sharp.error)):
            return
        now = Level(light, math.sqrt(noise), self._dose(take.channel, shot.position, 0))
        key = shot.channel, shot.position, shot.z
        first = self._glanced.setdefault(key, ((sharp.value, sharp.error), now))
        found = list(light_drifts(settings, (first[1],), (now,), optics.dye.bleach_dose_mj_cm2))
        if first[0][0] > _SURE * first[0][1]:
            found.append(focus_drift(settings, first[0], (sharp.value, sharp.error)))
        self._journal.add(
            "glance",
            shot=shot.index,
            channel=shot.channel,
            field=shot.position,
            z=shot.z,
            at_ms=self._now_ms(),
            light=[light],
            light_error=[now.error],
            doses_mj_cm2=[now.dose_mj_cm2],
            sharpness=sharp.value,
            sharpness_error=sharp.error,
            drifts=[drift.as_json() for drift in found],
        )
        self._tell(settings, found, None)

    # ---------------------------------------------------------------- telling

    def _tell(self, settings: Watch, found: Iterable[Drift], place: Place | None) -> None:
        """Each drift once; the end of the run, where it is to end."""
        for drift in found:
            if not drift.beyond:
                continue
            registers = settings.beyond == "register" and drift.name == "registration" and place is not None
            near = registers and self.plan.watch_take is not None and self._is_near(drift, self.plan.watch_take)
            if drift.name not in self._warned:
                self._warned.add(drift.name)
                log.warning("watch: %s%s", drift, "; it was laid back" if near else "")
            if settings.beyond == "stop" or (registers and not near):
                why = "" if settings.beyond == "stop" else ", and too far to be laid back surely"
                raise Aborted(f"watch: {drift}{why}")

    # ---------------------------------------------------------------- dose

    def _dose(self, channel: str, field: int, part: int) -> float:
        """That a place of a field has had in a channel so far; light of others is taken to leave its dye as it is."""
        given = ((dose, fields.get(field, 0)) for (name, dose), fields in self._given.items() if name == channel)
        parts = self._parts
        return sum(dose * count * parts.get((channel, dose), (1.0, 1.0, 1.0))[part] for dose, count in given)

    def _parts_of(self, take: Take) -> tuple[float, ...]:
        return self._parts[take.channel, take.dose_mj_cm2]


def _parts(plan: Plan) -> dict[tuple[str, float], tuple[float, ...]]:
    """By channel and dose of a burst: how much of the mean dose of the field falls where looks look."""
    take = plan.watch_take
    if take is None or take.fringes is None:
        return {}
    takes = [*plan.parts[take.channel].takes.values(), take]
    return {(one.channel, one.dose_mj_cm2): take.fringes.parts(one.stack) for one in takes}


def _levels(line: Line) -> tuple[Level, ...]:
    told: list[Any] = [line["light"], line["light_error"], line["doses_mj_cm2"]]
    return tuple(Level(*one) for one in zip(*told, strict=True))


def _laid_over(plan: Plan, laid: Warp) -> Plan:
    """The same plan with mirrors that lie otherwise in all channels."""
    parts = {}
    for name, part in plan.parts.items():
        mirrors = part.channel.optics.mirrors
        moved = mirrors.model_copy(update={"to_sample": mirrors.to_sample.moved(laid.matrix, laid.shift)})
        optics = part.channel.optics.model_copy(update={"mirrors": moved})
        parts[name] = replace(part, channel=replace(part.channel, optics=optics))
    return replace(plan, parts=parts)
