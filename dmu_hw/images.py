"""Specimens to learn from: folders of images with their split, or synthetic scenes. All is checked at the start."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dmu_hw.data import Float32Array
from dmu_hw.dataset import FolderData, ScenesData
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import read_text
from dmu_hw.physics.specimens.pictures import pictures_in, read_picture

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
_WHITE_PERCENTILE = 99.9
_APART_PX = 4096


class Images:
    """All images in memory, on the object grid, 0 to 1, by split."""

    def __init__(self, images: dict[Split, list[Float32Array]], content_hash: str) -> None:
        self.by_split = images
        self.hash = content_hash

    @classmethod
    def load(cls, data: FolderData | ScenesData, pixel_um: float) -> Images:
        """Read or make all of them; every image that cannot be used is named."""
        images = _from_folder(data) if isinstance(data, FolderData) else _scenes(data, pixel_um)
        digest = hashlib.sha256()
        for split in SPLITS:
            for image in images[split]:
                digest.update(str(image.shape).encode() + image.tobytes())
        return cls(images, digest.hexdigest())

    def crops(self, split: Split, count: int, side_px: int, generator: torch.Generator) -> Tensor:
        """Random parts of random images, turned and mirrored, (batch, y, x)."""
        images = self.by_split[split]
        picks = torch.randint(len(images), (count,), generator=generator).tolist()
        return torch.stack([_crop(images[pick], side_px, generator) for pick in picks])

    def middles(self, split: Split, side_px: int) -> Tensor:
        """The middle of every image of a split, (image, y, x)."""
        return torch.stack(
            [torch.from_numpy(_middle(_at_least(image, side_px), side_px)) for image in self.by_split[split]]
        )

    def squares(self, side_px: int, count: int) -> Iterator[Float32Array]:
        """Training images mirrored or cut to one size, for statistics."""
        images = self.by_split["train"]
        for pick in np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(int):
            yield np.ascontiguousarray(_middle(_at_least(images[pick], side_px), side_px))


def _crop(image: Float32Array, side_px: int, generator: torch.Generator) -> Tensor:
    large = _at_least(image, side_px)
    top, left = (int(torch.randint(n - side_px + 1, (), generator=generator)) for n in large.shape)
    turn = int(torch.randint(8, (), generator=generator))
    part = torch.from_numpy(large[top : top + side_px, left : left + side_px])
    turned = torch.rot90(part, turn % 4)
    return turned.flip(0) if turn >= 4 else turned


def _at_least(image: Float32Array, side_px: int) -> Float32Array:
    """Mirrored outwards where it is too small."""
    missing = [max(0, side_px - n) for n in image.shape]
    if not any(missing):
        return image
    return np.pad(image, [(n // 2, n - n // 2) for n in missing], mode="symmetric")


def _middle(image: Float32Array, side_px: int) -> Float32Array:
    top, left = ((n - side_px) // 2 for n in image.shape)
    return image[top : top + side_px, left : left + side_px]


# ---------------------------------------------------------------- folders


def _from_folder(data: FolderData) -> dict[Split, list[Float32Array]]:
    images: dict[Split, list[Float32Array]] = {split: [] for split in SPLITS}
    problems: list[Problem] = []
    split_of = None if data.split is None else _read_split(data.split)
    for path in pictures_in(data.path):
        try:
            split = _by_hash(path.stem) if split_of is None else split_of[path.stem]
            images[split].append(_scaled(path))
        except InputError as error:
            problems.extend(error.problems)
        except KeyError:
            problems.append(Problem(str(path), f"is not in {data.split}"))
    if not problems:
        problems = [Problem(str(data.path), f"no image is left for {split}") for split in SPLITS if not images[split]]
    if problems:
        raise InputError(problems)
    return images


def _read_split(path: Path) -> dict[str, Split]:
    rows = list(csv.DictReader(read_text(path).splitlines()))
    if not rows or not {"id", "split"} <= set(rows[0]):
        raise InputError([Problem(str(path), "wants columns id and split")])
    wrong = [row["split"] for row in rows if row["split"] not in SPLITS]
    if wrong:
        raise InputError([Problem(str(path), f"split must be one of {', '.join(SPLITS)}; given {wrong[0]!r}")])
    return {row["id"]: split for row in rows for split in SPLITS if row["split"] == split}


def _by_hash(name: str) -> Split:
    place = hashlib.sha256(name.encode()).digest()[0] / 256
    return "test" if place < 0.1 else "val" if place < 0.2 else "train"


def _scaled(path: Path) -> Float32Array:
    pixels = read_picture(path).astype(np.float32)
    black, white = float(pixels.min()), float(np.percentile(pixels, _WHITE_PERCENTILE))
    white = white if white > black else float(pixels.max())
    if white <= black:
        raise InputError([Problem(str(path), f"has the same grey level everywhere ({black:g})")])
    scaled: Float32Array = ((pixels - black) / (white - black)).clip(0, 1)
    return scaled


# ---------------------------------------------------------------- scenes


def _scenes(data: ScenesData, pixel_um: float) -> dict[Split, list[Float32Array]]:
    """Fields in three rows of the plane that never meet."""
    counts: dict[Split, int] = {"train": data.train, "val": data.held_back, "test": data.held_back}
    images: dict[Split, list[Float32Array]] = {}
    for row, split in enumerate(SPLITS):
        places = ((2 * k * data.side_px * pixel_um, row * _APART_PX * pixel_um) for k in range(counts[split]))
        images[split] = [data.specimen.scene(place, (data.side_px, data.side_px), pixel_um).image for place in places]
    return images
