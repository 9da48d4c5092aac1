"""protocols/*.yaml: what to image. Says nothing about which devices do it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise, permutations
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, WithJsonSchema, model_validator

from dmu_hw.autofocus import Autofocus
from dmu_hw.choosing import Choice
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Count, Document, FilePath, Name, NonNegative, Positive, Settings, validate
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.pursuit import Pursuit
from dmu_hw.routes import Grid, Position
from dmu_hw.timing import TimePoints, Timing
from dmu_hw.watch import Watch

MAX_SHOTS = 1_000_000
MAX_FIELDS = 100_000
MAX_PLANES = 10_001


class BundleFile(Settings):
    """Patterns and the inverse that goes with them, from a file."""

    bundle: FilePath


def _which_patterns(given: Any) -> str:
    """A bundle if it says so: else one mistake would be answered with what both kinds think of it."""
    names_bundle = "bundle" in given if isinstance(given, dict) else isinstance(given, BundleFile)
    return BundleFile.__name__ if names_bundle else PatternSet.__name__


Patterns = Annotated[
    Annotated[PatternSet, Tag("PatternSet")] | Annotated[BundleFile, Tag("BundleFile")], Discriminator(_which_patterns)
]


class Inverse(Settings):
    """The inverse model to compute for a fixed pattern set, and its own settings."""

    model_config = ConfigDict(extra="allow")
    model: Annotated[str, Field(min_length=1)] = "ridge"


class ZStack(Settings):
    """Planes around the focus position of each field, from below."""

    range_um: NonNegative
    step_um: Positive

    def offsets_um(self) -> tuple[float, ...]:
        planes = int(self.range_um / self.step_um + 1e-9) + 1
        return tuple((plane - (planes - 1) / 2) * self.step_um for plane in range(planes))


def _rising(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(upper <= lower for lower, upper in pairwise(values)):
        raise ValueError("planes should be given from below, each once")
    return values


class ZPlanes(Settings):
    """Planes given one by one, from below."""

    planes_um: Annotated[tuple[float, ...], Field(min_length=1, max_length=MAX_PLANES), AfterValidator(_rising)]
    """From the focus position of each field."""

    def offsets_um(self) -> tuple[float, ...]:
        return self.planes_um


def _which_planes(given: Any) -> str:
    one_by_one = "planes_um" in given if isinstance(given, dict) else isinstance(given, ZPlanes)
    return ZPlanes.__name__ if one_by_one else ZStack.__name__


Planes = Annotated[Annotated[ZStack, Tag("ZStack")] | Annotated[ZPlanes, Tag("ZPlanes")], Discriminator(_which_planes)]


def _list_or_one(given: Any) -> str:
    return "tuple" if isinstance(given, tuple) else TimePoints.__name__


def _list_or_file(given: Any) -> str:
    return "tuple" if isinstance(given, tuple) else Path.__name__


def _plan_or_file(given: Any) -> str:
    return "dict" if isinstance(given, dict) else Path.__name__


_LOOPS = ("time", "field", "z")
_ORDERS = {", ".join(order) for order in permutations(_LOOPS)}
_CHANNEL_ORDERS = {", ".join(order) for order in permutations((*_LOOPS, "channel"))}


def _to_order(order: str) -> str:
    if order not in _ORDERS | _CHANNEL_ORDERS:
        raise ValueError("should be 'time, field, z' in any order, and 'channel' among them where there are channels")
    return order


Order = Annotated[
    str,
    AfterValidator(_to_order),
    WithJsonSchema({"type": "string", "enum": sorted(_ORDERS) + sorted(_CHANNEL_ORDERS)}),
]


class LightSettings(Settings):
    """How bright."""

    power_mw: Positive
    """At the sample, with all mirrors on."""


class References(Settings):
    """Extra frames of every field, at the same peak power and the same dose as its burst."""

    plain: bool = False
    """Uniform light on camera pixels of d/√T: the plain camera of the same compression."""
    full: bool = False
    """Uniform light at the camera's full resolution."""
    bleaching: Annotated[int, Field(ge=0)] = 0
    """After every so many bursts of a field, and after its first, one frame more with the pattern that lets most light
    through, so that the run itself tells how its dye bleaches. 0: none."""


class Proof(Settings):
    """How the light itself proves that every frame saw its pattern."""

    marker: Literal["auto", "always", "never"] = "auto"
    """One more frame a burst, a mosaic of all patterns that the others must agree with. auto: where patterns step in
    hardware and the DMD cannot tell what it showed."""
    lit: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Part of the camera pixels that it shows patterns in; null: as few as tell the patterns apart."""


class Budget(Settings):
    """Where a run may not go; it can only tighten what the rig allows."""

    dose_mj_cm2: Positive | None = None
    """Of one field, all its bursts together."""
    time_min: Positive | None = None
    disk_gb: Positive | None = None


class Then(Settings):
    """How fields that were chosen are imaged once more."""

    patterns: Patterns
    exposure_ms: Positive | None = None
    """null: as in the survey."""
    light: LightSettings | None = None
    """null: as in the survey."""


class _Checked(Settings):
    """Settings that may contradict one another, which is said all at once."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        wrong = list(self._contradictions())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _contradictions(self) -> Iterator[str]:
        yield from ()


class Look(_Checked):
    """How every place is imaged: all that each channel has of its own."""

    patterns: Patterns
    inverse: Inverse | None = None
    """For a fixed pattern set: how to reconstruct. null: record only. A bundle brings its own."""
    light: LightSettings
    exposure_ms: Positive

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if isinstance(self.patterns, BundleFile) and self.inverse is not None:
            yield "a bundle brings its own inverse: leave out inverse"


class ChannelLook(Look):
    """The same in one of the rig's channels."""

    channel: Name


class Course(_Checked):
    """What all channels of an acquisition share: where and when, and what else is taken there."""

    kind: Literal["run"]
    name: Name
    rig: FilePath
    field_px: tuple[Count, Count]
    """Rows and columns of a field on the object grid."""
    positions: Annotated[
        Annotated[tuple[Position, ...], Field(max_length=MAX_FIELDS), Tag("tuple")] | Annotated[FilePath, Tag("Path")],
        Discriminator(_list_or_file),
    ] = ()
    """Where to image, or a file (.yaml, .csv) that says it; empty without a grid: where the stage stands."""
    grid: Grid | None = None
    """Fields side by side; with positions, at each of them."""
    focus_um: float | None = None
    """Focus position of the positions that give none; null: as it stands."""
    z: Planes | None = None
    time: (
        Annotated[
            Annotated[tuple[TimePoints, ...], Field(min_length=1, max_length=1000), Tag("tuple")]
            | Annotated[TimePoints, Tag("TimePoints")],
            Discriminator(_list_or_one),
        ]
        | None
    ) = None
    """Once, or phases that follow one another: each time point is followed by the interval of its phase."""
    order: Order = "time, field, z"
    """Which loop is the outermost, and so on. Intervals begin anew for each turn of the loops outside of time. Channels
    are the innermost loop where it does not say otherwise."""
    useq: (
        Annotated[
            Annotated[dict[str, Any], Tag("dict")] | Annotated[FilePath, Tag("Path")], Discriminator(_plan_or_file)
        ]
        | None
    ) = None
    """Positions, grid, z and time in the words of useq-schema, or a file with them, instead of those above."""
    autofocus: Autofocus | None = None
    """Find the focus anew now and then."""
    watch: Watch | None = None
    """Look for drifts while the run goes on."""
    references: References = References()
    adaptive: Choice | None = None
    """Who chooses, from the reconstructions of a time point, which of its fields are imaged once more."""
    then: Then | None = None
    """How these are imaged, when all fields of the time point have been."""
    retries: Annotated[int, Field(ge=0, le=10)] = 1
    """How often a burst that came back damaged is taken again before it is recorded as missing."""
    proof: Proof = Proof()
    frame_timeout_ms: Positive = 2000.0
    """Longest wait for a frame beyond its exposure."""
    budget: Budget = Budget()
    live: Pursuit | None = Pursuit()
    """Reconstruct while the run goes on, where there is an inverse; null: only when the light is off for good."""
    keep_spread: bool = True
    """Keep how far each pixel of an image may be off, where the bundle knows it: a third as large as the images."""
    keep_spool: bool = False
    """Keep the raw TIFF segments after they were copied to OME-Zarr and checked."""

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        if (self.adaptive is None) != (self.then is None):
            yield "adaptive (who chooses fields) and then (how these are imaged once more) go together"
        if self.then is not None and (self.references.bleaching or not self.order.startswith("time")):
            yield "then needs time as the outermost loop, and no bleaching references"
        given = [key for key in ("positions", "grid", "z", "time") if getattr(self, key)]
        if self.useq is not None and (given or self.order != "time, field, z"):
            yield f"useq says where and when: leave out {', '.join(given) or 'order'}"
        if isinstance(self.z, ZStack) and self.z.range_um / self.z.step_um >= MAX_PLANES - 1:
            yield f"a stack of more than {MAX_PLANES - 1} planes, given {self.z.range_um / self.z.step_um:.0f}"
        elif self.useq is None and not isinstance(self.positions, Path):
            yield from self._misplaced(self.positions)

    def _misplaced(self, positions: tuple[Position, ...]) -> Iterator[str]:
        """What is wrong with where, once all positions are known."""
        if positions and self.grid is not None and self.grid.centre_um is not None:
            yield "each of the positions is the centre of a grid: leave out grid.centre_um"
        if self.autofocus is not None and self.focus_um is None and not any(p.focus_um is not None for p in positions):
            yield "autofocus needs focus_um, where the search begins"
        without = [i for i, position in enumerate(positions) if position.focus_um is None]
        if self.focus_um is None and positions and 0 < len(without) < len(positions):
            yield f"positions.{without[0]} has no focus_um and others have, and there is none for all"
        if self.z is not None and self.focus_um is None and (without or not positions):
            yield "z needs focus_um, the middle of the stack"
        if self.fields > MAX_FIELDS:
            yield f"a grid of more than {MAX_FIELDS} fields, given {self.fields}"
        if self.shots > MAX_SHOTS:
            yield f"more than {MAX_SHOTS} bursts, given {self.shots}"

    @property
    def fields(self) -> int:
        """At all positions together."""
        cells = self.grid.rows * self.grid.columns if self.grid else 1
        return cells * max(1, len(self.listed))

    @property
    def shots(self) -> int:
        """Bursts, references not counted."""
        return self.fields * len(self.offsets_um()) * self.timing.count

    @property
    def listed(self) -> tuple[Position, ...]:
        """The positions, once those of a file have been read."""
        if isinstance(self.positions, Path):
            raise TypeError(f"{self.positions} was not read")
        return self.positions

    @property
    def timing(self) -> Timing:
        if self.time is None:
            return Timing()
        return Timing(self.time if isinstance(self.time, tuple) else (self.time,))

    def offsets_um(self) -> tuple[float, ...]:
        """Planes of each field, from its focus position."""
        return (0.0,) if self.z is None else self.z.offsets_um()


class Protocol(Course, Look):
    """One acquisition in one channel."""

    channel: Name | None = None
    """Which of the rig's; null: the only one that it has."""

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        yield from _foreign_channels(self, (self.channel,))
        if "channel" in self.order:
            yield "there are no channels to be a loop in the order"


def _each_once(channels: tuple[ChannelLook, ...]) -> tuple[ChannelLook, ...]:
    if not channels:
        raise ValueError("should hold one channel at least")
    names = [look.channel.casefold() for look in channels]  # there are disks that do not tell Red from red
    if len(set(names)) < len(names):
        raise ValueError("each channel should be given once")
    return channels


class ChannelsProtocol(Course):
    """One acquisition in several channels: light, filters, patterns and inverse of each."""

    channels: Annotated[
        tuple[ChannelLook, ...],
        Field(max_length=100, json_schema_extra={"minItems": 1}),
        AfterValidator(_each_once),
    ]
    """In the order in which they are taken."""

    def _contradictions(self) -> Iterator[str]:
        yield from super()._contradictions()
        yield from _foreign_channels(self, [look.channel for look in self.channels])

    @property
    def shots(self) -> int:
        return super().shots * len(self.channels)

    def of(self, channel: str) -> Protocol:
        """What it asks for in one of them, as if there were no other."""
        look = next(look for look in self.channels if look.channel == channel)
        shared = {name: getattr(self, name) for name in Course.model_fields}
        own = {name: getattr(look, name) for name in ChannelLook.model_fields}
        # it was checked as a whole, and is none to be written down: places may have come from a file by now
        return Protocol.model_construct(**shared, **own)


AnyProtocol = Protocol | ChannelsProtocol


def _foreign_channels(course: Course, channels: Collection[str | None]) -> Iterator[str]:
    """Who looks at a channel that is not imaged."""
    for key in ("autofocus", "adaptive", "watch"):
        asked = getattr(getattr(course, key), "channel", None)
        if asked is not None and asked not in channels:
            named = [name for name in channels if name is not None]
            yield f"{key}.channel {asked!r} is none of the channels; there are: {', '.join(named) or 'none by name'}"


def read_protocol(document: Document) -> AnyProtocol:
    """In one channel or in several, by what the document says; everything that is wrong at once."""
    if not (isinstance(document.value, dict) and "channels" in document.value):
        return validate(document, Protocol)
    own = (*Look.model_fields, "channel")
    doubled = [Problem(document.where((key,)), _BOTH) for key in own if key in document.value]
    try:
        protocol = validate(document.inside((), without=own), ChannelsProtocol)
    except InputError as error:
        raise InputError([*doubled, *error.problems]) from None
    if doubled:
        raise InputError(doubled)
    return protocol


_BOTH = "each of the channels says its own: leave it out here, or leave out channels"
