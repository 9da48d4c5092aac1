"""A microscope without hardware: one `World` (truth, clock, seed) and thin faces that look like devices."""

from dmu_hw.drivers.simulated.camera import Camera
from dmu_hw.drivers.simulated.dmd import Dmd
from dmu_hw.drivers.simulated.filter import Filter
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.drivers.simulated.meter import Meter
from dmu_hw.drivers.simulated.shutter import Shutter
from dmu_hw.drivers.simulated.stage import Focus, Stage
from dmu_hw.drivers.simulated.world import World as Connection

__all__ = ["Camera", "Connection", "Dmd", "Filter", "Focus", "Light", "Meter", "Shutter", "Stage"]
