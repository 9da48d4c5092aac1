"""Devices that obey lines of text on a serial port: the line, what a rig says of it, what lights share."""

from dmu_hw.lines.light import LineLight
from dmu_hw.lines.line import Line
from dmu_hw.lines.settings import Port, Source

__all__ = ["Line", "LineLight", "Port", "Source"]
