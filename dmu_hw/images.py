"""Images to learn from, checked and in memory before anything starts, and what training takes from them.

Images of a folder are read as `FolderData` says, each scaled from black to white, and brought onto the object grid;
scenes are fields of a synthetic specimen that never meet. Where labels are wanted, each image has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmu_hw.data import Float32Array
from dmu_hw.dataset import SPLITS, FolderData, ScenesData, Split
from dmu_hw.errors import Problem
from dmu_hw.folder import Folder
from dmu_hw.physics.specimens.labels import numbered
from dmu_hw.samples import Sample, refuse_too_much

__all__ = ["Crops", "Images", "Split"]
_APART_PX = 4096


@dataclass(frozen=True, eq=False)
class Crops:
    """Squares of one size."""

    images: Tensor
    """(batch, y, x)."""
    labels: Tensor | None
    """(batch, y, x) whole numbers; 0 is background, any other number one object of its image."""

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> Crops:
        """Samples of one size."""
        every = tuple(samples)
        labels = [sample.labels for sample in every if sample.labels is not None]
        images = torch.from_numpy(np.stack([sample.image for sample in every]))
        return cls(images, torch.from_numpy(np.stack(labels)) if labels else None)

    def part(self, first: int, last: int) -> Crops:
        """Some of them; `last` is the first that is left out."""
        return Crops(self.images[first:last], None if self.labels is None else self.labels[first:last])


class Images:
    """All images in memory, on the object grid, 0 to 1, by split."""

    def __init__(self, by_split: dict[Split, list[Sample]], left_out: tuple[Problem, ...] = ()) -> None:
        self.by_split = by_split
        self.left_out = left_out
        """Images that could not be used, where that was allowed."""
        self.hash = _hash(by_split)

    @classmethod
    def load(cls, data: FolderData | ScenesData, pixel_um: float, labelled: bool = False) -> Images:
        """Read or make all of them; every image that cannot be used is named. Labels are read where they are wanted."""
        if isinstance(data, ScenesData):
            return cls(_scenes(data, pixel_um, labelled))
        return cls(*Folder.of(data, pixel_um, labelled).read())

    @property
    def told(self) -> str:
        """What they are, for those who find the result."""
        count = sum(map(len, self.by_split.values()))
        left_out = f" ({len(self.left_out)} left out)" if self.left_out else ""
        return f"{count} images{left_out}, hash {self.hash[:16]}"

    def crops(self, split: Split, count: int, side_px: int, generator: torch.Generator) -> Crops:
        """Random parts of random images, turned and mirrored."""
        samples = self.by_split[split]
        picks = torch.randint(len(samples), (count,), generator=generator).tolist()
        return Crops.of([_crop(samples[pick], side_px, generator) for pick in picks])

    def middles(self, split: Split, side_px: int) -> Crops:
        """The middle of every image of a split."""
        return Crops.of(sample.at_least(side_px).middle(side_px) for sample in self.by_split[split])

    def squares(self, side_px: int, count: int) -> Iterator[Float32Array]:
        """Training images mirrored or cut to one size, for statistics."""
        samples = self.by_split["train"]
        for pick in np.linspace(0, len(samples) - 1, min(count, len(samples))).round().astype(int):
            bare = Sample(samples[pick].image)
            yield np.ascontiguousarray(bare.at_least(side_px).middle(side_px).image)


def _crop(sample: Sample, side_px: int, generator: torch.Generator) -> Sample:
    large = sample.at_least(side_px)
    top, left = (int(torch.randint(n - side_px + 1, (), generator=generator)) for n in large.image.shape)
    turn = int(torch.randint(8, (), generator=generator))
    return large.square(top, left, side_px).turned(turn)


def _hash(by_split: dict[Split, list[Sample]]) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(f"{split} {len(by_split[split])}".encode())
        for sample in by_split[split]:
            digest.update(str(sample.image.shape).encode() + sample.image.tobytes())
            if sample.labels is not None:
                digest.update(b"labels" + sample.labels.tobytes())
    return digest.hexdigest()


def _scenes(data: ScenesData, pixel_um: float, labelled: bool) -> dict[Split, list[Sample]]:
    """Fields in three rows of the plane that never meet."""
    counts: dict[Split, int] = {"train": data.train, "val": data.held_back, "test": data.held_back}
    count = sum(counts.values())
    refuse_too_much(f"{count} scenes of {data.side_px}×{data.side_px} pixels", count * data.side_px**2, labelled)
    samples: dict[Split, list[Sample]] = {}
    for row, split in enumerate(SPLITS):
        places = ((2 * k * data.side_px * pixel_um, row * _APART_PX * pixel_um) for k in range(counts[split]))
        scenes = (data.specimen.scene(place, (data.side_px, data.side_px), pixel_um) for place in places)
        samples[split] = [Sample(scene.image, numbered(scene.labels) if labelled else None) for scene in scenes]
    return samples
