"""Which burst comes when: loops over time, fields, planes and channels in any order, and what is taken at each of their
places.

Only arithmetic: a run of a million bursts needs no list of them, and a store finds its bursts in the journal.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from dmu_hw.errors import RunError

Axis = Literal["time", "field", "z", "channel"]
Role = Literal["patterns", "plain", "full", "bleaching", "chosen"]


class Stop(NamedTuple):
    """One burst of the loops."""

    time: int
    field: int
    plane: int
    role: Role
    channel: str = ""
    """Its name; empty in a run that has one only."""


@dataclass(frozen=True)
class Loops:
    """Three nested loops, or four. At each of their places every one of `roles` is taken in turn."""

    times: int
    fields: int
    planes: int
    roles: tuple[Role, ...]
    order: tuple[Axis, ...] = ("time", "field", "z")
    """From the outermost."""
    bleaching: int = 0
    """After so many places of a field in a channel, and after its first, comes one more burst of the role bleaching; 0:
    never."""
    then: tuple[Role, ...] = ()
    """Taken at all fields and planes of a time point once more when `roles` have been taken at all of them."""
    channels: tuple[str, ...] = ("",)
    """By name, in their order; one without a name is no loop."""
    then_channel: str = ""
    """The only one in which `then` is taken."""

    def __post_init__(self) -> None:
        if min(self.times, self.fields, self.planes, len(self.roles), len(self.channels)) < 1 or self.bleaching < 0:
            raise ValueError("loops run once at least")
        if self.then and (self.bleaching or self.order[0] != "time" or self.then_channel not in self.channels):
            raise ValueError("a second round needs time as the outermost loop, a channel, and no bleaching references")
        axes = ("time", "field", "z", "channel") if self.channels != ("",) else ("time", "field", "z")
        if sorted(self.order) != sorted(axes) or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"the loops are {', '.join(axes)}, each once")

    @classmethod
    def of(cls, facts: object) -> Loops:
        """From what `as_json` gave; anything else is an error."""
        try:
            return _LOOPS.validate_python(facts)
        except ValidationError as error:
            raise RunError(f"these are no loops: {error.error_count()} values do not fit") from None

    def as_json(self) -> dict[str, Any]:
        """Without a word of channels where there are none: what was written before there were any stays true."""
        facts = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        silent = ("channels", "then_channel") if self.channels == ("",) else ()
        return {key: value for key, value in facts.items() if key not in silent}

    @property
    def places(self) -> int:
        return self.times * self.fields * self.planes * len(self.channels)

    @property
    def places_again(self) -> int:
        """Those of the second round, which has no loop over channels."""
        return self.times * self.fields * self.planes if self.then else 0

    def size(self, axis: Axis) -> int:
        return {"time": self.times, "field": self.fields, "z": self.planes, "channel": len(self.channels)}[axis]

    def __len__(self) -> int:
        return self._before(self.places) + self.places_again * len(self.then)

    @property
    def all_roles(self) -> tuple[Role, ...]:
        return (*self.roles, *(("bleaching",) if self.bleaching else ()), *self.then)

    def bleaching_of_a_field(self) -> int:
        """How many bleaching references each field gets in a channel."""
        return self._multiples(self.times * self.planes)

    def at(self, index: int) -> Stop:
        """The burst of that number."""
        if self.then:
            return self._at_in_two_rounds(index)
        place = bisect_right(range(self.places), index, key=self._before) - 1
        role = index - self._before(place)
        return self._stop(place, self.roles[role] if role < len(self.roles) else "bleaching")

    def index(self, stop: Stop) -> int:
        """The number of a burst."""
        if self.then:
            first, again = self._rounds
            start = stop.time * (first + again)
            if stop.role in self.then:
                place = self._place(stop, self._order_again) % (again // len(self.then))
                return start + first + place * len(self.then) + self.then.index(stop.role)
            place = self._place(stop, self.order) % (first // len(self.roles))
            return start + place * len(self.roles) + self.roles.index(stop.role)
        role = len(self.roles) if stop.role == "bleaching" else self.roles.index(stop.role)
        return self._before(self._place(stop, self.order)) + role

    def visit(self, stop: Stop) -> int:
        """How many times some field was come to before; planes and channels that are taken one after the other are one
        visit."""
        return self._place(stop, self.order) // self._of_a_visit

    @property
    def visits(self) -> int:
        return self.places // self._of_a_visit

    @property
    def standing(self) -> tuple[Axis, ...]:
        """The loops that run while the stage stands: those of one visit."""
        count = next(n for n, axis in enumerate(reversed(self.order)) if axis not in ("z", "channel"))
        return self.order[len(self.order) - count :]

    @property
    def _of_a_visit(self) -> int:
        return prod(self.size(axis) for axis in self.standing)

    def series(self, stop: Stop) -> int:
        """Which time series a burst belongs to: there is one for each turn of the loops outside of time."""
        number = 0
        for axis in self.order[: self.order.index("time")]:
            number = number * self.size(axis) + self._turn(axis, stop)
        return number

    @property
    def _rounds(self) -> tuple[int, int]:
        """How many bursts of a time point come in the first round, and how many in the second."""
        area = self.fields * self.planes
        return area * len(self.channels) * len(self.roles), area * len(self.then)

    @property
    def _order_again(self) -> tuple[Axis, ...]:
        return tuple(axis for axis in self.order if axis != "channel")

    def _at_in_two_rounds(self, index: int) -> Stop:
        first, again = self._rounds
        time, rest = divmod(index, first + again)
        if rest < first:
            place, role = divmod(rest, len(self.roles))
            return self._stop(time * (first // len(self.roles)) + place, self.roles[role])
        place, role = divmod(rest - first, len(self.then))
        turns = self._turns(time * self.fields * self.planes + place, self._order_again)
        return Stop(turns["time"], turns["field"], turns["z"], self.then[role], self.then_channel)

    # ---------------------------------------------------------------- places of the loops, numbered as they come

    def _turn(self, axis: Axis, stop: Stop) -> int:
        match axis:
            case "time":
                return stop.time
            case "field":
                return stop.field
            case "z":
                return stop.plane
        return self.channels.index(stop.channel)

    def _turns(self, place: int, order: tuple[Axis, ...]) -> dict[Axis, int]:
        turns: dict[Axis, int] = {"channel": 0}
        for axis in reversed(order):
            place, turns[axis] = divmod(place, self.size(axis))
        return turns

    def _stop(self, place: int, role: Role) -> Stop:
        turns = self._turns(place, self.order)
        return Stop(turns["time"], turns["field"], turns["z"], role, self.channels[turns["channel"]])

    def _place(self, stop: Stop, order: tuple[Axis, ...]) -> int:
        number = 0
        for axis in order:
            number = number * self.size(axis) + self._turn(axis, stop)
        return number

    def _before(self, place: int) -> int:
        """How many bursts come before a place."""
        return place * len(self.roles) + self._bleaching_before(place)

    def _bleaching_before(self, place: int) -> int:
        """The places of one field in one channel are numbered by the loops over time and planes; every so many of these
        has a reference. Loop by loop: all turns that are over, with what the loops inside of it have for each."""
        if not self.bleaching:
            return 0
        before, number = 0, 0
        counted, others = self.times * self.planes, self.fields * len(self.channels)
        for axis in self.order:
            size = self.size(axis)
            if axis in ("time", "z"):
                counted //= size
                turn, place = divmod(place, counted * others)
                begun = number * size * counted
                number = number * size + turn
                before += others * (self._multiples(number * counted) - self._multiples(begun))
            else:
                others //= size
                turn, place = divmod(place, counted * others)
                each = self._multiples((number + 1) * counted) - self._multiples(number * counted)
                before += turn * others * each
        return before

    def _multiples(self, count: int) -> int:
        """How many of the numbers 0 … count - 1 have a bleaching reference."""
        return -(-count // self.bleaching) if self.bleaching else 0


_LOOPS = TypeAdapter(Loops)
