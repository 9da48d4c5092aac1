"""The size of a lattice network."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.files import Settings


class LatticeSettings(Settings):
    """A residual network on the lattice of tiles, and a small one on the object grid."""

    channels: Annotated[int, Field(ge=4, le=1024)] = 64
    blocks: Annotated[int, Field(ge=0, le=32)] = 3
    fine_channels: Annotated[int, Field(ge=1, le=1024)] = 32
    """Of the network on the object grid, where each site is a group of 4×4 object pixels."""
    reach: Annotated[int, Field(ge=0, le=4)] = 1
    """Neighbours on each side of the linear estimate that it starts from."""
