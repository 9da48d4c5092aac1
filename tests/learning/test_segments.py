"""Maps of objects and back: touching objects stay apart, one object stays one, and numbers do not matter."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dmu_hw.metrics import average_precision
from dmu_hw.physics.specimens import Nuclei
from dmu_hw.segments import instances, targets

DATA = os.environ.get("DMU_DATA", "")
TOUCHING = Nuclei(seed=5, per_mm2=3000, touching=0.9)


def scenes(count: int, side_px: int = 256) -> np.ndarray:
    places = ((1000.0 * k, 0.0) for k in range(count))
    return np.stack([TOUCHING.scene(place, (side_px, side_px), 0.325).labels for place in places])


def disc(centre: tuple[float, float], radius: float, shape: tuple[int, int] = (64, 96)) -> np.ndarray:
    y, x = np.indices(shape)
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def two_discs() -> np.ndarray:
    """Two objects with a long common edge."""
    labels = 7 * disc((32, 34), 15)
    labels[disc((32, 60), 15) & (np.indices(labels.shape)[1] > 47)] = 900_000_001
    return labels


def test_touching_nuclei_come_back() -> None:
    labels = scenes(6)
    found = [average_precision(instances(maps, 1), truth) for maps, truth in zip(targets(labels), labels, strict=True)]
    assert np.mean(found) > 0.95


@pytest.mark.skipif(not DATA, reason="DMU_DATA says where the nuclei images lie")
def test_real_nuclei_come_back() -> None:
    folder = Path(DATA) / "nuclei"
    with open(folder / "index.csv") as file:
        names = [row["id"] for row in csv.DictReader(file) if row["split"] == "val"][::4]
    labels = [tifffile.imread(folder / "labels" / f"{name}.tif").astype(np.int32) for name in names]
    assert np.mean([average_precision(instances(targets(truth), 1), truth) for truth in labels]) > 0.95


def test_two_discs_that_touch_are_two_and_their_foreground_is_one() -> None:
    labels = two_discs()
    foreground, centre = targets(labels)
    assert np.array_equal(foreground, labels != 0)
    found = instances(np.stack([foreground, centre]))
    assert set(np.unique(found)) == {0, 1, 2}
    assert average_precision(found, labels, 0.95) == 1


@pytest.mark.parametrize("radii", [(3, 3), (8, 20), (40, 12)])
def test_one_ellipse_is_one_object(radii: tuple[int, int]) -> None:
    y, x = np.indices((100, 100))
    labels = (np.hypot((y - 50) / radii[0], (x - 50) / radii[1]) <= 1).astype(np.int32)
    assert np.array_equal(instances(targets(labels)), labels)


def test_the_centre_map_is_a_hill_with_one_top() -> None:
    labels = two_discs()
    centre = targets(labels)[1]
    assert centre[32, 34] == 1
    assert (centre[labels == 0] == 0).all()
    assert 0 < centre[labels != 0].min() < 0.1
    row = centre[32, 34:48]
    assert (np.diff(row) < 0).all()


def test_a_crescent_has_its_centre_inside() -> None:
    labels = (disc((32, 48), 24) & ~disc((32, 58), 22)).astype(np.int32)
    assert targets(labels)[1].max() == 1
    assert average_precision(instances(targets(labels)), labels) == 1


@settings(max_examples=40, deadline=None)
@given(arrays(np.int32, (20, 24), elements=st.sampled_from([0, 0, 3, 5])), st.permutations([1, 6, 2**31 - 1]))
def test_numbers_do_not_matter(labels: np.ndarray, numbers: list[int]) -> None:
    other = np.select([labels == 3, labels == 5], numbers[:2])
    maps = targets(labels)
    np.testing.assert_array_equal(maps, targets(other))
    assert maps.dtype == np.float32
    assert 0 <= maps.min() <= maps.max() <= 1
    assert np.array_equal(maps[0] > 0, maps[1] > 0)


def test_a_batch_is_its_images() -> None:
    labels = scenes(3, 64)
    np.testing.assert_array_equal(targets(labels), np.stack([targets(image) for image in labels]))


def test_nothing_and_everything() -> None:
    nothing, everything = np.zeros((33, 47), np.int32), np.full((33, 47), 4)
    assert not targets(nothing).any()
    assert not instances(targets(nothing)).any()
    assert (instances(targets(everything)) == 1).all()


def test_what_is_smaller_than_asked_is_left_out() -> None:
    labels = two_discs() + disc((8, 8), 2)
    area = int((labels == 1).sum())
    assert instances(targets(labels), area).max() == 3
    assert instances(targets(labels), area + 1).max() == 2


def test_an_object_without_a_centre_is_still_one() -> None:
    maps = np.stack([disc((32, 48), 10), np.zeros((64, 96))]).astype(np.float32)
    assert np.array_equal(instances(maps), disc((32, 48), 10))
