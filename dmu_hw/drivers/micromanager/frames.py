"""Frames out of MMCore's buffer: pixels, and the tags that are looked at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from dmu_hw.data import Uint16Array
from dmu_hw.drivers.micromanager.handle import Handle
from dmu_hw.errors import DeviceError

_MOST_SHOWN = 20


class Frames:
    """What one camera has put into the buffer."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    def waiting(self) -> int:
        """How many there are; no device is asked for that."""
        return int(self._handle.core("getRemainingImageCount"))

    def pop(self, names: Iterable[str]) -> tuple[Any, dict[str, str]]:
        """The next one and its tags of these names."""
        make = self._handle.link.metadata
        if make is not None:
            tags = make()
            pixels = self._handle.core("popNextImageMD", tags)
            return pixels, {name: tags.GetSingleTag(name).GetValue() for name in names if tags.HasTag(name)}
        tagged = self._handle.core("popNextTaggedImage")
        said = dict(tagged.tags)
        pixels = np.asarray(tagged.pix)
        if pixels.ndim == 1:
            pixels = self._shaped(pixels, said)
        return pixels, {name: str(said[name]) for name in names if name in said}

    def _shaped(self, pixels: Any, said: dict[str, Any]) -> Any:
        """Java has no arrays of two axes, and no numbers without a sign."""
        try:
            shape = int(said["Height"]), int(said["Width"])
            shaped = pixels.reshape(shape)
        except (KeyError, ValueError) as error:
            raise self._handle.error(f"gave {pixels.size} pixels, and tags that do not fit them: {error}") from error
        return shaped.view(f"{shaped.dtype.byteorder}u{shaped.dtype.itemsize}") if shaped.dtype.kind == "i" else shaped


def grey(handle: Handle, pixels: Any, shape: tuple[int, int]) -> Uint16Array:
    """Pixels as they are promised, or an error: nothing is guessed of colours and of numbers that are not whole."""
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2 or pixels.ndim != 2:
        what = f"gave pixels {pixels.dtype} {pixels.shape}: set PixelType, or what it is called, to 8 or 16 bit grey"
        raise handle.error(what)
    if pixels.shape != shape:
        raise handle.error(f"gave a frame of {pixels.shape} pixels, asked for were {shape}")
    return np.ascontiguousarray(pixels, dtype=np.uint16)


def lacking(handle: Handle, name: str, tags: dict[str, str]) -> DeviceError:
    """A tag that somebody relies on and that is not there."""
    there = ", ".join(sorted(tags)[:_MOST_SHOWN]) or "none of those that were asked for"
    return handle.error(f"frames have no usable tag {name!r}: there is {there}")
