"""Runs that have ended, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.data import Doubt, Estimate
from dmu_hw.doubtful import Doubtful
from dmu_hw.errors import InputError, RunError
from dmu_hw.omezarr import Image, Labels, Store
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.library import Library
from dmu_hw.view.wire import unpacked

SHAPE = (2, 1, 3, 8, 6)
CORNERS = ((0.0, 1.0, 2.0), (0.0, 1.0, 12.0))


def store(folder: Path, name: str, *, labelled: bool = False) -> Store:
    """Two fields; the pixels of an image are its place."""
    images = [
        Image(f"field {number}", SHAPE, "float32", 0.5, 2.0, 1.0, corner, ["image"], (0.0, 1.0), labelled)
        for number, corner in enumerate(CORNERS)
    ]
    made = Store.create(folder / f"{name}.ome.zarr", images, {"bundle": name})
    for field in range(2):
        for time, z in np.ndindex(2, 3):
            if (field, time, z) != (1, 1, 2):
                made.array(field)[time, 0, z] = 100 * field + 10 * time + z
                made.times(field)[time, 0, z] = 5.0
    return made


def shown(library: Library, **wanted: Any) -> tuple[dict[str, Any], Any]:
    return unpacked(library.image({key: str(value) for key, value in wanted.items()}))


def test_several_reconstructions_of_one_run(tmp_path: Path) -> None:
    for name in ("truth", "reconstruction-new", "other", "reconstruction", "frames"):
        store(tmp_path, name)
    library = Library(RunFolder(tmp_path))
    about = library.about()
    assert list(about["stores"]) == ["reconstruction", "reconstruction-new", "frames", "truth", "other"]
    assert about["facts"] == {}, "there is no manifest: it was cut"
    assert [field["corner_um"] for field in about["fields"]] == [*CORNERS]
    header, pixels = shown(library, store="reconstruction-new", field=1, time=1, z=1)
    assert (header["pixel_um"], header["missing"], header["at_ms"]) == (0.5, False, 5.0)
    np.testing.assert_array_equal(pixels, np.full((8, 6), 111.0))


def test_what_is_missing_is_said_and_no_black_image(tmp_path: Path) -> None:
    store(tmp_path, "reconstruction")
    header, _ = shown(Library(RunFolder(tmp_path)), store="reconstruction", field=1, time=1, z=2)
    assert header["missing"]


def test_small_ones_for_the_map(tmp_path: Path) -> None:
    store(tmp_path, "reconstruction")
    assert shown(Library(RunFolder(tmp_path)), store="reconstruction", side=4)[1].shape == (4, 3)


def test_objects_doubts_and_spreads(tmp_path: Path) -> None:
    made = store(tmp_path, "reconstruction", labelled=True)
    labels = np.zeros((8, 6), np.int32)
    labels[2:4, 2:4], labels[6:, :] = 1, 2
    Labels(made.path, mode="r+").put((0, 1, 2), labels)
    Doubtful.add(made.path, [made.image(field) for field in range(2)], ["focus", "registration"], spread=True)
    spread = np.full((8, 6), 0.25, np.float32)
    estimate = Estimate(spread, 0.5, "hash", None, spread, 2.0, Doubt(3.0, ("registration",)))
    Doubtful(made.path, mode="r+").put((0, 1, 2), 0, estimate)
    library = Library(RunFolder(tmp_path))
    place = {"store": "reconstruction", "field": 0, "time": 1, "z": 2}
    header, pixels = shown(library, **place, labels=1)
    assert header["count"] == 2
    np.testing.assert_array_equal(pixels, labels)
    header, _ = shown(library, **place)
    assert (header["doubt"], header["residual"], header["score"]) == ("registration", 2.0, 3.0)
    np.testing.assert_allclose(shown(library, **place, spread=1)[1], spread, rtol=0.01)
    header, _ = shown(library, **{**place, "time": 0})
    assert "doubt" not in header, "nobody judged it"
    with pytest.raises(InputError, match="how far"):
        shown(library, **{**place, "time": 0}, spread=1)


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"store": "../x"},
        {"store": "frames", "field": "2"},
        {"store": "frames", "z": "3"},
        {"store": "frames", "time": "²"},
        {"store": "frames", "labels": "1"},
        {"store": "frames", "spread": "1"},
        {"store": "frames", "side": "x"},
    ],
)
def test_what_there_is_not(tmp_path: Path, wanted: dict[str, str]) -> None:
    store(tmp_path, "frames")
    with pytest.raises(InputError):
        Library(RunFolder(tmp_path)).image(wanted)


def test_damage_is_told(tmp_path: Path) -> None:
    made = store(tmp_path, "frames")
    (chunk,) = [path for path in (made.path / "1/0/c/0/0/1").rglob("*") if path.is_file()]
    chunk.write_bytes(b"damaged")
    with pytest.raises(RunError, match="damaged"):
        shown(Library(RunFolder(tmp_path)), store="frames", field=1, time=0, z=1)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images yet"):
        Library(RunFolder(tmp_path))
