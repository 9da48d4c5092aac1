"""The command line called in this process, and a small protocol on the small rig."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

SMALL_RUN: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
    "positions": [{"x_um": 0.0, "y_um": 0.0}, {"x_um": 40.0, "y_um": 0.0}],
    "retries": 0,
}


@pytest.fixture
def ridge() -> dict[str, Any]:
    """A quick inverse."""
    return {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1}


@pytest.fixture
def run_yaml(tmp_path: Path, rig_yaml: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the small protocol with some keys changed, and the small rig beside it; `...` takes a key away."""

    def write(
        changes: Mapping[str, Any] | None = None, rig: Mapping[str, Any] | None = None, name: str = "run.yaml"
    ) -> Path:
        rig_yaml(rig)
        protocol = copy.deepcopy(SMALL_RUN)
        for key, value in (changes or {}).items():
            *parents, last = key.split(".")
            place = protocol
            for parent in parents:
                place = place.setdefault(parent, {})
            if value is ...:
                del place[last]
            else:
                place[last] = copy.deepcopy(value)
        path = tmp_path / name
        path.write_text(yaml.safe_dump(protocol, sort_keys=False))
        return path

    return write
