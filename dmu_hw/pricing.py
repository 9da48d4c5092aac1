"""What a run costs: time, light, dose and disk, told before it starts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from dmu_hw.loops import Axis
from dmu_hw.plan import Part, Price, Shots, Take
from dmu_hw.ports import Coding
from dmu_hw.protocol import Course
from dmu_hw.rig import Rig
from dmu_hw.routes import Place
from dmu_hw.upload import frames_of
from dmu_hw.wheels import Wheels

_FRAME_OVERHEAD_BYTES = 700
"""Journal line and TIFF directory of one frame."""


@dataclass(frozen=True)
class Pricing:
    """What shots cost: each place and each time point as much as any other, but for the ways and the wait."""

    protocol: Course
    rig: Rig
    parts: dict[str, Part]
    """By the names of channels."""
    shots: Shots
    focus_take: Take | None = None
    watch_take: Take | None = None
    corner_um: tuple[float, float] = (0.0, 0.0)
    """Where the field begins, for what the mirrors are to show."""

    def price(self) -> Price:
        loops = self.shots.loops
        upload_s = self._upload_s()
        searches = self._searches(upload_s)
        time_s, late_s = self._time_s(upload_s, searches)
        light_s = self._bursts_s()
        looks = 0
        if self.focus_take is not None and self.protocol.autofocus is not None:
            looks = searches * self.protocol.autofocus.planes
            light_s += looks * self.focus_take.burst_ms / 1e3
        if self.watch_take is not None:
            light_s += self._watch_looks * self.watch_take.burst_ms / 1e3
        frames = sum(count * take.stack.count for take, count in self._bursts)
        frame_bytes = sum(
            count * take.stack.count * (2 * math.prod(take.mode.shape) + _FRAME_OVERHEAD_BYTES)
            for take, count in self._bursts
        )
        image_bytes = 4 * math.prod(self.protocol.field_px) * (loops.places + loops.places_again * len(loops.then))
        doses = self._doses_mj_cm2(searches)
        # raw data lie in the spool and in the store until the store has been checked
        disk_bytes = 2 * frame_bytes + image_bytes
        compression = len(self.parts) / sum(1 / part.stack.compression for part in self.parts.values())
        named = {} if "" in doses else doses
        return Price(
            loops.places,
            frames,
            time_s,
            upload_s,
            light_s,
            disk_bytes,
            sum(doses.values()),
            compression,
            looks,
            late_s,
            named,
            self._watch_looks,
        )

    @property
    def _bursts(self) -> list[tuple[Take, int]]:
        """How many there are of each take."""
        loops = self.shots.loops
        counts = dict.fromkeys(loops.roles, loops.places // len(self.parts))
        counts |= dict.fromkeys(loops.then, loops.places_again)
        counts["bleaching"] = loops.fields * loops.bleaching_of_a_field()
        return [(take, counts[take.role]) for part in self.parts.values() for take in part.takes.values()]

    def _bursts_s(self) -> float:
        return sum(count * take.burst_ms for take, count in self._bursts) / 1e3

    def _doses_mj_cm2(self, searches: int) -> dict[str, float]:
        """Of a field, by channels."""
        doses = dict.fromkeys(self.parts, 0.0)
        for take, count in self._bursts:
            doses[take.channel] += count / self.shots.loops.fields * take.dose_mj_cm2
        if self.focus_take is not None and self.protocol.autofocus is not None:
            looks = self._searches_of_a_field(searches) * self.protocol.autofocus.planes
            doses[self.focus_take.channel] += looks * self.focus_take.dose_mj_cm2
        if self.watch_take is not None:
            doses[self.watch_take.channel] += self._watch_looks_of_a_field * self.watch_take.dose_mj_cm2
        return doses

    def _memory_frames(self) -> int:
        takes = [take for take, _ in self._bursts] + ([] if self.watch_take is None else [self.watch_take])
        return 1 + max(place for take in takes for place in take.memory)

    def _upload_s(self) -> float:
        """For the very frames, where it depends on what they show."""
        dmd, count = self.rig.dmd, self._memory_frames()
        if isinstance(dmd, Coding) and count <= dmd.memory_frames:
            return dmd.coded_upload_ms(frames_of(self.parts, self.watch_take, self.corner_um)) / 1e3
        return dmd.upload_ms(count) / 1e3

    # ---------------------------------------------------------------- time

    def _time_s(self, upload_s: float, searches: int) -> tuple[float, float]:
        """How long it all takes, and how late the last time point of a series begins."""
        loops, places, offsets = self.shots.loops, self.shots.places, self.shots.offsets_um
        outside, inside = self._axes()
        # nobody knows where the stage stands before it is opened: the way from its origin is as good a guess as any
        approach_s = self._hop_s(Place(0.0, 0.0), places[0])
        approach_s += self._refocus_s(0.0, None if places[0].z_um is None else places[0].z_um + offsets[0])
        approach_s += Wheels(self.rig).switch_ms(None, self.parts[loops.channels[0]].channel) / 1e3
        if self.rig.shutter is not None:
            approach_s += 2 * self.rig.shutter.switch_ms / 1e3  # opened by the first burst, closed after the last one
        series = math.prod(loops.size(axis) for axis in outside)
        point_s = self._ways_s(inside) + self._second_ways_s(inside) + self._light_s()
        point_s += searches * self._search_s() / (series * loops.times)
        point_s += self._watch_looks * self._look_s() / (series * loops.times)
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
        return self._bursts_s() / (series * loops.times)

    def _second_ways_s(self, inside: tuple[Axis, ...]) -> float:
        """All moves of the second round of a time point, if there is one: in one channel, and the next time point
        begins with the first again."""
        loops = self.shots.loops
        if not loops.then:
            return 0.0
        standing = tuple(axis for axis in inside if axis != "channel")
        first, last = loops.channels[0], loops.channels[-1]
        switches_s = self._switch_s(last, loops.then_channel)
        switches_s += self._switch_s(loops.then_channel, first) - self._switch_s(last, first)
        return self._again_s(standing) + switches_s + self._ways_s(standing)

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
        ways_s += self._switches_of_a_search_s(self.focus_take.channel)
        return ways_s + autofocus.planes * self.focus_take.burst_ms / 1e3

    def _switches_of_a_search_s(self, own: str) -> float:
        """Beside those that there are without it: from the channel before it, and on to the one that follows."""
        loops = self.shots.loops
        pairs = [(name, name) for name in loops.channels]
        if "channel" in loops.standing:
            pairs = [(loops.channels[-1], loops.channels[0])]
        more_s = [self._switch_s(a, own) + self._switch_s(own, b) - self._switch_s(a, b) for a, b in pairs]
        return sum(more_s) / len(more_s)

    # ---------------------------------------------------------------- looks for drifts

    @property
    def _watch_looks(self) -> int:
        watch = self.protocol.watch
        return -(-self.shots.loops.visits // watch.every) if watch is not None and watch.every else 0

    @property
    def _watch_looks_of_a_field(self) -> int:
        """At the field that gets most of them."""
        watch, loops = self.protocol.watch, self.shots.loops
        if watch is None or not watch.every:
            return 0
        if loops.order[:2] != ("time", "field"):
            return min(self._watch_looks, loops.visits // loops.fields)
        return -(-loops.times * math.gcd(watch.every, loops.fields) // watch.every)

    def _look_s(self) -> float:
        if self.watch_take is None:
            return 0.0
        watch, ways_s = self.protocol.watch, 0.0
        if watch is not None and watch.at_um is not None:
            there, places = Place(*watch.at_um), self.shots.places
            ways_s = 2 * sum(self._hop_s(place, there) for place in places) / len(places)
        return ways_s + self.watch_take.burst_ms / 1e3 + self._switches_of_a_search_s(self.watch_take.channel)

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
        loops, first, last = self.shots.loops, self.shots.places[0], self.shots.places[-1]
        if axis == "time":
            return (loops.times - 1) * self._again_s(within)
        if axis == "channel":
            back_s = (len(loops.channels) - 1) * self._again_s(within)
            return back_s + sum(self._switch_s(before, after) for before, after in pairwise(loops.channels))
        if axis == "field":
            back_um, back_s = self._down_um(within), self._first_channel_s(within)
            pairs = pairwise(self.shots.places)
            return sum(self._hop_s(here, there) + self._reset_s(here, there, back_um) + back_s for here, there in pairs)
        if "field" not in within:
            last = first
        back_s = self._first_channel_s(within)
        steps = pairwise(self.shots.offsets_um)
        return sum(self._hop_s(last, first) + self._reset_s(last, first, high - low) + back_s for low, high in steps)

    def _again_s(self, within: tuple[Axis, ...]) -> float:
        """From the end of some loops to where they begin anew."""
        first, last = self.shots.places[0], self.shots.places[-1]
        if "field" not in within:
            last = first
        ways_s = self._hop_s(last, first) + self._reset_s(last, first, self._down_um(within))
        return ways_s + self._first_channel_s(within)

    def _down_um(self, within: tuple[Axis, ...]) -> float:
        """From the last plane to the first."""
        offsets = self.shots.offsets_um
        return offsets[0] - offsets[-1] if "z" in within else 0.0

    def _first_channel_s(self, within: tuple[Axis, ...]) -> float:
        """From the last channel to the first."""
        channels = self.shots.loops.channels
        return self._switch_s(channels[-1], channels[0]) if "channel" in within else 0.0

    def _switch_s(self, before: str, after: str) -> float:
        here, there = (self.parts[name].channel for name in (before, after))
        return Wheels(self.rig).switch_ms(here, there) / 1e3

    def _hop_s(self, here: Place, there: Place) -> float:
        if self.rig.stage is None or here.x_um is None or here.y_um is None or there.x_um is None or there.y_um is None:
            return 0.0
        (x_low, _), (y_low, _) = self.rig.stage.limits_um
        begin = (here.x_um, here.y_um)
        ways = [begin, *self.rig.mechanics.ways(begin, (there.x_um, there.y_um), (x_low, y_low))]
        return sum(self.rig.stage.travel_ms(math.dist(one, other)) for one, other in pairwise(ways)) / 1e3

    def _reset_s(self, here: Place, there: Place, more_um: float) -> float:
        """From a plane of one place to one of another, so much higher in its stack."""
        if here.z_um is None or there.z_um is None:
            return 0.0
        return self._refocus_s(here.z_um, there.z_um + more_um)

    def _refocus_s(self, here_um: float | None, there_um: float | None) -> float:
        if self.rig.focus is None or here_um is None or there_um is None:
            return 0.0
        return self.rig.focus.travel_ms(abs(there_um - here_um)) / 1e3
