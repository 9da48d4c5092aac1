"""Where and when in the words of useq-schema, so that people's files carry over. useq-schema itself takes what it does
not know for nothing, and intervals and steps of 0: here both are refused."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

from pydantic import ValidationError

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Loc
from dmu_hw.protocol import MAX_FIELDS, MAX_PLANES, MAX_SHOTS, ZPlanes
from dmu_hw.routes import Position
from dmu_hw.timing import phases_of

_KINDS = {
    "grid_plan": ("GridRowsColumns", "GridWidthHeight", "GridFromEdges", "GridFromPolygon", "RandomPoints"),
    "z_plan": ("ZTopBottom", "ZAboveBelow", "ZRangeAround", "ZAbsolutePositions", "ZRelativePositions"),
    "time_plan": ("TIntervalLoops", "TDurationLoops", "TIntervalDuration"),
}
_TAKEN = ("stage_positions", *_KINDS, "axis_order", "metadata")
_NOT_HERE = {
    "channels": "a run has the patterns and the light of its protocol",
    "autofocus_plan": "see the protocol's autofocus",
    "setup": "it names devices",
    "keep_shutter_open_across": "the light is never left on between bursts",
    "sequence": "a position has no plan of its own; a grid_plan beside stage_positions is laid at each",
    "properties": "it names devices",
    "prioritize_duration": "no time point is ever left out",
}
_AXES = {"t": "time", "p": "field", "g": "field", "z": "z"}
_SAME_FIELD = 0.01
_SHORTEST_S = 1e-6


def read_useq(document: Document, field_um: tuple[float, float]) -> dict[str, Any]:
    """Keys of a protocol that say the same; `field_um` is (width, height). Everything that is wrong at once."""
    try:
        useq = importlib.import_module("useq")  # .4 s, and an extra: loaded only by those who use it
    except ImportError:
        where = document.where(())
        raise InputError([Problem(where, "needs useq-schema: pip install 'dmu-hw[useq]'")]) from None
    if not isinstance(document.value, dict):
        raise InputError([Problem(document.where(()), "should be a mapping of keys to values")])
    return _Reader(useq, document, field_um).read()


class _Reader:
    """Reads one plan and gathers what is wrong with it."""

    def __init__(self, useq: Any, document: Document, field_um: tuple[float, float]) -> None:
        self.useq = useq
        self.document = document
        self.value: dict[str, Any] = document.value
        self.field_um = field_um
        self.problems: list[Problem] = []

    def read(self) -> dict[str, Any]:
        self._check_keys(())
        keys: dict[str, Any] = {"order": ", ".join(self._order())}
        if self._has("time_plan") and (due_s := self._due_s()):
            keys["time"] = phases_of(due_s)
        if self._has("z_plan") and (planes := self._planes()):
            keys |= planes
        positions = tuple(self._positions(absolute="focus_um" in keys))
        if positions:
            keys["positions"] = positions
        if self.problems:
            raise InputError(self.problems)
        return keys

    def refuse(self, loc: Loc, what: str) -> None:
        self.problems.append(Problem(self.document.where(loc), what))

    def _has(self, key: str) -> bool:
        return self.value.get(key) not in (None, (), {})

    # ---------------------------------------------------------------- keys

    def _check_keys(self, loc: Loc, taken: tuple[str, ...] = _TAKEN) -> None:
        """Refuse what useq-schema would not notice, and what it knows and we do not do."""
        for key, value in self._at(loc).items():
            if key in _NOT_HERE:
                if value not in (None, (), {}, False):
                    self.refuse((*loc, key), f"{key} is not supported: {_NOT_HERE[key]}")
            elif key not in taken:
                self.refuse((*loc, key), f"unknown key {key!r}; allowed: {', '.join(sorted(taken))}")

    def _at(self, loc: Loc) -> dict[str, Any]:
        value: Any = self.value
        for step in loc:
            value = value[step]
        return value if isinstance(value, dict) else {}

    def _made(self, loc: Loc, kinds: tuple[str, ...]) -> Any:
        """What a mapping stands for: the kind whose required keys it has; None if that is refused."""
        given = self._at(loc)
        found = [getattr(self.useq, kind) for kind in kinds]
        required = {kind: [k for k, field in kind.model_fields.items() if field.is_required()] for kind in found}
        kind = next((kind for kind in found if set(required[kind]) <= given.keys()), None)
        if kind is None:
            choice = " | ".join(", ".join(keys) for keys in required.values())
            self.refuse(loc, f"should have these keys: {choice}")
            return None
        self._check_keys(loc, tuple(kind.model_fields))
        known = {key: value for key, value in given.items() if key in kind.model_fields}
        try:
            return kind.model_validate(_listed(known))
        except (ValidationError, ArithmeticError) as error:
            for detail in error.errors(include_url=False) if isinstance(error, ValidationError) else ():
                self.refuse((*loc, *detail["loc"]), detail["msg"])
            if not isinstance(error, ValidationError):
                self.refuse(loc, f"cannot be computed: {error}")
            return None

    def _order(self) -> list[str]:
        """Our loops in the order of axis_order."""
        given = self.value.get("axis_order") or "tpgcz"
        letters = list(given) if isinstance(given, str | tuple) else []
        planned = {"t": "time_plan", "p": "stage_positions", "g": "grid_plan", "z": "z_plan"}
        lacking = [axis for axis, key in planned.items() if self._has(key) and axis not in letters]
        if not letters or set(letters) - set("tpgcz") or len(set(letters)) != len(letters) or lacking:
            self.refuse(("axis_order",), "should name each of the axes t, p, g, c and z that are planned once")
            return ["time", "field", "z"]
        kept = [axis for axis in letters if axis != "c"]
        if {"p", "g"} <= set(kept) and self._has("stage_positions") and kept.index("g") != kept.index("p") + 1:
            self.refuse(("axis_order",), "g must follow p: the fields around a position are taken one after the other")
        order = dict.fromkeys([_AXES[axis] for axis in kept] + ["time", "field", "z"])
        return list(order)

    # ---------------------------------------------------------------- when

    def _due_s(self) -> list[float]:
        """All time points, from the first."""
        plan = self.value["time_plan"]
        loc: Loc = ("time_plan",)
        if isinstance(plan, dict) and "phases" in plan:
            self._check_keys(loc, ("phases",))
            plan, loc = plan["phases"], ("time_plan", "phases")
        locs: list[Loc] = [(*loc, number) for number in range(len(plan))] if isinstance(plan, tuple) else [loc]
        phases = [self._made(loc, _KINDS["time_plan"]) for loc in locs]
        if None in phases:
            return []
        for loc, phase in zip(locs, phases, strict=True):
            if not self._steps_on(phase):
                self.refuse(loc, "the interval should be greater than 0")
                return []
        whole = self.useq.MultiPhaseTimePlan(phases=phases) if len(phases) > 1 else phases[0]
        due_s = list(islice(whole, MAX_SHOTS + 1))
        if len(due_s) > MAX_SHOTS:
            self.refuse(("time_plan",), f"more than {MAX_SHOTS} time points")
        return due_s[:MAX_SHOTS]

    @staticmethod
    def _steps_on(phase: Any) -> bool:
        """Whether time goes forward in a phase; asked for in a way that divides by nothing."""
        if hasattr(phase, "duration") and "duration" in type(phase).model_fields:
            if phase.duration.total_seconds() < 0:
                return False
            if "loops" in type(phase).model_fields:
                return bool(phase.loops > 1 and phase.duration.total_seconds() / (phase.loops - 1) >= _SHORTEST_S)
        return bool(phase.interval.total_seconds() >= _SHORTEST_S)

    # ---------------------------------------------------------------- where

    def _planes(self) -> dict[str, Any]:
        plan = self._made(("z_plan",), _KINDS["z_plan"])
        if plan is None:
            return {}
        if "step" in type(plan).model_fields and not plan.step > 0:
            self.refuse(("z_plan", "step"), f"should be greater than 0, given {plan.step:g}")
            return {}
        if not plan.go_up:
            self.refuse(("z_plan", "go_up"), "is not supported: planes are taken from below")
            return {}
        if plan.num_positions() > MAX_PLANES:
            self.refuse(("z_plan",), f"more than {MAX_PLANES} planes")
            return {}
        try:
            planes = ZPlanes(planes_um=tuple(float(z) for z in plan))
        except ValidationError as error:
            self.refuse(("z_plan",), error.errors()[0]["msg"].removeprefix("Value error, "))
            return {}
        return {"z": planes} if plan.is_relative else {"z": planes, "focus_um": 0.0}

    def _positions(self, *, absolute: bool) -> Iterator[Position]:
        """The positions, each with its grid; `absolute` planes leave no place for a focus of their own."""
        cells, relative = self._cells()
        places = list(self._stage_positions(absolute=absolute))
        if cells and not relative:
            if places:
                self.refuse(("grid_plan",), "says where on the stage its fields are: leave out stage_positions")
            places = [(("grid_plan",), {"x_um": x, "y_um": y}) for x, y in cells]
        elif cells and not places and not self._has("stage_positions"):
            self.refuse(("grid_plan",), "needs stage_positions: its fields lie around them")
        elif cells:
            places = [
                (loc, place | {"x_um": place["x_um"] + x, "y_um": place["y_um"] + y, "name": f"{name}-{cell}"})
                for number, (loc, place) in enumerate(places[: MAX_FIELDS // len(cells) + 1])
                for name in (place.get("name") or f"position-{number}",)
                for cell, (x, y) in enumerate(cells)
            ]
        if len(places) > MAX_FIELDS:
            self.refuse(("stage_positions",), f"more than {MAX_FIELDS} fields")
            return
        for loc, place in places:
            try:
                yield Position.model_validate(place)
            except ValidationError as error:
                self.refuse(loc, error.errors()[0]["msg"])

    def _stage_positions(self, *, absolute: bool) -> Iterator[tuple[Loc, dict[str, Any]]]:
        given = self.value.get("stage_positions") or ()
        if not isinstance(given, tuple):
            self.refuse(("stage_positions",), "should be a list; plate plans are not supported")
            return
        for number, place in enumerate(given):
            loc: Loc = ("stage_positions", number)
            if not isinstance(place, dict):
                self.refuse(loc, "should be a mapping with x and y")
                continue
            self._check_keys(loc, ("x", "y", "z", "name"))
            numbers = [place.get(axis) for axis in "xyz"]
            if any(value is None for value in numbers[:2]) or not all(map(_is_number, numbers)):
                self.refuse(loc, "x and y should be numbers, and z if it is there")
                continue
            x, y, z = (None if value is None else float(value) for value in numbers)
            if absolute and z is not None:
                self.refuse(loc, "leave out z: the z_plan says where on the focus drive its planes are")
            yield loc, {"x_um": x, "y_um": y, "focus_um": z, "name": place.get("name")}

    def _cells(self) -> tuple[list[tuple[float, float]], bool]:
        """Fields of the grid, and whether they lie around a position."""
        loc: Loc = ("grid_plan",)
        if not self._has("grid_plan") or (plan := self._made(loc, _KINDS["grid_plan"])) is None:
            return [], True
        for key, side_um in zip(("fov_width", "fov_height"), self.field_um, strict=True):
            given = getattr(plan, key)
            if given is not None and abs(given - side_um) > _SAME_FIELD * side_um:
                self.refuse((*loc, key), f"a field of this protocol is {side_um:g} µm, given {given:g}")
        if "random_seed" in type(plan).model_fields and plan.random_seed is None:
            self.refuse(loc, "random points need a random_seed, so that the run can be resumed")
            return [], True
        if any(not overlap < 100 for overlap in getattr(plan, "overlap", ())):
            self.refuse((*loc, "overlap"), "should be less than 100 percent")
            return [], True
        width_um, height_um = self.field_um
        plan = plan.model_copy(update={"fov_width": width_um, "fov_height": height_um})
        found = plan.iter_grid_positions() if hasattr(plan, "iter_grid_positions") else iter(plan)
        cells = [(float(cell.x), float(cell.y)) for cell in islice(found, MAX_FIELDS + 1)]
        if not cells or not all(math.isfinite(value) for cell in cells for value in cell):
            self.refuse(loc, "has no fields")
        return cells, bool(plan.is_relative)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _listed(value: Any) -> Any:
    """Lists where useq-schema wants lists."""
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return [_listed(inner) for inner in value] if isinstance(value, tuple) else value
