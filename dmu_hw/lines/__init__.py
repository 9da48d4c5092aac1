"""Devices on a serial port: the bytes, lines of text, what a rig says of them, what lights and boxes share."""

from dmu_hw.lines.box import Box, BoxLight, BoxPort, BoxShutter, Distinct, GatedSource, GateSettings
from dmu_hw.lines.light import LineLight, SerialLight
from dmu_hw.lines.line import Line
from dmu_hw.lines.settings import Port, Source
from dmu_hw.lines.wire import Wire, patiently

__all__ = [
    "Box",
    "BoxLight",
    "BoxPort",
    "BoxShutter",
    "Distinct",
    "GateSettings",
    "GatedSource",
    "Line",
    "LineLight",
    "Port",
    "SerialLight",
    "Source",
    "Wire",
    "patiently",
]
