"""What a recipe may say of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.files import Fraction, Positive, Settings


class SensorSettings(Settings):
    """How much is taken, and what is good enough."""

    power_mw: Positive | None = None
    """Of the light; null: half of what the rig allows, or less where that is too bright."""
    shortest_ms: Positive = 1.0
    """Exposure of the darkest frames, which all others are multiples of."""
    longest_ms: Positive = 2000.0
    """No frame is exposed for longer."""
    dark_frames: Annotated[int, Field(ge=16, le=1000)] = 64
    """For offset and read noise of every pixel."""
    flat_frames: Annotated[int, Field(ge=4, le=1000)] = 16
    """For the sensitivity of every pixel."""
    clipped_fraction: Fraction = 0.002
    """Of dark numbers that are 0: more, and people are warned."""
    linearity: Fraction = 0.03
    """Departure from a straight line: more, and people are warned."""
    bad_fraction: Fraction = 0.01
    """Of bad pixels: more, and people are warned."""
