"""Images to learn from: what can be used is used, what cannot is named before anything starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from dmu_hw.dataset import FolderData, ScenesData
from dmu_hw.errors import InputError
from dmu_hw.images import Images
from dmu_hw.physics.specimens import Nuclei

PIXEL_UM = 0.325


def picture(seed: int, shape: tuple[int, int] = (80, 96)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def folder(path: Path, **more: np.ndarray) -> FolderData:
    path.mkdir()
    for index in range(6):
        tifffile.imwrite(path / f"img{index}.tif", picture(index, (80 + 8 * index, 96)))
    for name, pixels in more.items():
        tifffile.imwrite(path / f"{name}.tif", pixels)
    names = sorted(file.stem for file in path.iterdir())
    rows = [f"{name},{('train', 'val', 'test')[k % 3]}" for k, name in enumerate(names)]
    (path.parent / "split.csv").write_text("\n".join(["id,split", *rows]))
    return FolderData(kind="folder", path=path, split=path.parent / "split.csv")


def test_a_folder_is_split_and_scaled(tmp_path: Path) -> None:
    images = Images.load(folder(tmp_path / "images"), PIXEL_UM)
    assert {split: len(found) for split, found in images.by_split.items()} == {"train": 2, "val": 2, "test": 2}
    for sample in images.by_split["train"]:
        assert sample.image.dtype == np.float32
        assert sample.image.min() == 0
        assert sample.image.max() == 1
        assert sample.labels is None


def test_without_a_list_the_names_decide_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "images"
    path.mkdir()
    for index in range(60):
        Image.fromarray(picture(index, (20, 20))).save(path / f"cell{index}.png")
    one, two = (Images.load(FolderData(kind="folder", path=path), PIXEL_UM) for _ in range(2))
    assert one.hash == two.hash
    assert all(one.by_split.values())
    assert sum(len(found) for found in one.by_split.values()) == 60


@pytest.mark.parametrize(
    ("name", "pixels", "said"),
    [
        ("constant", np.full((40, 40), 7, np.uint8), "same grey level"),
        ("nan", np.full((40, 40), np.nan, np.float32), "not finite"),
        ("colour", np.zeros((40, 40, 3), np.uint8), "3 channels .* `channel` says which, 0 to 2"),
        ("tiny", picture(1, (4, 4)), "16 a side"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, name: str, pixels: np.ndarray, said: str) -> None:
    with pytest.raises(InputError, match=f"{name}.tif.*{said}"):
        Images.load(folder(tmp_path / "images", **{name: pixels}), PIXEL_UM)


def test_an_image_that_the_list_does_not_know(tmp_path: Path) -> None:
    data = folder(tmp_path / "images")
    tifffile.imwrite(data.path / "stranger.tif", picture(1))
    with pytest.raises(InputError, match=r"stranger\.tif: is not in .*split\.csv"):
        Images.load(data, PIXEL_UM)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2", "columns id and split"),
        ("id,split\nimg0,training", "must be one of train, val, test"),
        ("", "columns"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    data = folder(tmp_path / "images")
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        Images.load(data, PIXEL_UM)


def test_crops_have_one_size_whatever_the_images_have(tmp_path: Path) -> None:
    images = Images.load(folder(tmp_path / "images"), PIXEL_UM)
    one, same = (images.crops("train", 5, 128, torch.Generator().manual_seed(3)) for _ in range(2))
    assert one.images.shape == (5, 128, 128)
    assert torch.equal(one.images, same.images)
    assert images.middles("val", 64).images.shape == (2, 64, 64)
    assert [square.shape for square in images.squares(256, 9)] == [(256, 256)] * 2


def test_scenes_never_meet_across_splits() -> None:
    data = ScenesData(kind="scenes", specimen=Nuclei(kind="nuclei", seed=1), train=3, held_back=2, side_px=64)
    images = Images.load(data, PIXEL_UM)
    every = [sample.image for split in images.by_split.values() for sample in split]
    assert [len(images.by_split[split]) for split in ("train", "val", "test")] == [3, 2, 2]
    assert len({image.tobytes() for image in every}) == 7
    assert Images.load(data, PIXEL_UM).hash == images.hash
