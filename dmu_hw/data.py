"""Typed arrays in flight. Axes are always (pattern, y, x).

What holds an array is compared by identity: == on arrays has no one answer."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]
Uint16Array = NDArray[np.uint16]
Progress = Callable[[int, int], None]
"""Called with how much is done and how much there is."""


@dataclass(frozen=True)
class Layout:
    """How patterns and camera pixels lie on the object grid, whatever the patterns show."""

    count: int
    """T."""
    tile_px: tuple[int, int]
    camera_pixel: int
    """d."""

    @property
    def phases(self) -> tuple[int, int]:
        """Camera pixels along the sides of a tile."""
        return self.tile_px[0] // self.camera_pixel, self.tile_px[1] // self.camera_pixel

    @property
    def compression(self) -> float:
        return self.camera_pixel**2 / self.count


@dataclass(frozen=True, eq=False)
class PatternStack:
    """T binary patterns on the object grid; one tile, repeated over the field."""

    name: str
    masks: BoolArray
    """(pattern, y, x); True lets light through. y and x are multiples of the camera pixel."""
    camera_pixel: int
    """d: side of a camera pixel in object pixels."""

    def __post_init__(self) -> None:
        if self.masks.ndim != 3 or self.masks.dtype != np.bool_:
            raise ValueError(f"patterns must be boolean (pattern, y, x), not {self.masks.dtype} {self.masks.shape}")
        if self.masks.size == 0:
            raise ValueError(f"patterns of shape {self.masks.shape} hold no mirror")
        if self.camera_pixel < 1:
            raise ValueError(f"a camera pixel of {self.camera_pixel} object pixels is none")
        rows, columns = self.masks.shape[1:]
        if rows % self.camera_pixel or columns % self.camera_pixel:
            raise ValueError(f"tile {rows}x{columns} is not a multiple of the camera pixel {self.camera_pixel}")

    @property
    def count(self) -> int:
        return int(self.masks.shape[0])

    @property
    def tile_px(self) -> tuple[int, int]:
        return int(self.masks.shape[1]), int(self.masks.shape[2])

    @property
    def layout(self) -> Layout:
        return Layout(self.count, self.tile_px, self.camera_pixel)

    @property
    def compression(self) -> float:
        return self.layout.compression

    @cached_property
    def hashes(self) -> tuple[str, ...]:
        """One short hash a pattern, so that a frame can say which one it saw."""
        shape = np.asarray(self.masks.shape[1:], dtype=np.int64).tobytes()
        return tuple(hashlib.sha256(shape + np.packbits(mask).tobytes()).hexdigest()[:16] for mask in self.masks)

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256("".join((str(self.camera_pixel), *self.hashes)).encode()).hexdigest()

    def over(self, shape: tuple[int, int]) -> BoolArray:
        """The patterns over a whole field, the tile anchored at its first pixel."""
        rows, columns = (-(-n // t) for n, t in zip(shape, self.tile_px, strict=True))
        return np.tile(self.masks, (1, rows, columns))[:, : shape[0], : shape[1]]


@dataclass(frozen=True, eq=False)
class Frame:
    """One camera frame, and what was on the mirrors while it was exposed."""

    pixels: Uint16Array
    number: int
    """The camera's own count since it was armed; a gap means that the camera skipped frames."""
    time_ms: float
    """Start of the exposure on the rig's clock."""
    pattern: int
    pattern_hash: str


@dataclass(frozen=True)
class Missing:
    """A frame that should be there and is not, and why."""

    pattern: int
    reason: str


@dataclass(frozen=True, eq=False)
class Burst:
    """One field imaged with all patterns of a stack; what is missing is said, never left out silently."""

    shot: int
    frames: tuple[Frame, ...]
    missing: tuple[Missing, ...] = ()

    @property
    def complete(self) -> bool:
        return not self.missing

    def stack(self) -> Uint16Array:
        """Frames as one (pattern, y, x) array in the order of the patterns; a complete burst only."""
        if self.missing:
            gone = ", ".join(str(missing.pattern) for missing in self.missing)
            raise ValueError(f"frames of patterns {gone} are missing")
        return np.stack([frame.pixels for frame in sorted(self.frames, key=lambda frame: frame.pattern)])


@dataclass(frozen=True)
class Doubt:
    """Whether an image is to be believed."""

    score: float
    """How far the burst is from good ones; 1 is what they stay below."""
    reasons: tuple[str, ...] = ()
    """Why not, the weightiest first; none where nothing speaks against it."""

    @property
    def doubted(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the inverse made of a burst."""

    image: Float32Array
    """(y, x) on the object grid; 1 is the brightest dye of the model. Of a bundle that segments: what its segmenter
    looks at, which need not resemble the specimen."""
    pixel_um: float
    bundle_hash: str
    """Which inverse made it."""
    labels: Int32Array | None = None
    """(y, x), objects 1, 2, 3, ... on background 0; None of a bundle that does not segment."""
    spread: Float32Array | None = None
    """(y, x): standard deviation of what the image errs by in good fields; None of a bundle that does not know it."""
    residual: float | None = None
    """How much of the frames the image leaves unexplained, in units of what noise leaves (reduced chi-square); None of
    a bundle that segments or was not taught to doubt."""
    doubt: Doubt | None = None
    """None: the bundle was not taught to doubt, or the field is too small to be judged."""

    @property
    def count(self) -> int | None:
        """How many objects were found."""
        return None if self.labels is None else int(np.count_nonzero(np.unique(self.labels)))
