"""What there is to learn from: a folder of images, or synthetic scenes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmu_hw.files import Count, FilePath, Positive, Settings
from dmu_hw.physics.specimens import Specimen

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class FolderData(Settings):
    """TIFF or PNG images in a folder, of 8 or 16 bits or real numbers, of any sizes."""

    kind: Literal["folder"]
    path: FilePath
    split: FilePath | None = None
    """A CSV file with columns id (file name without ending) and split (train, val, test); null: by the hash of the
    name, a tenth each to val and test."""
    labels: FilePath | None = None
    """Folder of label images (0 is background, one number an object), named as the images; null: none."""
    pixel_um: Positive | None = None
    """Side of an image pixel at the sample; images are brought onto the object grid. null: they are on it."""
    channel: Annotated[int, Field(ge=0)] | None = None
    """Which channel of images that have several, counted from 0; null: images of one channel."""
    black: float | None = None
    """Grey level that is no light at all; null: the darkest of each image."""
    white: float | None = None
    """Grey level that is as bright as a specimen can be; null: what 99.9 % of the pixels of each image stay below."""
    unusable: Literal["refuse", "leave out"] = "refuse"
    """What to do about images that cannot be used: stop before anything starts, or go on without them. Either way each
    is named with its reason."""

    @model_validator(mode="after")
    def _makes_sense(self) -> FolderData:
        if self.black is not None and self.white is not None and self.white <= self.black:
            raise ValueError(f"white {self.white:g} must be above black {self.black:g}")
        if self.labels == self.path:
            raise ValueError(f"labels must be another folder than path, given {self.path} for both")
        return self


class ScenesData(Settings):
    """Synthetic scenes: any number of fields of a specimen, far apart for train, val and test."""

    kind: Literal["scenes"]
    specimen: Specimen
    train: Count = 400
    """Different fields to train on."""
    held_back: Count = 32
    """Fields each for val and test."""
    side_px: Annotated[int, Field(ge=64, le=2048)] = 256


Data = Annotated[FolderData | ScenesData, Field(discriminator="kind")]
