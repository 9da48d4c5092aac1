"""Samples cut, turned and mirrored: labels stay with their image, and objects stay objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label

from dmu_hw.images import Crops, Images
from dmu_hw.samples import Sample, mirrored_labels

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))
PADS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=2)


def blobs(seed: int, shape: tuple[int, int]) -> np.ndarray:
    """Objects of one piece each."""
    return label(np.random.default_rng(seed).random(shape) > 0.6, connectivity=1).astype(np.int32)


def same_objects(one: np.ndarray, two: np.ndarray) -> bool:
    """Whatever their numbers."""
    pairs = np.unique(np.stack([one.ravel(), two.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(one)) == len(np.unique(two)) and ((one > 0) == (two > 0)).all()


def images_of(*shapes: tuple[int, int]) -> Images:
    """Labels that are the image in another form."""
    samples = []
    for seed, shape in enumerate(shapes):
        image = np.random.default_rng(seed).random(shape).astype(np.float32)
        samples.append(Sample(image, (image > 0.5).astype(np.int32)))
    return Images({"train": samples, "val": samples[:1], "test": samples[1:]})


def test_a_mirrored_copy_is_an_object_of_its_own_unless_it_touches_the_seam() -> None:
    labels = np.zeros((4, 6), np.int32)
    labels[1:3, 1] = 1  # inside
    labels[1:3, 4:] = 2  # on the right border
    wide = mirrored_labels(labels, [(0, 0), (6, 6)])
    assert wide.shape == (4, 18)
    expected = np.zeros((4, 18), np.int32)
    for number, columns in enumerate([slice(0, 2), slice(4, 5), slice(7, 8), slice(10, 14), slice(16, 17)], start=1):
        expected[1:3, columns] = number
    assert same_objects(wide, expected)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 999), shape=SHAPES, copies=st.lists(st.integers(0, 2), min_size=4, max_size=4))
def test_objects_of_one_piece_stay_so_however_often_they_are_mirrored(
    seed: int, shape: tuple[int, int], copies: list[int]
) -> None:
    labels = blobs(seed, shape)
    pads = [(copies[0] * shape[0], copies[1] * shape[0]), (copies[2] * shape[1], copies[3] * shape[1])]
    assert same_objects(mirrored_labels(labels, pads), label(np.pad(labels, pads, mode="symmetric"), connectivity=1))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), shape=SHAPES, pads=PADS)
def test_an_object_of_several_pieces_is_still_one(
    seed: int, shape: tuple[int, int], pads: list[tuple[int, int]]
) -> None:
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.int32)
    wide = mirrored_labels(labels, pads)
    for number in np.unique(wide[wide > 0]):
        assert len(np.unique(np.pad(labels, pads, mode="symmetric")[wide == number])) == 1
    (top, _), (left, _) = pads
    inside = wide[top : top + shape[0], left : left + shape[1]]
    for number in np.unique(labels[labels > 0]):
        assert len(np.unique(inside[labels == number])) == 1


@pytest.mark.parametrize("side_px", [20, 64, 150])
def test_labels_go_where_their_image_goes(side_px: int) -> None:
    images = images_of((64, 80), (20, 30), (64, 64))
    for crops in (
        images.crops("train", 40, side_px, torch.Generator().manual_seed(2)),
        images.middles("test", side_px),
    ):
        assert crops.labels is not None
        assert crops.labels.dtype == torch.int32
        assert crops.images.shape == crops.labels.shape == (len(crops.images), side_px, side_px)
        assert torch.equal(crops.images > 0.5, crops.labels > 0)


@pytest.mark.parametrize("side_px", [24, 100])
def test_the_same_seed_draws_the_same_crops_for_ever(side_px: int) -> None:
    images = images_of((40, 60), (32, 32))
    drawn = images.crops("train", 30, side_px, torch.Generator().manual_seed(5)).images
    generator = torch.Generator().manual_seed(5)
    picks = torch.randint(2, (30,), generator=generator).tolist()
    for pick, crop in zip(picks, drawn, strict=True):
        image = images.by_split["train"][pick].image
        missing = [max(0, side_px - n) for n in image.shape]
        large = torch.from_numpy(np.pad(image, [(n // 2, n - n // 2) for n in missing], mode="symmetric"))
        top = int(torch.randint(large.shape[0] - side_px + 1, (), generator=generator))
        left = int(torch.randint(large.shape[1] - side_px + 1, (), generator=generator))
        turn = int(torch.randint(8, (), generator=generator))
        turned = torch.rot90(large[top : top + side_px, left : left + side_px], turn % 4)
        assert torch.equal(crop, turned.flip(0) if turn >= 4 else turned)


def test_all_eight_ways_to_lie_are_drawn() -> None:
    images = images_of((5, 5))
    crops = images.crops("train", 200, 5, torch.Generator().manual_seed(1)).images
    assert len(torch.unique(crops, dim=0)) == 8


def test_part_of_the_crops() -> None:
    crops = Crops(torch.arange(12.0).reshape(3, 2, 2), torch.arange(12).reshape(3, 2, 2))
    part = crops.part(1, 9)
    assert part.labels is not None
    assert torch.equal(part.images, crops.images[1:])
    assert torch.equal(part.labels, crops.labels[1:])
    assert Crops(crops.images, None).part(0, 1).labels is None


def test_where_an_image_stands_is_part_of_the_hash() -> None:
    samples = images_of((20, 20), (20, 20), (20, 20)).by_split["train"]
    one = Images({"train": samples[:1], "val": samples[1:2], "test": samples[2:]})
    two = Images({"train": samples[:2], "val": samples[2:], "test": []})
    bare = Images({"train": [Sample(samples[0].image)], "val": samples[1:2], "test": samples[2:]})
    assert len({one.hash, two.hash, bare.hash}) == 3
    assert one.told == f"3 images, hash {one.hash[:16]}"
