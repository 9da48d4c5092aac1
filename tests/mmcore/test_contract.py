"""The promises of the ports, kept by the driver `micromanager` on the real MMCore: the same tests that all simulated
rigs pass, on SimRig with a world behind it that runs in real time.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from mmrig import Pair
from simworld import behind

from dmu_hw.rig import Rig, load_rig


def _tests_of_drivers() -> ModuleType:
    """tests/contract/test_drivers.py as a module."""
    path = Path(__file__).parents[1] / "contract" / "test_drivers.py"
    spec = importlib.util.spec_from_file_location("contract_of_drivers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


DRIVERS = _tests_of_drivers()
PROMISES = {
    name: value
    for name, value in vars(DRIVERS).items()
    if name.startswith("test_") and "rig" in value.__code__.co_varnames[: value.__code__.co_argcount]
}
globals().update(PROMISES)


@pytest.fixture(params=["one colour", "two colours"])
def rig(request: pytest.FixtureRequest, mm_rig_yaml: Callable[..., Pair], simrig_folder: Path) -> Iterator[Rig]:
    """Built, not opened; closed in the end."""
    changes = {"connections.world.realtime": True, "stepping": "dmd"}
    if request.param == "two colours":
        changes |= {
            f"devices.{name}": {"driver": "simulated", "connection": "world"} for name in ("light_561", "shutter")
        }
        changes["devices.filter"] = {"driver": "simulated", "connection": "world", "positions": ["GFP", "RFP"]}
        changes["channels"] = {
            "green": {"light": "light", "filters": {"filter": "GFP"}},
            "red": {"light": "light_561", "filters": {"filter": "RFP"}},
        }
    # told to play once: one that goes round is dark for a period, and then until it is stopped it is not
    pair = mm_rig_yaml(changes, {"devices.dmd.properties": {"AtEnd": "Dark"}})
    with behind(simrig_folder, pair.simulated):
        built = Rig(load_rig(pair.mm))
        yield built
        built.close()


def test_there_are_promises() -> None:
    assert len(PROMISES) >= 8
