"""Watches a run: looks at fringes now and then, glances at its own bursts, names what drifts, and lays the mirrors'
light back where it belongs if it may."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from dmu_hw.autofocus import sharpness
from dmu_hw.control import Aborted
from dmu_hw.data import BoolArray, Burst
from dmu_hw.focuser import Expose
from dmu_hw.fringes import Sight
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
Sharp = tuple[float, float]
"""Contrast or sharpness, and its error."""
Where = tuple[int, int]
"""Field and plane."""
_BESIDE: Where = (-1, 0)
"""All fields."""
_SURE = 5.0
log = logging.getLogger(__name__)


class Watcher:
    """What it measures is in the journal, and so is what it did. Where it cannot tell, nothing is moved."""

    def __init__(
        self,
        plan: Plan,
        rig: Rig,
        journal: Journal,
        *,
        expose: Expose,
        go: Callable[[Shot], None],
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
        self._go = go
        self._given = given
        self._now_ms = now_ms
        self._settings: Watch | None = plan.protocol.watch
        self._warned: set[str] = set()
        self._end = ""
        """Why no further burst is to be taken; empty if one may."""
        self._visit = -1
        self._looked: dict[Where, tuple[Sharp, Level]] = {}
        """The first look at each place."""
        self._lamp: Level | None = None
        """What the last look beside all fields has seen…"""
        self._fresh = False
        """…and whether no burst has been compared with it yet."""
        self._glanced: dict[tuple[str, int, int], tuple[Sharp, Level, Level | None]] = {}
        """The first burst of each field and plane in each channel, and what was known of the lamp then."""
        self._recall(past)

    def _recall(self, past: Past) -> None:
        if past.look is not None:
            self._visit = int(past.look["visit"])
            (a, b), (c, d) = past.look["laid"]["matrix"]
            x, y = past.look["laid"]["shift_um"]
            self.laid = Warp(matrix=((a, b), (c, d)), shift=(x, y))
            if past.look["light"] and tuple(past.look["where"]) == _BESIDE:
                self._lamp = _level(past.look)
        for where, line in past.looks.items():
            self._looked[where] = (line["contrast"], line["contrast_error"]), _level(line)
        for key, line in past.glances.items():
            lamp = None if line["lamp"] is None else _level(line["lamp"])
            self._glanced[key] = (line["sharpness"], line["sharpness_error"]), _level(line), lamp

    # ---------------------------------------------------------------- mirrors

    def frames(self) -> BoolArray:
        """All that the DMD is to hold, as the mirrors lie by all that is known."""
        plan = self.plan if self.laid.is_identity else _laid_over(self.plan, self.laid)
        frames, take = mirror_frames(plan), plan.watch_take
        if take is not None and take.fringes is not None:
            optics = plan.parts[take.channel].channel.optics
            self._told = take.fringes.told(frames[list(take.memory)], optics, plan.corner_um, plan.size_um)
        return frames

    # ---------------------------------------------------------------- looks

    def before(self, shot: Shot) -> None:
        """To be called where a shot is about to be taken, and with the light off: looks, if it is time. Ends the run
        where that is to be: what was taken by then is kept."""
        self._look(shot)
        if self._end:
            raise Aborted(self._end)

    def _look(self, shot: Shot) -> None:
        settings, take = self._settings, self.plan.watch_take
        if self._end or settings is None or take is None or not self._is_due(shot, settings):
            return
        where = _BESIDE if settings.at_um is not None else (shot.position, shot.z)
        dose = self._dose(take.channel, where[0])
        sight = self._sight(shot, settings, take)
        now = ((sight.contrast, sight.contrast_error), Level(sight.light, sight.light_error, dose))
        found: list[Drift] = []
        if sight.light:
            first = self._looked.setdefault(where, now)
            found += [focus_drift(settings, first[0], now[0])] if first is not now else []
            if where == _BESIDE:
                self._lamp, self._fresh = now[1], True
        found += self._away(settings, take, sight, found)
        lays = self._lays(settings, take, found)
        if lays:
            self._lay(sight)
        self._note_look(shot, where, take, sight, dose, found)
        self._tell(settings, found, "it was laid back" if lays else "")
        if sight.place is None and "" not in self._warned:
            self._warned.add("")
            log.warning("watch: a look at field %d does not tell the registration: %s", shot.position, sight.why)

    def _is_due(self, shot: Shot, settings: Watch) -> bool:
        visit = self.plan.shots.loops.visit(Stop(shot.time, shot.position, shot.z, shot.role, shot.channel))
        if visit <= self._visit:
            return False
        self._visit = visit
        return visit % settings.every == 0

    def _sight(self, shot: Shot, settings: Watch, take: Take) -> Sight:
        if settings.at_um is not None:
            x_um, y_um = settings.at_um
            self._go(replace(shot, x_um=x_um, y_um=y_um))
        burst = self._expose(shot, take)
        if settings.at_um is not None:
            self._go(shot)
        if burst is None:
            return Sight(None, "its light would exceed what the field may have")
        if not burst.complete:
            return Sight(None, burst.missing[0].reason)
        assert take.fringes is not None  # noqa: S101 - the take of a look has them
        optics = self.plan.parts[take.channel].channel.optics
        return take.fringes.read(burst.stack(), self._told, optics, self.plan.corner_um)

    def _away(self, settings: Watch, take: Take, sight: Sight, found: Iterable[Drift]) -> list[Drift]:
        """What is blurred, light from beside the field can pull aside: that tells nothing of the mirrors."""
        if sight.place is None or any(drift.beyond for drift in found):
            return []
        pixel_um = self.plan.parts[take.channel].channel.optics.sensor_pixel_um
        largest_px = sight.place.largest_um(self.plan.size_um) / pixel_um
        return [registration_drift(settings, largest_px, sight.place.error_um / pixel_um)]

    def _lays(self, settings: Watch, take: Take, found: Iterable[Drift]) -> bool:
        """Light that lies beside its place is laid back if it may be and is no more than a fringe away: what is farther
        may be farther by whole fringes, and the run ends."""
        away = next((drift for drift in found if drift.name == "registration" and drift.beyond), None)
        if away is None or settings.beyond != "register" or take.fringes is None:
            return False
        return away.value * self.plan.parts[take.channel].channel.optics.sensor_ratio <= take.fringes.period_px

    def _lay(self, sight: Sight) -> None:
        assert sight.place is not None  # noqa: S101 - there is no drift without
        (a, b), (c, d) = sight.place.matrix
        (x, y), (shift_x, shift_y) = self.plan.centre_um, sight.place.shift_um
        shift = shift_x - a * x - b * y, shift_y - c * x - d * y
        self.laid = self.laid.moved(((1 + a, b), (c, 1 + d)), shift)
        self.rig.dmd.load(self.frames())

    def _note_look(
        self, shot: Shot, where: Where, take: Take, sight: Sight, dose_mj_cm2: float, found: Iterable[Drift]
    ) -> None:
        pixel_um, place = self.plan.parts[take.channel].channel.optics.sensor_pixel_um, sight.place
        self._journal.add(
            "look",
            shot=shot.index,
            visit=self._visit,
            where=where,
            at_ms=self._now_ms(),
            shift_px=None if place is None else [value / pixel_um for value in place.shift_um],
            error_px=None if place is None else place.error_um / pixel_um,
            matrix=None if place is None else place.matrix,
            why=sight.why,
            contrast=sight.contrast,
            contrast_error=sight.contrast_error,
            **_told(Level(sight.light, sight.light_error, dose_mj_cm2)),
            drifts=[drift.as_json() for drift in found],
            laid={"matrix": self.laid.matrix, "shift_um": self.laid.shift},
        )

    # ---------------------------------------------------------------- glances

    def after(self, shot: Shot, burst: Burst) -> None:
        """To be called with every burst."""
        settings = self._settings
        if settings is None or shot.role != "patterns" or not burst.complete:
            return
        take, optics = self.plan.take_of(shot), self.plan.parts[shot.channel].channel.optics
        sharp, now = self._glance(shot, take, burst)
        if not (now.light - now.background > _SURE * now.error and math.isfinite(sharp[1])):
            return
        looks = self.plan.watch_take
        lamp = self._lamp if looks is not None and looks.channel == shot.channel else None
        first = self._glanced.setdefault((shot.channel, shot.position, shot.z), (sharp, now, lamp))
        found: list[Drift] = []
        if first[1] is now:
            self._fresh = False
        elif lamp is None or first[2] is None:
            found += light_drifts(settings, (first[1], now), None, optics.dye.bleach_dose_mj_cm2)
        elif self._fresh:  # an older look tells of the lamp as it was
            self._fresh = False
            found += light_drifts(settings, (first[1], now), (first[2], lamp), optics.dye.bleach_dose_mj_cm2)
        if looks is None and first[1] is not now and first[0][0] > _SURE * first[0][1]:
            found.append(focus_drift(settings, first[0], sharp))
        self._journal.add(
            "glance",
            shot=shot.index,
            channel=shot.channel,
            field=shot.position,
            z=shot.z,
            at_ms=self._now_ms(),
            **_told(now),
            lamp=None if lamp is None else _told(lamp),
            sharpness=sharp[0],
            sharpness_error=sharp[1],
            drifts=[drift.as_json() for drift in found],
        )
        self._tell(settings, found)

    def _glance(self, shot: Shot, take: Take, burst: Burst) -> tuple[Sharp, Level]:
        optics = self.plan.parts[shot.channel].channel.optics
        readings = Readings.of(optics, take.mode, take.stack.camera_pixel, take.power_mw)
        frames, seen = burst.stack(), take.stack.masks.mean(axis=(1, 2))
        lit = np.asarray(seen + (1 - seen) * optics.mirrors.leakage, dtype=np.float64)
        sharp = sharpness(frames, lit, optics.sensor, take.mode.binning)
        adu = float(frames.sum(dtype=np.float64)) - readings.offset_adu * frames.size
        light, background = adu / readings.gain_adu_per_e, readings.dark_adu * frames.size / readings.gain_adu_per_e
        noise = max(0.0, light) + readings.read_variance * frames.size / readings.gain_adu_per_e**2
        # sharpness is told against all light: of the dye alone it does not change when the dye fades
        more = (light / (light - background)) ** 2 if light > background else math.inf
        now = Level(light, math.sqrt(noise), self._dose(take.channel, shot.position), background)
        return (sharp.value * more, sharp.error * more), now

    # ---------------------------------------------------------------- telling

    def _tell(self, settings: Watch, found: Iterable[Drift], laid: str = "") -> None:
        """Each drift once."""
        for drift in (drift for drift in found if drift.beyond):
            registers = settings.beyond == "register" and drift.name == "registration"
            if drift.name not in self._warned:
                self._warned.add(drift.name)
                log.warning("watch: %s; %s", drift.told, laid if registers and laid else drift.advice)
            if settings.beyond == "stop":
                self._end = self._end or f"watch: {drift.told}"
            elif registers and not laid:
                self._end = self._end or f"watch: {drift.told}; it is too far to be laid back surely"

    def _dose(self, channel: str, field: int) -> float:
        """That a field has had in a channel so far, or the place beside all of them; light of other channels is taken
        to leave its dye as it is."""
        settings, take = self._settings, self.plan.watch_take
        beside = settings is not None and settings.at_um is not None and take is not None
        looks = (take.channel, take.dose_mj_cm2) if beside and take is not None else None
        if field == _BESIDE[0]:
            return sum(looks[1] * count for count in self._given.get(looks, {}).values()) if looks is not None else 0.0
        own = (key for key in self._given if key[0] == channel and key != looks)
        return sum(key[1] * self._given[key].get(field, 0) for key in own)


def _told(level: Level) -> Line:
    told = {"light": level.light, "light_error": level.error, "dose_before_mj_cm2": level.dose_mj_cm2}
    return told | ({"background": level.background} if level.background else {})


def _level(line: Line) -> Level:
    return Level(line["light"], line["light_error"], line["dose_before_mj_cm2"], line.get("background", 0.0))


def _laid_over(plan: Plan, laid: Warp) -> Plan:
    """The same plan with mirrors that lie otherwise, in all channels."""
    parts = {}
    for name, part in plan.parts.items():
        mirrors = part.channel.optics.mirrors
        moved = mirrors.model_copy(update={"to_sample": mirrors.to_sample.moved(laid.matrix, laid.shift)})
        optics = part.channel.optics.model_copy(update={"mirrors": moved})
        parts[name] = replace(part, channel=replace(part.channel, optics=optics))
    return replace(plan, parts=parts)
