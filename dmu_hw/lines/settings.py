"""What a rig YAML says of whatever hangs on a serial port."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dmu_hw.files import Count, Positive, Settings


class Port(Settings):
    """A serial port."""

    port: Annotated[str, Field(min_length=1)]
    """/dev/ttyUSB0, COM3, …"""
    baud_rate: Count = 115_200
    timeout_ms: Annotated[float, Field(gt=0, le=2000)] = 100.0
    """Longest wait for a reply."""


class Source(Port):
    """A light on a serial port."""

    max_power_mw: Positive
    """Highest power at the sample with all mirrors on."""
    transmission: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Part of the source's own power that arrives at the sample with all mirrors on."""
