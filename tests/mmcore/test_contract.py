"""The promises of the ports, kept by the driver `micromanager` on the real MMCore: the same tests that all simulated
rigs pass, on SimRig with a world behind it that runs in real time, and on Micro-Manager's own demo devices.

Of these there are no mirrors, no line to trigger the camera, and no picture that follows the light: what is asked of
those is left out.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mmrig import Pair, write_demo
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


OF_DEMO = (
    "test_devices_keep_the_runtime_protocols",
    "test_planning_needs_no_open_device",
    "test_open_and_close_in_any_order_and_often",
    "test_every_refusal_is_a_device_error_that_names_the_device",
    "test_moves_arrive",
    "test_filters_arrive",
    "test_the_clock_runs",
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rig" in metafunc.fixturenames:
        demo = ["DemoCamera"] if metafunc.definition.name in OF_DEMO else []
        metafunc.parametrize("rig", ["one colour", "two colours", *demo], indirect=True)


@pytest.fixture
def rig(
    request: pytest.FixtureRequest,
    mm_rig_yaml: Callable[..., Pair],
    rig_yaml: Callable[..., Path],
    simrig_folder: Path,
    tmp_path: Path,
) -> Iterator[Rig]:
    """Built, not opened; closed in the end."""
    if request.param == "DemoCamera":
        built = Rig(load_rig(write_demo(tmp_path, rig_yaml())))
        yield built
        built.close()
        return
    changes: dict[str, Any] = {"connections.world.realtime": True, "stepping": "dmd"}
    if request.param == "two colours":
        simulated = {"driver": "simulated", "connection": "world"}
        changes |= {f"devices.{name}": simulated for name in ("light_561", "shutter")}
        changes["devices.filter"] = simulated | {"positions": ["GFP", "RFP"]}
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
    assert set(OF_DEMO) < set(PROMISES)
