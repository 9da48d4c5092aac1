"""Grey pictures and single channels in TIFF and PNG files, and the sentences that refuse others.

tifffile and Pillow are loaded with the first picture: most specimens are synthetic and need neither.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.errors import InputError, Problem

if TYPE_CHECKING:
    from tifffile import TiffPage, TiffPageSeries

Pixels = NDArray[Any]
SUFFIXES = (".tif", ".tiff", ".png")
SMALLEST_SIDE = 16
MOST_PIXELS = 2**26
_MOST_NUMBERS = 4 * MOST_PIXELS
_WHITE_PERCENTILE = 99.9
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")
_PNG_MODES = (*_GREY_MODES, "LA", "RGB", "RGBA")
_STACKED = {"Z", "T", "R"}
"""tifffile's names of axes that are no channels: depth, time, repetition."""
_ALPHA = (1, 2)
"""TIFF's extra samples that say how transparent the others are."""
_BROKEN = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    SyntaxError,
    RuntimeError,
    AttributeError,
    AssertionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What the two libraries were seen to raise on files that are cut short, damaged or something else."""


def refusal(path: Path, what: str) -> InputError:
    """An error that names a file."""
    return InputError([Problem(str(path), what)])


def pictures_in(path: Path) -> tuple[Path, ...]:
    """A picture, or those of a folder by name."""
    try:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
            if not found:
                raise refusal(path, f"the folder holds no picture ({', '.join(SUFFIXES)})")
            return tuple(found)
        if not path.is_file():
            raise refusal(path, "there is no such file or folder")
    except OSError as error:
        raise refusal(path, f"cannot be read: {error.strerror}") from None
    if path.suffix.lower() not in SUFFIXES:
        raise refusal(path, f"not a picture that can be read; {', '.join(SUFFIXES)} can")
    return (path,)


def picture_shape(path: Path) -> tuple[int, int]:
    """Rows and columns of a picture, from its header alone."""
    with _opened(path) as picture:
        return picture.shape


def read_picture(path: Path, channel: int | None = None) -> Pixels:
    """(y, x) numbers of a grey picture, or of a channel counted from 0, as they are in the file.

    InputError for anything else. Transparency is not looked at.
    """
    with _opened(path) as picture:
        _check_channel(path, picture, channel)
        pixels: Pixels = picture.read()[channel or 0]
    if min(pixels.shape) < SMALLEST_SIDE:
        raise refusal(path, f"{pixels.shape[0]}×{pixels.shape[1]} pixels; {SMALLEST_SIDE} a side are wanted")
    if pixels.dtype.kind not in "buif":
        raise refusal(path, f"holds {pixels.dtype} pixels; whole or real numbers are wanted")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise refusal(path, "has pixels that are not finite numbers (nan or inf)")
    return pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels


def grey_levels(path: Path, pixels: Pixels, black: float | None, white: float | None) -> tuple[float, float]:
    """What is no light and what is full brightness in a picture; None: what its own darkest and brightest say."""
    lowest, highest = float(pixels.min()), float(pixels.max())
    if lowest == highest:
        raise refusal(path, f"has the same grey level everywhere ({lowest:g})")
    if not np.isfinite(highest - lowest):
        raise refusal(path, f"grey levels from {lowest:g} to {highest:g} are too far apart")
    black = lowest if black is None else black
    if white is None:
        white = float(np.percentile(pixels.astype(np.float64), _WHITE_PERCENTILE))
        # Few bright pixels on a dark ground are more than the percentile sees.
        white = white if white > black else highest
    if white <= black:
        raise refusal(
            path, f"black {black:g} is not below white {white:g}; its grey levels are {lowest:g} to {highest:g}"
        )
    return black, white


# ---------------------------------------------------------------- files


@dataclass(frozen=True)
class _Picture:
    """What a header promises, and how to get it."""

    shape: tuple[int, int]
    channels: int
    kind: str
    read: Callable[[], Pixels]
    """(channel, y, x)."""


@contextmanager
def _opened(path: Path) -> Iterator[_Picture]:
    """InputError for whatever happens while it is open, too."""
    try:
        with _png(path) if path.suffix.lower() == ".png" else _tiff(path) as picture:
            rows, columns = picture.shape
            if rows * columns > MOST_PIXELS:
                raise refusal(path, f"{rows}×{columns} pixels; at most {MOST_PIXELS} can be read")
            if rows * columns * picture.channels > _MOST_NUMBERS:
                what = f"{rows}×{columns} pixels of {picture.channels} channels"
                raise refusal(path, f"{what}; at most {_MOST_NUMBERS} numbers can be read")
            yield picture
    except _BROKEN as error:
        raise refusal(path, f"cannot be read: {' '.join(str(error).split())}") from None


def _check_channel(path: Path, picture: _Picture, channel: int | None) -> None:
    count = picture.channels
    if channel is None and count > 1:
        what = f"a picture of {count} channels ({picture.kind}); one grey channel is wanted"
        raise refusal(path, f"{what}: `channel` says which, 0 to {count - 1}")
    if channel is not None and channel >= count:
        raise refusal(path, f"has no channel {channel}: channels are counted from 0 and there are {count}")


@contextmanager
def _png(path: Path) -> Iterator[_Picture]:
    from PIL import Image  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            file = Image.open(path, formats=("PNG",))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise refusal(path, f"more than {MOST_PIXELS} pixels") from None
    with file:
        if file.mode not in _PNG_MODES:
            raise refusal(path, f"a colour picture with a palette (mode {file.mode}); one grey channel is wanted")
        if file.mode not in _GREY_MODES and any(";16" in str(tile) for tile in file.tile):
            raise refusal(path, "colours or transparency of 16 bits would be read with 8; save it as a TIFF")
        if getattr(file, "n_frames", 1) > 1:
            raise refusal(path, "a moving picture; one plane is wanted")
        channels = len([band for band in file.getbands() if band != "A"])
        yield _Picture(
            (file.height, file.width), channels, "colour", lambda: np.atleast_3d(np.asarray(file)).transpose(2, 0, 1)
        )


@contextmanager
def _tiff(path: Path) -> Iterator[_Picture]:
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise refusal(path, f"holds {len(file.series)} pictures that are not alike; one is wanted")
        page = file.pages.first
        whole: TiffPageSeries | TiffPage = file.series[0]
        if file.series[0].is_multifile or len(file.series[0].pages) > len(file.pages):
            if len(file.pages) > 1:
                raise refusal(path, "is a part of a picture in several files; a whole one is wanted")
            whole = page  # OME-TIFFs of one plane each name one another
        if page.photometric not in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB):
            kind = getattr(page.photometric, "name", page.photometric)
            raise refusal(path, f"a colour or inverted picture ({kind}); one grey channel is wanted")
        axes = "".join(axis for axis, count in zip(whole.axes, whole.shape, strict=True) if count > 1)
        shape = [count for count in whole.shape if count > 1]
        if len(shape) not in (2, 3):
            raise refusal(path, f"has {len(shape)} axes ({axes}); a plane picture is wanted")
        if len(shape) == 2:
            shape, across = [1, *shape], 0
        elif set(axes) & _STACKED:
            raise refusal(path, f"a stack of planes in depth or time (axes {axes}); a plane picture is wanted")
        else:
            across = _channel_axis(axes, shape)
        count = shape.pop(across)
        if axes[across : across + 1] == "S":
            count -= sum(sample in _ALPHA for sample in page.extrasamples)
        kind = "colour" if page.photometric == tifffile.PHOTOMETRIC.RGB else f"{len(file.pages)} pages, axes {axes}"

        def read() -> Pixels:
            pixels = np.asarray(whole.asarray()).squeeze()
            return np.moveaxis(pixels, across, 0) if pixels.ndim == 3 else pixels[np.newaxis]

        yield _Picture((shape[0], shape[1]), count, kind, read)


def _channel_axis(axes: str, shape: list[int]) -> int:
    """By its name; a last axis that is too short for a picture's side is of channels too."""
    for axis, name in enumerate(axes):
        if name in "CS":
            return axis
    return 2 if shape[2] < SMALLEST_SIDE else 0
