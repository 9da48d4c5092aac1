"""What a ridge is computed from."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.files import Settings
from dmu_hw.physics.specimens import Specimen


class RidgeSettings(Settings):
    """What the estimator is computed from."""

    specimen: Specimen
    """Scenes like those to come, but not the same ones: take another seed."""
    scenes: Annotated[int, Field(ge=1, le=1000)] = 48
    reach: Annotated[int, Field(ge=0, le=4)] = 2
    """Neighbours on each side that a camera pixel is decoded from."""
