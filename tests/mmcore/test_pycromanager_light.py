"""Learned bursts by pycromanager's `Acquisition`, a simulated world behind the real core: light tells of patterns."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mmrig import Pair, write_pair
from simworld import Behind, behind

from dmu_hw.errors import RunError
from dmu_hw.omezarr import Store
from dmu_hw.pycromanager import Learned

pytest.importorskip("pycromanager")
from pycromanager import Acquisition, Core

# its datasets leave files open
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
RUN: dict[str, Any] = {
    "kind": "run",
    "name": "burst",
    "field_px": [32, 32],
    "patterns": {"set": "random", "count": 4, "camera_pixel": 4, "seed": 1},
    "light": {"power_mw": 20.0},
    "exposure_ms": 5.0,
    "positions": [{"x_um": 0.0, "y_um": 0.0}],
    "proof": {"marker": "always"},
    "retries": 0,
}
Pairs = Callable[..., Pair]


@pytest.fixture
def pairs(tmp_path: Path, rig_yaml: Callable[..., Path], simrig_folder: Path) -> Iterator[Pairs]:
    """A simulated rig, and the same behind the core, with a protocol beside them."""

    def write(changes: dict[str, Any] | None = None, stepping: str = "dmd") -> Pair:
        simulated = rig_yaml({"stepping": stepping, "devices.dmd.read_back": False} | (changes or {}))
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN | {"rig": "rig.yaml"}))
        return write_pair(tmp_path, simrig_folder, simulated)

    yield write
    gc.collect()


def taken(pair: Pair, moments: int = 1) -> tuple[Learned, Any, Behind]:
    """By a script that lights its laser itself."""
    folder = pair.mm.parent
    with behind(adapters_of(pair), pair.simulated) as world, Learned(folder / "run.yaml", rig=pair.mm) as learned:
        core = Core()
        core.setProperty("Laser", "Power-mW", 20.0)
        core.setShutterOpen("Laser", True)
        with Acquisition(str(folder), "data", **learned.hooks) as acquisition:
            for moment in range(moments):
                acquisition.acquire(learned.events({"time": moment}, x=0.0, y=0.0))
        assert world.rig.light.is_on()
        assert world.is_dark, "mirrors are"
        core.setShutterOpen("Laser", False)
    return learned, acquisition, world


def adapters_of(pair: Pair) -> Path:
    return Path(yaml.safe_load(pair.mm.read_text())["connections"]["mm"]["adapters"])


@pytest.mark.parametrize("stepping", ["dmd", "camera", "software"])
def test_the_same_mirrors_and_the_same_frames_as_in_a_run(
    pairs: Pairs, dmu: Callable[..., Any], tmp_path: Path, stepping: str
) -> None:
    pair = pairs(stepping=stepping)
    said = dmu("run", tmp_path / "run.yaml", "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    run = Path(said.told["run"])
    wanted = Store(run / "frames.ome.zarr").burst(0, 0, 0)
    learned, acquisition, _ = taken(pair)
    learned.check(acquisition)
    found = learned.frames(acquisition, {"time": 0})
    assert np.ptp(found) > 100
    assert np.array_equal(found, wanted)


def test_patterns_are_loaded_once_for_all_bursts(pairs: Pairs) -> None:
    learned, acquisition, world = taken(pairs(), moments=3)
    learned.check(acquisition)
    calls = [call for device, call, *_ in world.told if device == "Dmd"]
    assert (calls.count("SendSLMSequence"), calls.count("StartSLMSequence")) == (1, 3)


@pytest.mark.parametrize("kind", ["swapped_patterns", "shifted_sequence", "repeated_pattern"])
def test_patterns_that_were_not_shown_in_their_order_are_told_by_the_light(pairs: Pairs, kind: str) -> None:
    """At the end at the latest, where the script has not asked."""
    pair = pairs({"connections.world.faults": [{"kind": kind}]})
    with pytest.raises(RunError, match=r"time 0: .*marker"):
        taken(pair)
