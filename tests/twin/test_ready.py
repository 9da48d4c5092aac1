"""What takes long to compute or to load is there before the light goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dmu_hw.drivers.simulated.render import Renderer
from dmu_hw.drivers.simulated.stain import Stain
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig


@pytest.mark.parametrize("z_um", [0.0, 1.5])
def test_a_configured_camera_waits_for_nothing(
    small_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, z_um: float
) -> None:
    """Torch is loaded with the renderer; how the camera sees the specimen is known."""
    rig = small_rig()
    world: Any = rig.connection("world")
    assert rig.focus is not None
    rig.focus.move_um(z_um, 1e4)
    assert world._renderer is None
    rig.camera.configure(CameraMode(2.0, 1, Roi(0, 0, 64, 64)))
    assert world._renderer is not None
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.dmd.show(0)
    rig.light.on()

    def compute(*_given: object) -> None:
        pytest.fail("with the light on")

    monkeypatch.setattr(Stain, "_new_view", compute)
    monkeypatch.setattr(Renderer, "__init__", compute)
    rig.camera.arm(1)
    assert rig.camera.pop(1e4).pixels.any()
