"""A small protocol, planned on the small rig."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dmu_hw.plan import Plan
from dmu_hw.planner import make_plan
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig, load_rig

SMALL_RUN: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": (32, 32),
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
}


@dataclass(frozen=True)
class Bench:
    """A rig and the plan of a protocol on it."""

    rig: Rig
    plan: Plan


Planned = Callable[..., Bench]


@pytest.fixture
def planned(rig_yaml: Callable[..., Path], tmp_path: Path) -> Planned:
    """Plans the small protocol with some keys changed, on the small rig with some keys changed."""

    def plan(rig_changes: Mapping[str, Any] | None = None, **changes: Any) -> Bench:
        rig = Rig(load_rig(rig_yaml(rig_changes)))
        protocol = Protocol.model_validate(SMALL_RUN | changes, context={"folder": tmp_path})
        patterns = protocol.patterns
        assert not hasattr(patterns, "bundle")
        return Bench(rig, make_plan(protocol, tmp_path / "run.yaml", rig, rig.optics, patterns.make()))

    return plan
