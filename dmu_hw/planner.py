"""Protocol + rig + optics + patterns → frozen shots and their price. Nothing moves and nothing lights."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Loc
from dmu_hw.loops import Axis, Loops, Role
from dmu_hw.marker import Marker
from dmu_hw.physics.optics import Optics
from dmu_hw.plan import Plan, Price, Shots, Take
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.pricing import Pricing
from dmu_hw.protocol import Protocol, Then
from dmu_hw.rig import Rig
from dmu_hw.routes import Place, Position
from dmu_hw.timing import TimePoints

_SHOWN_OUTSIDE = 10
_FEW_PIXELS = 32


def make_plan(
    protocol: Protocol,
    source: Document | Path,
    rig: Rig,
    optics: Optics,
    stack: PatternStack,
    then: PatternStack | None = None,
) -> Plan:
    """Decide everything, or say all that stands against it; `source` is where the protocol was read from, `then` are
    the patterns of fields that are chosen."""
    return _Planner(protocol, source, rig, optics, stack, then).plan()


class _Planner:
    """Works out one plan and collects all that is wrong, to be said at once."""

    def __init__(
        self,
        protocol: Protocol,
        source: Document | Path,
        rig: Rig,
        optics: Optics,
        stack: PatternStack,
        then: PatternStack | None,
    ) -> None:
        self.then = then
        self.protocol = protocol
        self.source = source
        self.rig = rig
        self.optics = optics
        self.stack = stack
        self.problems: list[Problem] = []
        self.cautions: list[str] = []
        seen = stack.masks.mean(axis=(1, 2))
        self.lit = float(np.sum(seen + (1 - seen) * optics.mirrors.leakage))
        """Mean light on the field, in full frames of uniform light: leakage counts, since the sample takes it too."""

    def plan(self) -> Plan:
        self._check_rig()
        self._check_light()
        roi = self._window()
        corner_um = self._corner_um(roi)
        self._check_mirrors(corner_um)
        takes = self._takes(roi)
        shots = self._shots(tuple(takes))
        focus_take = self._focus_take(takes["patterns"], shots.places)
        price = Pricing(self.protocol, self.rig, self.stack, takes, shots, focus_take).price()
        self._check_budget(price)
        if self.problems:
            raise InputError(self.problems)
        self._notice_lateness(price)
        cautions = tuple(self.cautions)
        return Plan(self.protocol, self.optics, self.stack, roi, corner_um, takes, shots, price, focus_take, cautions)

    def refuse(self, key: str, what: str) -> None:
        """One more problem, at the line of its key if the file has it."""
        self.problems.append(Problem(_where(self.source, key), what))

    # ---------------------------------------------------------------- what the instrument can do

    def _check_rig(self) -> None:
        """Without an area that light falls on there is no dose, and nothing can be planned."""
        area_um2 = self.optics.mirrors.area_um2
        if not 0 < area_um2 < math.inf:
            where = f"{self.rig.file.path}: optics.mirrors.to_sample"
            raise InputError([Problem(where, f"maps the mirrors to an area of {area_um2:g} µm²")])

    def _check_light(self) -> None:
        rig, power_mw = self.rig, self.protocol.light.power_mw
        highest_mw = min(rig.settings.limits.power_mw, rig.light.max_power_mw)
        if power_mw > highest_mw:
            self.refuse("light.power_mw", f"rig {rig.settings.name} allows {highest_mw:g} mW, given {power_mw:g}")
        if not self.stack.masks.any():
            self.refuse("patterns", "all patterns are dark")
        if rig.light.watchdog_ms is None:
            where = rig.file.parts["light"].document.where(())
            what = "it has no watchdog: it stays on if this computer dies"
            if rig.unwatched_light:
                self.cautions.append(f"{where}: {what}; the rig accepts that")
            else:
                advice = "say its watchdog_ms if its hardware has one, or unwatched_light: accept"
                self.problems.append(Problem(where, f"{what}; {advice}"))

    def _window(self) -> Roi:
        """The part of the sensor that the field falls on, in its middle."""
        field, ratio = self.protocol.field_px, self.optics.sensor_ratio
        rows, columns = self.rig.camera.sensor_shape
        for side, tile in zip(field, self.stack.tile_px, strict=True):
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
        rows, columns = self.optics.mirrors.shape
        size_um = [side * self.optics.object_pixel_um for side in self.protocol.field_px]
        along = np.array([0.0, 0.5, 1.0])
        x_um, y_um = np.meshgrid(corner_um[0] + along * size_um[1], corner_um[1] + along * size_um[0])
        column, row = self.optics.mirrors.to_sample.invert(x_um, y_um)
        if not (np.all(np.abs(column) <= columns / 2) and np.all(np.abs(row) <= rows / 2)):
            self.refuse(
                "field_px",
                f"the field of {size_um[1]:.4g}x{size_um[0]:.4g} µm reaches beyond the {columns}x{rows} mirrors of "
                f"rig {self.rig.settings.name}",
            )

    # ---------------------------------------------------------------- where

    def _shots(self, roles: tuple[Role, ...]) -> Shots:
        protocol, places, offsets_um = self.protocol, self._places(), self.protocol.offsets_um()
        self._check_focus(places, offsets_um)
        order = cast("tuple[Axis, Axis, Axis]", tuple(protocol.order.split(", ")))
        counts = protocol.timing.count, len(places), len(offsets_um)
        each = tuple(role for role in roles if role not in ("bleaching", "chosen"))
        then: tuple[Role, ...] = ("chosen",) if "chosen" in roles else ()
        loops = Loops(*counts, each, order, protocol.references.bleaching, then)
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
            for x_um, y_um in protocol.grid.places((columns, rows)):
                yield Place(x_um, y_um, protocol.focus_um)
        for number, here in enumerate(protocol.listed):
            around = protocol.grid.places((columns, rows), (here.x_um, here.y_um))
            for cell, (x_um, y_um) in enumerate(around):
                yield Place(x_um, y_um, self._focus_of(here), f"{here.name or f'position {number}'} field {cell}")

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

    # ---------------------------------------------------------------- how

    def _takes(self, roi: Roi) -> dict[Role, Take]:
        """Frame rate, binning and dose of each kind of burst."""
        takes: dict[Role, Take] = {"patterns": self._patterns(roi)}
        roles: list[Role] = [role for role in ("plain", "full") if getattr(self.protocol.references, role)]
        for role in roles:
            takes[role] = self._reference(role, roi, takes["patterns"])
        if self.protocol.references.bleaching:
            takes["bleaching"] = self._brightest(takes["patterns"])
        frames = self.stack.count + bool(roles)
        if self._wants_marker() and not self.problems:
            takes["patterns"] = self._marked(takes["patterns"], frames)
            frames += 1
        if self.then is not None and self.protocol.then is not None:
            takes["chosen"] = self._chosen(self.protocol.then, self.then, roi, frames)
            frames += self.then.count
        for take in takes.values():
            self._check_on_time(take)
        if frames > self.rig.dmd.memory_frames:
            self.refuse("patterns.count", f"the DMD holds {self.rig.dmd.memory_frames} frames, needed are {frames}")
        buffer = self.rig.camera.buffer_frames
        for role, key in (("patterns", "patterns.count"), ("chosen", "then.patterns.count")):
            exposures = takes[role].exposures if role in takes else 0
            if exposures > buffer:
                self.refuse(key, f"the camera buffers {buffer} frames, needed are {exposures}")
        return takes

    def _wants_marker(self) -> bool:
        """Unless told otherwise only where nothing else can speak for an order that hardware keeps."""
        if self.protocol.proof.marker == "auto":
            by_hardware = self.rig.settings.stepping != "software"
            return by_hardware and self.stack.count > 1 and not self.rig.dmd.reads_back
        return self.protocol.proof.marker == "always"

    def _marked(self, take: Take, place: int) -> Take:
        """With one more frame at the end; the light that it sends counts."""
        marker = Marker.of(
            self.stack, self.protocol.field_px, self.optics, take.mode, take.power_mw, self.protocol.proof.lit
        )
        pixels = marker.pixels_a_pattern
        if pixels < _FEW_PIXELS:
            what = f"each pattern is proven by {pixels} camera pixels: many bursts will stay unproven"
            self.cautions.append(f"{_where(self.source, 'proof.marker')}: {what}")
        light = marker.light(self.optics.mirrors.leakage)
        dose = self.optics.dose_mj_cm2(take.power_mw, take.period_ms) * light
        return replace(
            take,
            memory=(*take.memory, place),
            dose_mj_cm2=take.dose_mj_cm2 + dose,
            marker=marker,
            marker_dose_mj_cm2=dose,
        )

    def _patterns(self, roi: Roi) -> Take:
        exposure_ms = self.protocol.exposure_ms
        binning = self._binning("patterns.camera_pixel", float(self.stack.camera_pixel))
        mode = _mode(self.rig, exposure_ms, binning, roi)
        period_ms = self._overhead_ms(mode) + exposure_ms
        self._check_exposure("exposure_ms", "", exposure_ms)
        return self._take("patterns", self.stack, mode, period_ms, self.lit)

    def _chosen(self, then: Then, stack: PatternStack, roi: Roi, place: int) -> Take:
        """Bursts of fields that were chosen; their patterns lie behind all others in the memory of the DMD."""
        for side, tile in zip(self.protocol.field_px, stack.tile_px, strict=True):
            if side % tile:
                self.refuse("field_px", f"must be a multiple of then's tile, {tile} object pixels, given {side}")
        light, exposure_ms = then.light or self.protocol.light, then.exposure_ms or self.protocol.exposure_ms
        highest_mw = min(self.rig.settings.limits.power_mw, self.rig.light.max_power_mw)
        if light.power_mw > highest_mw:
            allowed = f"rig {self.rig.settings.name} allows {highest_mw:g} mW"
            self.refuse("then.light.power_mw", f"{allowed}, given {light.power_mw:g}")
        if not stack.masks.any():
            self.refuse("then.patterns", "all patterns are dark")
        self._check_exposure("then.exposure_ms", "", exposure_ms)
        mode = _mode(self.rig, exposure_ms, self._binning("then.patterns.camera_pixel", stack.camera_pixel), roi)
        period_ms = self._overhead_ms(mode) + exposure_ms
        seen = stack.masks.mean(axis=(1, 2))
        lit = float(np.sum(seen + (1 - seen) * self.optics.mirrors.leakage))
        dose = self.optics.dose_mj_cm2(light.power_mw, period_ms) * lit
        memory = tuple(range(place, place + stack.count))
        return Take("chosen", stack, mode, light.power_mw, period_ms, memory, dose)

    def _reference(self, role: Role, roi: Roi, patterns: Take) -> Take:
        """One frame of uniform light, exposed until the sample has taken as much light as from all patterns."""
        key = f"references.{role}"
        side = self.optics.sensor_ratio if role == "full" else self.stack.camera_pixel / math.sqrt(self.stack.count)
        binning = self._binning(key, side)
        overhead_ms = self._overhead_ms(_mode(self.rig, self.protocol.exposure_ms, binning, roi))
        period_ms = self.lit * patterns.period_ms
        exposure_ms = period_ms - overhead_ms
        if exposure_ms <= 0:
            self.refuse(
                key, f"the patterns give so little light that one frame has it in {overhead_ms:.3g} ms, unexposed"
            )
        self._check_exposure(key, "one frame of the same dose is exposed too long: ", exposure_ms)
        uniform = PatternStack("uniform", np.ones((1, *self.stack.tile_px), dtype=bool), self.stack.camera_pixel)
        mode = _mode(self.rig, exposure_ms, binning, roi)
        return self._take(role, uniform, mode, period_ms, 1.0)

    def _focus_take(self, patterns: Take, places: tuple[Place, ...]) -> Take | None:
        """As a burst without its marker, or one frame of it."""
        autofocus = self.protocol.autofocus
        if autofocus is None:
            return None
        if self.rig.focus is not None:
            low, high = self.rig.focus.limits_um
            half_um = autofocus.offsets_um()[-1]
            for z_um in sorted({place.z_um for place in places if place.z_um is not None}):
                if not (low <= z_um - half_um and z_um + half_um <= high):
                    what = f"round {z_um:g} µm it leaves the focus limits: {low:g} to {high:g} µm"
                    self.refuse("autofocus.range_um", what)
        if autofocus.patterns == "one":
            return replace(self._brightest(patterns), role="patterns")
        bare = replace(patterns, memory=patterns.memory[: patterns.stack.count], marker=None, marker_dose_mj_cm2=0.0)
        return replace(bare, dose_mj_cm2=patterns.dose_mj_cm2 - patterns.marker_dose_mj_cm2)

    def _brightest(self, patterns: Take) -> Take:
        """One frame with the pattern that lets most light through, just as in a burst."""
        light = self.stack.masks.mean(axis=(1, 2))
        most = int(np.argmax(light))
        one = PatternStack(self.stack.name, self.stack.masks[most : most + 1], self.stack.camera_pixel)
        lit = float(light[most] + (1 - light[most]) * self.optics.mirrors.leakage)
        take = self._take("bleaching", one, patterns.mode, patterns.period_ms, lit)
        return replace(take, memory=(most,))

    def _take(self, role: Role, stack: PatternStack, mode: CameraMode, period_ms: float, lit: float) -> Take:
        """The light is on between exposures too, and the sample takes it: the dose is that of the whole period."""
        power_mw = self.protocol.light.power_mw
        memory = tuple(range(stack.count)) if role == "patterns" else (self.stack.count,)
        dose = self.optics.dose_mj_cm2(power_mw, period_ms) * lit
        return Take(role, stack, mode, power_mw, period_ms, memory, dose)

    def _overhead_ms(self, mode: CameraMode) -> float:
        """From the end of an exposure to the next, which the mirrors and the camera both need."""
        return self.rig.dmd.settle_ms + self.rig.camera.readout_ms(mode)

    def _binning(self, key: str, side: float) -> int:
        """How many sensor pixels make a camera pixel of so many object pixels."""
        binning, allowed = side / self.optics.sensor_ratio, self.rig.camera.binnings
        if binning == round(binning) and round(binning) in allowed:
            return round(binning)
        sides = ", ".join(str(b * self.optics.sensor_ratio) for b in allowed)
        self.refuse(key, f"needs camera pixels of {side:g} object pixels along a side; the camera can give {sides}")
        return 1

    def _check_exposure(self, key: str, why: str, exposure_ms: float) -> None:
        longest_ms = self.rig.settings.limits.exposure_ms
        if exposure_ms > longest_ms:
            self.refuse(key, f"{why}rig {self.rig.settings.name} allows {longest_ms:g} ms, given {exposure_ms:g}")

    def _check_on_time(self, take: Take) -> None:
        longest_ms = self.rig.settings.limits.on_time_ms
        if take.burst_ms > longest_ms:
            keys = {"patterns": "exposure_ms", "chosen": "then.exposure_ms"}
            key = keys.get(take.role, f"references.{take.role}")
            allowed = f"rig {self.rig.settings.name} allows {longest_ms:g} ms in one go"
            self.refuse(key, f"the light is on for {take.burst_ms:g} ms, {allowed}")

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
            self.cautions.append(f"{_where(self.source, key)}: {what}")


def _where(source: Document | Path, key: str) -> str:
    """File, line and key; a key that the file does not have is said all the same."""
    if isinstance(source, Path):
        return f"{source}: {key}"
    loc: Loc = tuple(int(step) if step.isdigit() else step for step in key.split("."))
    line = next((source.lines[loc[:n]] for n in range(len(loc), 0, -1) if loc[:n] in source.lines), 1)
    return f"{source.path}:{line}: {key}"


def _mode(rig: Rig, exposure_ms: float, binning: int, roi: Roi) -> CameraMode:
    if rig.settings.stepping == "dmd":
        return CameraMode(exposure_ms, binning, roi, "external")
    interval_ms = exposure_ms + rig.dmd.settle_ms
    mode = CameraMode(exposure_ms, binning, roi, "internal", interval_ms)
    return CameraMode(exposure_ms, binning, roi, "internal", interval_ms + rig.camera.readout_ms(mode))
