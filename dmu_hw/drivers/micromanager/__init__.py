"""Whatever Micro-Manager drives, over a core that pycromanager starts, that a script lends, or that is open already.

The bridge to an open Micro-Manager (`backend: java`) was tried on no Micro-Manager, only on objects that speak as it
does. It carries no sequences of patterns: bursts are stepped by software there.
"""

from dmu_hw.drivers.micromanager.camera import Camera
from dmu_hw.drivers.micromanager.core import Connection
from dmu_hw.drivers.micromanager.dmd import Dmd
from dmu_hw.drivers.micromanager.filter import Filter
from dmu_hw.drivers.micromanager.light import Light
from dmu_hw.drivers.micromanager.shutter import Shutter
from dmu_hw.drivers.micromanager.sources import lend
from dmu_hw.drivers.micromanager.stage import Focus, Stage

__all__ = ["Camera", "Connection", "Dmd", "Filter", "Focus", "Light", "Shutter", "Stage", "lend"]
