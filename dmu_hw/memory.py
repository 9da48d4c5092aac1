"""What every driver of a DMD refuses: frames that its memory cannot hold, and orders of frames that are not there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.errors import DeviceError


def check_frames(device: str, frames: BoolArray, shape: tuple[int, int], most: int) -> None:
    """Boolean frames of this shape, some, and not too many."""
    if frames.ndim != 3 or frames.shape[1:] != shape or frames.dtype != np.bool_ or not len(frames):
        wants = f"boolean frames (n, {shape[0]}, {shape[1]})"
        raise DeviceError(device, f"wants {wants}, given {frames.dtype} {frames.shape}")
    if len(frames) > most:
        raise DeviceError(device, f"has memory for {most} frames, given {len(frames)}")


def check_order(device: str, order: Sequence[int], held: int) -> None:
    """At least one frame, all of them in the memory."""
    if not order:
        raise DeviceError(device, "a sequence needs at least one frame")
    for index in order:
        if not 0 <= index < held:
            raise DeviceError(device, f"has no frame {index}: {held} frames are loaded")
