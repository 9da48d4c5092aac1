"""Learned bursts in a script with pycromanager's own `Acquisition`, on the real MMCore."""

from __future__ import annotations

import copy
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import SMALL
from simworld import SimRig

from dmu_hw.data import Estimate
from dmu_hw.errors import DeviceError, InputError, RunError
from dmu_hw.pycromanager import Learned

pytest.importorskip("pycromanager")
from pycromanager import Acquisition, Core

HERE = Path(__file__).parent
RUN: dict[str, Any] = {
    "kind": "run",
    "name": "burst",
    "rig": "mm.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "inverse": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
    "proof": {"marker": "never"},
}
"""SimRig plays by itself and shows no specimen that a marker could tell."""


@dataclass(frozen=True)
class Lab:
    """A script's folder, and the adapter that it speaks with."""

    folder: Path
    sim: SimRig

    def learned(self, **options: Any) -> Learned:
        return Learned(self.folder / "run.yaml", timeout_ms=options.pop("timeout_ms", 700.0), **options)

    def acquisition(self, learned: Learned, **hooks: Any) -> Any:
        return Acquisition(str(self.folder), "data", **(learned.hooks | hooks))


Make = Callable[..., Lab]


@pytest.fixture
def make(tmp_path: Path, simrig_folder: Path, simrig: SimRig) -> Make:
    """Writes rig and protocol, with some keys changed."""

    def write(stepping: str = "camera", dmd: dict[str, Any] | None = None, **changes: Any) -> Lab:
        link = {"driver": "micromanager", "adapters": str(simrig_folder), "config": str(HERE / "SimRig.cfg")}
        rig = copy.deepcopy(SMALL) | {"name": "mm", "stepping": stepping, "unwatched_light": "accept"}
        rig["connections"] = {"core": link}
        rig["devices"] = devices(stepping, dmd or {})
        (tmp_path / "mm.yaml").write_text(yaml.safe_dump(rig))
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN | changes))
        return Lab(tmp_path, simrig)

    return write
