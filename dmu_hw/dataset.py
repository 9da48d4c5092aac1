"""What there is to learn from: a folder of images, or synthetic scenes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dmu_hw.files import Count, FilePath, Settings
from dmu_hw.physics.specimens import Specimen


class FolderData(Settings):
    """Grey TIFF or PNG images in a folder; each is scaled from its darkest to its 99.9th percentile."""

    kind: Literal["folder"]
    path: FilePath
    split: FilePath | None = None
    """A CSV file with columns id (file name without ending) and split (train, val, test); null: by the hash of the
    name, a tenth each to val and test."""


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
