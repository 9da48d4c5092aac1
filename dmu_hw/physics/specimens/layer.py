"""A uniform layer of dye: the slide that illumination and camera are calibrated on."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from dmu_hw.files import Settings
from dmu_hw.physics.specimens.base import Scene, Window


class Layer(Settings):
    """The same brightness everywhere, and no objects."""

    kind: Literal["layer"] = "layer"
    brightness: Annotated[float, Field(ge=0, le=10_000)] = 0.5
    """Dye, as a part of the brightest that a specimen can have; a slide of concentrated dye has far more."""

    def scene(self, centre_um: tuple[float, float], shape: tuple[int, int], pixel_um: float) -> Scene:
        """What lies in a window round a stage position."""
        window = Window(centre_um, shape, pixel_um)
        return Scene(np.full(window.shape, self.brightness, dtype=np.float32), np.zeros(window.shape, dtype=np.int32))
