"""The size of an unrolled inverse."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.files import Settings


class UnrolledSettings(Settings):
    """Steps towards the data with the known optics, and a network between them."""

    steps: Annotated[int, Field(ge=1, le=32)] = 3
    channels: Annotated[int, Field(ge=1, le=1024)] = 32
    """Of the network, where each site is a group of 4×4 object pixels."""
    blocks: Annotated[int, Field(ge=0, le=32)] = 1
    """Of the network in each step."""
    reach: Annotated[int, Field(ge=0, le=4)] = 1
    """Neighbours on each side of the linear estimate that it starts from."""
