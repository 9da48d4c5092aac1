"""OME-Zarr → OME-TIFF for Fiji and whatever else reads TIFF: one series a field, streamed plane by plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.omezarr import Store

_CLASSIC_BYTES = 3_900_000_000


def export_tiff(store: Store, path: Path) -> int:
    """Write all fields of a store; returns how many."""
    if not path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        raise InputError([Problem(str(path), "the name must end in .ome.tif")])
    if not path.parent.is_dir():
        raise InputError([Problem(str(path), f"there is no folder {path.parent}")])
    if path.exists():
        raise InputError([Problem(str(path), "exists already and is not overwritten")])
    fields = range(len(store))
    size = sum(store.array(field).nbytes for field in fields)
    part = path.with_name(f".part-{path.name}")
    try:
        with tifffile.TiffWriter(part, bigtiff=size > _CLASSIC_BYTES, ome=True) as tiff:
            for field in fields:
                array = store.array(field)
                tiff.write(
                    _planes(store, field),
                    shape=array.shape,
                    dtype=array.dtype,
                    photometric="minisblack",
                    metadata=_metadata(store.attributes(field)["ome"], array.shape),
                )
        part.rename(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return len(fields)


def _planes(store: Store, field: int) -> Iterator[np.ndarray[Any, Any]]:
    """Planes in the order (t, c, z), the bursts of one field and time in memory at once."""
    times, channels, planes = store.array(field).shape[:3]
    for time in range(times):
        bursts = [store.burst(field, time, plane) for plane in range(planes)]
        for channel in range(channels):
            for plane in range(planes):
                yield bursts[plane][channel]


def _metadata(ome: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
    image = ome["multiscales"][0]
    scale, move = (
        step[kind]
        for kind, step in zip(("scale", "translation"), image["datasets"][0]["coordinateTransformations"], strict=True)
    )
    planes = shape[0] * shape[1] * shape[2]
    return {
        "axes": "TCZYX",
        "Name": image["name"],
        "PhysicalSizeX": scale[4],
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": scale[3],
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": scale[2],
        "PhysicalSizeZUnit": "µm",
        "TimeIncrement": scale[0],
        "TimeIncrementUnit": "s",
        "Channel": {"Name": [channel["label"] for channel in ome["omero"]["channels"]]},
        "Plane": {
            "PositionX": [move[4]] * planes,
            "PositionXUnit": ["µm"] * planes,
            "PositionY": [move[3]] * planes,
            "PositionYUnit": ["µm"] * planes,
        },
    }
