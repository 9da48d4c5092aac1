"""The size of a segmenter."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.files import Settings


class SegmenterSettings(Settings):
    """Residual blocks at a quarter of the resolution and below, and a thin layer at full resolution."""

    channels: Annotated[int, Field(ge=8, le=512, multiple_of=8)] = 16
    """At a quarter of the resolution; as many more with every further halving."""
    blocks: Annotated[int, Field(ge=1, le=16)] = 2
    """At each resolution."""
    levels: Annotated[int, Field(ge=1, le=5)] = 3
    """Resolutions: a quarter, an eighth, a sixteenth, ..."""
    fine_channels: Annotated[int, Field(ge=1, le=64)] = 8
    """Of the layer at full resolution."""
