"""All fields of a run as one image by where they lie on the stage, blended where they overlap. Only a tile and a few
fields are in memory at any time."""

from __future__ import annotations

import shutil
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dmu_hw.data import Float32Array
from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.export import CLASSIC_BYTES, check_target, ome_metadata
from dmu_hw.moves import move
from dmu_hw.omezarr import Image, Store

TILE_PX = 512
_CACHED_BYTES = 128_000_000
_SPARE_BYTES = 50_000_000


@dataclass(frozen=True)
class Canvas:
    """Where each field lies, to the nearest pixel."""

    image: Image
    """Of the first field; all are alike."""
    corners_px: tuple[tuple[int, int], ...]
    """Row and column of the first pixel of each field."""
    shape_px: tuple[int, int]
    origin_um: tuple[float, float]
    """Middle of the first pixel in stage coordinates, (y, x)."""

    @classmethod
    def of(cls, store: Store) -> Canvas:
        images = [store.image(field) for field in range(len(store))]
        first = images[0]
        if any((image.shape, image.pixel_um) != (first.shape, first.pixel_um) for image in images):
            raise RunError(f"{store.path}: fields of different sizes make no mosaic")
        corners = np.array([image.corner_um[1:] for image in images])
        origin = corners.min(axis=0)
        places = np.rint((corners - origin) / first.pixel_um).astype(int)
        rows, columns = (int(most) + side for most, side in zip(places.max(axis=0), first.shape[3:], strict=True))
        return cls(
            first,
            tuple((int(row), int(column)) for row, column in places),
            (rows, columns),
            (float(origin[0]), float(origin[1])),
        )

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(t, c, z, y, x) of the whole."""
        return (*self.image.shape[:3], *self.shape_px)

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * np.dtype(self.image.dtype).itemsize

    def fields_by_tile(self, tile_px: int) -> dict[tuple[int, int], list[int]]:
        """Which fields each tile shows."""
        found: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        rows, columns = self.image.shape[3:]
        for field, (top, left) in enumerate(self.corners_px):
            for row in range(top // tile_px, (top + rows - 1) // tile_px + 1):
                for column in range(left // tile_px, (left + columns - 1) // tile_px + 1):
                    found[row, column].append(field)
        return found


def export_mosaic(store: Store, path: Path, tile_px: int = TILE_PX) -> Canvas:
    """Write one OME-TIFF; what no field shows is black."""
    check_target(path)
    canvas = Canvas.of(store)
    free = shutil.disk_usage(path.absolute().parent).free
    if canvas.nbytes + _SPARE_BYTES > free:
        size = f"{canvas.shape_px[1]:,}x{canvas.shape_px[0]:,} pixels, {canvas.nbytes / 1e9:,.1f} GB"
        raise InputError([Problem(str(path), f"a mosaic of {size}; {free / 1e9:,.1f} GB are free")])
    part = path.with_name(f".part-{path.name}")
    try:
        with tifffile.TiffWriter(part, bigtiff=canvas.nbytes > CLASSIC_BYTES, ome=True) as tiff:
            tiff.write(
                _Stitcher(store, canvas, tile_px).tiles(),
                shape=canvas.shape,
                dtype=canvas.image.dtype,
                tile=(tile_px, tile_px),
                photometric="minisblack",
                metadata=ome_metadata(canvas.image, "mosaic", (canvas.image.corner_um[0], *canvas.origin_um)),
            )
        move(part, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return canvas


class _Stitcher:
    """Makes tiles; the fields that a row of tiles shows are read once, as far as memory allows."""

    def __init__(self, store: Store, canvas: Canvas, tile_px: int) -> None:
        self.store = store
        self.canvas = canvas
        self.tile_px = tile_px
        self.weight = _towards_the_middle(canvas.image.shape[3:])
        self._fields = canvas.fields_by_tile(tile_px)
        self._read: OrderedDict[tuple[int, int, int], np.ndarray[Any, Any]] = OrderedDict()
        self._kept = max(4, _CACHED_BYTES // max(1, int(np.prod(canvas.image.shape[1:])) * 4))

    def tiles(self) -> Iterator[np.ndarray[Any, Any]]:
        """All tiles of all planes in the order of the file."""
        times, channels, planes = self.canvas.image.shape[:3]
        rows, columns = (-(-side // self.tile_px) for side in self.canvas.shape_px)
        for time in range(times):
            for channel in range(channels):
                for plane in range(planes):
                    for row in range(rows):
                        for column in range(columns):
                            yield self._tile((row, column), time, channel, plane)

    def _tile(self, tile: tuple[int, int], time: int, channel: int, plane: int) -> np.ndarray[Any, Any]:
        """The weighted mean of all fields that show a place."""
        side = self.tile_px
        light, weights = np.zeros((side, side), np.float32), np.zeros((side, side), np.float32)
        for field in self._fields.get(tile, ()):
            there, here = self._common(tile, field)
            pixels = self._burst(field, time, plane)[channel][here].astype(np.float32)
            weight = np.where(np.isfinite(pixels), self.weight[here], np.float32(0))
            light[there] += np.nan_to_num(pixels, posinf=0.0, neginf=0.0) * weight
            weights[there] += weight
        mean = np.divide(light, weights, out=np.zeros_like(light), where=weights > 0)
        whole = np.issubdtype(np.dtype(self.canvas.image.dtype), np.integer)
        return (mean.round() if whole else mean).astype(self.canvas.image.dtype)

    def _common(self, tile: tuple[int, int], field: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """What a tile and a field share, as part of either."""
        there, here = [], []
        for number, corner, size in zip(tile, self.canvas.corners_px[field], self.canvas.image.shape[3:], strict=True):
            start = number * self.tile_px
            low, high = max(start, corner), min(start + self.tile_px, corner + size)
            there.append(slice(low - start, high - start))
            here.append(slice(low - corner, high - corner))
        return (there[0], there[1]), (here[0], here[1])

    def _burst(self, field: int, time: int, plane: int) -> np.ndarray[Any, Any]:
        key = (field, time, plane)
        if key not in self._read:
            burst = self.store.burst(*key)
            if np.issubdtype(burst.dtype, np.integer):
                # a frame that is missing is black in its store; here its neighbours may show the place
                taken = np.isfinite(np.asarray(self.store.times(field)[time, :, plane]))
                burst = np.where(taken[:, None, None], burst.astype(np.float32), np.nan)
            self._read[key] = burst
            if len(self._read) > self._kept:
                self._read.popitem(last=False)
        self._read.move_to_end(key)
        return self._read[key]


def _towards_the_middle(shape_px: tuple[int, ...]) -> Float32Array:
    """Weight of each pixel of a field: the way to the nearest border, in rows times in columns."""
    rows, columns = (np.minimum(np.arange(side) + 1.0, side - np.arange(side)) for side in shape_px)
    weight: Float32Array = (rows[:, None] * columns[None, :]).astype(np.float32)
    return weight
