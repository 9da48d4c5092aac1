"""The simulated mirror array: memory, steps, and the light that an exposure gathers while mirrors turn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]
ROWS, COLUMNS = 96, 128
LEAKAGE = 0.25
DARK_MS, SETTLE_MS = 2.0, 3.0
PLAIN = {
    "connections.world.specimen": {"kind": "layer", "brightness": 1.0},
    "optics.mirrors.leakage": LEAKAGE,
    "optics.sensor.read_noise_e": 0.0,
    "optics.dye.background_photons_per_um2_mw_ms": 0.0,
    "devices.dmd.dark_ms": DARK_MS,
    "devices.dmd.settle_ms": SETTLE_MS,
    "devices.dmd.upload_ms_per_frame": 1.0,
    "devices.camera.trigger_latency_ms": 0.0,
    "devices.camera.readout_ms": 0.0,
}
FULL = Roi(0, 0, 64, 64)
ADU_PER_MS = 100.0 * 0.25 * 0.8 * 0.5
"""Of a pixel of the brightest dye with all mirrors on: photons, area, quantum efficiency, gain."""


def frames(*on: float) -> np.ndarray:
    """Frames of which a part of the columns is on, from the left."""
    return np.stack([np.broadcast_to(np.arange(COLUMNS) < part * COLUMNS, (ROWS, COLUMNS)) for part in on])


def lit(rig: Rig, exposure_ms: float, roi: Roi = FULL) -> float:
    """Light that an exposure from now on gathers, in milliseconds of a pixel with all mirrors on."""
    rig.camera.configure(CameraMode(exposure_ms, 1, roi))
    rig.camera.arm(1)
    return (float(rig.camera.pop(1e4).pixels.mean()) - 100) / ADU_PER_MS


@pytest.fixture
def rig(small_rig: SmallRig) -> Rig:
    """A bright layer under an array that leaks a lot and turns slowly, in full light."""
    rig = small_rig(PLAIN)
    rig.dmd.load(frames(1, 0, 1, 0, 0))
    rig.light.set_power(1.0)
    rig.light.on()
    return rig


BAD_FRAMES = {
    "one frame without an axis for it": np.zeros((ROWS, COLUMNS), dtype=bool),
    "columns and rows changed": np.zeros((1, COLUMNS, ROWS), dtype=bool),
    "numbers": np.zeros((1, ROWS, COLUMNS), dtype=np.uint8),
    "none": np.zeros((0, ROWS, COLUMNS), dtype=bool),
    "too many": np.zeros((11, ROWS, COLUMNS), dtype=bool),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_frames_that_do_not_fit_are_refused_and_leave_nothing(small_rig: SmallRig, bad: str) -> None:
    rig = small_rig({**PLAIN, "devices.dmd.memory_frames": 10})
    rig.dmd.load(frames(1))
    rig.light.set_power(1.0)
    rig.light.on()
    rig.dmd.show(0)
    with pytest.raises(DeviceError, match=r"dmd: (wants boolean frames \(n, 96, 128\)|has memory for 10 frames)"):
        rig.dmd.load(BAD_FRAMES[bad])
    assert lit(rig, 10.0) == pytest.approx(10 * LEAKAGE, rel=0.01)
    with pytest.raises(DeviceError, match="dmd: has no frame 0: 0 frames are loaded"):
        rig.dmd.show(0)


def test_a_load_takes_its_time_and_keeps_what_was_given(rig: Rig) -> None:
    given = frames(1, 0, 1)
    before_ms = rig.clock.now_ms()
    rig.dmd.load(given)
    assert rig.clock.now_ms() - before_ms == pytest.approx(rig.dmd.upload_ms(3)) == 3.0
    given[:] = False
    rig.dmd.show(2)
    rig.clock.sleep_ms(rig.dmd.settle_ms)
    assert lit(rig, 10.0) == pytest.approx(10.0, rel=0.01)


def test_show_and_dark(rig: Rig) -> None:
    rig.dmd.show(0)
    rig.clock.sleep_ms(rig.dmd.settle_ms)
    assert lit(rig, 10.0) == pytest.approx(10.0, rel=0.01)
    rig.dmd.show(None)
    assert lit(rig, 10.0) == pytest.approx(10 * LEAKAGE, rel=0.01)
    for index in (-1, 5):
        with pytest.raises(DeviceError, match=f"dmd: has no frame {index}: 5 frames are loaded"):
            rig.dmd.show(index)


def test_light_in_the_transition(rig: Rig) -> None:
    """2 ms dark, then 3 ms half old and half new, then the new pattern."""
    rig.dmd.show(0)
    assert lit(rig, 2.0) == pytest.approx(2 * LEAKAGE, rel=0.01)
    assert lit(rig, 3.0) == pytest.approx(3 * (1 + LEAKAGE) / 2, rel=0.01)
    assert lit(rig, 3.0) == pytest.approx(3.0, rel=0.01)
    rig.dmd.show(2)
    assert lit(rig, 10.0) == pytest.approx(2 * LEAKAGE + 3 + 5, rel=0.01), "from one bright frame to another"
    rig.dmd.show(1)
    assert lit(rig, 10.0) == pytest.approx(2 * LEAKAGE + 3 * (1 + LEAKAGE) / 2 + 5 * LEAKAGE, rel=0.01)


def test_a_sequence_steps_by_itself_and_ends_dark(rig: Rig) -> None:
    rig.dmd.start((0, 1, 2, 4), 20.0)
    turn = 2 * LEAKAGE + 3 * (1 + LEAKAGE) / 2
    for bright in (True, False, True, False):
        assert lit(rig, 20.0) == pytest.approx(turn + 15 * (1.0 if bright else LEAKAGE), rel=0.01)
    rig.dmd.start((0,), 20.0)
    rig.clock.sleep_ms(20.0)
    assert lit(rig, 20.0) == pytest.approx(20 * LEAKAGE, rel=0.01)
    assert rig.dmd.shown() == (0,)


def test_each_frame_triggers_the_camera_once_it_stands(rig: Rig) -> None:
    rig.camera.configure(CameraMode(10.0, 1, FULL, "external"))
    rig.camera.arm(5)
    begin_ms = rig.clock.now_ms()
    rig.dmd.start((0, 1, 2, 3, 2), 20.0)
    assert [rig.camera.pop(100.0).time_ms - begin_ms for _ in range(4)] == pytest.approx([5.0, 25.0, 45.0, 65.0])
    assert rig.dmd.shown() == (0, 1, 2, 3)
    rig.clock.sleep_ms(10.0)
    assert rig.dmd.shown() == (0, 1, 2, 3, 2)


def paced_by_the_camera(rig: Rig, interval_ms: float) -> list[float]:
    """Light of four frames of 10 ms, of which the first finds the first pattern standing."""
    rig.camera.configure(CameraMode(10.0, 1, FULL, interval_ms=interval_ms))
    rig.dmd.start((0, 1, 2), None)
    rig.clock.sleep_ms(rig.dmd.settle_ms)
    assert rig.dmd.shown() == (0,)
    rig.camera.arm(4)
    return [(float(rig.camera.pop(100.0).pixels.mean()) - 100) / ADU_PER_MS for _ in range(4)]


def test_steps_at_the_end_of_each_exposure(rig: Rig) -> None:
    assert paced_by_the_camera(rig, 15.0) == pytest.approx([10, 10 * LEAKAGE, 10, 10 * LEAKAGE], rel=0.01)
    assert rig.dmd.shown() == (0, 1, 2)


def test_a_camera_that_does_not_wait_sees_the_mirrors_turn(rig: Rig) -> None:
    turn = 2 * LEAKAGE + 3 * (1 + LEAKAGE) / 2
    expected = [10, turn + 5 * LEAKAGE, turn + 5, 10 * LEAKAGE]
    assert paced_by_the_camera(rig, 0.0) == pytest.approx(expected, rel=0.01)


def test_stop_in_the_middle(rig: Rig) -> None:
    rig.camera.configure(CameraMode(10.0, 1, FULL, "external"))
    rig.camera.arm(4)
    rig.dmd.start((0, 2, 0, 2), 20.0)
    rig.clock.sleep_ms(50.0)
    rig.dmd.stop()
    assert rig.dmd.shown() == (0, 2, 0)
    for _ in range(3):
        assert (rig.camera.pop(100.0).pixels.mean() - 100) / ADU_PER_MS > 4
    with pytest.raises(DeviceTimeout):
        rig.camera.pop(100.0)
    rig.clock.sleep_ms(100.0)
    assert lit(rig, 10.0) == pytest.approx(10 * LEAKAGE, rel=0.01)
    assert rig.dmd.shown() == (0, 2, 0)


def test_what_was_exposed_before_a_stop_saw_the_light_of_then(rig: Rig) -> None:
    rig.camera.configure(CameraMode(10.0, 1, FULL, "external"))
    rig.camera.arm(2)
    rig.dmd.start((0, 1), 20.0)
    rig.clock.sleep_ms(40.0)
    rig.light.off()
    rig.dmd.load(frames(0))
    means = [(float(rig.camera.pop(100.0).pixels.mean()) - 100) / ADU_PER_MS for _ in range(2)]
    assert means == pytest.approx([10.0, 10 * LEAKAGE], rel=0.01)


REFUSED_STARTS = {
    "no frame": ((), 20.0, "a sequence needs at least one frame"),
    "a frame that is not there": ((0, 7), 20.0, "has no frame 7"),
    "too fast": ((0, 1), 5.0, "cannot step every 5 ms: a pattern needs 5 ms to stand"),
    "no number": ((0, 1), float("nan"), "cannot step every nan ms"),
}


@pytest.mark.parametrize("case", REFUSED_STARTS)
def test_a_sequence_that_cannot_be_is_refused(rig: Rig, case: str) -> None:
    order, period_ms, message = REFUSED_STARTS[case]
    with pytest.raises(DeviceError, match=f"dmd: {message}"):
        rig.dmd.start(order, period_ms)
    rig.clock.sleep_ms(30.0)
    assert lit(rig, 10.0) == pytest.approx(10 * LEAKAGE, rel=0.01)
    assert rig.dmd.shown() == ()


def test_a_device_may_not_tell_what_it_has_shown(small_rig: SmallRig) -> None:
    rig = small_rig({"devices.dmd.read_back": False})
    rig.dmd.load(frames(1))
    rig.dmd.start((0,), 20.0)
    assert rig.dmd.shown() is None


def test_stuck_mirrors(small_rig: SmallRig) -> None:
    """They are the same after another load, and those stuck on shine in the dark."""
    rig = small_rig({**PLAIN, "devices.dmd.stuck_on_fraction": 0.1, "devices.dmd.stuck_off_fraction": 0.3})
    rig.light.set_power(1.0)
    rig.light.on()
    for _ in range(2):
        rig.dmd.load(frames(1, 0))
        rig.dmd.show(0)
        rig.clock.sleep_ms(rig.dmd.settle_ms)
        assert lit(rig, 10.0) == pytest.approx(10 * (0.7 + 0.3 * LEAKAGE), rel=0.02)
        rig.dmd.show(None)
        assert lit(rig, 10.0) == pytest.approx(10 * (0.1 + 0.9 * LEAKAGE), rel=0.02)


def test_light_comes_from_mirrors_alone(small_rig: SmallRig) -> None:
    """Beyond the array there is no leakage: an array of half the field lights half of it."""
    rig = small_rig({**PLAIN, "optics.mirrors.to_sample": {"matrix": [[0.5, 0.0], [0.0, 0.5]], "shift": [32.0, 0.0]}})
    rig.light.set_power(1.0)
    rig.light.on()
    rig.camera.configure(CameraMode(10.0, 1, FULL))
    rig.camera.arm(1)
    profile = (rig.camera.pop(1e4).pixels.astype(float).mean(axis=0) - 100) / ADU_PER_MS
    assert profile[:28] == pytest.approx(0.0, abs=0.01)
    assert profile[36:].mean() == pytest.approx(10 * LEAKAGE, rel=0.01)
    assert profile[36:].min() > 9 * LEAKAGE
