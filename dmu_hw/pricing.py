"""What a run costs: time, light, dose and disk, told before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from dmu_hw.data import PatternStack
from dmu_hw.loops import Axis, Role
from dmu_hw.plan import Price, Shots, Take
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig
from dmu_hw.routes import Place

_FRAME_OVERHEAD_BYTES = 700
"""Journal line and TIFF directory of one frame."""


@dataclass(frozen=True)
class Pricing:
    """What shots cost: each place and each time point as much as any other, but for the ways and the wait."""

    protocol: Protocol
    rig: Rig
    stack: PatternStack
    takes: dict[Role, Take]
    shots: Shots
    focus_take: Take | None = None

    def price(self) -> Price:
        loops = self.shots.loops
        upload_s = self.rig.dmd.upload_ms(self._memory_frames()) / 1e3
        searches = self._searches(upload_s)
        time_s, late_s = self._time_s(upload_s, searches)
        light_s = sum(count * self.takes[role].burst_ms for role, count in self._bursts.items()) / 1e3
        looks = 0
        if self.focus_take is not None and self.protocol.autofocus is not None:
            looks = searches * self.protocol.autofocus.planes
            light_s += looks * self.focus_take.burst_ms / 1e3
        frames = sum(count * self.takes[role].stack.count for role, count in self._bursts.items())
        frame_bytes = sum(
            count * take.stack.count * (2 * math.prod(take.mode.shape) + _FRAME_OVERHEAD_BYTES)
            for role, count in self._bursts.items()
            for take in (self.takes[role],)
        )
        image_bytes = 4 * math.prod(self.protocol.field_px) * loops.places * (1 + len(loops.then))
        dose = sum(count / loops.fields * self.takes[role].dose_mj_cm2 for role, count in self._bursts.items())
        if self.focus_take is not None and self.protocol.autofocus is not None:
            dose += self._searches_of_a_field(searches) * self.protocol.autofocus.planes * self.focus_take.dose_mj_cm2
        # raw data lie in the spool and in the store until the store has been checked
        disk_bytes = 2 * frame_bytes + image_bytes
        compression = self.stack.compression
        return Price(loops.places, frames, time_s, upload_s, light_s, disk_bytes, dose, compression, looks, late_s)

    @property
    def _bursts(self) -> dict[Role, int]:
        """How many there are of each role."""
        loops = self.shots.loops
        counts = dict.fromkeys((*loops.roles, *loops.then), loops.places)
        if loops.bleaching:
            counts["bleaching"] = loops.fields * loops.bleaching_of_a_field()
        return counts

    def _memory_frames(self) -> int:
        return 1 + max(place for take in self.takes.values() for place in take.memory)

    # ---------------------------------------------------------------- time

    def _time_s(self, upload_s: float, searches: int) -> tuple[float, float]:
        """How long it all takes, and how late the last time point of a series begins."""
        loops, places, offsets = self.shots.loops, self.shots.places, self.shots.offsets_um
        outside, inside = self._axes()
        # nobody knows where the stage stands before it is opened: the way from its origin is as good a guess as any
        approach_s = self._hop_s(Place(0.0, 0.0), places[0])
        approach_s += self._refocus_s(0.0, None if places[0].z_um is None else places[0].z_um + offsets[0])
        series = math.prod(loops.size(axis) for axis in outside)
        rounds = 1 + bool(loops.then)
        point_s = rounds * self._ways_s(inside) + (rounds - 1) * self._again_s(inside) + self._light_s()
        point_s += searches * self._search_s() / (series * loops.times)
        again_s = self._again_s(inside)
        between_s = self._ways_s(outside, inner=("time", *inside))
        total_s, late_s = 0.0, 0.0
        # the way to the first field of a series falls into its first interval, as it does in the run
        for count, first_way_s in ((1, approach_s), (series - 1, between_s / max(1, series - 1))):
            ends_s = 0.0
            for time in range(loops.times if count else 0):
                due_s = self.shots.timing.due_s(time)
                late_s = max(late_s, ends_s - due_s) if time else late_s
                ends_s = max(ends_s, due_s) + (again_s if time else first_way_s) + point_s
            total_s += count * ends_s
        return upload_s + total_s, late_s if self.shots.timing.has_intervals else 0.0

    def _light_s(self) -> float:
        """The bursts of one time point, on average."""
        loops = self.shots.loops
        series = math.prod(loops.size(axis) for axis in self._axes()[0])
        bursts_s = sum(count * self.takes[role].burst_ms for role, count in self._bursts.items()) / 1e3
        return bursts_s / (series * loops.times)

    # ---------------------------------------------------------------- autofocus

    def _searches(self, upload_s: float) -> int:
        """How many there are; of those that come by the clock, how many there are at most."""
        autofocus, visits = self.protocol.autofocus, self.shots.loops.visits
        if autofocus is None or self.focus_take is None:
            return 0
        if autofocus.every_min is None:
            return -(-visits // autofocus.fields)
        time_s, _ = self._time_s(upload_s, 0)
        return min(visits, math.ceil(min(time_s / 60 / autofocus.every_min, 1e9)) + 1)

    def _searches_of_a_field(self, searches: int) -> int:
        """At the field that gets most of them, or at most where that depends on the clock."""
        autofocus, loops = self.protocol.autofocus, self.shots.loops
        if autofocus is None or autofocus.every_min is not None or loops.order != ("time", "field", "z"):
            return min(searches, loops.visits // loops.fields)
        return -(-loops.times * math.gcd(autofocus.fields, loops.fields) // autofocus.fields)

    def _search_s(self) -> float:
        """One search: down, up plane by plane, and back."""
        autofocus = self.protocol.autofocus
        if autofocus is None or self.focus_take is None:
            return 0.0
        ways_s = 2 * self._refocus_s(0.0, autofocus.offsets_um()[-1])
        ways_s += (autofocus.planes - 1) * self._refocus_s(0.0, autofocus.step_um)
        return ways_s + autofocus.planes * self.focus_take.burst_ms / 1e3

    def _axes(self) -> tuple[tuple[Axis, ...], tuple[Axis, ...]]:
        """The loops outside of time, and those inside of it."""
        order = self.shots.loops.order
        time = order.index("time")
        return order[:time], order[time + 1 :]

    def _ways_s(self, axes: tuple[Axis, ...], inner: tuple[Axis, ...] = ()) -> float:
        """All moves while some loops run once; `inner` are those inside of them, which start anew each time."""
        total_s, turns = 0.0, 1
        for number, axis in enumerate(axes):
            within = (*axes[number + 1 :], *inner)
            total_s += turns * self._steps_s(axis, within)
            turns *= self.shots.loops.size(axis)
        return total_s

    def _steps_s(self, axis: Axis, within: tuple[Axis, ...]) -> float:
        """All steps of one turn of a loop."""
        if axis == "time":
            return (self.shots.loops.times - 1) * self._again_s(within)
        if axis == "field":
            offsets = self.shots.offsets_um
            back_um = offsets[0] - offsets[-1] if "z" in within else 0.0
            pairs = pairwise(self.shots.places)
            return sum(self._hop_s(here, there) + self._reset_s(here, there, back_um) for here, there in pairs)
        first, last = self.shots.places[0], self.shots.places[-1]
        if "field" not in within:
            last = first
        steps = pairwise(self.shots.offsets_um)
        return sum(self._hop_s(last, first) + self._reset_s(last, first, high - low) for low, high in steps)

    def _again_s(self, within: tuple[Axis, ...]) -> float:
        """From the end of a time point to its next."""
        offsets, first, last = self.shots.offsets_um, self.shots.places[0], self.shots.places[-1]
        if "field" not in within:
            last = first
        back_um = offsets[0] - offsets[-1] if "z" in within else 0.0
        return self._hop_s(last, first) + self._reset_s(last, first, back_um)

    def _hop_s(self, here: Place, there: Place) -> float:
        if self.rig.stage is None or here.x_um is None or here.y_um is None or there.x_um is None or there.y_um is None:
            return 0.0
        return self.rig.stage.travel_ms(math.hypot(there.x_um - here.x_um, there.y_um - here.y_um)) / 1e3

    def _reset_s(self, here: Place, there: Place, more_um: float) -> float:
        """From a plane of one place to one of another, so much higher in its stack."""
        if here.z_um is None or there.z_um is None:
            return 0.0
        return self._refocus_s(here.z_um, there.z_um + more_um)

    def _refocus_s(self, here_um: float | None, there_um: float | None) -> float:
        if self.rig.focus is None or here_um is None or there_um is None:
            return 0.0
        return self.rig.focus.travel_ms(abs(there_um - here_um)) / 1e3
