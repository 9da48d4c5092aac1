"""What a rig says of the devices of a core in Python, and how they are built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmu_hw.drivers.micromanager import Connection
from dmu_hw.files import Document, validate
from dmu_hw.physics.optics import Optics
from dmu_hw.ports import CameraMode, Mount, Roi

Make = Callable[..., Any]
FRAMES = np.random.default_rng(3).random((5, 6, 8)) < 0.5
DMD: dict[str, Any] = {
    "label": "Mirrors",
    "trigger": {"software": {"Mode": "Live"}, "camera": {"Mode": "Camera"}, "dmd": {"Mode": "Itself"}},
    "period": {"property": "Period"},
}
CAMERA: dict[str, Any] = {
    "label": "Cam",
    "sensor_shape": (32, 48),
    "binnings": (1, 2),
    "readout_ms": 1.0,
    "trigger": {"internal": {"Trigger": "Internal"}, "external": {"Trigger": "External"}},
    "interval": {"property": "Interval"},
}
LASER: dict[str, Any] = {"label": "Laser", "max_power_mw": 20.0, "transmission": 0.5, "power": {"property": "Power"}}
BLUE: dict[str, Any] = {
    "label": "Lamps",
    "max_power_mw": 5.0,
    "switch": {"property": "State", "on": 1, "off": 0, "also_off": (2,)},
}
MODE = CameraMode(5.0, 1, Roi(8, 4, 16, 12))
FAST: dict[str, Any] = {"timeout_ms": 60.0}


def built(found: Any, name: str, told: dict[str, Any], optics: Optics, link: Connection | None = None) -> Any:
    document = Document(told, {}, Path("rig.yaml"), ("devices", name))
    return found(validate(document, found.Settings), Mount(name, optics, document, link))


def connection(optics: Optics, **told: Any) -> Connection:
    made: Connection = built(Connection, "mm", told, optics)
    return made
