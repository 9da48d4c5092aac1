"""What the published inverse may be varied in."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from dmu_hw.files import Count, Settings


class LocalitySettings(Settings):
    """A linear map for each camera pixel of the tile, and a network on the object grid."""

    start: Literal["transposed", "random", "linear"] = "transposed"
    """The maps to begin from: the patterns turned round, noise, or the best linear estimate of each camera pixel from
    its own frames."""
    residual: bool = False
    """true: the network adds to what the maps give and begins at zero, so that with `start: linear` the whole begins
    at the linear estimate; false: as published, its sigmoid is the image."""
    normed_channels: Count = 8
    """Of the two layers with batch norm."""
    widths: tuple[Count, ...] = (24, 12, 8, 4, 2)
    """Channels of the layers that follow."""

    @field_validator("widths")
    @classmethod
    def _has_layers(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        if not widths:
            raise ValueError("wants one layer or more, given none")
        return widths
