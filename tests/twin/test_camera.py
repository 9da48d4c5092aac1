"""The simulated camera: exposure, window, binning, triggers, time, and a buffer that is used again and overflows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.ports import CameraMode, RawFrame, Roi
from dmu_hw.rig import Rig

SmallRig = Callable[..., Rig]
FULL = Roi(0, 0, 64, 64)
LAYER = {"connections.world.specimen": {"kind": "layer", "brightness": 1.0}}
QUIET = {"optics.sensor.read_noise_e": 0.0, "optics.dye.background_photons_per_um2_mw_ms": 0.0}
TIMES = {"devices.camera.readout_ms": 2.0, "devices.camera.trigger_latency_ms": 0.5}


def bright(rig: Rig, power_mw: float = 1.0) -> Rig:
    """All mirrors on, in full light."""
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.dmd.show(0)
    rig.light.set_power(power_mw)
    rig.light.on()
    rig.clock.sleep_ms(10.0)
    return rig


def frame(rig: Rig, mode: CameraMode) -> np.ndarray:
    rig.camera.configure(mode)
    rig.camera.arm(1)
    return rig.camera.pop(1e5).pixels.copy()


def mean(rig: Rig, mode: CameraMode, count: int) -> np.ndarray:
    rig.camera.configure(mode)
    rig.camera.arm(count)
    return np.mean([rig.camera.pop(1e5).pixels.astype(float) for _ in range(count)], axis=0) - 100


def test_light_adds_up_over_time_and_power(small_rig: SmallRig) -> None:
    rig = bright(small_rig({**LAYER, **QUIET}))
    per_ms = 100 * 0.25 * 0.8 * 0.5
    for exposure_ms, power_mw in [(2.0, 1.0), (20.0, 1.0), (20.0, 4.0), (200.0, 4.0)]:
        rig.light.set_power(power_mw)
        got = float(frame(rig, CameraMode(exposure_ms, 1, FULL)).mean()) - 100
        assert got == pytest.approx(per_ms * exposure_ms * power_mw, rel=0.01)


def test_a_window_is_cut_out_of_the_full_frame(small_rig: SmallRig) -> None:
    profile = {"kind": "gaussian", "sigma_um": 12.0, "centre_um": [3.0, -5.0]}
    rig = bright(small_rig({"optics.profile": profile}))
    whole = mean(rig, CameraMode(50.0, 1, FULL), 30)
    for roi in (Roi(8, 20, 24, 40), Roi(32, 4, 24, 40), Roi(0, 0, 16, 8), Roi(39, 3, 25, 61)):
        part = mean(rig, CameraMode(50.0, 1, roi), 30)
        cut = whole[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width]
        assert part.shape == cut.shape
        off = (part - cut) / np.sqrt((whole.max() * 0.5 + 1) * 2 / 30)
        assert np.abs(off).max() < 5, "no more than noise, at the border of the window too"


@pytest.mark.parametrize("binning", [2, 4, 16])
def test_a_binned_pixel_is_the_sum_of_its_pixels(small_rig: SmallRig, binning: int) -> None:
    rig = bright(small_rig({}))
    whole = mean(rig, CameraMode(10.0, 1, FULL), 30)
    binned = mean(rig, CameraMode(10.0, binning, FULL), 30)
    sums = whole.reshape(64 // binning, binning, 64 // binning, binning).sum(axis=(1, 3))
    assert np.abs((binned - sums) / np.sqrt((sums * 0.5 + 1 + binning**2) * 2 / 30)).max() < 5


@pytest.mark.parametrize(("kind", "expected_e"), [("charge", 4.0), ("digital", 16.0)])
def test_read_noise_of_a_binned_pixel(small_rig: SmallRig, kind: str, expected_e: float) -> None:
    changes = {"optics.sensor": {"binning": kind, "read_noise_e": 4.0, "gain_adu_per_e": 1.0}}
    dark = small_rig(changes)
    dark.camera.configure(CameraMode(1.0, 4, FULL))
    dark.camera.arm(20)
    pixels = np.stack([dark.camera.pop(100.0).pixels.copy() for _ in range(20)])
    assert pixels.std() == pytest.approx((expected_e**2 + 1 / 12) ** 0.5, rel=0.05)
    assert pixels.mean() == pytest.approx(100, abs=1)


def test_bits_and_full_well_clip(small_rig: SmallRig) -> None:
    eight_bit = bright(small_rig({**LAYER, "optics.sensor.bits": 8}), 50.0)
    assert set(np.unique(frame(eight_bit, CameraMode(100.0, 1, FULL)))) == {255}
    well = bright(small_rig({**LAYER, "optics.sensor": {"full_well_e": 1000.0, "read_noise_e": 0.0}}), 50.0)
    assert set(np.unique(frame(well, CameraMode(100.0, 1, FULL)))) == {100 + 250}


def test_without_light_there_is_the_offset_alone(small_rig: SmallRig) -> None:
    rig = bright(small_rig({"optics.sensor": {"read_noise_e": 2.0, "gain_adu_per_e": 0.5}}))
    rig.light.off()
    pixels = frame(rig, CameraMode(1000.0, 1, FULL)).astype(float)
    assert pixels.mean() == pytest.approx(100, abs=0.1)
    assert pixels.std() == pytest.approx((2.0**2 * 0.25 + 1 / 12) ** 0.5, rel=0.05)


# ---------------------------------------------------------------- time


def test_the_camera_sets_its_own_pace(small_rig: SmallRig) -> None:
    rig = small_rig(TIMES)
    half = Roi(0, 0, 64, 32)
    assert rig.camera.readout_ms(CameraMode(5.0, 1, half)) == 1.0
    for mode, period_ms in [(CameraMode(5.0, 1, half), 6.0), (CameraMode(5.0, 1, half, interval_ms=20.0), 20.0)]:
        rig.camera.configure(mode)
        begin_ms = rig.clock.now_ms()
        rig.camera.arm(3)
        taken: list[RawFrame] = []
        for number in range(3):
            taken.append(rig.camera.pop(100.0))
            assert rig.clock.now_ms() - begin_ms == pytest.approx(number * period_ms + 6.0)
        assert [one.number for one in taken] == [0, 1, 2]
        assert [one.time_ms - begin_ms for one in taken] == pytest.approx([0, period_ms, 2 * period_ms])


def test_pulses_that_come_too_early_are_not_seen(small_rig: SmallRig) -> None:
    """A frame takes 5 ms and 2 ms to read; of pulses every 3 ms it sees every third."""
    rig = small_rig({**TIMES, "devices.dmd": {"driver": "simulated", "connection": "world", "settle_ms": 1.0}})
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.camera.configure(CameraMode(5.0, 1, FULL, "external"))
    rig.camera.arm(10)
    begin_ms = rig.clock.now_ms() + rig.dmd.settle_ms + 0.5
    rig.dmd.start((0,) * 10, 3.0)
    taken = [rig.camera.pop(50.0) for _ in range(4)]
    assert [one.number for one in taken] == [0, 1, 2, 3]
    assert [one.time_ms - begin_ms for one in taken] == pytest.approx([0, 9, 18, 27])
    with pytest.raises(DeviceTimeout):
        rig.camera.pop(50.0)


def test_a_pulse_at_the_very_end_of_reading_is_seen(small_rig: SmallRig) -> None:
    """0.1 and 0.2 ms are 0.3 ms, whatever binary fractions say."""
    changes = {"devices.camera.readout_ms": 0.2, "devices.dmd.settle_ms": 0.0, "devices.dmd.dark_ms": 0.0}
    rig = small_rig(changes)
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.camera.configure(CameraMode(0.1, 1, FULL, "external"))
    rig.camera.arm(50)
    rig.dmd.start((0,) * 50, 0.3)
    assert [rig.camera.pop(1.0).number for _ in range(50)] == list(range(50))


def test_pulses_before_the_camera_was_armed_are_not_seen(small_rig: SmallRig) -> None:
    rig = small_rig(TIMES)
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.camera.configure(CameraMode(5.0, 1, FULL, "external"))
    rig.dmd.start((0,) * 4, 10.0)
    rig.clock.sleep_ms(10.2)  # the second pulse came 0.13 ms ago, less than the latency
    begin_ms = rig.clock.now_ms()
    rig.camera.arm(4)
    assert [rig.camera.pop(50.0).time_ms - begin_ms for _ in range(2)] == pytest.approx([10.37, 20.37])
    with pytest.raises(DeviceTimeout):
        rig.camera.pop(50.0)


def test_without_a_frame_it_gives_up_in_time(small_rig: SmallRig) -> None:
    """Not armed, no pulse, all frames taken, or an exposure that takes longer than the patience."""
    rig = small_rig(TIMES)
    rig.camera.configure(CameraMode(5.0, 1, FULL, "external"))

    def gives_up(timeout_ms: float) -> None:
        before_ms = rig.clock.now_ms()
        with pytest.raises(DeviceTimeout, match=f"camera: gave no frame within {timeout_ms:g} ms"):
            rig.camera.pop(timeout_ms)
        assert rig.clock.now_ms() - before_ms == pytest.approx(timeout_ms, abs=1e-9)

    gives_up(123.4)
    rig.camera.arm(1)
    gives_up(77.0)
    rig.camera.configure(CameraMode(5.0, 1, FULL))
    gives_up(10.0)
    rig.camera.arm(1)
    gives_up(6.9)
    assert rig.camera.pop(0.1).number == 0, "the exposure went on in the meantime"
    gives_up(1.0)
    rig.camera.arm(3)
    rig.camera.disarm()
    gives_up(50.0)


# ---------------------------------------------------------------- buffer


@pytest.mark.parametrize("trigger", ["internal", "external"])
def test_frames_that_nobody_fetches_overflow(small_rig: SmallRig, trigger: str) -> None:
    rig = small_rig({**TIMES, "devices.camera.buffer_frames": 4})
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    assert rig.camera.buffer_frames == 4
    mode = CameraMode(8.0, 1, FULL, trigger)  # type: ignore[arg-type]
    rig.camera.configure(mode)
    for waiting, fits in [(4, True), (5, False)]:
        rig.camera.arm(20)
        rig.dmd.start((0,) * 20, 10.0)
        first_ms = 10.0 if trigger == "internal" else 10.0 + rig.dmd.settle_ms + 0.5
        rig.clock.sleep_ms(first_ms + (waiting - 1) * 10.0 + 0.01)
        if fits:
            numbers = [rig.camera.pop(0.01).number for _ in range(4)]
            assert numbers == [0, 1, 2, 3]
            continue
        with pytest.raises(DeviceError, match="camera: buffer of 4 frames overflowed"):
            rig.camera.pop(100.0)
        with pytest.raises(DeviceTimeout):
            rig.camera.pop(100.0)


def test_no_more_frames_than_asked_for_cannot_overflow(small_rig: SmallRig) -> None:
    rig = small_rig({"devices.camera.buffer_frames": 4})
    rig.camera.configure(CameraMode(1.0, 1, FULL))
    rig.camera.arm(4)
    rig.clock.sleep_ms(1e6)
    assert [rig.camera.pop(1.0).number for _ in range(4)] == [0, 1, 2, 3]


def test_the_buffer_is_used_again(small_rig: SmallRig) -> None:
    """Pixels change under whoever does not copy them."""
    rig = bright(small_rig({}))
    rig.camera.configure(CameraMode(5.0, 1, FULL))
    rig.camera.arm(2)
    first = rig.camera.pop(100.0)
    kept = first.pixels.copy()
    second = rig.camera.pop(100.0)
    assert np.shares_memory(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, kept)
    assert first.pixels.dtype == np.uint16


# ---------------------------------------------------------------- what is refused

BAD_MODES = {
    "binning it cannot": (CameraMode(1.0, 3, FULL), r"binning must be one of \(1, 2, 4.*given 3"),
    "too wide": (CameraMode(1.0, 1, Roi(1, 0, 64, 64)), r"Roi\(x=1.*does not fit the sensor of 64x64 pixels"),
    "left of the chip": (CameraMode(1.0, 1, Roi(-1, 0, 8, 8)), "does not fit the sensor"),
    "empty": (CameraMode(1.0, 1, Roi(0, 0, 0, 8)), "is not a multiple of the binning 1"),
    "not whole binned pixels": (CameraMode(1.0, 4, Roi(0, 0, 8, 10)), "is not a multiple of the binning 4"),
    "too short": (CameraMode(0.001, 1, FULL), "exposure must be 0.01 to 10000.0 ms, given 0.001"),
    "no time at all": (CameraMode(float("nan"), 1, FULL), "exposure must be"),
}


@pytest.mark.parametrize("case", BAD_MODES)
def test_a_mode_that_cannot_be_is_refused(small_rig: SmallRig, case: str) -> None:
    mode, message = BAD_MODES[case]
    with pytest.raises(DeviceError, match=f"camera: .*{message}"):
        small_rig({}).camera.configure(mode)


def test_configure_comes_first(small_rig: SmallRig) -> None:
    rig = small_rig({})
    for action in (lambda: rig.camera.arm(1), lambda: rig.camera.pop(1.0)):
        with pytest.raises(DeviceError, match="camera: was not configured"):
            action()
    rig.camera.configure(CameraMode(1.0, 1, FULL))
    with pytest.raises(DeviceError, match="camera: takes at least one frame, given 0"):
        rig.camera.arm(0)
