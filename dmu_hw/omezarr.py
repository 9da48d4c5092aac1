"""OME-Zarr 0.5 stores: one image a field, axes (t, c, z, y, x), one chunk a burst. c is the pattern."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from xml.sax.saxutils import quoteattr

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from dmu_hw.data import Int32Array
from dmu_hw.errors import InputError, Problem, RunError

AXES = [
    {"name": "t", "type": "time", "unit": "second"},
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "micrometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]

LABELS = "labels/objects"
"""Where an image keeps which object each pixel belongs to."""
PART = ".part"
"""Ends the name of a store that is not whole yet."""


@dataclass(frozen=True)
class Image:
    """What one field of a store looks like."""

    name: str
    shape: tuple[int, int, int, int, int]
    """(t, c, z, y, x)."""
    dtype: str
    pixel_um: float
    z_step_um: float
    time_step_s: float
    corner_um: tuple[float, float, float]
    """Middle of the first pixel in stage coordinates, (z, y, x)."""
    channels: Sequence[str]
    display: tuple[float, float]
    """Grey levels to show as black and white at first."""
    labelled: bool = False
    """Whether the objects in it are kept beside it."""
    waves_nm: Sequence[tuple[float | None, float | None]] = ()
    """Excitation and emission of each channel, where the run has several; None is not known."""

    def attributes(self) -> dict[str, Any]:
        """OME metadata of the image's group."""
        scale = [self.time_step_s, 1.0, self.z_step_um, self.pixel_um, self.pixel_um]
        move = [0.0, 0.0, *self.corner_um]
        transformations = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": move}]
        low, high = self.display
        window = {"min": low, "max": high, "start": low, "end": high}
        shown = {"color": "FFFFFF", "active": True, "window": window}
        channels = [{"label": label, **shown, **self._waves(index)} for index, label in enumerate(self.channels)]
        return {
            "ome": {
                "version": "0.5",
                "multiscales": [
                    {
                        "name": self.name,
                        "axes": AXES,
                        "datasets": [{"path": "0", "coordinateTransformations": transformations}],
                    }
                ],
                "omero": {"channels": channels, "rdefs": {"model": "color" if self._coloured else "greyscale"}},
            }
        }

    @property
    def _coloured(self) -> bool:
        """Patterns of one channel of the run are channels here, and none of them has a colour of its own."""
        return 0 < len(self.channels) == len(set(self.waves_nm))

    def _waves(self, channel: int) -> dict[str, Any]:
        """Wavelengths in the words of OMERO, and the colour that goes with them."""
        excitation_nm, emission_nm = self.waves_nm[channel] if self.waves_nm else (None, None)
        told = {"excitationWave": excitation_nm, "emissionWave": emission_nm}
        colour = {} if emission_nm is None or not self._coloured else {"color": _colour(emission_nm)}
        return {key: value for key, value in told.items() if value is not None} | colour

    def label_attributes(self) -> dict[str, Any]:
        """OME metadata of the objects: the same pixels without the axis of channels, which napari takes off images."""
        scale = [self.time_step_s, self.z_step_um, self.pixel_um, self.pixel_um]
        transformations = [
            {"type": "scale", "scale": scale},
            {"type": "translation", "translation": [0.0, *self.corner_um]},
        ]
        datasets = [{"path": "0", "coordinateTransformations": transformations}]
        images = [{"name": self.name, "axes": _without_channel(AXES), "datasets": datasets}]
        return {"ome": {"version": "0.5", "multiscales": images, "image-label": {"source": {"image": "../../"}}}}

    def xml(self, index: int) -> Iterator[str]:
        """The same for readers that know fields from OME-XML only, napari among them."""
        sizes = zip("TCZYX", self.shape, strict=True)
        steps = zip("XYZ", (self.pixel_um, self.pixel_um, self.z_step_um), strict=True)
        facts = {
            "ID": f"Pixels:{index}",
            "DimensionOrder": "XYZCT",
            "Type": {"float32": "float"}.get(self.dtype, self.dtype),
            **{f"Size{axis}": str(size) for axis, size in sizes},
            **{f"PhysicalSize{axis}": repr(float(step)) for axis, step in steps},
        }
        yield f'<Image ID="Image:{index}" Name={quoteattr(self.name)}><Pixels'
        yield from (f" {key}={quoteattr(value)}" for key, value in facts.items())
        yield ">\n"
        for channel, label in enumerate(self.channels):
            yield f'<Channel ID="Channel:{index}:{channel}" Name={quoteattr(label)} SamplesPerPixel="1"'
            excitation_nm, emission_nm = self.waves_nm[channel] if self.waves_nm else (None, None)
            if excitation_nm is not None:
                yield f' ExcitationWavelength="{excitation_nm:g}"'
            if emission_nm is not None:
                yield f' EmissionWavelength="{emission_nm:g}"'
            yield "/>\n"
        yield "<MetadataOnly/></Pixels></Image>\n"


class Store:
    """A folder of images: `0`, `1`, … one for each field, as bioformats2raw lays them out."""

    def __init__(self, path: Path, *, mode: str = "r") -> None:
        self.path = path
        if mode == "r" and not (path / "zarr.json").is_file():
            raise InputError([Problem(str(path), "is no OME-Zarr store")])
        with self._reading("the store"):
            self.root = zarr.open_group(path, mode=cast("Any", mode), zarr_format=3)

    @classmethod
    def create(cls, path: Path, images: Sequence[Image], facts: dict[str, Any]) -> Store:
        """A new store, all images black; `facts` go into the attributes under `dmu`."""
        if path.suffix == PART and path.is_dir():
            shutil.rmtree(path)  # what an attempt before this one left half made
        store = cls(path, mode="w-")
        store.root.attrs.update({"ome": {"version": "0.5", "bioformats2raw.layout": 3}, "dmu": facts})
        series = store.root.create_group("OME")
        series.attrs.update({"ome": {"version": "0.5", "series": [str(i) for i in range(len(images))]}})
        _write_xml(path / "OME" / "METADATA.ome.xml", images)
        for index, image in enumerate(images):
            group = store.root.create_group(str(index))
            group.attrs.update(image.attributes())
            group.create_array(
                "0",
                shape=image.shape,
                chunks=(1, image.shape[1], 1, *image.shape[3:]),
                dtype=image.dtype,
                dimension_names=["t", "c", "z", "y", "x"],
                fill_value=math.nan if image.dtype.startswith("float") else 0,
                # without a checksum most damaged bytes would come out as other pixels
                compressors=ZstdCodec(level=3, checksum=True),
            )
            # when each frame was exposed; NaN where it is missing
            group.create_array(
                "time_ms",
                shape=image.shape[:3],
                chunks=(1, *image.shape[1:3]),
                dtype="float64",
                fill_value=math.nan,
                compressors=ZstdCodec(level=3, checksum=True),
            )
            if image.labelled:
                _add_labels(group, image)
        return store

    @property
    def facts(self) -> dict[str, Any]:
        return cast("dict[str, Any]", dict(cast("Any", self.root.attrs.get("dmu", {}))))

    def __len__(self) -> int:
        with self._reading("the list of fields"):
            series = cast("Any", self.root["OME"].attrs["ome"])
            return len(series["series"])

    @property
    def labelled(self) -> bool:
        """Whether the objects in the images are kept: `Labels` of the same path reads them."""
        with self._reading("field 0"):
            return LABELS in cast("Any", self.root["0"])

    def array(self, field: int) -> zarr.Array[Any]:
        """(t, c, z, y, x) of one field."""
        with self._reading(f"field {field}"):
            return cast("zarr.Array[Any]", self.root[f"{self._at(field)}/0"])

    def times(self, field: int) -> zarr.Array[Any]:
        """(t, c, z) of one field, milliseconds on the rig's clock."""
        with self._reading(f"field {field}"):
            return cast("zarr.Array[Any]", self.root[f"{field}/time_ms"])

    def attributes(self, field: int) -> dict[str, Any]:
        with self._reading(f"field {field}"):
            return dict(cast("Any", self.root[self._at(field)].attrs))

    def image(self, field: int) -> Image:
        """What a field says of itself."""
        with self._reading(f"field {field}"):
            ome, array = self.attributes(field)["ome"], self.array(field)
            image = ome["multiscales"][0]
            steps = {step["type"]: step[step["type"]] for step in image["datasets"][0]["coordinateTransformations"]}
            channels: Any = ome["omero"]["channels"] if "omero" in ome else [_OBJECTS]
            window = channels[0]["window"]
            waves_nm = tuple((channel.get("excitationWave"), channel.get("emissionWave")) for channel in channels)
            return Image(
                name=image["name"],
                shape=self._shape(array),
                dtype=str(array.dtype),
                pixel_um=steps["scale"][-1],
                z_step_um=steps["scale"][-3],
                time_step_s=steps["scale"][0],
                corner_um=cast("tuple[float, float, float]", tuple(steps["translation"][-3:])),
                channels=[channel["label"] for channel in channels],
                display=(window["start"], window["end"]),
                labelled=f"{self._at(field)}/{LABELS}" in self.root,
                waves_nm=waves_nm if any(wave for waves in waves_nm for wave in waves) else (),
            )

    def has(self, channel: str) -> bool:
        """Whether it holds a channel of the run."""
        return not channel or channel in self.image(0).channels

    def channel(self, name: str) -> int:
        """Where a channel of the run stands on the axis c; in a run without names there is one only."""
        return list(self.image(0).channels).index(name) if name else 0

    def burst(self, field: int, time: int, plane: int) -> np.ndarray[Any, Any]:
        """(c, y, x) of one burst."""
        with self._reading(f"field {field}, time {time}, plane {plane}"):
            return np.asarray(self.array(field)[time, :, plane])

    def _at(self, field: int) -> str:
        """The group of a field's image."""
        return str(field)

    def _shape(self, array: zarr.Array[Any]) -> tuple[int, int, int, int, int]:
        """(t, c, z, y, x) of what an array holds."""
        return cast("tuple[int, int, int, int, int]", array.shape)

    @contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        """What zarr raises for damaged files, as one error that names the place."""
        try:
            yield
        except (LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise RunError(f"{self.path}: {what} is damaged: {error}") from error


class Labels(Store):
    """The objects in the images of a store, as images of their own. Their arrays have no axis of channels."""

    def counts(self, field: int) -> zarr.Array[Any]:
        """(t, z) of one field: how many objects there are; -1 where nobody looked."""
        with self._reading(f"field {field}"):
            return cast("zarr.Array[Any]", self.root[f"{self._at(field)}/count"])

    def put(self, place: tuple[int, int, int], labels: Int32Array) -> None:
        """(y, x) of a field, a time and a plane, and how many objects these are."""
        field, time, plane = place
        self.array(field)[time, plane] = labels
        self.counts(field)[time, plane] = np.count_nonzero(np.unique(labels))

    def burst(self, field: int, time: int, plane: int) -> np.ndarray[Any, Any]:
        """(c, y, x) of one burst; c is 1."""
        with self._reading(f"field {field}, time {time}, plane {plane}"):
            return np.asarray(self.array(field)[time, plane])[None]

    def _at(self, field: int) -> str:
        return f"{field}/{LABELS}"

    def _shape(self, array: zarr.Array[Any]) -> tuple[int, int, int, int, int]:
        times, planes, rows, columns = array.shape
        return times, 1, planes, rows, columns


def _colour(wave_nm: float) -> str:
    """Roughly as the eye would see it."""
    borders = ((490.0, "0000FF"), (570.0, "00FF00"), (600.0, "FFFF00"), (650.0, "FF0000"))
    return next((colour for border_nm, colour in borders if wave_nm < border_nm), "FF00FF")


_OBJECTS = {"label": "objects", "window": {"start": 0.0, "end": 255.0}}
"""What stands in for the display of an image: labels have none, for no grey level means anything."""


def _add_labels(image_group: zarr.Group, image: Image) -> None:
    """The group that viewers lay over the image, empty."""
    folder, _, name = LABELS.partition("/")
    labels = image_group.create_group(folder)
    labels.attrs.update({"ome": {"version": "0.5", "labels": [name]}})
    group = labels.create_group(name)
    group.attrs.update(image.label_attributes())
    sound = ZstdCodec(level=3, checksum=True)
    times, _, *places = image.shape
    group.create_array(
        "0",
        shape=(times, *places),
        chunks=(1, 1, *places[1:]),
        dtype="int32",
        dimension_names=["t", "z", "y", "x"],
        fill_value=0,
        compressors=sound,
    )
    group.create_array(
        "count", shape=(times, places[0]), chunks=(1, places[0]), dtype="int32", fill_value=-1, compressors=sound
    )


def _without_channel(axes: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return [axis for axis in axes if axis["type"] != "channel"]


def _write_xml(path: Path, images: Sequence[Image]) -> None:
    schema = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(f'<?xml version="1.0" encoding="UTF-8"?>\n<OME xmlns="{schema}">\n')
        for index, image in enumerate(images):
            file.writelines(image.xml(index))
        file.write("</OME>\n")


def chunk_place(relative: str) -> tuple[int, int, int] | None:
    """(field, time, plane) of a chunk file within a store, if it is one of pixels or of labels."""
    field, _, inside = relative.partition("/")
    labelled = inside.startswith(f"{LABELS}/")
    head, mark, tail = inside.removeprefix(f"{LABELS}/").partition("0/c/")
    places = tail.split("/")
    if head or not mark or not all(part.isdecimal() for part in (field, *places)):
        return None
    if len(places) != len(_without_channel(AXES) if labelled else AXES):
        return None
    return int(field), int(places[0]), int(places[-3])
