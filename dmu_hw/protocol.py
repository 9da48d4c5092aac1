"""protocols/*.yaml: what to image. Says nothing about which devices do it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from dmu_hw.files import Count, FilePath, Name, NonNegative, Positive, Settings
from dmu_hw.physics.patterns import PatternSet

MAX_SHOTS = 1_000_000


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


class Position(Settings):
    """A place on the stage."""

    x_um: float
    y_um: float
    name: Name | None = None


class Grid(Settings):
    """Fields side by side around a centre, in rows, every other one backwards."""

    rows: Count
    columns: Count
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of a field that it shares with its neighbour."""
    centre_um: tuple[float, float] = (0.0, 0.0)

    def places(self, field_um: tuple[float, float]) -> list[tuple[float, float]]:
        """Centres of the fields; `field_um` is (width, height)."""
        step_x, step_y = (side * (1 - self.overlap) for side in field_um)
        places = []
        for row in range(self.rows):
            columns = range(self.columns) if row % 2 == 0 else range(self.columns - 1, -1, -1)
            for column in columns:
                x = self.centre_um[0] + (column - (self.columns - 1) / 2) * step_x
                y = self.centre_um[1] + (row - (self.rows - 1) / 2) * step_y
                places.append((x, y))
        return places


class ZStack(Settings):
    """Planes around the focus position of each field, from below."""

    range_um: NonNegative
    step_um: Positive

    def offsets_um(self) -> tuple[float, ...]:
        planes = int(self.range_um / self.step_um + 1e-9) + 1
        return tuple((plane - (planes - 1) / 2) * self.step_um for plane in range(planes))


class TimePoints(Settings):
    """The whole set of fields again and again."""

    loops: Count
    interval_s: NonNegative = 0.0
    """From the start of one loop to the start of the next."""


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


class Budget(Settings):
    """Where a run may not go; it can only tighten what the rig allows."""

    dose_mj_cm2: Positive | None = None
    """Of one field, all its bursts together."""
    time_min: Positive | None = None
    disk_gb: Positive | None = None


class Protocol(Settings):
    """One acquisition."""

    kind: Literal["run"]
    name: Name
    rig: FilePath
    field_px: tuple[Count, Count]
    """Rows and columns of a field on the object grid."""
    patterns: Patterns
    inverse: Inverse | None = None
    """For a fixed pattern set: how to reconstruct. null: record only. A bundle brings its own."""
    light: LightSettings
    exposure_ms: Positive
    positions: Annotated[tuple[Position, ...], Field(max_length=100_000)] = ()
    """Where to image; empty without a grid: where the stage stands."""
    grid: Grid | None = None
    focus_um: float | None = None
    """Focus position; null: as it stands."""
    z: ZStack | None = None
    time: TimePoints | None = None
    references: References = References()
    retries: Annotated[int, Field(ge=0, le=10)] = 1
    """How often a burst that came back damaged is taken again before it is recorded as missing."""
    frame_timeout_ms: Positive = 2000.0
    """Longest wait for a frame beyond its exposure."""
    budget: Budget = Budget()
    keep_spool: bool = False
    """Keep the raw TIFF segments after they were copied to OME-Zarr and checked."""

    @model_validator(mode="after")
    def _consistent(self) -> Protocol:
        if self.positions and self.grid is not None:
            raise ValueError("give positions or grid, not both")
        if isinstance(self.patterns, BundleFile) and self.inverse is not None:
            raise ValueError("a bundle brings its own inverse: leave out inverse")
        if self.grid is not None and self.grid.rows * self.grid.columns > 100_000:
            raise ValueError(f"a grid of more than 100000 fields, given {self.grid.rows * self.grid.columns}")
        if self.z is not None and self.z.range_um / self.z.step_um > 10_000:
            raise ValueError(f"a stack of more than 10000 planes, given {self.z.range_um / self.z.step_um:.0f}")
        if self.z is not None and self.focus_um is None:
            raise ValueError("z needs focus_um, the middle of the stack")
        if self.shots > MAX_SHOTS:
            raise ValueError(f"more than {MAX_SHOTS} bursts, given {self.shots}")
        return self

    @property
    def shots(self) -> int:
        """Bursts, references not counted."""
        fields = self.grid.rows * self.grid.columns if self.grid else max(1, len(self.positions))
        return fields * len(self.planes_um()) * (self.time.loops if self.time else 1)

    def planes_um(self) -> tuple[float | None, ...]:
        """Focus positions of each field; None: where the focus stands."""
        if self.focus_um is None or self.z is None:
            return (self.focus_um,)
        return tuple(self.focus_um + offset for offset in self.z.offsets_um())
