"""What a rig YAML may say of the simulated world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from dmu_hw.drivers.simulated.faults import Fault
from dmu_hw.drivers.simulated.history import BETWEEN
from dmu_hw.files import Count, Fraction, Name, Settings
from dmu_hw.physics.specimens import Beads, Layer, Specimen
from dmu_hw.ports import Roi


class DyeSettings(Settings):
    """One of several dyes: where it is, and which light and which filters show it."""

    specimen: Specimen
    light: str | None = None
    """The light that excites it, by the name of the device; null: any."""
    filters: dict[str, str] = Field(default_factory=dict)
    """Device → the position that lets its light pass; other devices let it pass in any position."""
    cross_excitation: Fraction = 0.0
    """Part of its excitation that other lights reach."""
    bleed_through: Fraction = 0.0
    """Part of its light that other positions of a filter let pass."""
    truth: dict[str, Any] = Field(default_factory=dict)
    """Numbers of `optics` that are otherwise for it: `excitation`, `emission`, `dye`, …"""

    def excited_by(self, light: str) -> float:
        """Part of a light's power that it answers to."""
        return 1.0 if self.light in (None, light) else self.cross_excitation

    def passed_by(self, filters: Mapping[str, str]) -> float:
        """Part of its light that comes through; while a filter turns, nothing does."""
        part = 1.0
        for name, position in filters.items():
            if position == BETWEEN:
                return 0.0
            part *= 1.0 if self.filters.get(name, position) == position else self.bleed_through
        return part

    def shown_by(self, light: str, filters: Mapping[str, str]) -> float:
        return self.excited_by(light) * self.passed_by(filters)


def _slides() -> dict[str, Any]:
    return {
        "dark": Layer(brightness=0.0),
        "dye": Layer(brightness=0.5),
        "beads": Beads(seed=5, per_mm2=1500.0, diameter_um=0.2, diameter_spread=0.0, brightness=0.9),
    }


class WorldSettings(Settings):
    """What is true here, and may differ from what the rig's `optics` believes."""

    seed: Annotated[int, Field(ge=0)] = 1
    """The same seed, the same world: specimen, chip and noise, bit for bit."""
    specimen: Specimen | None = None
    """What is seen in any light through any filter; or, instead of it:"""
    dyes: dict[Name, DyeSettings] = Field(default_factory=dict)
    """Several of them in one sample, each with its own specimen."""
    slides: dict[Name, Specimen] = Field(default_factory=_slides)
    """What calibrations ask for, which this microscope puts under its objective by itself."""
    truth: dict[str, Any] = Field(default_factory=dict)
    """Numbers of `optics` that are otherwise in truth, in the same layout; the rest is as believed."""
    oversampling: Annotated[int, Field(ge=1, le=4)] = 2
    """Pixels of the rendering along one object pixel."""
    sensor_shape: tuple[Count, Count] = (512, 512)
    """Rows and columns of the camera chip."""
    realtime: bool = False
    """true: exposures take their time; false: as fast as this machine computes them."""
    drift_um_s: tuple[float, float] = (0.0, 0.0)
    """Creep of the specimen in x and y."""
    focus_drift_um_s: float = 0.0
    mirror_drift_um_s: tuple[float, float] = (0.0, 0.0)
    """Creep of the mirrors' light over specimen and camera, in x and y."""
    power_drift_per_s: float = 0.0
    """Growth of all light, as a part of what it is at the start."""
    flicker: Fraction = 0.0
    """Standard deviation of all light from exposure to exposure, as a part of it."""
    specimen_z_um: float = 0.0
    """Focus position at which the specimen is sharp."""
    faults: tuple[Fault, ...] = ()

    @model_validator(mode="after")
    def _something_to_see(self) -> Self:
        if (self.specimen is None) == (not self.dyes):
            raise ValueError("should have a specimen, or dyes that have one each")
        return self

    @property
    def stained(self) -> dict[str, DyeSettings]:
        """All dyes; a specimen that is said by itself is one without a name, seen in any light."""
        specimen: Any = self.specimen
        return self.dyes or {"": DyeSettings.model_construct(specimen=specimen)}

    def axis_to_window_um(self, roi: Roi, pixel_um: float) -> tuple[float, float]:
        """Centre of a camera window as seen from the optical axis, which meets the middle of the chip."""
        rows, columns = self.sensor_shape
        return (roi.x + roi.width / 2 - columns / 2) * pixel_um, (roi.y + roi.height / 2 - rows / 2) * pixel_um
