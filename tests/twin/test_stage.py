"""The simulated stage and focus: limits, time, backlash, and which way the image goes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from dmu_hw.errors import DeviceError, DeviceTimeout, InputError
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig

SmallRig = Callable[..., Rig]
FULL = Roi(0, 0, 64, 64)
PIXEL_UM = 0.5


def image(rig: Rig) -> np.ndarray:
    """A bright frame of what lies there, without the offset."""
    rig.camera.configure(CameraMode(100.0, 1, FULL))
    rig.camera.arm(1)
    return rig.camera.pop(1e5).pixels.astype(float) - 100


def bright(rig: Rig) -> Rig:
    rig.dmd.load(np.ones((1, *rig.dmd.shape), dtype=bool))
    rig.dmd.show(0)
    rig.light.set_power(2.0)
    rig.light.on()
    rig.clock.sleep_ms(1.0)
    return rig


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images differ by their noise alone."""
    assert min(one.std(), other.std()) > 20, "there is something to see"
    return bool(np.abs(one - other).mean() < 3 * np.sqrt(one.mean() * 0.5))


# ---------------------------------------------------------------- which way


@pytest.mark.parametrize(("x_px", "y_px"), [(10, 0), (0, 10), (-7, 4), (23, -16)])
def test_a_move_to_larger_x_and_y_takes_the_image_left_and_up(small_rig: SmallRig, x_px: int, y_px: int) -> None:
    rig = bright(small_rig({}))
    assert rig.stage is not None
    before = image(rig)
    rig.stage.move_um(x_px * PIXEL_UM, y_px * PIXEL_UM, 1e4)
    after = image(rig)
    rows, columns = (slice(max(0, -n), 64 - max(0, n)) for n in (y_px, x_px))
    moved_rows, moved_columns = (slice(max(0, n), 64 - max(0, -n)) for n in (y_px, x_px))
    assert same(before[moved_rows, moved_columns], after[rows, columns])
    assert not same(before[rows, columns], after[rows, columns])


def test_the_point_of_the_stage_is_on_the_axis(small_rig: SmallRig) -> None:
    """The specimen's own picture round a stage position is what the camera sees there."""
    rig = bright(small_rig({"optics.emission.sigma_um": 0.0, "optics.mirrors.leakage": 0.0}))
    assert rig.stage is not None
    rig.stage.move_um(133.0, -77.5, 1e4)
    world = rig.connection("world")
    scene = world.settings.specimen.scene((133.0, -77.5), (64, 64), PIXEL_UM).image
    seen = image(rig) / (100 * 0.25 * 0.8 * 0.5 * 100 * 2)
    assert np.abs(seen - 0.01 - scene).max() < 0.06
    assert np.array_equal(world.scene(FULL).image, scene)
    off_axis = world.settings.specimen.scene((133.0 + 4 * PIXEL_UM, -77.5 - 6 * PIXEL_UM), (16, 24), PIXEL_UM).image
    assert world.scene(Roi(24, 18, 24, 16)).image == pytest.approx(off_axis)


def test_a_frame_shows_the_place_at_which_it_was_exposed(small_rig: SmallRig) -> None:
    """Fetched only after the stage went on."""
    rig = bright(small_rig({}))
    assert rig.stage is not None
    expected = image(rig)
    rig.camera.arm(1)
    rig.clock.sleep_ms(200.0)
    rig.stage.move_um(40.0, 0.0, 1e4)
    assert same(rig.camera.pop(1.0).pixels.astype(float) - 100, expected)
    assert not same(image(rig), expected)


def test_drift_carries_the_specimen_on(small_rig: SmallRig) -> None:
    rig = bright(small_rig({"connections.world.drift_um_s": [2.0, -1.0]}))
    before = image(rig)
    rig.clock.sleep_ms(2000.0 - 100.5)  # from the middle of one exposure to the middle of the next, with readout
    after = image(rig)
    assert same(before[4:, :-8], after[:-4, 8:]), "8 pixels to the right and 4 up"


def test_drift_is_that_of_the_time_of_exposure(small_rig: SmallRig) -> None:
    """Fetched only after the specimen has drifted on."""
    rig = bright(small_rig({"connections.world.drift_um_s": [5.0, 0.0]}))
    rig.camera.configure(CameraMode(100.0, 1, FULL))
    rig.camera.arm(2)
    first = rig.camera.pop(1e4).pixels.astype(float) - 100
    rig.clock.sleep_ms(3000.0)
    second = rig.camera.pop(1.0).pixels.astype(float) - 100
    assert same(first[:, :-1], second[:, 1:])
    assert not same(first, image(rig))


# ---------------------------------------------------------------- focus


def test_defocus_blurs_either_way(small_rig: SmallRig) -> None:
    rig = bright(small_rig({"connections.world.specimen_z_um": 3.0}))
    assert rig.focus is not None
    contrast = {}
    for z_um in (0.0, 2.0, 3.0, 4.0, 6.0):
        rig.focus.move_um(z_um, 1e4)
        contrast[z_um] = image(rig).std()
    assert contrast[3.0] > 1.02 * contrast[2.0] > 1.05 * contrast[0.0]
    assert contrast[2.0] == pytest.approx(contrast[4.0], rel=0.02)
    assert contrast[0.0] == pytest.approx(contrast[6.0], rel=0.02)


def test_defocus_blurs_patterns_too(small_rig: SmallRig) -> None:
    """Also by so little that the blur's grid stays the same."""
    lens = {"kind": "gaussian", "sigma_um": 0.0, "defocus_slope": 0.0}
    layer = {"kind": "layer", "brightness": 1.0}
    rig = bright(small_rig({"connections.world.specimen": layer, "optics.emission": lens}))
    assert rig.focus is not None
    rig.dmd.load(np.broadcast_to(np.arange(128) // 2 % 2 == 0, (1, 96, 128)).copy())
    rig.dmd.show(0)
    rig.clock.sleep_ms(1.0)
    contrast = []
    for z_um in (0.0, 0.3, 0.35, 0.4, 2.0):
        rig.focus.move_um(z_um, 1e4)
        contrast.append(image(rig).mean(axis=0).std())
    assert all(1.005 * later < sooner for sooner, later in pairwise(contrast))


def test_focus_drifts(small_rig: SmallRig) -> None:
    rig = bright(small_rig({"connections.world.focus_drift_um_s": 1.0}))
    assert rig.focus is not None
    sharp = image(rig).std()
    rig.clock.sleep_ms(4000.0)
    assert image(rig).std() < 0.95 * sharp
    rig.focus.move_um(rig.clock.now_ms() * 1e-3, 1e4)
    assert image(rig).std() == pytest.approx(sharp, rel=0.02)


def test_far_from_focus_there_is_a_haze(small_rig: SmallRig) -> None:
    """500 µm away neither memory nor time run out."""
    airy = {"kind": "airy", "na": 0.75, "wavelength_nm": 500}
    rig = bright(small_rig({"optics.emission": airy, "optics.excitation": airy}))
    assert rig.focus is not None
    sharp = image(rig)
    rig.focus.move_um(500.0, 1e4)
    hazy = image(rig)
    assert hazy.std() / hazy.mean() < 0.3 * sharp.std() / sharp.mean()


# ---------------------------------------------------------------- limits and time


def test_limits(small_rig: SmallRig) -> None:
    rig = small_rig({"devices.stage.x_um": [-10.0, 20.0], "devices.focus.z_um": [-3.0, 4.0]})
    assert rig.stage is not None
    assert rig.focus is not None
    assert rig.stage.limits_um == ((-10.0, 20.0), (-35_000.0, 35_000.0))
    assert rig.focus.limits_um == (-3.0, 4.0)
    rig.stage.move_um(20.0, 35_000.0, 1e5)
    rig.focus.move_um(-3.0, 1e5)
    for x, y, message in [
        (20.1, 0.0, "x must be -10 to 20 µm, given 20.1"),
        (0.0, -35_001.0, "y must be -35000 to 35000 µm, given -35001"),
        (float("nan"), 0.0, "x must be -10 to 20 µm, given nan"),
    ]:
        with pytest.raises(DeviceError, match=f"stage: {message}"):
            rig.stage.move_um(x, y, 1e5)
    with pytest.raises(DeviceError, match=r"focus: z must be -3 to 4 µm, given 4\.1"):
        rig.focus.move_um(4.1, 1e5)
    assert rig.stage.position_um() == (20.0, 35_000.0)
    assert rig.focus.position_um() == -3.0


@pytest.mark.parametrize("limits", [[5.0, -5.0], [3.0, 3.0]])
def test_limits_the_wrong_way_round_are_refused(rig_yaml: Callable[..., Path], limits: list[float]) -> None:
    with pytest.raises(InputError) as caught:
        load_rig(rig_yaml({"devices.stage.y_um": limits, "devices.focus.z_um": limits}))
    assert [problem.what for problem in caught.value.problems] == [
        "should be (lowest, highest) with lowest below highest"
    ] * 2


def test_moves_take_the_time_that_was_told(small_rig: SmallRig) -> None:
    rig = small_rig({"devices.stage.speed_um_ms": 4.0, "devices.stage.start_ms": 10.0})
    assert rig.stage is not None
    assert rig.focus is not None
    assert rig.stage.travel_ms(50.0) == 22.5
    assert rig.stage.travel_ms(0.0) == 0.0
    before_ms = rig.clock.now_ms()
    rig.stage.move_um(30.0, -40.0, 1e4)
    assert rig.clock.now_ms() - before_ms == 22.5
    rig.stage.move_um(30.0, -40.0, 1e4)
    assert rig.clock.now_ms() - before_ms == 22.5
    rig.focus.move_um(7.0, 1e4)
    assert rig.clock.now_ms() - before_ms == 22.5 + rig.focus.travel_ms(7.0) == 22.5 + 12.0


def test_a_move_that_takes_too_long_times_out(small_rig: SmallRig) -> None:
    rig = small_rig({})
    moves = {
        "stage": lambda: rig.stage.move_um(1000.0, 0.0, 20.0),
        "focus": lambda: rig.focus.move_um(90.0, 20.0),
    }
    for axis, move in moves.items():
        before_ms = rig.clock.now_ms()
        with pytest.raises(DeviceTimeout, match=f"{axis}: still busy after 20 ms"):
            move()
        assert rig.clock.now_ms() - before_ms == pytest.approx(20.0)


def test_backlash(small_rig: SmallRig) -> None:
    """From above it stops short, by the slack; what it says of itself is where it was sent."""
    rig = bright(small_rig({"devices.stage.backlash_um": 4.0}))
    assert rig.stage is not None
    rig.stage.move_um(-20.0, 0.0, 1e4)
    rig.stage.move_um(0.0, 0.0, 1e4)
    from_below = image(rig)
    rig.stage.move_um(20.0, 0.0, 1e4)
    rig.stage.move_um(0.0, 0.0, 1e4)
    assert rig.stage.position_um() == (0.0, 0.0)
    from_above = image(rig)
    assert not same(from_above, from_below)
    rig.stage.move_um(-20.0, 0.0, 1e4)
    rig.stage.move_um(4.0, 0.0, 1e4)
    assert same(image(rig), from_above)
