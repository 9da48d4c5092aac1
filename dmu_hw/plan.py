"""Protocol + rig + optics + patterns → frozen shots and their price. Nothing moves and nothing lights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from dmu_hw.data import PatternStack
from dmu_hw.errors import InputError, Problem
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig

Role = Literal["patterns", "plain", "full"]
_FRAME_OVERHEAD_BYTES = 700
"""Journal line and TIFF directory of one frame."""


@dataclass(frozen=True)
class Shot:
    """One burst: where, when, and in which role."""

    index: int
    role: Role
    position: int
    time: int
    z: int
    x_um: float | None
    y_um: float | None
    z_um: float | None
    due_s: float
    """Not before so long after the start of the run."""


@dataclass(frozen=True)
class Take:
    """How the bursts of one role are taken."""

    role: Role
    stack: PatternStack
    mode: CameraMode
    power_mw: float
    period_ms: float
    """From frame to frame."""
    memory: tuple[int, ...]
    """Places of its patterns in the memory of the DMD."""
    dose_mj_cm2: float
    """Of one burst, mean over the field."""

    @property
    def burst_ms(self) -> float:
        return self.stack.count * self.period_ms

    def stack_on(self, camera_pixel: int) -> PatternStack:
        """Its patterns on camera pixels of another size; only uniform light has any."""
        if self.role == "patterns":
            raise ValueError("patterns are designed for one size of camera pixels")
        return PatternStack(self.stack.name, np.ones((1, camera_pixel, camera_pixel), dtype=bool), camera_pixel)


@dataclass(frozen=True)
class Price:
    """What a run costs, told before it starts."""

    bursts: int
    frames: int
    time_s: float
    upload_s: float
    light_on_s: float
    disk_bytes: int
    dose_per_field_mj_cm2: float
    compression: float


@dataclass(frozen=True)
class Plan:
    """Everything that the engine needs to know, decided."""

    protocol: Protocol
    optics: Optics
    stack: PatternStack
    roi: Roi
    corner_um: tuple[float, float]
    """Outer corner of the field's first pixel, seen from the optical axis."""
    takes: dict[Role, Take]
    shots: tuple[Shot, ...]
    price: Price

    @property
    def positions(self) -> int:
        return max(shot.position for shot in self.shots) + 1

    @property
    def times(self) -> int:
        return self.protocol.time.loops if self.protocol.time else 1

    @property
    def planes(self) -> int:
        return len(self.protocol.planes_um())

    @property
    def centre_um(self) -> tuple[float, float]:
        """Centre of the field, seen from the optical axis."""
        rows, columns = self.protocol.field_px
        pixel_um = self.optics.object_pixel_um
        return self.corner_um[0] + columns * pixel_um / 2, self.corner_um[1] + rows * pixel_um / 2

    def as_json(self) -> dict[str, object]:
        """For machines."""
        counts = {"positions": self.positions, "times": self.times, "planes": self.planes}
        return {"name": self.protocol.name, **counts, "price": asdict(self.price)}


def make_plan(protocol: Protocol, path: Path, rig: Rig, optics: Optics, stack: PatternStack) -> Plan:
    """Decide everything, or say all that stands against it."""
    problems = _Problems(path)
    _check_limits(protocol, rig, problems)
    roi = _window(protocol, rig, optics, stack, problems)
    places = _places(protocol, rig, optics, problems)
    takes = _takes(protocol, rig, optics, stack, roi, problems)
    problems.raise_any()
    shots = tuple(_shots(protocol, tuple(takes), places))
    price = _price(protocol, rig, stack, takes, shots)
    _check_budget(protocol, rig, price, problems)
    problems.raise_any()
    rows, columns = rig.camera.sensor_shape
    corner_um = ((roi.x - columns / 2) * optics.sensor_pixel_um, (roi.y - rows / 2) * optics.sensor_pixel_um)
    return Plan(protocol, optics, stack, roi, corner_um, takes, shots, price)


class _Problems:
    """Collects all that is wrong, to be said at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: list[Problem] = []

    def add(self, key: str, what: str) -> None:
        self.found.append(Problem(f"{self.path}: {key}", what))

    def raise_any(self) -> None:
        if self.found:
            raise InputError(self.found)


# ---------------------------------------------------------------- checks


def _check_limits(protocol: Protocol, rig: Rig, problems: _Problems) -> None:
    limits = rig.settings.limits
    highest_mw = min(limits.power_mw, rig.light.max_power_mw)
    if protocol.light.power_mw > highest_mw:
        problems.add(
            "light.power_mw", f"rig {rig.settings.name} allows {highest_mw:g}, given {protocol.light.power_mw:g}"
        )
    if protocol.exposure_ms > limits.exposure_ms:
        problems.add(
            "exposure_ms", f"rig {rig.settings.name} allows {limits.exposure_ms:g}, given {protocol.exposure_ms:g}"
        )


def _check_budget(protocol: Protocol, rig: Rig, price: Price, problems: _Problems) -> None:
    budget, limits = protocol.budget, rig.settings.limits
    doses = [dose for dose in (budget.dose_mj_cm2, limits.dose_mj_cm2) if dose is not None]
    for key, cost, allowed in (
        ("dose_mj_cm2", price.dose_per_field_mj_cm2, min(doses, default=None)),
        ("time_min", price.time_s / 60, budget.time_min),
        ("disk_gb", price.disk_bytes / 1e9, budget.disk_gb),
    ):
        if allowed is not None and cost > allowed:
            problems.add(f"budget.{key}", f"the run would take {cost:.4g}, allowed are {allowed:g}")


def _window(protocol: Protocol, rig: Rig, optics: Optics, stack: PatternStack, problems: _Problems) -> Roi:
    """The part of the sensor that the field falls on, in its middle."""
    ratio, (rows, columns) = optics.sensor_ratio, rig.camera.sensor_shape
    height, width = (side // ratio for side in protocol.field_px)
    for side, tile in zip(protocol.field_px, stack.tile_px, strict=True):
        if side % tile or side % ratio:
            problems.add("field_px", f"must be a multiple of the patterns' tile of {tile} object pixels, given {side}")
    if height > rows or width > columns:
        problems.add(
            "field_px",
            f"the sensor has {rows * ratio}x{columns * ratio} object pixels, given "
            f"{protocol.field_px[0]}x{protocol.field_px[1]}",
        )
    return Roi((columns - width) // 2, (rows - height) // 2, width, height)


def _places(
    protocol: Protocol, rig: Rig, optics: Optics, problems: _Problems
) -> list[tuple[float | None, float | None]]:
    if protocol.focus_um is not None:
        _check_focus(protocol, rig, problems)
    rows, columns = protocol.field_px
    places = [(place.x_um, place.y_um) for place in protocol.positions]
    key = "positions"
    if protocol.grid is not None:
        places = protocol.grid.places((columns * optics.object_pixel_um, rows * optics.object_pixel_um))
        key = "grid"
    if not places:
        return [(None, None)]
    if rig.stage is None:
        problems.add(key, f"rig {rig.settings.name} has no stage")
        return [(x, y) for x, y in places]
    (x_low, x_high), (y_low, y_high) = rig.stage.limits_um
    outside = [i for i, (x, y) in enumerate(places) if not (x_low <= x <= x_high and y_low <= y <= y_high)]
    for i in outside[:10]:
        x, y = places[i]
        problems.add(
            f"{key}.{i}",
            f"({x:g}, {y:g}) µm is outside the stage's limits: x {x_low:g} to {x_high:g}, y {y_low:g} to {y_high:g}",
        )
    if len(outside) > 10:
        problems.add(key, f"{len(outside) - 10} more are outside the stage's limits")
    return [(x, y) for x, y in places]


def _check_focus(protocol: Protocol, rig: Rig, problems: _Problems) -> None:
    if rig.focus is None:
        problems.add("focus_um", f"rig {rig.settings.name} has no focus")
        return
    low, high = rig.focus.limits_um
    planes = protocol.planes_um()
    for value in {planes[0], planes[-1]}:
        if value is not None and not low <= value <= high:
            problems.add("focus_um", f"{value:g} µm is outside the focus limits: {low:g} to {high:g}")


# ---------------------------------------------------------------- how


def _takes(
    protocol: Protocol, rig: Rig, optics: Optics, stack: PatternStack, roi: Roi, problems: _Problems
) -> dict[Role, Take]:
    """Frame rate, binning and dose of each kind of burst."""
    lit = float(stack.masks.mean(axis=(1, 2)).sum())
    uniform = PatternStack("uniform", np.ones((1, *stack.tile_px), dtype=bool), stack.camera_pixel)
    takes: dict[Role, Take] = {}
    for role in _roles(protocol):
        patterns = role == "patterns"
        used = stack if patterns else uniform
        exposure_ms = protocol.exposure_ms * (1 if patterns else lit)
        binning = _binning(role, rig, optics, stack, problems)
        mode = _mode(rig, exposure_ms, binning, roi)
        period_ms = rig.dmd.settle_ms + exposure_ms + rig.camera.readout_ms(mode)
        memory = tuple(range(stack.count)) if patterns else (stack.count,)
        dose = optics.dose_mj_cm2(protocol.light.power_mw, protocol.exposure_ms) * lit
        takes[role] = Take(role, used, mode, protocol.light.power_mw, period_ms, memory, dose)
    frames = stack.count + (len(takes) > 1)
    if frames > rig.dmd.memory_frames:
        problems.add("patterns.count", f"the DMD holds {rig.dmd.memory_frames} frames, needed are {frames}")
    if stack.count > rig.camera.buffer_frames:
        problems.add("patterns.count", f"the camera buffers {rig.camera.buffer_frames} frames, given {stack.count}")
    return takes


def _roles(protocol: Protocol) -> list[Role]:
    roles: list[Role] = ["patterns"]
    if protocol.references.plain:
        roles.append("plain")
    if protocol.references.full:
        roles.append("full")
    return roles


def _binning(role: Role, rig: Rig, optics: Optics, stack: PatternStack, problems: _Problems) -> int:
    if role == "full":
        return 1
    side = float(stack.camera_pixel)
    if role == "plain":
        side /= math.sqrt(stack.count)
    binning = side / optics.sensor_ratio
    if binning != round(binning) or round(binning) not in rig.camera.binnings:
        key = "patterns.camera_pixel" if role == "patterns" else "references.plain"
        allowed = ", ".join(str(b * optics.sensor_ratio) for b in rig.camera.binnings)
        problems.add(key, f"needs camera pixels of {side:g} object pixels; the camera can give {allowed}")
        return 1
    return round(binning)


def _mode(rig: Rig, exposure_ms: float, binning: int, roi: Roi) -> CameraMode:
    if rig.settings.stepping == "dmd":
        return CameraMode(exposure_ms, binning, roi, "external")
    interval_ms = exposure_ms + rig.dmd.settle_ms
    mode = CameraMode(exposure_ms, binning, roi, "internal", interval_ms)
    return CameraMode(exposure_ms, binning, roi, "internal", interval_ms + rig.camera.readout_ms(mode))


# ---------------------------------------------------------------- when and where


def _shots(
    protocol: Protocol, roles: tuple[Role, ...], places: list[tuple[float | None, float | None]]
) -> Iterator[Shot]:
    """Time outermost, then fields, planes, and the roles of one plane."""
    planes = protocol.planes_um()
    index = 0
    for time in range(protocol.time.loops if protocol.time else 1):
        due_s = time * (protocol.time.interval_s if protocol.time else 0.0)
        for position, (x_um, y_um) in enumerate(places):
            for z, z_um in enumerate(planes):
                for role in roles:
                    yield Shot(index, role, position, time, z, x_um, y_um, z_um, due_s)
                    index += 1


def _price(
    protocol: Protocol, rig: Rig, stack: PatternStack, takes: dict[Role, Take], shots: tuple[Shot, ...]
) -> Price:
    upload_s = rig.dmd.upload_ms(stack.count + (len(takes) > 1)) / 1e3
    elapsed_s, light_s, frames, frame_bytes = upload_s, 0.0, 0, 0
    before = shots[0]
    for shot in shots:
        take = takes[shot.role]
        elapsed_s = max(elapsed_s, shot.due_s) + _travel_s(rig, before, shot) + take.burst_ms / 1e3
        light_s += take.burst_ms / 1e3
        frames += take.stack.count
        frame_bytes += take.stack.count * (2 * math.prod(take.mode.shape) + _FRAME_OVERHEAD_BYTES)
        before = shot
    bursts = sum(shot.role == "patterns" for shot in shots)
    image_bytes = 4 * math.prod(protocol.field_px) * bursts
    positions = max(shot.position for shot in shots) + 1
    dose = sum(take.dose_mj_cm2 for take in takes.values()) * bursts / positions
    # raw data lie in the spool and in the store until the store has been checked
    return Price(bursts, frames, elapsed_s, upload_s, light_s, 2 * frame_bytes + image_bytes, dose, stack.compression)


def _travel_s(rig: Rig, before: Shot, shot: Shot) -> float:
    seconds = 0.0
    if rig.stage is not None and None not in (before.x_um, before.y_um, shot.x_um, shot.y_um):
        distance = math.dist((before.x_um, before.y_um), (shot.x_um, shot.y_um))  # type: ignore[arg-type]
        seconds += rig.stage.travel_ms(distance) / 1e3
    if rig.focus is not None and before.z_um is not None and shot.z_um is not None:
        seconds += rig.focus.travel_ms(abs(shot.z_um - before.z_um)) / 1e3
    return seconds
