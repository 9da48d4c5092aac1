"""Learned bursts in a pycromanager script of one's own: hooks for its `Acquisition`, events, and a check afterwards.

    with Learned("protocols/quickstart.yaml", rig="devices/mine.yaml") as learned:
        with Acquisition("data", "name", **learned.hooks) as acquisition:
            for position, (x, y) in enumerate(places):
                acquisition.acquire(learned.events({"position": position}, x=x, y=y))
        learned.check(acquisition)

`protocols/pycromanager_example.py` is a whole script. The rig starts Micro-Manager's core; a script that has started
one itself lends it (`backend: given` in the rig). Of the protocol counts how one field is imaged (bundle, field,
exposure, and the power that the inverse assumes); where, when and with which light is the script's own affair. Python
backend only: pycromanager's Java side calls hooks over a bridge, and was not tried.
"""

from dmu_hw.pycromanager.learned import Learned

__all__ = ["Learned"]
