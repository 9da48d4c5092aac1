"""Whatever Micro-Manager drives, over a core that pycromanager starts, that a script lends, or that is open already."""

from dmu_hw.drivers.micromanager.core import Connection
from dmu_hw.drivers.micromanager.sources import lend

__all__ = ["Connection", "lend"]
