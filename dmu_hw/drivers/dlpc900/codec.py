"""24 binary patterns as one image of 24 bits a pixel, and its run-length coding with copies of the line above.

TI's programmer's guide DLPU018 calls it "enhanced run-length encoding" (section 2.4.3.2, with the table of control
bytes and a worked example):

    n pixel                n pixels like this one
    00 n pixel pixel …     n pixels one by one, n > 1
    00 01 n                n pixels as in the line above
    00 00                  end of line; may be left out
    00 01 00               end of image

A length below 128 is one byte, else two: the low 7 bits with the top bit set, then the bits above them. TI's own source
and those who drive the controller write lengths so; the worked example of the guide has 82 01 for 513 pixels, which in
this way is 130. Which bits of a pixel are which byte the guide does not say: that the pattern of bit 0 is the lowest
bit of the last of three bytes was taken from programs that run on instruments, and tried on none here.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from dmu_hw.data import BoolArray

BITS: Final = 24
"""Patterns in one image."""
LONGEST: Final = (1 << 15) - 1
"""The longest length that two bytes can say."""
_COPY, _RAW, _RUN = 2, 1, 0
"""Kinds of token, each with the number of bytes before its length."""
_END = b"\x00\x01\x00"

Image = npt.NDArray[np.uint32]
"""Pixels (y, x): their three bytes in the order in which they are sent, the first one lowest."""
_Whole = npt.NDArray[np.int64]


def merge(frames: BoolArray) -> Image:
    """Up to 24 patterns (pattern, y, x) as one image."""
    count, rows, columns = frames.shape
    if not 1 <= count <= BITS:
        raise ValueError(f"an image has 1 to {BITS} patterns, given {count}")
    pixels = np.zeros((rows, columns, 4), dtype=np.uint8)
    for first in range(0, count, 8):
        plane = np.zeros((rows, columns), dtype=np.uint8)
        for bit, frame in enumerate(frames[first : first + 8]):
            plane |= frame.view(np.uint8) << bit
        pixels[:, :, 2 - first // 8] = plane
    return pixels.view("<u4")[:, :, 0]


def pattern(image: Image, bit: int) -> BoolArray:
    """One of the patterns of an image."""
    lit: BoolArray = (image >> (8 * (2 - bit // 8) + bit % 8) & 1).astype(np.bool_)
    return lit


def split(image: Image, count: int) -> BoolArray:
    """The first patterns of an image."""
    return np.stack([pattern(image, bit) for bit in range(count)])


def most_bytes(shape: tuple[int, int]) -> int:
    """No image of this shape is coded in more: no token takes more than 4 bytes a pixel."""
    return 4 * shape[0] * shape[1] + len(_END)


def encode(image: Image) -> bytes:
    """Lines like the one above are copied whole; of the others, each stretch by what it is."""
    rows, columns = image.shape
    if columns > LONGEST:
        raise ValueError(f"a line has at most {LONGEST} pixels, given {columns}")
    image = np.ascontiguousarray(image, dtype="<u4")
    again = np.zeros(rows, dtype=bool)
    again[1:] = (image[1:] == image[:-1]).all(axis=1)
    new = np.flatnonzero(~again)
    starts, kinds = _tokens(image[new], image[new - 1])
    lengths = np.diff(starts, append=len(new) * columns)
    at = new[starts // columns] * columns + starts % columns
    whole = np.flatnonzero(again) * columns
    order = np.argsort(np.concatenate([at, whole]), kind="stable")
    return _written(
        image,
        np.concatenate([at, whole])[order],
        np.concatenate([kinds, np.full(len(whole), _COPY)])[order],
        np.concatenate([lengths, np.full(len(whole), columns)])[order],
    )


def _tokens(lines: Image, above: Image) -> tuple[_Whole, _Whole]:
    """Where tokens begin in lines that are looked at as one long one, and their kinds; nothing is above the first."""
    columns = lines.shape[1]
    border = np.zeros(lines.shape, dtype=bool)
    border[:, 0] = True
    change = border.copy()
    change[:, 1:] |= lines[:, 1:] != lines[:, :-1]
    same = lines == above
    same[0] = False
    copied = _worth_copying(same.ravel(), border.ravel(), change.ravel())
    before = np.concatenate([[False], copied[:-1]])
    starts = np.flatnonzero(border.ravel() | (copied != before) | (change.ravel() & ~copied))
    lengths = np.diff(starts, append=len(copied))
    single = (lengths == 1) & ~copied[starts]
    joins = np.concatenate([[False], single[1:] & single[:-1]]) & (starts % columns != 0)
    starts, single = starts[~joins], single[~joins]
    kinds = np.where(copied[starts], _COPY, np.where(single, _RAW, _RUN))
    kinds[single & (np.diff(starts, append=len(copied)) == 1)] = _RUN  # 00 01 means something else
    return starts, kinds


def _worth_copying(same: BoolArray, border: BoolArray, change: BoolArray) -> BoolArray:
    """Pixels like those above them, in stretches of two and more, but for those that a longer run goes on over."""
    starts = np.flatnonzero(border | (same != np.concatenate([[False], same[:-1]])))
    lengths = np.diff(starts, append=len(same))
    begins = np.flatnonzero(change)
    run_lengths = np.diff(begins, append=len(same))
    first = np.searchsorted(begins, starts, side="right") - 1
    within = (starts + lengths <= begins[first] + run_lengths[first]) & (run_lengths[first] > lengths)
    return np.repeat(same[starts] & (lengths > 1) & ~within, lengths)


def _written(image: Image, at: _Whole, kinds: _Whole, lengths: _Whole) -> bytes:
    """Tokens as bytes."""
    long = lengths >= 128
    pixels = np.select([kinds == _RUN, kinds == _RAW], [1, lengths], 0)
    ends = np.cumsum(kinds + 1 + long + 3 * pixels)
    coded = np.zeros(int(ends[-1]), dtype=np.uint8)
    data = ends - 3 * pixels
    first = data - 1 - long
    coded[first] = np.where(long, lengths & 0x7F | 0x80, lengths)
    coded[first[long] + 1] = lengths[long] >> 7
    coded[first[kinds == _COPY] - 1] = 1
    step = np.arange(int(pixels.sum())) - np.repeat(np.cumsum(pixels) - pixels, pixels)
    to, source = np.repeat(data, pixels) + 3 * step, np.repeat(at, pixels) + step
    parts = image.reshape(-1, 1).view(np.uint8)
    for byte in range(3):
        coded[to + byte] = parts[source, byte]
    return coded.tobytes() + _END


def decode(coded: bytes, shape: tuple[int, int]) -> Image:
    """The image; a ValueError where the bytes are none, or not of this shape."""
    return _Decoder(coded, shape).image()


class _Decoder:
    """Reads tokens one by one, and trusts none."""

    def __init__(self, coded: bytes, shape: tuple[int, int]) -> None:
        self._coded = coded
        self._columns = shape[1]
        self._image = np.zeros(shape, dtype="<u4")
        self._flat = self._image.reshape(-1)
        self._read = 0
        self._at = 0

    def image(self) -> Image:
        while True:
            first = self._byte()
            if first:
                self._read -= 1
                self._fill(self._length(), 1)
            elif self._peek() == 0:
                self._read += 1
                if self._at % self._columns:
                    raise ValueError(f"line {self._at // self._columns} ends at pixel {self._at % self._columns}")
            elif self._peek() == 1:
                self._read += 1
                count = self._length()
                if count == 0:
                    return self._ended()
                self._copy(count)
            else:
                count = self._length()
                self._fill(count, count)

    def _byte(self) -> int:
        value = self._peek()
        self._read += 1
        return value

    def _peek(self) -> int:
        if self._read >= len(self._coded):
            raise ValueError(f"it breaks off after {len(self._coded)} bytes, at pixel {self._at} of {self._flat.size}")
        return self._coded[self._read]

    def _length(self) -> int:
        low = self._byte()
        return low if low < 128 else (low & 0x7F) | self._byte() << 7

    def _fits(self, count: int) -> slice:
        """The next pixels, all in one line."""
        line, place = divmod(self._at, self._columns)
        if not 1 <= count <= self._columns - place or self._at >= self._flat.size:
            raise ValueError(f"line {line} has no room for {count} pixels at {place}")
        self._at += count
        return slice(self._at - count, self._at)

    def _copy(self, count: int) -> None:
        to = self._fits(count)
        if to.start < self._columns:
            raise ValueError("the first line copies one above it")
        self._flat[to] = self._flat[to.start - self._columns : to.stop - self._columns]

    def _fill(self, count: int, given: int) -> None:
        """So many pixels by one that is given, or by as many."""
        to = self._fits(count)
        begin, self._read = self._read, self._read + 3 * given
        if self._read > len(self._coded):
            raise ValueError(f"it breaks off after {len(self._coded)} bytes, within {count} pixels at {to.start}")
        if given == 1:
            self._flat[to] = int.from_bytes(self._coded[begin : self._read], "little")
            return
        parts = np.frombuffer(self._coded, np.uint8, 3 * given, begin).reshape(given, 3).astype(np.uint32)
        self._flat[to] = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16

    def _ended(self) -> Image:
        if self._at != self._flat.size:
            raise ValueError(f"it ends at pixel {self._at} of {self._flat.size}")
        if any(self._coded[self._read :]):
            raise ValueError("bytes follow the end of the image")
        return self._image
