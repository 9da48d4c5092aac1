"""The specimen fades with the light that it has taken, at the place where it took it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]
FULL = Roi(0, 0, 64, 64)
EXPOSURE_MS, POWER_MW = 100.0, 2.0
DOSE_MJ_CM2 = POWER_MW * EXPOSURE_MS * 1e-3 / (96 * 128 * 0.25 * 1e-8)
"""Power over time in mJ, over the area of the array in cm²."""
FADING = {
    "connections.world.specimen": {"kind": "layer", "brightness": 1.0},
    "connections.world.truth": {"dye": {"bleach_dose_mj_cm2": 4 * DOSE_MJ_CM2}},
    "optics.mirrors.leakage": 0.0,
    "optics.dye.background_photons_per_um2_mw_ms": 0.0,
    "optics.sensor.read_noise_e": 0.0,
    "devices.camera.readout_ms": 0.0,
}
STEP = math.exp(-1 / 4)
"""What one exposure leaves."""


def opened(small_rig: SmallRig, changes: dict[str, object] | None = None) -> Rig:
    """All mirrors on in frame 0, the left half of them in frame 1."""
    rig = small_rig({**FADING, **(changes or {})})
    left = np.broadcast_to(np.arange(128) < 64, (96, 128))
    rig.dmd.load(np.stack([np.ones_like(left), left]))
    rig.light.set_power(POWER_MW)
    return rig


def exposed(rig: Rig, index: int = 0) -> np.ndarray:
    """A frame in the light of one pattern, with the light on for no longer than the exposure."""
    rig.dmd.show(index)
    rig.clock.sleep_ms(1.0)
    rig.camera.configure(CameraMode(EXPOSURE_MS, 1, FULL))
    rig.light.on()
    rig.camera.arm(1)
    pixels = rig.camera.pop(1e4).pixels.astype(float) - 100
    rig.light.off()
    return pixels


def test_dye_fades_exponentially_with_the_dose(small_rig: SmallRig) -> None:
    rig = opened(small_rig)
    means = [exposed(rig).mean() for _ in range(5)]
    assert means == pytest.approx([means[0] * STEP**n for n in range(5)], rel=0.01)


def test_belief_alone_does_not_fade(small_rig: SmallRig) -> None:
    rig = opened(small_rig, {"connections.world.truth": {}})
    means = [exposed(rig).mean() for _ in range(3)]
    assert means == pytest.approx([means[0]] * 3, rel=0.01)


def test_only_what_was_lit_fades(small_rig: SmallRig) -> None:
    rig = opened(small_rig)
    before = exposed(rig)
    for _ in range(3):
        exposed(rig, 1)
    ratio = exposed(rig) / before / STEP
    assert ratio[:, :28].mean() == pytest.approx(STEP**3, rel=0.01)
    assert ratio[:, 36:].mean() == pytest.approx(1, rel=0.01)


@pytest.mark.parametrize("reopened", [False, True])
def test_a_place_stays_bleached_and_its_neighbours_do_not(small_rig: SmallRig, reopened: bool) -> None:
    """The array lights 64 µm, the camera sees 32: 32 µm away half of the field is fresh. Closing heals nothing."""
    rig = opened(small_rig)
    assert rig.stage is not None
    rig.stage.move_um(-500.0, 300.0, 1e4)
    fresh = exposed(rig)
    exposed(rig)
    rig.stage.move_um(-468.0, 300.0, 1e4)
    aside = exposed(rig) / fresh
    assert aside[:, :28].mean() == pytest.approx(STEP**2, rel=0.01)
    assert aside[:, 36:].mean() == pytest.approx(1, rel=0.01)
    if reopened:
        rig.close()
        rig.open()
        rig.light.set_power(POWER_MW)
    rig.stage.move_um(-500.0, 300.0, 1e4)
    back = exposed(rig) / fresh
    assert back[:, :28].mean() == pytest.approx(STEP**2, rel=0.01)
    assert back[:, 36:].mean() == pytest.approx(STEP**3, rel=0.01), "it was lit from aside as well"


def test_light_between_exposures_bleaches_too(small_rig: SmallRig) -> None:
    rig = opened(small_rig)
    first = exposed(rig).mean()
    rig.light.on()
    rig.clock.sleep_ms(3 * EXPOSURE_MS)
    rig.light.off()
    assert exposed(rig).mean() == pytest.approx(first * STEP**4, rel=0.01)


def test_light_between_exposures_bleaches_where_the_stage_was(small_rig: SmallRig) -> None:
    rig = opened(small_rig)
    assert rig.stage is not None
    first = exposed(rig).mean()
    rig.light.on()
    rig.clock.sleep_ms(3 * EXPOSURE_MS)
    rig.light.off()
    rig.stage.move_um(1000.0, 0.0, 1e4)
    assert exposed(rig).mean() == pytest.approx(first, rel=0.01)
    rig.stage.move_um(0.0, 0.0, 1e4)
    assert exposed(rig).mean() == pytest.approx(first * STEP**4, rel=0.01)
