"""What a run will do, decided and frozen: shots, how their bursts are taken, and what it all costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import overload

import numpy as np

from dmu_hw.data import PatternStack
from dmu_hw.files import content_hash
from dmu_hw.loops import Loops, Role
from dmu_hw.marker import Marker
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.protocol import Protocol
from dmu_hw.routes import Place
from dmu_hw.timing import Timing


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
    """Not before so long after the start of its series."""
    series: int = 0
    """Of time points: one for each turn of the loops outside of time. The first begins with the run."""


@dataclass(frozen=True)
class Shots(Sequence[Shot]):
    """All bursts in order. Each is worked out when it is asked for, so that a long run takes no more memory than a
    short one."""

    loops: Loops
    places: tuple[Place, ...]
    offsets_um: tuple[float, ...]
    """Planes of each place, from its focus position."""
    timing: Timing

    @property
    def hash(self) -> str:
        """Of all that says which shot is which."""
        phases = [(phase.loops, phase.interval_s) for phase in self.timing.phases]
        said = {"loops": self.loops.as_json(), "places": self.places, "planes": self.offsets_um, "phases": phases}
        return content_hash(said)

    def __len__(self) -> int:
        return len(self.loops)

    @overload
    def __getitem__(self, index: int) -> Shot: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Shot, ...]: ...

    def __getitem__(self, index: int | slice) -> Shot | tuple[Shot, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        stop = self.loops.at(index)
        place = self.places[stop.field]
        z_um = None if place.z_um is None else place.z_um + self.offsets_um[stop.plane]
        due_s, series = self.timing.due_s(stop.time), self.loops.series(stop)
        x_um, y_um = place.x_um, place.y_um
        return Shot(index, stop.role, stop.field, stop.time, stop.plane, x_um, y_um, z_um, due_s, series)


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
    """Places of its patterns in the memory of the DMD, and behind them of its marker, if it has one."""
    dose_mj_cm2: float
    """Of one burst, mean over the field."""
    marker: Marker | None = None
    """What one more frame at the end of the burst shows to prove the others."""
    marker_dose_mj_cm2: float = 0.0
    """Its part of the dose."""

    @property
    def exposures(self) -> int:
        """Frames that the camera takes; the marker's is no part of the data."""
        return len(self.memory)

    @property
    def burst_ms(self) -> float:
        return self.exposures * self.period_ms

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
    focus_bursts: int = 0
    """Taken to find the focus, and not kept; their light and time are in those of the run."""
    late_s: float = 0.0
    """How much later than asked for the last loop begins, since loops take longer than their interval."""


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
    shots: Shots
    price: Price
    focus_take: Take | None = None
    """How the bursts are taken by which the autofocus compares planes, if there is one."""
    cautions: tuple[str, ...] = ()
    """What does not stand against the run, but should be known before it."""

    @property
    def positions(self) -> int:
        return len(self.shots.places)

    @property
    def times(self) -> int:
        return self.shots.loops.times

    @property
    def planes(self) -> int:
        return self.shots.loops.planes

    def name_of(self, position: int) -> str:
        """What a field is called."""
        return self.shots.places[position].name or f"field {position}"

    @property
    def centre_um(self) -> tuple[float, float]:
        """Centre of the field, seen from the optical axis."""
        rows, columns = self.protocol.field_px
        pixel_um = self.optics.object_pixel_um
        return self.corner_um[0] + columns * pixel_um / 2, self.corner_um[1] + rows * pixel_um / 2

    def proof(self) -> dict[str, float] | None:
        """What the marker of a burst costs beside its patterns, as parts of their light and time; None without one."""
        take = self.takes["patterns"]
        if take.marker is None:
            return None
        light = take.marker_dose_mj_cm2 / (take.dose_mj_cm2 - take.marker_dose_mj_cm2)
        return {"frames": 1, "light": light, "time": 1 / take.stack.count}

    def frames_not_chosen(self, chosen: Mapping[int, Sequence[int]]) -> int:
        """How many frames a run need not have, since their fields were not chosen at their time."""
        if "chosen" not in self.takes:
            return 0
        fields = sum(self.positions - len(found) for found in chosen.values())
        return fields * self.planes * self.takes["chosen"].stack.count

    def as_json(self) -> dict[str, object]:
        """For machines."""
        counts = {"positions": self.positions, "times": self.times, "planes": self.planes}
        return {
            "name": self.protocol.name,
            **counts,
            "shots": len(self.shots),
            "route": self.shots.hash,
            "price": asdict(self.price),
            "proof": self.proof(),
            "cautions": list(self.cautions),
        }
