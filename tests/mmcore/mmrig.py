"""Rig YAMLs: of an instrument that is simulated, the same behind MMCore as SimRig shows it; and of the demo devices."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mm_test_adapters
import yaml

CONFIG = Path(__file__).with_name("SimRig.cfg")
LABELS = {"light": "Laser", "light_561": "Laser561"}
STATES = ("GFP", "RFP", "CFP", "none")
BINNINGS = [1, 2, 4, 8, 16, 32, 64]


@dataclass(frozen=True)
class Pair:
    """Of the simulated rig, devices do what the world behind SimRig does."""

    mm: Path
    simulated: Path


def write_pair(folder: Path, adapters: Path, simulated: Path, changes: dict[str, Any] | None = None) -> Pair:
    """A rig on MMCore for a simulated one, beside it. `changes` to what it says, by dotted path; `...` takes a key
    away."""
    told = yaml.safe_load(simulated.read_text(encoding="utf-8"))
    rows, columns = told["optics"]["mirrors"]["shape"]
    (world,) = told["connections"].values()
    chip = world.get("sensor_shape", [512, 512])
    config = folder / "SimRig.cfg"
    config.write_text(_config(rows, columns, *chip))
    made = {
        **{key: value for key, value in told.items() if key not in ("connections", "devices")},
        "connections": {"mm": {"driver": "micromanager", "adapters": str(adapters), "config": config.name}},
        "devices": {name: _device(name, part, chip) for name, part in told["devices"].items()},
        "unwatched_light": "accept",  # nothing puts a light behind MMCore off when this computer dies
    }
    for key, value in (changes or {}).items():
        *parents, last = key.split(".")
        place = made
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is ...:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    path = folder / f"mm-{simulated.name}"
    path.write_text(yaml.safe_dump(made, sort_keys=False))
    return Pair(path, simulated)


def _config(rows: int, columns: int, chip_rows: int, chip_columns: int) -> str:
    sizes = {"Dmd,Rows": rows, "Dmd,Columns": columns, "Camera,Rows": chip_rows, "Camera,Columns": chip_columns}
    lines = CONFIG.read_text(encoding="utf-8").splitlines()
    for key, size in sizes.items():
        (number,) = [number for number, line in enumerate(lines) if line.startswith(f"Property,{key},")]
        lines[number] = f"Property,{key},{size}"
    return "\n".join(lines) + "\n"


def _device(name: str, part: dict[str, Any], chip: list[int]) -> dict[str, Any]:
    """What the rig says of the simulated one, in the words of the driver `micromanager`."""
    most_mw = part.get("max_power_mw", 50.0)
    dark_ms, settle_ms = part.get("dark_ms", 0.02), part.get("settle_ms", 0.05)
    said: dict[str, dict[str, Any]] = {
        "dmd": {
            "label": "Dmd",
            "settle_us": 1e3 * (settle_ms + dark_ms),
            "trigger": {"camera": {"TriggerMode": "External"}, "dmd": {"TriggerMode": "Internal"}},
            "period": {"property": "Period-ms"},
        },
        "camera": {
            "label": "Camera",
            "sensor_shape": chip,
            "binnings": BINNINGS,
            "readout_ms": part.get("readout_ms", 0.5),
            "readout_by_rows": True,
            "trigger": {"internal": {"Trigger": "Internal"}, "external": {"Trigger": "External"}},
            "interval": {"property": "Interval-ms"},
            "number_tag": "FrameNumber",
            "time": {"tells": "start"},
        },
        "light": {"label": LABELS.get(name), "max_power_mw": most_mw, "power": {"property": "Power-mW"}},
        "stage": {"label": "XY", "x_um": [-50e3, 50e3], "y_um": [-35e3, 35e3], "settle_ms": 0.0},
        "focus": {"label": "Z", "z_um": [-500.0, 500.0], "settle_ms": 0.0},
        "filter": {"label": "Wheel", "positions": dict(zip(part.get("positions", ()), STATES, strict=False))},
        "shutter": {"label": "Shutter", "switch_ms": part.get("switch_ms", 10.0)},
    }
    return {"driver": "micromanager", "connection": "mm", **said[name.partition("_")[0]]}


def write_demo(folder: Path, simulated: Path) -> Path:
    """A rig of the devices that Micro-Manager's DemoCamera has, with the optics of a simulated one."""
    told = yaml.safe_load(simulated.read_text(encoding="utf-8"))
    config = Path(mm_test_adapters.device_adapter_path()) / "MMConfig_demo.cfg"
    devices: dict[str, dict[str, Any]] = {
        "camera": {
            "label": "Camera",
            "sensor_shape": [512, 512],
            "binnings": [1, 2, 4, 8],
            "readout_ms": 0.2,
            "properties": {"PixelType": "16bit"},
        },
        "light": {"label": "White Light Shutter", "max_power_mw": 5.0},
        "shutter": {"label": "LED Shutter", "properties": {"State Device": "LED"}},
        "filter": {"label": "Emission", "positions": {"green": "Chroma-HQ535", "red": "Chroma-HQ700"}},
        "stage": {"label": "XY", "x_um": [-2000.0, 2000.0], "y_um": [-2000.0, 2000.0], "settle_ms": 0.0},
        "focus": {"label": "Z", "z_um": [-300.0, 300.0], "settle_ms": 0.0},
    }
    told |= {
        "name": "demo",
        "connections": {"mm": {"driver": "micromanager", "config": str(config), "buffer_mb": 16}},
        "devices": {
            "dmd": {"driver": str(Path(__file__).with_name("still.py"))},
            **{name: {"driver": "micromanager", "connection": "mm", **part} for name, part in devices.items()},
        },
        "channels": {"green": {"light": "light", "filters": {"filter": "green"}}},
        "stepping": "software",
        "unwatched_light": "accept",
    }
    path = folder / "demo.yaml"
    path.write_text(yaml.safe_dump(told, sort_keys=False))
    return path
