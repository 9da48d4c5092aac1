"""What a run will do, decided and frozen: shots, how their bursts are taken, and what it all costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, overload

import numpy as np

from dmu_hw.channels import Channel
from dmu_hw.data import PatternStack
from dmu_hw.files import content_hash
from dmu_hw.fringes import Fringes
from dmu_hw.loops import Loops, Role
from dmu_hw.marker import Marker
from dmu_hw.mechanics import AS_TOLD, Mechanics
from dmu_hw.physics.optics import AiryPsf, Optics, Psf
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.protocol import AnyProtocol, Protocol
from dmu_hw.routes import Place
from dmu_hw.timing import Timing

Waves = tuple[float | None, float | None]
"""Of excitation and emission, in nm; None is not known."""


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
    channel: str = ""
    """Its name; empty in a run that has one only."""


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
        where = x_um, y_um, z_um
        return Shot(index, stop.role, stop.field, stop.time, stop.plane, *where, due_s, series, stop.channel)


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
    channel: str = ""
    """Its name; empty in a run that has one only."""
    light: str = "light"
    """Name of the device."""
    fringes: Fringes | None = None
    """Of a look: what its frames show, and how they are read."""

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
    channel_dose_mj_cm2: dict[str, float] = field(default_factory=dict)
    """What each channel has of the dose of a field; empty in a run that has one only."""
    looks: int = 0
    """Bursts of fringes that tell what drifts, and are not kept; their light and time are in those of the run."""

    def as_json(self) -> dict[str, Any]:
        """Without a word of channels where there is one only, and of looks where there is none."""
        silent = {name for name in ("channel_dose_mj_cm2", "looks") if not getattr(self, name)}
        return {name: value for name, value in asdict(self).items() if name not in silent}


@dataclass(frozen=True)
class Part:
    """What a plan does in one channel."""

    channel: Channel
    """The rig's: which light, where the filters stand, what is believed of it."""
    protocol: Protocol
    stack: PatternStack
    takes: dict[Role, Take]


@dataclass(frozen=True)
class Plan:
    """Everything that the engine needs to know, decided."""

    protocol: AnyProtocol
    parts: dict[str, Part]
    """By the names of channels; in a run that has one only its name is empty."""
    roi: Roi
    corner_um: tuple[float, float]
    """Outer corner of the field's first pixel, seen from the optical axis."""
    shots: Shots
    price: Price
    focus_take: Take | None = None
    """How the bursts are taken by which the autofocus compares planes, if there is one."""
    cautions: tuple[str, ...] = ()
    """What does not stand against the run, but should be known before it."""
    watch_take: Take | None = None
    """How the bursts are taken by which it is told what drifts, if there are any."""
    mechanics: Mechanics = AS_TOLD
    """How the rig is believed to move."""

    def of(self, channel: str) -> Plan:
        """What of it concerns one channel; the shots are numbered as in the whole."""
        own = (take if take is not None and take.channel == channel else None for take in self._extras)
        focus_take, watch_take = own
        parts = {channel: self.parts[channel]}
        return replace(self, parts=parts, focus_take=focus_take, watch_take=watch_take)

    @property
    def _extras(self) -> tuple[Take | None, Take | None]:
        return self.focus_take, self.watch_take

    def concerns(self, shot: Shot) -> bool:
        return shot.channel in self.parts

    def take_of(self, shot: Shot) -> Take:
        return self.parts[shot.channel].takes[shot.role]

    @property
    def all_takes(self) -> list[Take]:
        return [take for part in self.parts.values() for take in part.takes.values()]

    @property
    def part(self) -> Part:
        """The only one; of a plan for several channels nobody can say which."""
        if len(self.parts) != 1:
            raise ValueError(f"there are several channels, {', '.join(self.parts)}: ask for the plan of one")
        return next(iter(self.parts.values()))

    @property
    def optics(self) -> Optics:
        return self.part.channel.optics

    @property
    def stack(self) -> PatternStack:
        return self.part.stack

    @property
    def takes(self) -> dict[Role, Take]:
        return self.part.takes

    @property
    def object_pixel_um(self) -> float:
        """The same in all channels."""
        return next(iter(self.parts.values())).channel.optics.object_pixel_um

    def waves_nm(self, channels: Iterable[str]) -> tuple[Waves, ...]:
        """Of excitation and emission of some channels, where known; none on a rig that names no channels."""
        found = (self.parts[name].channel for name in channels)
        return tuple(
            (_wave_nm(channel.optics.excitation), _wave_nm(channel.optics.emission))
            for channel in found
            if channel.name
        )

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
    def size_um(self) -> tuple[float, float]:
        """Of the field, along x and y."""
        rows, columns = self.protocol.field_px
        return columns * self.object_pixel_um, rows * self.object_pixel_um

    @property
    def centre_um(self) -> tuple[float, float]:
        """Centre of the field, seen from the optical axis."""
        width_um, height_um = self.size_um
        return self.corner_um[0] + width_um / 2, self.corner_um[1] + height_um / 2

    def proof(self) -> dict[str, float] | None:
        """What the marker of a burst costs beside its patterns, as parts of their light and time; None without one."""
        take = self.takes["patterns"]
        if take.marker is None:
            return None
        light = take.marker_dose_mj_cm2 / (take.dose_mj_cm2 - take.marker_dose_mj_cm2)
        return {"frames": 1, "light": light, "time": 1 / take.stack.count}

    def frames_not_chosen(self, chosen: Mapping[int, Sequence[int]]) -> int:
        """How many frames a run need not have, since their fields were not chosen at their time."""
        fields = sum(self.positions - len(found) for found in chosen.values())
        frames = sum(take.stack.count for take in self.all_takes if take.role == "chosen")
        return fields * self.planes * frames

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        counts = {"positions": self.positions, "times": self.times, "planes": self.planes}
        return {
            "name": self.protocol.name,
            **counts,
            "shots": len(self.shots),
            "route": self.shots.hash,
            "price": self.price.as_json(),
            **self._of_channels(),
            "cautions": list(self.cautions),
        }

    def _of_channels(self) -> dict[str, Any]:
        """How the bursts of each channel are proven, and what it is on this rig."""
        if "" in self.parts:
            channel = self.part.channel
            return {"proof": self.proof(), **({"channel": channel.as_json()} if channel.name else {})}
        parts = {name: {**part.channel.as_json(), "proof": self.of(name).proof()} for name, part in self.parts.items()}
        return {"channels": parts}


def _wave_nm(psf: Psf) -> float | None:
    """A plain blur has none."""
    return psf.wavelength_nm if isinstance(psf, AiryPsf) else None
