"""A small process that holds a light and outlives the program that lit it.

The program (the controller) speaks with it over two pipes. The light goes off by itself when the pipe closes, since its
controller is dead; when no heartbeat comes while it is on, since its controller is frozen; and when the longest time
that an `on` allowed is over. If the guardian itself dies, only the watchdog of the light's own hardware is left.
"""

from dmu_hw.guardian.charge import Charge
from dmu_hw.guardian.light import GuardedLight

__all__ = ["Charge", "GuardedLight"]
