"""Label images: which object every pixel of a picture belongs to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dmu_hw.data import Int32Array
from dmu_hw.errors import InputError, Problem
from dmu_hw.physics.specimens.pictures import Pixels, pictures_in, read_picture, refusal


def label_files(folder: Path) -> dict[str, Path]:
    """Label images by the name of their image, without its ending."""
    found: dict[str, Path] = {}
    problems: list[Problem] = []
    for file in pictures_in(folder):
        if file.stem in found:
            problems.append(Problem(str(file), f"there is {found[file.stem].name} too; one label image an image"))
        found[file.stem] = file
    if problems:
        raise InputError(problems)
    return found


def read_labels(path: Path, shape: tuple[int, ...]) -> Int32Array:
    """Object numbers 0, 1, 2, … of a label image."""
    labels = read_picture(path)
    if labels.dtype.kind == "f":
        raise refusal(path, f"label images hold whole numbers, not {labels.dtype}")
    if labels.shape != shape:
        raise refusal(path, f"is {labels.shape[0]}×{labels.shape[1]} pixels, its image {shape[0]}×{shape[1]}")
    if labels.min() < 0:
        raise refusal(path, f"label images hold numbers from 0 up, not {labels.min()}")
    return numbered(labels)


def numbered(labels: Pixels) -> Int32Array:
    """The same objects with the numbers 1, 2, …; 0 stays background."""
    found = np.union1d(labels, labels.dtype.type(0))
    return np.searchsorted(found, labels).astype(np.int32)
