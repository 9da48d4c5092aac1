"""A world that is told what another lived through goes on as that one would have."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]
MODE = CameraMode(2.0, 4, Roi(0, 0, 64, 64))


def frames(rig: Rig, count: int, power_mw: float = 2.0) -> list[np.ndarray]:
    """So many frames in the light of all mirrors."""
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.dmd.show(0)
    rig.clock.sleep_ms(1.0)
    rig.camera.configure(MODE)
    rig.light.set_power(power_mw)
    found = []
    for _ in range(count):
        rig.light.on()
        rig.camera.arm(1)
        found.append(rig.camera.pop(1e4).pixels.copy())
        rig.light.off()
    return found


def world_of(rig: Rig) -> Any:
    return rig.connection("world")


def test_noise_goes_on_where_it_was(small_rig: SmallRig) -> None:
    """Bit for bit; and what is remembered can be written down."""
    whole = frames(small_rig(), 5)
    first = small_rig()
    frames(first, 3)
    second = small_rig()
    world_of(second).recall(json.loads(json.dumps(world_of(first).remember())), [])
    assert second.clock.now_ms() == first.clock.now_ms()
    assert all(np.array_equal(*pair) for pair in zip(frames(second, 2), whole[3:], strict=True))
    assert not np.array_equal(frames(small_rig(), 1)[0], whole[3])


def test_faults_that_have_struck_do_not_strike_again(small_rig: SmallRig) -> None:
    faults = {"connections.world.faults": [{"kind": "repeated_frame", "at": at} for at in (1, 4)]}
    whole = [frame.tobytes() for frame in frames(small_rig(faults), 6)]
    first, second = small_rig(faults), small_rig(faults)
    frames(first, 3)
    world_of(second).recall(world_of(first).remember(), [])
    rest = [frame.tobytes() for frame in frames(second, 3)]
    assert whole[0] == whole[1]
    assert rest[1] == rest[0], "the one that was still to come"
    assert len(set(rest)) == 2


@pytest.mark.parametrize("realtime", [False, True])
def test_time_goes_on(small_rig: SmallRig, realtime: bool) -> None:
    world = world_of(small_rig({"connections.world.realtime": realtime}))
    world.recall({"exposures": 0, "clock_ms": 5000.0, "occasions": {}}, [])
    assert world.clock.now_ms() == pytest.approx(5000.0, abs=1000.0)
    world.clock.sleep_ms(20.0)
    assert world.clock.now_ms() >= 5020.0


def test_what_was_bleached_stays_bleached(small_rig: SmallRig) -> None:
    """Where it was, and nowhere else."""
    dose = 2.0 * 2.0 * 1e-3 / (96 * 128 * 0.25 * 1e-8)
    fading = {
        "connections.world.specimen": {"kind": "layer", "brightness": 1.0},
        "connections.world.truth": {"dye": {"bleach_dose_mj_cm2": 5 * dose}},
        "optics.mirrors.leakage": 0.0,
        "optics.dye.background_photons_per_um2_mw_ms": 0.0,
    }

    def brightness(doses: list[tuple[float, float, float]]) -> float:
        rig = small_rig(fading)
        world_of(rig).recall(world_of(rig).remember(), doses)
        return float(frames(rig, 1)[0].mean()) - 100.0

    fresh = brightness([])
    assert brightness([(0.0, 0.0, dose), (0.0, 0.0, 2 * dose)]) == pytest.approx(fresh * math.exp(-3 / 5), rel=0.02)
    assert brightness([(500.0, 0.0, 3 * dose)]) == pytest.approx(fresh, rel=0.01)
