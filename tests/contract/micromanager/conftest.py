from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "acquisition"))
from fakecore import FakeCore
from fakes import bench_rig
from told import FAST, Make, built, connection

from dmu_hw.drivers.micromanager import lend
from dmu_hw.physics.optics import Optics


@pytest.fixture(scope="module")
def optics(tmp_path_factory: pytest.TempPathFactory) -> Optics:
    found = bench_rig(tmp_path_factory.mktemp("rig")).optics
    return found.model_copy(update={"mirrors": found.mirrors.model_copy(update={"shape": (6, 8)})})


@pytest.fixture
def core() -> FakeCore:
    return FakeCore()


@pytest.fixture
def make(core: FakeCore, optics: Optics) -> Iterator[Make]:
    """A device of a class, on a connection to the core that is lent, opened."""
    link = connection(optics, backend="given", buffer_mb=1, **FAST)
    made: list[Any] = []

    def build(found: type, name: str, told: dict[str, Any], **changes: Any) -> Any:
        device = built(found, name, {**told, **changes}, optics, link)
        made.append(device)
        device.open()
        core.calls.clear()
        return device

    with lend(core):
        link.open()
    yield build
    core.failing.clear()
    for device in core.devices.values():
        device.stuck, device.busy = False, 0
    for device in made:
        device.close()
    link.close()
