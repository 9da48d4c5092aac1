"""Fields of a run as one image: each where it lies on the stage, blended, in little memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from ome_types import from_tiff

from dmu_hw.errors import InputError, RunError
from dmu_hw.mosaic import Canvas, export_mosaic
from dmu_hw.omezarr import Image, Store
from dmu_hw.physics.specimens.nuclei import Nuclei

SIDE, PIXEL_UM = 48, 0.5


def image(corner_um: tuple[float, float], **changes: Any) -> Image:
    """A field whose first pixel is there, (x, y)."""
    keys: dict[str, Any] = {
        "name": "field",
        "shape": (1, 1, 1, SIDE, SIDE),
        "dtype": "float32",
        "pixel_um": PIXEL_UM,
        "z_step_um": 1.0,
        "time_step_s": 1.0,
        "corner_um": (0.0, corner_um[1], corner_um[0]),
        "channels": ["reconstruction"],
        "display": (0.0, 1.0),
    }
    return Image(**{**keys, **changes})


def grid(rows: int, columns: int, overlap: float) -> list[tuple[float, float]]:
    """Corners of fields, those of a specimen anywhere."""
    step_um = SIDE * PIXEL_UM * (1 - overlap)
    return [(-31.0 + column * step_um, 17.5 + row * step_um) for row in range(rows) for column in range(columns)]


def specimen(first_um: tuple[float, float], shape_px: tuple[int, int]) -> Any:
    """A simulated specimen, from the middle of its first pixel."""
    centre = tuple(at + (side - 1) / 2 * PIXEL_UM for at, side in zip(first_um, shape_px[::-1], strict=True))
    return Nuclei(seed=4).scene((centre[0], centre[1]), shape_px, PIXEL_UM).image


def store_of(path: Path, corners: list[tuple[float, float]], **changes: Any) -> Store:
    store = Store.create(path, [image(corner, **changes) for corner in corners], {})
    for field, corner in enumerate(corners):
        store.array(field)[0, 0, 0] = specimen(corner, (SIDE, SIDE))
    return store


@pytest.mark.parametrize("tile_px", [16, 64, 512])
def test_a_stitched_specimen_is_the_specimen(tmp_path: Path, tile_px: int) -> None:
    """Where every field shows the truth, blending changes nothing and no field is off its place by a pixel."""
    store = store_of(tmp_path / "truth.ome.zarr", grid(3, 4, 0.25))
    path = tmp_path / "mosaic.ome.tif"
    canvas = export_mosaic(store, path, tile_px)
    found = tifffile.imread(path)
    assert found.shape == canvas.shape_px == (48 + 2 * 36, 48 + 3 * 36)
    whole = specimen((-31.0, 17.5), canvas.shape_px)
    assert np.ptp(whole) > 0.5
    assert np.abs(found - whole).max() < 1e-5
    pixels = from_tiff(path).images[0].pixels
    assert (pixels.physical_size_x, pixels.planes[0].position_x, pixels.planes[0].position_y) == (0.5, -31.0, 17.5)
    assert not list(tmp_path.glob(".part*"))


def test_fields_are_blended_linearly_where_they_overlap(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "a.ome.zarr", [image((0.0, 0.0)), image((18.0, 0.0))], {})
    store.array(0)[:] = 1.0
    store.array(1)[:] = 4.0
    export_mosaic(store, tmp_path / "a.ome.tif", 32)
    row = tifffile.imread(tmp_path / "a.ome.tif")[20]
    assert np.all(row[:36] == 1.0)
    assert np.all(row[48:] == 4.0)
    assert np.allclose(np.diff(row[36:48]), np.diff(row[36:48])[0])
    assert row[36] == pytest.approx(1.0 + 3.0 / 13)


def test_what_is_missing_is_shown_by_a_neighbour_or_black(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "a.ome.zarr", [image((0.0, 0.0)), image((18.0, 0.0)), image((0.0, 90.0))], {})
    store.array(1)[:] = 4.0
    export_mosaic(store, tmp_path / "a.ome.tif", 32)
    found = tifffile.imread(tmp_path / "a.ome.tif")
    assert found.shape == (228, 84)
    assert np.all(found[:48, 36:] == 4.0)
    assert np.all(found[:48, :36] == 0.0)
    assert np.all(found[48:] == 0.0)


def test_raw_frames_keep_their_numbers_and_their_gaps(tmp_path: Path) -> None:
    kind = {"dtype": "uint16", "shape": (2, 3, 1, SIDE, SIDE), "channels": ["a", "b", "c"]}
    store = Store.create(tmp_path / "a.ome.zarr", [image((0.0, 0.0), **kind), image((18.0, 0.0), **kind)], {})
    for field in range(2):
        store.times(field)[:] = 1.0
        store.array(field)[:] = 100 * (field + 1)
    store.times(0)[1, 2, 0] = np.nan
    store.array(0)[1, 2, 0] = 0
    export_mosaic(store, tmp_path / "a.ome.tif", 32)
    found = tifffile.imread(tmp_path / "a.ome.tif")
    assert (found.dtype, found.shape) == (np.uint16, (2, 3, 48, 84))
    assert found[1, 1, 20, 40] == found[0, 0, 20, 40]
    assert 100 < found[1, 1, 20, 40] < 200
    assert np.all(found[1, 2, :, 36:] == 200)
    assert np.all(found[1, 2, :, :36] == 0)


def test_memory_does_not_grow_with_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmu_hw.mosaic._CACHED_BYTES", 100_000)
    peaks: list[int] = []
    for number in (12, 48):
        corners = [(18.0 * column, 0.0) for column in range(number)]
        store = Store.create(tmp_path / f"{number}.ome.zarr", [image(corner) for corner in corners], {})
        tracemalloc.start()
        export_mosaic(store, tmp_path / f"{number}.ome.tif", 64)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 100_000


def test_a_mosaic_that_does_not_fit_the_disk_is_refused(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "a.ome.zarr", [image((0.0, 0.0)), image((1e6, 1e6))], {})
    with pytest.raises(InputError, match=r"a mosaic of 2,000,048x2,000,048 pixels, 16,000\.8 GB; .* are free"):
        export_mosaic(store, tmp_path / "a.ome.tif")
    assert not list(tmp_path.glob("*.tif"))


def test_fields_that_do_not_match_are_an_error(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "a.ome.zarr", [image((0.0, 0.0)), image((0.0, 0.0), pixel_um=1.0)], {})
    with pytest.raises(RunError, match="different sizes"):
        Canvas.of(store)
