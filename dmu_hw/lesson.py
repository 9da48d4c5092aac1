"""What to learn: the training protocol of a pattern set and the inverse that goes with it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from dmu_hw.dataset import Data
from dmu_hw.files import Count, FilePath, Name, NonNegative, Positive, Settings
from dmu_hw.physics.patterns import PatternSet, SetName


class Learned(Settings):
    """Patterns and how they are learned."""

    count: Annotated[int, Field(ge=1, le=4096)]
    """T."""
    camera_pixel: Annotated[int, Field(ge=1, le=1024)]
    """d: side of a camera pixel in object pixels."""
    tile: Count = 1
    """The patterns repeat every so many camera pixels."""
    superpixel: Count = 1
    """Object pixels that switch together."""
    start: SetName | Literal["noise"] = "hadamard"
    """The fixed set to begin from, or noise."""
    noise: NonNegative = 0.05
    """Spread of the first logits, where a start from a fixed set has ±0.3."""
    frozen: bool = False
    """true: only the inverse learns."""
    parametrisation: Literal["spatial", "fourier"] = "spatial"
    binarisation: Literal["hard", "soft"] = "hard"
    """hard: binary from the first update on, with a straight-through gradient; soft: a sigmoid made steeper and
    steeper."""
    slope: tuple[Positive, Positive] = (1.0, 8.0)
    """Of the sigmoid, at the first and at the last update."""

    @model_validator(mode="after")
    def _can_begin(self) -> Learned:
        if self.start != "noise":
            try:
                PatternSet(set=self.start, count=self.count, camera_pixel=self.camera_pixel)
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        if (self.camera_pixel * self.tile) % self.superpixel:
            side = self.camera_pixel * self.tile
            raise ValueError(f"superpixel must divide the tile of {side}, given {self.superpixel}")
        return self


class Network(Settings):
    """The inverse model to train, and its own settings."""

    model_config = ConfigDict(extra="allow")
    model: Annotated[str, Field(min_length=1)] = "lattice"


class Variation(Settings):
    """What is drawn anew for every batch, so that the result survives a real rig."""

    photons: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Relative spread of the light level, unknown to the inverse."""
    offset_adu: NonNegative = 0.0
    """Spread of the camera's offset round the one that is believed."""
    shift_px: NonNegative = 0.0
    """Spread of the registration between mirrors and camera, in object pixels."""


class Schedule(Settings):
    """How long and how fast."""

    updates: Annotated[int, Field(ge=1)]
    batch: Count = 8
    crop_px: Count = 256
    learning_rate: Positive = 1e-3
    patterns_rate: Positive = 1e-2
    warmup: Annotated[int, Field(ge=0)] = 50
    """Updates over which the rates rise; afterwards they fall like a cosine."""
    validate_every: Count = 100
    patience: Count | None = None
    """Stop after so many validations without a better one."""
    seed: Annotated[int, Field(ge=0)] = 0


class Lesson(Settings):
    """One training."""

    kind: Literal["train"]
    name: Name
    rig: FilePath
    """Whose optics are believed."""
    data: Data
    patterns: Learned
    power_mw: Positive
    exposure_ms: Positive
    """Of one frame."""
    network: Network = Network()
    loss: Literal["mse", "l1"] = "mse"
    variation: Variation = Variation()
    schedule: Schedule

    @model_validator(mode="after")
    def _crops_hold_whole_tiles(self) -> Lesson:
        side = self.patterns.camera_pixel * self.patterns.tile
        if self.schedule.crop_px % side:
            raise ValueError(
                f"schedule.crop_px must be a multiple of the tile of {side}, given {self.schedule.crop_px}"
            )
        return self
