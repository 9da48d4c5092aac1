"""What a run will do, decided and frozen: shots, how their bursts are taken, and what it all costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, overload

import numpy as np

from dmu_hw.data import PatternStack
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.protocol import Protocol

Role = Literal["patterns", "plain", "full"]
Place = tuple[float | None, float | None]
"""On the stage; None: where it stands."""


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
class Shots(Sequence[Shot]):
    """All bursts in order: time outermost, then fields, planes, and the roles of one plane. Each is worked out when it
    is asked for, so that a long run takes no more memory than a short one."""

    roles: tuple[Role, ...]
    places: tuple[Place, ...]
    planes_um: tuple[float | None, ...]
    loops: int
    interval_s: float

    def __len__(self) -> int:
        return self.loops * len(self.places) * len(self.planes_um) * len(self.roles)

    @overload
    def __getitem__(self, index: int) -> Shot: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Shot, ...]: ...

    def __getitem__(self, index: int | slice) -> Shot | tuple[Shot, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        rest, role = divmod(index, len(self.roles))
        rest, z = divmod(rest, len(self.planes_um))
        time, position = divmod(rest, len(self.places))
        x_um, y_um = self.places[position]
        due_s = time * self.interval_s
        return Shot(index, self.roles[role], position, time, z, x_um, y_um, self.planes_um[z], due_s)


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
    cautions: tuple[str, ...] = ()
    """What does not stand against the run, but should be known before it."""

    @property
    def positions(self) -> int:
        return len(self.shots.places)

    @property
    def times(self) -> int:
        return self.shots.loops

    @property
    def planes(self) -> int:
        return len(self.shots.planes_um)

    @property
    def centre_um(self) -> tuple[float, float]:
        """Centre of the field, seen from the optical axis."""
        rows, columns = self.protocol.field_px
        pixel_um = self.optics.object_pixel_um
        return self.corner_um[0] + columns * pixel_um / 2, self.corner_um[1] + rows * pixel_um / 2

    def as_json(self) -> dict[str, object]:
        """For machines."""
        counts = {"positions": self.positions, "times": self.times, "planes": self.planes}
        return {
            "name": self.protocol.name,
            **counts,
            "shots": len(self.shots),
            "price": asdict(self.price),
            "cautions": list(self.cautions),
        }
