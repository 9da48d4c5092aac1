"""A folder of images as samples: read, scaled from 0 to 1, brought onto the object grid, and split.

What cannot be used is named with its reason, all of it at once, before anything is learned from the rest.
"""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmu_hw.data import Float32Array, Int32Array
from dmu_hw.dataset import SPLITS, FolderData, Split
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import read_text
from dmu_hw.physics.specimens.labels import label_files, read_labels
from dmu_hw.physics.specimens.pictures import (
    MOST_PIXELS,
    SMALLEST_SIDE,
    Pixels,
    grey_levels,
    picture_shape,
    pictures_in,
    read_picture,
    refusal,
)
from dmu_hw.samples import Sample, refuse_too_much

_MOST_LIST_BYTES = 20_000_000


@dataclass(frozen=True)
class Folder:
    """What the samples of a folder are made with."""

    data: FolderData
    object_pixel_um: float
    split_of: dict[str, Split] | None
    """By the names of images; None: by their hash."""
    label_of: dict[str, Path] | None
    """By the names of images; None: labels are not wanted."""

    @classmethod
    def of(cls, data: FolderData, object_pixel_um: float, labelled: bool) -> Folder:
        split_of = None if data.split is None else _read_split(data.split)
        if not labelled:
            return cls(data, object_pixel_um, split_of, None)
        if data.labels is None:
            what = "has images without labels; `labels` names the folder of their label images"
            raise InputError([Problem(str(data.path), what)])
        return cls(data, object_pixel_um, split_of, label_files(data.labels))

    def read(self) -> tuple[dict[Split, list[Sample]], tuple[Problem, ...]]:
        """All samples by split, and what was left out."""
        samples: dict[Split, list[Sample]] = {split: [] for split in SPLITS}
        problems: list[Problem] = []
        paths = pictures_in(self.data.path)
        refuse_too_much(f"{self.data.path}: {len(paths)} images", self._pixels(paths), self.label_of is not None)
        for path in paths:
            try:
                samples[self._split(path)].append(self._sample(path))
            except InputError as error:
                problems.extend(error.problems)
        if problems and self.data.unusable == "refuse":
            raise InputError(problems)
        empty = [
            Problem(str(self.data.path), f"no image is left for {split}") for split in SPLITS if not samples[split]
        ]
        if empty:
            raise InputError(problems + empty)
        return samples, tuple(problems)

    def _pixels(self, paths: tuple[Path, ...]) -> int:
        """Of all images together on the object grid, by their headers."""
        pixels = 0
        for path in paths:
            try:
                self._split(path)
                pixels += math.prod(self._grid(path, picture_shape(path)))
            except InputError:  # what cannot be used takes no memory, and is named when it is read
                continue
        return pixels

    def _split(self, path: Path) -> Split:
        if self.split_of is None:
            return _by_hash(path.stem)
        if path.stem not in self.split_of:
            raise refusal(path, f"is not in {self.data.split}")
        return self.split_of[path.stem]

    def _sample(self, path: Path) -> Sample:
        pixels = read_picture(path, self.data.channel)
        black, white = grey_levels(path, pixels, self.data.black, self.data.white)
        grid = self._grid(path, pixels.shape)
        image = (np.clip(pixels.astype(np.float64), black, white) - black) / (white - black)
        return Sample(_resized(image.astype(np.float32), grid), self._labels(path, pixels, grid))

    def _labels(self, path: Path, pixels: Pixels, grid: tuple[int, int]) -> Int32Array | None:
        if self.label_of is None:
            return None
        if path.stem not in self.label_of:
            raise refusal(path, f"has no label image of the same name in {self.data.labels}")
        labels = read_labels(self.label_of[path.stem], pixels.shape)
        # the object that lies in the middle of each new pixel
        rows, columns = ((np.arange(new) + 0.5) * old / new for new, old in zip(grid, labels.shape, strict=True))
        return labels[np.ix_(rows.astype(np.intp), columns.astype(np.intp))]

    def _grid(self, path: Path, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of an image on the object grid."""
        if self.data.pixel_um is None:
            return shape[0], shape[1]
        rows, columns = (n * (self.data.pixel_um / self.object_pixel_um) for n in shape)
        if min(rows, columns) < SMALLEST_SIDE or rows * columns > MOST_PIXELS:
            allowed = f"{SMALLEST_SIDE} a side to {MOST_PIXELS} in all are wanted"
            raise refusal(path, f"{rows:.4g}×{columns:.4g} pixels of {self.object_pixel_um:g} µm; {allowed}")
        return round(rows), round(columns)


def _resized(image: Float32Array, grid: tuple[int, int]) -> Float32Array:
    """Smoothed first where pixels become larger, so that fine structure does not turn into coarse."""
    if image.shape == grid:
        return image
    from skimage.transform import resize  # noqa: PLC0415 - only where the grids differ

    large_or_small = resize(image, grid, order=1, mode="reflect", anti_aliasing=True)
    return np.asarray(large_or_small, dtype=np.float32)


def _read_split(path: Path) -> dict[str, Split]:
    text = read_text(path, limit=_MOST_LIST_BYTES).removeprefix("\ufeff")
    try:
        rows = list(csv.DictReader(text.splitlines()))
    except csv.Error as error:
        raise refusal(path, f"is no list: {error}") from None
    if not rows or not {"id", "split"} <= set(rows[0]):
        raise refusal(path, "wants columns id and split")
    found: dict[str, Split] = {}
    problems: list[Problem] = []
    for line, row in enumerate(rows, start=2):
        split = next((split for split in SPLITS if split == row["split"]), None)
        if split is None:
            what = f"split must be one of {', '.join(SPLITS)}; given {row['split']!r}"
            problems.append(Problem(f"{path}:{line}", what))
        elif found.setdefault(row["id"], split) != split:
            problems.append(Problem(f"{path}:{line}", f"{row['id']} was in {found[row['id']]} before"))
    if problems:
        raise InputError(problems)
    return found


def _by_hash(name: str) -> Split:
    place = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[0] / 256
    return "test" if place < 0.1 else "val" if place < 0.2 else "train"
