"""OME-Zarr → OME-TIFF for Fiji and whatever else reads TIFF: one series a field, streamed plane by plane."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from dmu_hw.errors import InputError, Problem, RunError
from dmu_hw.moves import move
from dmu_hw.omezarr import Image, Store

CLASSIC_BYTES = 3_900_000_000


def export_tiff(store: Store, path: Path) -> int:
    """Write all fields of a store; returns how many."""
    check_target(path)
    fields = range(len(store))
    size = sum(store.array(field).nbytes for field in fields)
    part = path.with_name(f".part-{path.name}")
    try:
        with tifffile.TiffWriter(part, bigtiff=size > CLASSIC_BYTES, ome=True) as tiff:
            for field in fields:
                image = store.image(field)
                tiff.write(
                    _planes(store, field, image),
                    shape=image.shape,
                    dtype=image.dtype,
                    photometric="minisblack",
                    metadata=ome_metadata(image, image.name, image.corner_um),
                )
        move(part, path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return len(fields)


def check_target(path: Path) -> None:
    """Refuse a file that would not be what its name says, or that exists."""
    if not path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        raise InputError([Problem(str(path), "the name must end in .ome.tif")])
    if not path.parent.is_dir():
        raise InputError([Problem(str(path), f"there is no folder {path.parent}")])
    if path.exists():
        raise InputError([Problem(str(path), "exists already and is not overwritten")])


def _planes(store: Store, field: int, image: Image) -> Iterator[np.ndarray[Any, Any]]:
    """Planes in the order (t, c, z), the bursts of one field and time in memory at once."""
    times, channels, planes = image.shape[:3]
    for time in range(times):
        bursts = [store.burst(field, time, plane) for plane in range(planes)]
        for channel in range(channels):
            for plane in range(planes):
                yield bursts[plane][channel]


def ome_metadata(image: Image, name: str, corner_um: tuple[float, float, float]) -> dict[str, Any]:
    """For tifffile: of an image with this name and this place, otherwise like the given one."""
    times, channels, depth = image.shape[:3]
    planes = times * channels * depth
    z_um, y_um, x_um = corner_um
    return {
        "axes": "TCZYX",
        "Name": name,
        "PhysicalSizeX": image.pixel_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": image.pixel_um,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": image.z_step_um,
        "PhysicalSizeZUnit": "µm",
        "TimeIncrement": image.time_step_s,
        "TimeIncrementUnit": "s",
        "Channel": _channels_of(image),
        "Plane": {
            "PositionX": [x_um] * planes,
            "PositionXUnit": ["µm"] * planes,
            "PositionY": [y_um] * planes,
            "PositionYUnit": ["µm"] * planes,
            "PositionZ": [z_um + plane * image.z_step_um for plane in range(depth)] * (times * channels),
            "PositionZUnit": ["µm"] * planes,
        },
    }


def _channels_of(image: Image) -> dict[str, Any]:
    """Names of the channels, and their wavelengths where each of them is known."""
    told: dict[str, Any] = {"Name": list(image.channels)}
    for key, waves_nm in zip(("Excitation", "Emission"), zip(*image.waves_nm, strict=True), strict=False):
        if None not in waves_nm:
            told |= {f"{key}Wavelength": list(waves_nm), f"{key}WavelengthUnit": ["nm"] * len(waves_nm)}
    return told
