"""What lies under the objective: synthetic specimens without an edge, and the user's own images."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.physics.specimens.base import Scene
from dmu_hw.physics.specimens.beads import Beads
from dmu_hw.physics.specimens.filaments import Filaments
from dmu_hw.physics.specimens.images import Images
from dmu_hw.physics.specimens.layer import Layer
from dmu_hw.physics.specimens.nuclei import Nuclei

__all__ = ["Beads", "Filaments", "Images", "Layer", "Nuclei", "Scene", "Specimen"]

Specimen = Annotated[Nuclei | Filaments | Beads | Layer | Images, Field(discriminator="kind")]
