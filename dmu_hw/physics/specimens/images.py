"""The user's own images as a specimen."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dmu_hw.errors import InputError, Problem
from dmu_hw.files import FilePath, Positive, Settings
from dmu_hw.physics.specimens.base import Scene, Window
from dmu_hw.physics.specimens.labels import label_files, read_labels
from dmu_hw.physics.specimens.mosaic import Mosaic, Tile
from dmu_hw.physics.specimens.pictures import grey_levels, pictures_in, read_picture, refusal


class Images(Settings):
    """Images laid side by side without an end; the first by name has its middle at the stage's origin.

    Every second one is mirrored, and neighbours run into each other over a few pixels, so that there is no seam.
    """

    kind: Literal["images"] = "images"
    path: FilePath
    """A TIFF or PNG, or a folder of them."""
    channel: Annotated[int, Field(ge=0)] | None = None
    """Which channel of pictures that have several, counted from 0; null: pictures of one channel."""
    pixel_um: Positive
    """Side of an image pixel at the sample."""
    black: float | None = None
    """Grey level that is no light at all; null: the darkest of each image."""
    white: float | None = None
    """Grey level that is as bright as a specimen can be; null: what 99.9 % of the pixels of each image stay below."""
    labels: FilePath | None = None
    """Label image (0 is background, one number an object), or a folder of them, named as the images; null: none."""

    @model_validator(mode="after")
    def _white_is_above_black(self) -> Images:
        if self.black is not None and self.white is not None and self.white <= self.black:
            raise ValueError(f"white {self.white:g} must be above black {self.black:g}")
        return self

    def scene(self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Scene:
        """What lies in a window round a stage position; InputError if the files cannot be used."""
        return self.mosaic.scene(Window(centre_um, shape, pixel_um), self.pixel_um)

    @cached_property
    def mosaic(self) -> Mosaic:
        """The images, read once and held in memory; InputError lists every one that cannot be used."""
        tiles: list[Tile] = []
        problems: list[Problem] = []
        label_of = None if self.labels is None else self._label_files(self.labels)
        for path in pictures_in(self.path):
            try:
                tiles.append(self._tile(path, label_of))
            except InputError as error:
                problems.extend(error.problems)
        if problems:
            raise InputError(problems)
        return Mosaic(tuple(tiles))

    def _label_files(self, labels: Path) -> dict[str, Path]:
        if labels.is_file() and self.path.is_file():
            return {self.path.stem: labels}
        return label_files(labels)

    def _tile(self, path: Path, label_of: dict[str, Path] | None) -> Tile:
        pixels = read_picture(path, self.channel)
        black, white = grey_levels(path, pixels, self.black, self.white)
        if label_of is None:
            return Tile(pixels, black, white)
        if path.stem not in label_of:
            raise refusal(path, f"has no label image of the same name in {self.labels}")
        return Tile(pixels, black, white, read_labels(label_of[path.stem], pixels.shape))
