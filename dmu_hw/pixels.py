"""What differs from pixel to pixel of the camera, as it was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from dmu_hw.data import BoolArray, Float32Array

_MANY = 0.25
"""Part of the pixels of a binned one: if so many of them are bad, so is it; fewer are made good by what is known."""
_LEAST = 0.1
"""Of the sensitivity: what is less is taken for this, and is bad."""


@dataclass(frozen=True, eq=False)
class PixelMaps:
    """(y, x): of the chip, of its frames, or of a window of them."""

    offset_adu: Float32Array
    response: Float32Array
    """Sensitivity as a part of that of all."""
    dark_e_per_ms: Float32Array
    bad: BoolArray
    """Not to be trusted."""

    def __post_init__(self) -> None:
        shapes = {getattr(self, field.name).shape for field in fields(self)}
        if len(shapes) > 1 or self.bad.ndim != 2:
            raise ValueError(f"maps of pixels must have one shape (y, x), given {sorted(shapes)}")

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> PixelMaps:
        """From arrays of the same names; ValueError or KeyError: they are no maps."""
        offset, response, dark = (
            arrays[name].astype(np.float32) for name in ("offset_adu", "response", "dark_e_per_ms")
        )
        return cls(offset, response, dark, arrays["bad"] != 0)

    def packed(self) -> bytes:
        """To be kept in a file."""
        arrays = {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}
        return save({**arrays, "bad": arrays["bad"].astype(np.uint8)})

    @classmethod
    def unpacked(cls, content: bytes) -> PixelMaps:
        return cls.of(load(content))

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.packed()).hexdigest()

    def turned(self, *, flip_x: bool, flip_y: bool) -> PixelMaps:
        """As frames show them that run the other way in x, or in y."""
        turn = (slice(None, None, -1 if flip_y else 1), slice(None, None, -1 if flip_x else 1))
        return PixelMaps(*(getattr(self, field.name)[turn] for field in fields(self)))

    def seen(self, rows: slice, columns: slice, binning: int) -> PixelMaps:
        """Of a window, binned: charges add, and of readings there is one."""

        def binned(values: NDArray[Any]) -> Float32Array:
            cut = values[rows, columns]
            side = (cut.shape[0] // binning, cut.shape[1] // binning)
            mean: Float32Array = cut.reshape(side[0], binning, side[1], binning).mean(axis=(1, 3), dtype=np.float32)
            return mean

        response = binned(self.response)
        bad = (binned(self.bad) >= _MANY) | (response < _LEAST)
        dark = binned(self.dark_e_per_ms) * binning**2
        return PixelMaps(binned(self.offset_adu), np.maximum(response, np.float32(_LEAST)), dark, bad)
