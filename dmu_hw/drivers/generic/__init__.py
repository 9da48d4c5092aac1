"""Devices that obey lines of text on a serial port; the rig YAML says which lines."""

from dmu_hw.drivers.generic.filter import Filter
from dmu_hw.drivers.generic.light import Light
from dmu_hw.drivers.generic.meter import Meter
from dmu_hw.drivers.generic.shutter import Shutter

__all__ = ["Filter", "Light", "Meter", "Shutter"]
