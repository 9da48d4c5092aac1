"""OME-TIFF that Fiji, tifffile and ome-types read with the right axes, sizes, places and names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import ome_types
import pytest
import tifffile

from dmu_hw import export as export_module
from dmu_hw.errors import InputError, RunError
from dmu_hw.export import export_tiff
from dmu_hw.omezarr import Image, Store

SHAPE = (2, 3, 4, 6, 5)


def store_of(folder: Path, dtype: str = "uint16", fields: int = 2) -> Store:
    """Fields side by side, every value its own."""
    images = [
        Image(f"field {n}", SHAPE, dtype, 0.65, 1.5, 2.0, (-3.0, 10.0, 20.0 + 50.0 * n), ["a", "b", "c"], (0.0, 1.0))
        for n in range(fields)
    ]
    store = Store.create(folder / "frames.ome.zarr", images, {})
    for field in range(fields):
        store.array(field)[...] = values(field, dtype)
    return store


def values(field: int, dtype: str = "uint16") -> Any:
    return (np.arange(np.prod(SHAPE)).reshape(SHAPE) + 1000 * field).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_every_field_is_a_series_with_its_pixels(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "out.ome.tif"
    assert export_tiff(store_of(tmp_path, dtype), path) == 2
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert not tiff.is_bigtiff
        assert len(tiff.series) == 2
        for field, series in enumerate(tiff.series):
            assert series.axes == "TCZYX"
            assert series.name == f"field {field}"
            assert series.dtype == dtype
            assert np.array_equal(series.asarray(), values(field, dtype))


def test_ome_types_reads_sizes_places_and_names(tmp_path: Path) -> None:
    export_tiff(store_of(tmp_path), tmp_path / "out.ome.tif")
    ome = ome_types.from_tiff(tmp_path / "out.ome.tif")
    assert [image.name for image in ome.images] == ["field 0", "field 1"]
    for field, image in enumerate(ome.images):
        pixels = image.pixels
        sizes = (pixels.size_t, pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x)
        assert sizes == SHAPE
        assert (pixels.physical_size_x, pixels.physical_size_y, pixels.physical_size_z) == (0.65, 0.65, 1.5)
        assert {pixels.physical_size_x_unit.value, pixels.physical_size_z_unit.value} == {"µm"}
        assert (pixels.time_increment, pixels.time_increment_unit.value) == (2.0, "s")
        assert [channel.name for channel in pixels.channels] == ["a", "b", "c"]
        assert len(pixels.planes) == 2 * 3 * 4
        for plane in pixels.planes:
            assert (plane.position_x, plane.position_y) == (20.0 + 50.0 * field, 10.0)
            assert plane.position_z == -3.0 + 1.5 * plane.the_z


def test_one_plane_of_one_frame(tmp_path: Path) -> None:
    """Axes of length one stay axes."""
    image = Image("one", (1, 1, 1, 6, 5), "float32", 0.5, 1.0, 1.0, (0.0, 0.0, 0.0), ["reconstruction"], (0.0, 1.0))
    store = Store.create(tmp_path / "r.ome.zarr", [image], {})
    export_tiff(store, tmp_path / "r.ome.tif")
    pixels = ome_types.from_tiff(tmp_path / "r.ome.tif").images[0].pixels
    assert (pixels.size_t, pixels.size_c, pixels.size_z, pixels.size_y, pixels.size_x) == (1, 1, 1, 6, 5)
    assert pixels.channels[0].name == "reconstruction"


def test_large_files_are_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "CLASSIC_BYTES", 1000)
    export_tiff(store_of(tmp_path), tmp_path / "out.ome.tif")
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as tiff:
        assert tiff.is_bigtiff
        assert np.array_equal(tiff.series[1].asarray(), values(1))


@pytest.mark.parametrize("name", ["out.tif", "out.ome.zarr", "out", "missing/out.ome.tif"])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"must end in \.ome\.tif|there is no folder"):
        export_tiff(store_of(tmp_path), tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["frames.ome.zarr"]


def test_a_file_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.ome.tif"
    path.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        export_tiff(store_of(tmp_path), path)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), RunError("damaged")])
def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    store = store_of(tmp_path)
    real_burst = Store.burst

    def burst(self: Store, field: int, time: int, plane: int) -> Any:
        if (field, time) == (1, 1):
            raise error
        return real_burst(self, field, time, plane)

    monkeypatch.setattr(Store, "burst", burst)
    with pytest.raises(RunError if isinstance(error, OSError) else type(error)):
        export_tiff(store, tmp_path / "out.ome.tif")
    assert [path.name for path in tmp_path.iterdir()] == ["frames.ome.zarr"]


def test_a_damaged_store_is_told(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    chunk = store.path / "1/0/c/1/0/2/0/0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(RunError, match="field 1, time 1, plane 2 is damaged"):
        export_tiff(store, tmp_path / "out.ome.tif")
    assert not (tmp_path / "out.ome.tif").exists()
