"""What a rig YAML may say of the simulated world."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from dmu_hw.drivers.simulated.faults import Fault
from dmu_hw.files import Count, Settings
from dmu_hw.physics.specimens import Specimen
from dmu_hw.ports import Roi


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if not values[0] < values[1]:
        raise ValueError("should be (lowest, highest) with lowest below highest")
    return values


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class WorldSettings(Settings):
    """What is true here, and may differ from what the rig's `optics` believes."""

    seed: Annotated[int, Field(ge=0)] = 1
    """The same seed, the same world: specimen, chip and noise, bit for bit."""
    specimen: Specimen
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
    specimen_z_um: float = 0.0
    """Focus position at which the specimen is sharp."""
    faults: tuple[Fault, ...] = ()

    def axis_to_window_um(self, roi: Roi, pixel_um: float) -> tuple[float, float]:
        """Centre of a camera window as seen from the optical axis, which meets the middle of the chip."""
        rows, columns = self.sensor_shape
        return (roi.x + roi.width / 2 - columns / 2) * pixel_um, (roi.y + roi.height / 2 - rows / 2) * pixel_um
