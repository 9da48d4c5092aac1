"""The size of a lattice network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.files import Settings


class LatticeSettings(Settings):
    """A residual network on a lattice of sites of 8×8 object pixels, and a small one on groups of 4×4."""

    channels: Annotated[int, Field(ge=4, le=1024)] = 64
    blocks: Annotated[int, Field(ge=0, le=32)] = 3
    measured_channels: Annotated[int, Field(ge=1, le=1024)] = 16
    """Features of the measurements that come to each site beside the linear estimate."""
    fine_channels: Annotated[int, Field(ge=1, le=1024)] = 32
    """Of the network on groups of object pixels."""
    reach: Annotated[int, Field(ge=0, le=4)] = 1
    """Neighbours on each side of the linear estimate that it starts from."""
