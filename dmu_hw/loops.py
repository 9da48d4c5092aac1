"""Which burst comes when: loops over time, fields and planes in any order, and what is taken at each of their places.

Only arithmetic: a run of a million bursts needs no list of them, and a store finds its bursts in the journal.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from dmu_hw.errors import RunError

Axis = Literal["time", "field", "z"]
Role = Literal["patterns", "plain", "full", "bleaching", "chosen"]


class Stop(NamedTuple):
    """One burst of the loops."""

    time: int
    field: int
    plane: int
    role: Role


@dataclass(frozen=True)
class Loops:
    """Three nested loops. At each of their places every one of `roles` is taken in turn."""

    times: int
    fields: int
    planes: int
    roles: tuple[Role, ...]
    order: tuple[Axis, Axis, Axis] = ("time", "field", "z")
    """From the outermost."""
    bleaching: int = 0
    """After so many places of a field, and after its first, comes one more burst of the role bleaching; 0: never."""
    then: tuple[Role, ...] = ()
    """Taken at all fields and planes of a time point once more when `roles` have been taken at all of them."""

    def __post_init__(self) -> None:
        if min(self.times, self.fields, self.planes, len(self.roles)) < 1 or self.bleaching < 0:
            raise ValueError("loops run once at least")
        if self.then and (self.bleaching or self.order[0] != "time"):
            raise ValueError("a second round needs time as the outermost loop, and no bleaching references")

    @classmethod
    def of(cls, facts: object) -> Loops:
        """From what `as_json` gave; anything else is an error."""
        try:
            return _LOOPS.validate_python(facts)
        except ValidationError as error:
            raise RunError(f"these are no loops: {error.error_count()} values do not fit") from None

    def as_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @property
    def places(self) -> int:
        return self.times * self.fields * self.planes

    def size(self, axis: Axis) -> int:
        return {"time": self.times, "field": self.fields, "z": self.planes}[axis]

    def __len__(self) -> int:
        return self._before(self.places) + self.places * len(self.then)

    @property
    def all_roles(self) -> tuple[Role, ...]:
        return (*self.roles, *(("bleaching",) if self.bleaching else ()), *self.then)

    def bleaching_of_a_field(self) -> int:
        """How many bleaching references each field gets."""
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
        place = self._place(stop)
        if self.then:
            area, first = self.fields * self.planes, len(self.roles)
            time, rest = divmod(place, area)
            start = time * area * (first + len(self.then))
            if stop.role in self.then:
                return start + area * first + rest * len(self.then) + self.then.index(stop.role)
            return start + rest * first + self.roles.index(stop.role)
        role = len(self.roles) if stop.role == "bleaching" else self.roles.index(stop.role)
        return self._before(place) + role

    def visit(self, stop: Stop) -> int:
        """How many times some field was come to before; planes that are taken one after the other are one visit."""
        place = self._place(stop)
        return place // self.planes if self.order[-1] == "z" else place

    @property
    def visits(self) -> int:
        return self.places // self.planes if self.order[-1] == "z" else self.places

    def series(self, stop: Stop) -> int:
        """Which time series a burst belongs to: there is one for each turn of the loops outside of time."""
        number = 0
        for axis in self.order[: self.order.index("time")]:
            number = number * self.size(axis) + self._turn(axis, stop)
        return number

    def _at_in_two_rounds(self, index: int) -> Stop:
        area, first = self.fields * self.planes, len(self.roles)
        time, rest = divmod(index, area * (first + len(self.then)))
        roles, rest = (self.roles, rest) if rest < area * first else (self.then, rest - area * first)
        place, role = divmod(rest, len(roles))
        return self._stop(time * area + place, roles[role])

    # ---------------------------------------------------------------- places of the loops, numbered as they come

    def _turn(self, axis: Axis, stop: Stop) -> int:
        return {"time": stop.time, "field": stop.field, "z": stop.plane}[axis]

    def _stop(self, place: int, role: Role) -> Stop:
        turns: dict[Axis, int] = {}
        for axis in reversed(self.order):
            place, turns[axis] = divmod(place, self.size(axis))
        return Stop(turns["time"], turns["field"], turns["z"], role)

    def _place(self, stop: Stop) -> int:
        number = 0
        for axis in self.order:
            number = number * self.size(axis) + self._turn(axis, stop)
        return number

    def _before(self, place: int) -> int:
        """How many bursts come before a place."""
        return place * len(self.roles) + self._bleaching_before(place)

    def _bleaching_before(self, place: int) -> int:
        """The places of one field are numbered by the other two loops; every so many of these has a reference."""
        if not self.bleaching:
            return 0
        inner = 1
        for axis in self.order[self.order.index("field") + 1 :]:
            inner *= self.size(axis)
        outer, rest = divmod(place, inner * self.fields)
        field, turn = divmod(rest, inner)
        begun, here = self._multiples(outer * inner), self._multiples(outer * inner + turn)
        a_field = self._multiples((outer + 1) * inner) - begun
        return self.fields * begun + field * a_field + here - begun

    def _multiples(self, count: int) -> int:
        """How many of the numbers 0 … count - 1 have a bleaching reference."""
        return -(-count // self.bleaching) if self.bleaching else 0


_LOOPS = TypeAdapter(Loops)
