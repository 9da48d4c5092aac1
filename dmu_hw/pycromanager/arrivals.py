"""Frames as pycromanager's engine hands them over, gathered to bursts and judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dmu_hw.data import Uint16Array
from dmu_hw.errors import RunError
from dmu_hw.journal import crc32c
from dmu_hw.plan import Take
from dmu_hw.proof import judge
from dmu_hw.pycromanager.asked import PATTERN, Axes, Place, burst_of, place_of, told

_NUMBER: Final = "ImageNumber"
"""The tag in which the core counts the frames of a sequence that have come; there are none on those that it snaps."""


@dataclass(frozen=True, eq=False)
class Arrived:
    """A burst that is complete."""

    axes: Axes
    frames: Uint16Array
    """(pattern, y, x), without the marker."""


class Arrivals:
    """What is kept of a frame once its burst is complete is its checksum."""

    def __init__(self, take: Take, number_tag: str = _NUMBER, first_number: int = 0) -> None:
        """A camera's own tag counts the frames, too, that never came."""
        self._number_tag = number_tag
        self._first_number = first_number
        self.sums: dict[Place, str] = {}
        """Checksum of each frame."""
        self._take = take
        self._due: dict[Place, int] = {}
        """As which of its sequence each frame must come."""
        self._open: dict[Place, dict[int, Uint16Array]] = {}

    def expect(self, sequence: list[Axes]) -> None:
        """These are to come, in this order."""
        self._due |= {place_of(axes): number for number, axes in enumerate(sequence)}

    def add(self, axes: Axes, pixels: Any, tags: Mapping[str, Any]) -> Arrived | None:
        """The burst, if this is its last frame; RunError if something speaks against it."""
        place = place_of(axes)
        due = self._due.pop(place, None)
        if due is None:
            raise RunError(f"{told(axes)}: came, but no burst was begun for it: is post_hardware among the hooks?")
        number = self._number(tags)
        if number is not None and number != due:
            what = f"came as frame {number} of its sequence instead of {due}: the camera lost some"
            raise RunError(f"{told(axes)}: {what}, and patterns are not those that the axes say")
        frame = np.array(pixels, dtype=np.uint16)
        if frame.shape != self._take.mode.shape:
            raise RunError(f"{told(axes)}: is {frame.shape}, the protocol needs {self._take.mode.shape}")
        self.sums[place] = crc32c(frame.tobytes())
        burst = self._open.setdefault(burst_of(axes), {})
        burst[int(axes[PATTERN])] = frame
        return self._judged(axes) if len(burst) == self._take.exposures else None

    def _number(self, tags: Mapping[str, Any]) -> int | None:
        """As which of its sequence it came; None of a frame that was taken alone."""
        if _NUMBER not in tags:
            return None
        if self._number_tag not in tags:
            raise RunError(f"the camera's frames have no tag {self._number_tag!r}, by which the rig counts them")
        return int(tags[self._number_tag]) - self._first_number

    def _judged(self, axes: Axes) -> Arrived:
        """Not until the marker agrees, where there is one: the light itself says which pattern each frame saw."""
        frames = self._open.pop(burst_of(axes))
        own = {name: value for name, value in axes.items() if name != PATTERN}
        count, marker = self._take.stack.count, self._take.marker
        if marker is not None:
            verdict = judge(marker, frames, frames.pop(count))
            if verdict.said in ("refuted", "doubted"):  # nobody takes it again here
                raise RunError(f"{told(own)}: {verdict.why}")
        return Arrived(own, np.stack([frames[pattern] for pattern in range(count)]))
