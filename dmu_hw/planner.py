"""Protocol + rig + optics + patterns → frozen shots and their price. Nothing moves and nothing lights."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np

from dmu_hw.channels import Channel
from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document
from dmu_hw.loops import Axis, Loops, Role
from dmu_hw.objections import Objections
from dmu_hw.physics.optics import Mirrors, Optics
from dmu_hw.plan import Part, Plan, Price, Shots, Take
from dmu_hw.ports import Roi
from dmu_hw.pricing import Pricing
from dmu_hw.protocol import AnyProtocol, Protocol
from dmu_hw.rig import Rig
from dmu_hw.routes import Place, Position
from dmu_hw.taking import Asked, Taking
from dmu_hw.timing import TimePoints

_SHOWN_OUTSIDE = 10


def make_plan(
    protocol: Protocol,
    source: Document | Path,
    rig: Rig,
    optics: Optics,
    stack: PatternStack,
    then: PatternStack | None = None,
) -> Plan:
    """Decide everything of a run in one channel, or say all that stands against it; `source` is where the protocol was
    read from, `then` are the patterns of fields that are chosen."""
    found = rig.channels[protocol.channel] if protocol.channel is not None else next(iter(rig.channels.values()))
    channel = Channel(found.name, found.light, found.filters, optics)
    return plan_channels(protocol, source, rig, [Asked(protocol, channel, stack, then)])


def plan_channels(protocol: AnyProtocol, source: Document | Path, rig: Rig, asked: Sequence[Asked]) -> Plan:
    """The same in any number of channels."""
    return _Planner(protocol, source, rig, asked).plan()


class _Planner:
    """Works out one plan and collects all that is wrong, to be said at once."""

    def __init__(self, protocol: AnyProtocol, source: Document | Path, rig: Rig, asked: Sequence[Asked]) -> None:
        self.protocol = protocol
        self.rig = rig
        self.asked = asked
        self.optics = asked[0].channel.optics
        """Of the first channel, for what is the same in all of them."""
        self.objections = Objections(source)
        self.refuse = self.objections.refuse

    def plan(self) -> Plan:
        self._check_rig()
        self._check_lights()
        roi = self._window()
        corner_um = self._corner_um(roi)
        self._check_mirrors(corner_um)
        takings = self._takings(roi)
        parts = {taking.asked.name: part for taking, part in takings}
        shots = self._shots(parts)
        focus_take = self._focus_take(takings, shots.places)
        watch_take = self._watch_take(takings)
        price = Pricing(self.protocol, self.rig, parts, shots, focus_take, watch_take, corner_um).price()
        self._check_budget(price)
        if self.objections.problems:
            raise InputError(self.objections.problems)
        self._notice_lateness(price)
        cautions = tuple(self.objections.cautions)
        return Plan(
            self.protocol, parts, roi, corner_um, shots, price, focus_take, cautions, watch_take, self.rig.mechanics
        )

    def _takings(self, roi: Roi) -> list[tuple[Taking, Part]]:
        """Every channel has its places in the memory of the DMD behind those of the channels before it."""
        found: list[tuple[Taking, Part]] = []
        place = 0
        for asked in self.asked:
            taking = Taking(asked, self.rig, self.objections, place)
            found.append((taking, taking.part(roi)))
            place += taking.frames
        held = self.rig.dmd.memory_frames
        if place > held:
            key = "channels" if len(self.asked) > 1 else f"{self.asked[0].key}patterns.count"
            self.refuse(key, f"the DMD holds {held} frames, needed are {place}")
        return found

    def _focus_take(self, takings: list[tuple[Taking, Part]], places: tuple[Place, ...]) -> Take | None:
        wanted = self.protocol.autofocus.channel if self.protocol.autofocus is not None else None
        for taking, part in takings:
            if wanted in (None, part.channel.name):
                return taking.focus_take(part.takes["patterns"], places)
        return None

    def _watch_take(self, takings: list[tuple[Taking, Part]]) -> Take | None:
        """Its frames lie behind those of all channels in the memory of the DMD."""
        watch, stage = self.protocol.watch, self.rig.stage
        wanted = watch.channel if watch is not None else None
        if watch is not None and watch.at_um is not None and stage is None:
            self.refuse("watch.at_um", f"rig {self.rig.settings.name} has no stage")
        elif watch is not None and watch.at_um is not None and stage is not None:
            self._check_places("watch.at_um", [watch.at_um], stage.limits_um)
        for taking, part in takings:
            if wanted in (None, part.channel.name):
                return taking.watch_take(part.takes["patterns"], sum(each.frames for each, _ in takings))
        return None

    # ---------------------------------------------------------------- what the instrument can do

    def _check_rig(self) -> None:
        """Without an area that light falls on there is no dose, and nothing can be planned."""
        for asked in self.asked:
            area_um2 = asked.channel.optics.mirrors.area_um2
            if not 0 < area_um2 < math.inf:
                where = f"{self.rig.file.path}: optics.mirrors.to_sample"
                raise InputError([Problem(where, f"maps the mirrors to an area of {area_um2:g} µm²")])

    def _check_lights(self) -> None:
        """All that the rig has: also one that this run does not light may be on by mistake."""
        for name, light in self.rig.lights.items():
            if light.watchdog_ms is not None:
                continue
            where = self.rig.file.parts[name].document.where(())
            what = "it has no watchdog: it stays on if this computer dies"
            if self.rig.unwatched_light:
                self.objections.cautions.append(f"{where}: {what}; the rig accepts that")
            else:
                advice = "say its watchdog_ms if its hardware has one, or unwatched_light: accept"
                self.objections.problems.append(Problem(where, f"{what}; {advice}"))

    def _window(self) -> Roi:
        """The part of the sensor that the field falls on, in its middle."""
        field, ratio = self.protocol.field_px, self.optics.sensor_ratio
        rows, columns = self.rig.camera.sensor_shape
        tiles = dict.fromkeys(asked.stack.tile_px for asked in self.asked)
        for side, tile in ((side, tile) for tile_px in tiles for side, tile in zip(field, tile_px, strict=True)):
            if side % tile:
                self.refuse("field_px", f"must be a multiple of the patterns' tile, {tile} object pixels, given {side}")
            elif side % ratio:
                self.refuse(
                    "field_px", f"must be a multiple of the sensor's pixel, {ratio} object pixels, given {side}"
                )
        height, width = (side // ratio for side in field)
        if height > rows or width > columns:
            given = f"{field[0]}x{field[1]}"
            self.refuse("field_px", f"the sensor has {rows * ratio}x{columns * ratio} object pixels, given {given}")
        return Roi((columns - width) // 2, (rows - height) // 2, width, height)

    def _corner_um(self, roi: Roi) -> tuple[float, float]:
        rows, columns = self.rig.camera.sensor_shape
        pixel_um = self.optics.sensor_pixel_um
        return (roi.x - columns / 2) * pixel_um, (roi.y - rows / 2) * pixel_um

    def _check_mirrors(self, corner_um: tuple[float, float]) -> None:
        """The whole border of the field must lie on the array: beyond it there is no light at all."""
        mirrors = dict.fromkeys(asked.channel.optics.mirrors for asked in self.asked)
        for each in mirrors:
            self._check_array(each, corner_um)

    def _check_array(self, mirrors: Mirrors, corner_um: tuple[float, float]) -> None:
        rows, columns = mirrors.shape
        size_um = [side * self.optics.object_pixel_um for side in self.protocol.field_px]
        along = np.array([0.0, 0.5, 1.0])
        x_um, y_um = np.meshgrid(corner_um[0] + along * size_um[1], corner_um[1] + along * size_um[0])
        column, row = mirrors.to_sample.invert(x_um, y_um)
        if not (np.all(np.abs(column) <= columns / 2) and np.all(np.abs(row) <= rows / 2)):
            self.refuse(
                "field_px",
                f"the field of {size_um[1]:.4g}x{size_um[0]:.4g} µm reaches beyond the {columns}x{rows} mirrors of "
                f"rig {self.rig.settings.name}",
            )

    # ---------------------------------------------------------------- where

    def _shots(self, parts: dict[str, Part]) -> Shots:
        protocol, places, offsets_um = self.protocol, self._places(), self.protocol.offsets_um()
        self._check_focus(places, offsets_um)
        order = cast("tuple[Axis, ...]", tuple(protocol.order.split(", ")))
        if "" not in parts and "channel" not in order:
            order = (*order, "channel")
        counts = protocol.timing.count, len(places), len(offsets_um)
        first, *_ = parts.values()
        each = tuple(role for role in first.takes if role not in ("bleaching", "chosen"))
        chosen = [name for name, part in parts.items() if "chosen" in part.takes]
        then: tuple[Role, ...] = ("chosen",) if chosen else ()
        loops = Loops(
            *counts, each, order, protocol.references.bleaching, then, tuple(parts), chosen[0] if chosen else ""
        )
        if loops.bleaching > 0 and loops.bleaching_of_a_field() < 2:
            given = f"every {loops.bleaching} of the {loops.times * loops.planes} bursts of a field"
            self.refuse(
                "references.bleaching", f"one frame tells nothing of bleaching, two or more are needed: {given}"
            )
        return Shots(loops, places, offsets_um, protocol.timing)

    def _places(self) -> tuple[Place, ...]:
        protocol, stage = self.protocol, self.rig.stage
        places = list(self._all_places())
        key = "positions" if protocol.listed else "grid"
        if not protocol.listed and protocol.grid is None:
            return tuple(places)
        if stage is None:
            self.refuse(key, f"rig {self.rig.settings.name} has no stage")
        else:
            self._check_places(key, [(place.x_um or 0.0, place.y_um or 0.0) for place in places], stage.limits_um)
        return tuple(places)

    def _all_places(self) -> Iterator[Place]:
        """Every position, or the fields of the grid around it."""
        protocol = self.protocol
        if protocol.grid is None:
            if not protocol.listed:
                yield Place(z_um=protocol.focus_um)
            for here in protocol.listed:
                yield Place(here.x_um, here.y_um, self._focus_of(here), here.name)
            return
        rows, columns = (side * self.optics.object_pixel_um for side in protocol.field_px)
        if not protocol.listed:
            for x_um, y_um in self._around((columns, rows), (0.0, 0.0)):
                yield Place(x_um, y_um, protocol.focus_um)
        for number, here in enumerate(protocol.listed):
            around = self._around((columns, rows), (here.x_um, here.y_um))
            for cell, (x_um, y_um) in enumerate(around):
                yield Place(x_um, y_um, self._focus_of(here), f"{here.name or f'position {number}'} field {cell}")

    def _around(self, field_um: tuple[float, float], place_um: tuple[float, float]) -> Iterator[tuple[float, float]]:
        """The fields of the grid, side by side as the camera sees them."""
        grid = self.protocol.grid
        for found in [] if grid is None else grid.places(field_um, place_um):
            yield self.rig.mechanics.turned((grid.centre_um if grid is not None else None) or place_um, found)

    def _focus_of(self, position: Position) -> float | None:
        return self.protocol.focus_um if position.focus_um is None else position.focus_um

    def _check_places(
        self, key: str, places: list[tuple[float, float]], limits_um: tuple[tuple[float, float], tuple[float, float]]
    ) -> None:
        (x_low, x_high), (y_low, y_high) = limits_um
        outside = [i for i, (x, y) in enumerate(places) if not (x_low <= x <= x_high and y_low <= y <= y_high)]
        reach = f"x {x_low:g} to {x_high:g}, y {y_low:g} to {y_high:g} µm"
        for i in outside[:_SHOWN_OUTSIDE]:
            x, y = places[i]
            self.refuse(f"{key}.{i}", f"({x:g}, {y:g}) µm is outside the stage's limits: {reach}")
        if len(outside) > _SHOWN_OUTSIDE:
            self.refuse(key, f"{len(outside) - _SHOWN_OUTSIDE:,} more fields are outside the stage's limits: {reach}")

    def _check_focus(self, places: tuple[Place, ...], offsets_um: tuple[float, ...]) -> None:
        if places[0].z_um is None:
            return
        own = any(position.focus_um is not None for position in self.protocol.listed)
        key = "positions" if own else "focus_um"
        if self.rig.focus is None:
            self.refuse(key, f"rig {self.rig.settings.name} has no focus")
            return
        low, high = self.rig.focus.limits_um
        for focus_um in sorted({place.z_um for place in places if place.z_um is not None}):
            for value in dict.fromkeys((focus_um + offsets_um[0], focus_um + offsets_um[-1])):
                if not low <= value <= high:
                    within = low <= focus_um <= high
                    reach = f"{low:g} to {high:g} µm"
                    self.refuse("z.range_um" if within else key, f"{value:g} µm is outside the focus limits: {reach}")

    # ---------------------------------------------------------------- at what price

    def _check_budget(self, price: Price) -> None:
        """The protocol may only tighten what the rig allows; what never ends is allowed to nobody."""
        budget, limits = self.protocol.budget, self.rig.settings.limits
        for key, cost, unit, given, rigs in (
            ("dose_mj_cm2", price.dose_per_field_mj_cm2, "mJ/cm² per field", budget.dose_mj_cm2, limits.dose_mj_cm2),
            ("time_min", price.time_s / 60, "min", budget.time_min, None),
            ("disk_gb", price.disk_bytes / 1e9, "GB", budget.disk_gb, None),
        ):
            allowed = min((value for value in (given, rigs) if value is not None), default=sys.float_info.max)
            if cost > allowed:
                who = "the protocol" if allowed == given else f"rig {self.rig.settings.name}"
                self.refuse(f"budget.{key}", f"the run takes {cost:.6g} {unit}, {who} allows {allowed:g}")

    def _notice_lateness(self, price: Price) -> None:
        if price.late_s > 0:
            what = f"loops take longer than their interval: the last begins {price.late_s:.3g} s late"
            key = "time.interval_s" if isinstance(self.protocol.time, TimePoints) else "time"
            self.objections.warn(key, what)
