"""The simulated light: limits, on and off, interlock, and the moments at which it changes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dmu_hw.errors import DeviceError
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]
PLAIN = {
    "connections.world.specimen": {"kind": "layer", "brightness": 1.0},
    "optics.mirrors.leakage": 0.5,
    "optics.sensor.read_noise_e": 0.0,
    "optics.dye.background_photons_per_um2_mw_ms": 0.0,
    "devices.light.max_power_mw": 8.0,
}
ADU_PER_MW_MS = 100.0 * 0.25 * 0.8 * 0.5 * 0.5
"""Of a pixel under mirrors that are off and leak half."""


def energy(rig: Rig, exposure_ms: float) -> float:
    """Power over time, in mW·ms, that an exposure from now on gathers."""
    rig.camera.configure(CameraMode(exposure_ms, 1, Roi(0, 0, 64, 64)))
    rig.camera.arm(1)
    return (float(np.mean(rig.camera.pop(1e5).pixels)) - 100) / ADU_PER_MW_MS


def test_off_when_opened_on_when_told(small_rig: SmallRig) -> None:
    rig = small_rig(PLAIN)
    assert not rig.light.is_on()
    assert rig.light.interlock_closed()
    assert energy(rig, 10.0) == pytest.approx(0, abs=0.05)
    rig.light.set_power(2.0)
    assert energy(rig, 10.0) == pytest.approx(0, abs=0.05), "power alone is no light"
    rig.light.on()
    assert rig.light.is_on()
    assert energy(rig, 10.0) == pytest.approx(20.0, rel=0.01)
    rig.light.set_power(8.0)
    assert energy(rig, 10.0) == pytest.approx(80.0, rel=0.01), "a new power counts at once"
    rig.light.off()
    assert not rig.light.is_on()
    assert energy(rig, 10.0) == pytest.approx(0, abs=0.05)


def test_light_that_changes_during_an_exposure_counts_for_its_time(small_rig: SmallRig) -> None:
    rig = small_rig(PLAIN)
    rig.light.set_power(2.0)
    rig.camera.configure(CameraMode(10.0, 1, Roi(0, 0, 64, 64)))
    rig.camera.arm(1)
    rig.clock.sleep_ms(2.0)
    rig.light.on()
    rig.clock.sleep_ms(3.0)
    rig.light.set_power(4.0)
    rig.clock.sleep_ms(1.0)
    rig.light.off()
    got = (float(np.mean(rig.camera.pop(100.0).pixels)) - 100) / ADU_PER_MW_MS
    assert got == pytest.approx(3 * 2 + 1 * 4, rel=0.01)


@pytest.mark.parametrize("power_mw", [-0.1, 8.1, float("nan"), float("inf")])
def test_power_beyond_the_limits_is_refused(small_rig: SmallRig, power_mw: float) -> None:
    rig = small_rig(PLAIN)
    assert rig.light.max_power_mw == 8.0
    rig.light.set_power(1.0)
    rig.light.on()
    with pytest.raises(DeviceError, match=f"light: power must be 0 to 8 mW, given {power_mw:g}"):
        rig.light.set_power(power_mw)
    assert energy(rig, 10.0) == pytest.approx(10.0, rel=0.01)


def test_an_open_interlock_keeps_it_dark_until_opened_anew(small_rig: SmallRig) -> None:
    rig = small_rig({**PLAIN, "connections.world.faults": [{"kind": "interlock_open", "at": 1}]})
    rig.light.set_power(1.0)
    rig.light.on()
    for _ in range(3):
        with pytest.raises(DeviceError, match="light: interlock is open"):
            rig.light.on()
        assert not rig.light.interlock_closed()
        assert not rig.light.is_on()
    assert energy(rig, 10.0) == pytest.approx(0, abs=0.05)
    rig.close()
    rig.open()
    assert rig.light.interlock_closed()
    rig.light.on()
    assert energy(rig, 10.0) == pytest.approx(0, abs=0.05), "a power from before is not taken over"
