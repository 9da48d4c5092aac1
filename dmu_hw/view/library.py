"""A run that has ended, as viewers see it: its stores are read image by image, when they are asked for."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmu_hw.doubtful import Doubtful
from dmu_hw.errors import DmuError, InputError, Problem, RunError
from dmu_hw.omezarr import Image, Labels, Store
from dmu_hw.runfolder import RunFolder
from dmu_hw.view.board import Board
from dmu_hw.view.wire import DTYPES, Lamp, Pixels, Word, packed, small

_END = ".ome.zarr"
_AT_FIRST = ("reconstruction", "frames", "full", "plain", "truth")
_MOST_FIELDS = 400
"""Each is a file to be read before there is a page."""
_FACTS = ("began", "complete", "aborted", "counts", "metrics", "objects", "cautions", "actual", "calibration")


class Library:
    """A Site. Its images are known by the names of their stores, several reconstructions among them."""

    def __init__(self, run: RunFolder) -> None:
        self.board = Board()
        self._run = run
        self._stores = {name: Store(path) for name, path in _stores(run.path)}
        if not self._stores:
            what = "holds no images yet: it was cut, or goes on; watch a run by dmu run --view"
            raise InputError([Problem(str(run.path), what)])
        self._doubtful = {name: Doubtful(store.path) for name, store in self._stores.items() if Doubtful.there(store)}
        self._images: dict[tuple[str, int], Image] = {}

    def about(self) -> dict[str, Any]:
        """For the page to build itself."""
        return {
            "mode": "look",
            "name": self._run.path.name,
            "folder": str(self._run.path.resolve()),
            "fields": self._fields(),
            "stores": {name: self._told(name, store) for name, store in self._stores.items()},
            "facts": self._facts(),
        }

    def report(self) -> None:
        """Nothing changes."""

    def order(self, order: Word | Lamp) -> None:
        """There is nothing to order."""

    def image(self, wanted: Mapping[str, str]) -> bytes:
        """One channel of one field, time and plane; of labels, the objects in it."""
        name = wanted.get("store", "")
        if name not in self._stores:
            raise InputError([Problem(name[:60], f"is none of {', '.join(self._stores)}")])
        field, time, z, channel = (_number(wanted.get(axis, "0")) for axis in ("field", "time", "z", "channel"))
        store = self._stores[name]
        if field >= len(store):
            raise InputError([Problem(f"field {field}", f"there are {len(store)}")])
        image = self._image(name, field)
        for axis, index, size in zip("tcz", (time, channel, z), image.shape, strict=False):
            if index >= size:
                raise InputError([Problem(f"{axis} {index}", f"there are {size}")])
        facts = {"kind": "image", "pixel_um": image.pixel_um, "corner_um": image.corner_um, "name": image.name}
        try:
            if wanted.get("labels") == "1":
                return self._labels(name, facts, (field, time, z))
            if wanted.get("spread") == "1":
                return self._spread(name, facts, (field, time, z), channel)
            facts |= self._doubts(name, (field, time, z), channel)
            exposed_ms = float(np.asarray(store.times(field)[time, channel, z]))
            pixels = np.asarray(store.array(field)[time, channel, z])
            # a truth was never exposed, and what is missing is black or no number at all
            there = bool(np.isfinite(exposed_ms) or np.nan_to_num(pixels).any())
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            # what zarr and its codecs raise over damaged chunks and metadata
            raise RunError(f"{name}: is damaged: {error} (dmu verify names what is)") from error
        if "side" in wanted:
            pixels = small(pixels, max(1, _number(wanted["side"])))
        facts |= {"missing": not there, "at_ms": exposed_ms if np.isfinite(exposed_ms) else None}
        return packed(facts, _plain(pixels))

    def _labels(self, name: str, facts: dict[str, Any], place: tuple[int, int, int]) -> bytes:
        field, time, z = place
        if not self._image(name, field).labelled:
            raise InputError([Problem(name, "holds no objects")])
        labels = Labels(self._stores[name].path)
        count = int(np.asarray(labels.counts(field)[time, z]))
        pixels = labels.burst(field, time, z)[0]
        return packed({**facts, "count": count if count >= 0 else None}, pixels.astype(np.uint16))

    def _spread(self, name: str, facts: dict[str, Any], place: tuple[int, int, int], channel: int) -> bytes:
        doubtful = self._doubtful.get(name)
        found = None if doubtful is None else doubtful.spreads(place, channel)
        if found is None:
            raise InputError([Problem(name, "does not know how far this image may be off")])
        return packed(facts, found)

    def _doubts(self, name: str, place: tuple[int, int, int], channel: int) -> dict[str, Any]:
        """Whether an image is to be believed, where somebody judged it."""
        doubtful = self._doubtful.get(name)
        said = None if doubtful is None else doubtful.said(place, channel)
        if said is None:
            return {}
        residual = said.residual if math.isfinite(said.residual) else None
        return {"doubt": ", ".join(said.reasons), "residual": residual, "score": said.score}

    def _image(self, name: str, field: int) -> Image:
        if (name, field) not in self._images:
            self._images[name, field] = self._stores[name].image(field)
        return self._images[name, field]

    def _fields(self) -> list[dict[str, Any]]:
        """Where they lie; of a run with very many, those at the beginning."""
        name, store = next(iter(self._stores.items()))
        images = [self._image(name, field) for field in range(min(len(store), _MOST_FIELDS))]
        return [{"name": image.name, "corner_um": image.corner_um} for image in images]

    def _told(self, name: str, store: Store) -> dict[str, Any]:
        """Of one store; the first field speaks for the others."""
        image = self._image(name, 0)
        times, channels, planes, rows, columns = image.shape
        return {
            "fields": len(store),
            "times": times,
            "channels": list(image.channels),
            "planes": planes,
            "shape": [rows, columns],
            "pixel_um": image.pixel_um,
            "time_step_s": image.time_step_s,
            "z_step_um": image.z_step_um,
            "labelled": image.labelled,
            "spread": name in self._doubtful and self._doubtful[name].spread,
            "size": channels,
            "facts": {key: value for key, value in store.facts.items() if isinstance(value, str)},
        }

    def _facts(self) -> dict[str, Any]:
        """Of the manifest, for people; a run that was cut has none."""
        with contextlib.suppress(DmuError, json.JSONDecodeError):
            manifest = self._run.read_manifest()
            return {name: manifest[name] for name in _FACTS if name in manifest}
        return {}


def _stores(folder: Path) -> list[tuple[str, Path]]:
    """What images there are, those first that people want to see first."""
    found = {path.name.removesuffix(_END): path for path in sorted(folder.glob(f"*{_END}"))}

    def rank(name: str) -> tuple[int, str]:
        kind = next((place for place, what in enumerate(_AT_FIRST) if what in name), len(_AT_FIRST))
        return kind, name

    return [(name, found[name]) for name in sorted(found, key=rank)]


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError([Problem(text[:20], "is no number of an image")])
    return int(text)


def _plain(pixels: Pixels) -> Pixels:
    """In a type that pages read."""
    return pixels if pixels.dtype.name in DTYPES else pixels.astype(np.float32)
