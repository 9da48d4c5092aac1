"""Grey pictures in TIFF and PNG files, and the sentences that refuse others.

tifffile and Pillow are loaded with the first picture: most specimens are synthetic and need neither.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dmu_hw.errors import InputError, Problem

Pixels = NDArray[Any]
SUFFIXES = (".tif", ".tiff", ".png")
SMALLEST_SIDE = 16
MOST_PIXELS = 2**26
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")
_BROKEN = (
    OSError,
    ValueError,
    LookupError,
    ArithmeticError,
    TypeError,
    SyntaxError,
    RuntimeError,
    AttributeError,
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
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
        if not found:
            raise refusal(path, f"the folder holds no picture ({', '.join(SUFFIXES)})")
        return tuple(found)
    if not path.is_file():
        raise refusal(path, "there is no such file or folder")
    if path.suffix.lower() not in SUFFIXES:
        raise refusal(path, f"not a picture that can be read; {', '.join(SUFFIXES)} can")
    return (path,)


def read_picture(path: Path) -> Pixels:
    """(y, x) numbers of a grey picture as they are in the file; InputError for anything else."""
    try:
        pixels = _read_png(path) if path.suffix.lower() == ".png" else _read_tiff(path)
    except _BROKEN as error:
        raise refusal(path, f"cannot be read: {' '.join(str(error).split())}") from None
    if pixels.ndim != 2:
        raise refusal(path, f"has {pixels.ndim} axes; a plane picture is wanted")
    if min(pixels.shape) < SMALLEST_SIDE:
        raise refusal(path, f"{pixels.shape[0]}×{pixels.shape[1]} pixels; {SMALLEST_SIDE} a side are wanted")
    if pixels.dtype.kind not in "buif":
        raise refusal(path, f"holds {pixels.dtype} pixels; whole or real numbers are wanted")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise refusal(path, "has pixels that are not finite numbers (nan or inf)")
    return pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels


def _read_png(path: Path) -> Pixels:
    from PIL import Image  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            picture = Image.open(path, formats=("PNG",))
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise refusal(path, f"more than {MOST_PIXELS} pixels") from None
    with picture:
        if picture.mode not in _GREY_MODES:
            raise refusal(path, f"a colour picture (mode {picture.mode}); one grey channel is wanted")
        _check_size(path, (picture.height, picture.width))
        return np.asarray(picture)


def _read_tiff(path: Path) -> Pixels:
    import tifffile  # noqa: PLC0415

    with tifffile.TiffFile(path) as file:
        if len(file.pages) != 1:
            raise refusal(path, f"holds {len(file.pages)} pages; one is wanted")
        page = file.pages.first
        if len(page.shape) != 2 or page.photometric != tifffile.PHOTOMETRIC.MINISBLACK:
            kind = getattr(page.photometric, "name", page.photometric)
            raise refusal(path, f"a colour or inverted picture ({kind}, {page.shape}); one grey channel is wanted")
        _check_size(path, page.shape)
        return np.asarray(page.asarray())


def _check_size(path: Path, shape: tuple[int, ...]) -> None:
    if shape[0] * shape[1] > MOST_PIXELS:
        raise refusal(path, f"{shape[0]}×{shape[1]} pixels; at most {MOST_PIXELS} can be read")
