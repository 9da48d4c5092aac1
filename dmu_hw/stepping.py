"""Who can set the pace of a burst, as DMD and camera are wired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dmu_hw.errors import Problem
from dmu_hw.files import Document
from dmu_hw.ports import Device, Stepping


def unable(stepping: str, devices: Mapping[str, Device], documents: Mapping[str, Document]) -> Iterator[Problem]:
    """Devices that cannot take part in bursts that are stepped so."""
    for name, device in devices.items():
        if isinstance(device, Stepping) and stepping not in device.steppings:
            allowed = ", ".join(device.steppings)
            what = f"as it is wired here, bursts can be stepped by: {allowed}; the rig says stepping: {stepping}"
            yield Problem(documents[name].where(()), what)
