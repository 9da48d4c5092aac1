"""Devices that obey lines of text on a serial port; the rig YAML says which lines."""

from dmu_hw.drivers.generic.light import Light

__all__ = ["Light"]
