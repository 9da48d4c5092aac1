"""What to learn: the training protocol of a pattern set and the inverse that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from dmu_hw.dataset import Data
from dmu_hw.files import Count, FilePath, Name, NonNegative, Positive, Settings
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.patterns import PatternSet, SetName
from dmu_hw.segmenter.settings import SegmenterSettings


class BundleStart(Settings):
    """Begin with the patterns of a bundle."""

    bundle: FilePath


class DoseCap(Settings):
    """The most light that patterns may let through; one frame of full light is 1."""

    sum: Positive | None = None
    """Over all frames, of the mean object pixel."""
    peak: Count | None = None
    """Frames in which any one object pixel may be lit."""


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
    start: SetName | Literal["noise", "draft"] | BundleStart = "draft"
    """Begin from a fixed set, from noise, from a bundle, or from a draft: the patterns that a linear decoder reads
    best, found in seconds by descent from each fixed set and from noise."""
    noise: NonNegative = 0.05
    """Spread of the first logits, where a start from given patterns has ±0.3."""
    frozen: bool = False
    """true: only the inverse learns."""
    parametrisation: Literal["spatial", "fourier"] = "spatial"
    binarisation: Literal["hard", "soft", "signed"] = "hard"
    """hard: binary from the first update on, with a straight-through gradient; soft: a sigmoid made steeper and
    steeper; signed: any value from -1 to 1, which no mirror can show, to see how much there would be to gain."""
    slope: tuple[Positive, Positive] = (1.0, 8.0)
    """Of the sigmoid, at the first and at the last update."""
    thresholded: bool = True
    """false: soft patterns are judged as they are, grey; no bundle comes of them."""
    cap: DoseCap = DoseCap()

    @model_validator(mode="after")
    def _can_begin(self) -> Learned:
        if isinstance(self.start, str) and self.start != "noise" and self.start != "draft":  # noqa: PLR1714 - for mypy
            try:
                PatternSet(set=self.start, count=self.count, camera_pixel=self.camera_pixel)
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        if (self.camera_pixel * self.tile) % self.superpixel:
            side = self.camera_pixel * self.tile
            raise ValueError(f"superpixel must divide the tile of {side}, given {self.superpixel}")
        if isinstance(self.start, str) and self.start != "noise" and self.camera_pixel % self.superpixel:
            raise ValueError(
                f"superpixel must divide camera_pixel {self.camera_pixel} to start from {self.start}, given "
                f"{self.superpixel}; start from noise or a bundle"
            )
        return self

    @property
    def binary(self) -> bool:
        """Whether mirrors can show them in the end."""
        return self.binarisation == "hard" or (self.binarisation == "soft" and self.thresholded)


class Network(Settings):
    """The inverse model to train, and its own settings."""

    model_config = ConfigDict(extra="allow")
    model: Annotated[str, Field(min_length=1)] = "lattice"


class ImageTask(Settings):
    """The specimen itself."""

    kind: Literal["image"] = "image"


class SegmentTask(Settings):
    """Which object each pixel belongs to; their number comes out of it."""

    kind: Literal["segment"]
    stages: tuple[NonNegative, NonNegative, NonNegative] = (0.4, 0.2, 0.4)
    """Parts of the updates: the image alone, the segmentation alone on images that stay as they are, all jointly.
    (0, 0, 1) is straight from frames; (.5, .5, 0) is an image that is then segmented."""
    network: SegmenterSettings = SegmenterSettings()
    """The one behind the inverse model."""
    learning_rate: Positive = 4e-3
    """Of that network."""

    @field_validator("stages")
    @classmethod
    def _some_of_it_segments(cls, stages: tuple[float, float, float]) -> tuple[float, float, float]:
        if abs(sum(stages) - 1) > 1e-6 or stages[1] + stages[2] == 0:
            raise ValueError(f"stages must sum to 1 and head or joint be above 0, given {stages}")
        return stages


Task = Annotated[ImageTask | SegmentTask, Field(discriminator="kind")]
LossName = Literal["mse", "l1", "ssim"]


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
    """Side of a field that is imaged."""
    margin_px: Annotated[int, Field(ge=0)] = 0
    """Border of a field that is imaged and reconstructed but not judged: it lacks neighbours, the more the larger the
    camera pixels are."""
    learning_rate: Positive = 1e-3
    patterns_rate: Positive = 1e-2
    warmup: Annotated[int, Field(ge=0)] = 50
    """Updates over which the rates rise; afterwards they fall like a cosine."""
    validate_every: Count = 100
    patience: Count | None = None
    """Stop after so many validations without a better one."""
    precision: Literal["auto", "single", "mixed"] = "auto"
    """mixed: bfloat16 where it is safe; auto: mixed on a GPU, single on a CPU, which gains nothing by it."""
    compiled: bool | None = None
    """Whether torch compiles the inverse model; null: on a GPU."""
    seed: Annotated[int, Field(ge=0)] = 0


class Trust(Settings):
    """How well a bundle is to know its own errors."""

    fields: Annotated[int, Field(ge=0)] = 800
    """That it learns from what good images and frames look like, and how far pixels are off; 0: it learns nothing of
    it."""
    updates: Annotated[int, Field(ge=1)] = 600
    """Of the network that tells how far pixels are off."""


@dataclass(frozen=True)
class Stage:
    """Updates in which the same parts learn."""

    name: Literal["image", "head", "joint"]
    first: int
    last: int
    """The first update that is no longer in it."""


class Lesson(Settings):
    """One training."""

    kind: Literal["train"]
    name: Name
    rig: FilePath | None = None
    """Whose optics are believed."""
    optics: Optics | None = None
    """The optics outright, in place of a rig's."""
    data: Data
    patterns: Learned
    power_mw: Positive
    exposure_ms: Positive | None = None
    """Of one frame."""
    total_exposure_ms: Positive | None = None
    """Of all T frames together, in place of exposure_ms: sets of any T then take the same time."""
    dose_ms: Positive | None = None
    """Of full light on the mean object pixel over all frames, in place of exposure_ms: sets of any T then give the
    same dose, and those that light little at a time get longer frames."""
    peak_ms: Positive | None = None
    """Of full light on the most lit object pixel over all frames, in place of exposure_ms: no place gets more dose than
    from one exposure of that length."""
    task: Task = ImageTask()
    network: Network = Network()
    loss: LossName | dict[LossName, Positive] = "mse"
    """One, or a weighted sum."""
    variation: Variation = Variation()
    schedule: Schedule
    trust: Trust = Trust()
    """What follows when the inverse is learned."""

    @model_validator(mode="before")
    @classmethod
    def _one_of_each(cls, given: Any) -> Any:
        if isinstance(given, dict):
            for keys in (("rig", "optics"), ("exposure_ms", "total_exposure_ms", "dose_ms", "peak_ms")):
                found = [key for key in keys if given.get(key) is not None]
                if len(found) != 1:
                    raise ValueError(f"one of {', '.join(keys)} is wanted, given {' and '.join(found) or 'none'}")
        return given

    @model_validator(mode="after")
    def _crops_hold_whole_tiles(self) -> Lesson:
        side = self.patterns.camera_pixel * self.patterns.tile
        if self.schedule.crop_px % side:
            raise ValueError(
                f"schedule.crop_px must be a multiple of the tile of {side}, given {self.schedule.crop_px}"
            )
        if 2 * self.schedule.margin_px >= self.schedule.crop_px:
            raise ValueError(f"schedule.margin_px {self.schedule.margin_px} leaves nothing of {self.schedule.crop_px}")
        return self

    @model_validator(mode="after")
    def _cap_can_be_kept(self) -> Lesson:
        patterns = self.patterns
        capped = patterns.cap != DoseCap()
        if capped and (patterns.frozen or not patterns.binary):
            raise ValueError("patterns.cap is for binary patterns that learn: not with frozen, signed or grey ones")
        return self

    @property
    def losses(self) -> dict[LossName, float]:
        return {self.loss: 1.0} if isinstance(self.loss, str) else dict(self.loss)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that have any update, in order."""
        updates = self.schedule.updates
        if self.task.kind == "image":
            return (Stage("image", 0, updates),)
        image, head, _ = self.task.stages
        ends = (round(image * updates), round((image + head) * updates), updates)
        found = (Stage("image", 0, ends[0]), Stage("head", ends[0], ends[1]), Stage("joint", ends[1], ends[2]))
        return tuple(stage for stage in found if stage.first < stage.last)
