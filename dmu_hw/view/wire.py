"""What goes between a page and the program: messages with pixels one way, orders the other.

A message is the length of its header (4 bytes, little-endian), the header (JSON, filled up with spaces so that pixels
begin at a multiple of 4), and raw pixels in rows, little-endian. The header says their `dtype` and `shape`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from dmu_hw.files import Positive, Settings

Pixels = NDArray[Any]
DTYPES = ("uint8", "uint16", "float32")
"""What pages can read."""
_GREYS = np.float32(65535)
_LONGEST_ORDER = 1000


def packed(header: Mapping[str, Any], pixels: Pixels | None = None) -> bytes:
    """A message."""
    told = dict(header)
    if pixels is not None:
        if pixels.dtype.name not in DTYPES:
            raise ValueError(f"pages read {', '.join(DTYPES)}, no {pixels.dtype.name}")
        told |= {"dtype": pixels.dtype.name, "shape": list(pixels.shape)}
    text = json.dumps(told, allow_nan=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    body = b"" if pixels is None else np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("<")).tobytes()
    return len(text).to_bytes(4, "little") + text + body


def unpacked(message: bytes) -> tuple[dict[str, Any], Pixels | None]:
    """As a page reads it."""
    start = 4 + int.from_bytes(message[:4], "little")
    header: dict[str, Any] = json.loads(message[4:start])
    if "dtype" not in header:
        return header, None
    dtype = np.dtype(header["dtype"]).newbyteorder("<")
    return header, np.frombuffer(message, dtype, offset=start).reshape(header["shape"])


def grey(image: Pixels) -> tuple[NDArray[np.uint16], float, float]:
    """An image in 16 bits, which a quarter of a grey level of the eye is lost by, and the values of black and white."""
    seen = np.nan_to_num(np.asarray(image, np.float32), posinf=0.0, neginf=0.0)
    low, high = float(seen.min(initial=0.0)), float(seen.max(initial=0.0))
    span = high - low or 1.0
    return ((seen - low) / np.float32(span) * _GREYS + 0.5).astype(np.uint16), low, low + span


def small(image: Pixels, side_px: int) -> Pixels:
    """An image (…, y, x) of `side_px` at most, each pixel the mean of those that it stands for; smaller ones stay."""
    step = -(-max(image.shape[-2:]) // side_px)
    if step <= 1:
        return image
    rows, columns = (max(1, size // step) for size in image.shape[-2:])
    cut = image[..., : rows * step, : columns * step]
    shape = (*cut.shape[:-2], rows, cut.shape[-2] // rows, columns, cut.shape[-1] // columns)
    mean: Pixels = cut.reshape(shape).mean(axis=(-3, -1), dtype=np.float32)
    return mean


# ---------------------------------------------------------------- orders


class Word(Settings):
    """One that needs nothing else said."""

    do: Literal["abort", "pause", "go", "watch"]
    """watch: somebody looks at the page; said again and again as long as that is so."""


class Lamp(Settings):
    """Light in a preview."""

    do: Literal["lamp"]
    on: bool
    power_mw: Positive
    exposure_ms: Positive


Order = Annotated[Word | Lamp, Field(discriminator="do")]
_ORDERS: TypeAdapter[Word | Lamp] = TypeAdapter(Order)


def order_of(text: str | bytes) -> Word | Lamp | None:
    """What a page asks for; None is junk."""
    if len(text) > _LONGEST_ORDER:
        return None
    try:
        return _ORDERS.validate_json(text)
    except ValidationError:
        return None
