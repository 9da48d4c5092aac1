"""What a camera is told, what it must have done, and which frames are frames."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from fakecore import FakeCore
from told import CAMERA, MODE, Make

from dmu_hw.drivers.micromanager import Camera
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.ports import CameraMode, Roi, Turning

pytest.importorskip("pymmcore", reason="the extra micromanager is not installed")


def test_a_camera_is_told_all_that_a_mode_says(make: Make, core: FakeCore) -> None:
    camera = make(Camera, "camera", CAMERA)
    camera.configure(CameraMode(5.0, 2, Roi(8, 4, 16, 12), interval_ms=8.5))
    assert (core.roi, core.exposure) == ([4, 2, 8, 6], 5.0)
    properties = core.devices["Cam"].properties
    assert (properties["Binning"], properties["Trigger"], properties["Interval"]) == ("2", "Internal", "8.5")
    camera.configure(CameraMode(5.0, 1, Roi(0, 0, 48, 32), "external"))
    assert (core.roi, properties["Binning"], properties["Trigger"]) == ([0, 0, 48, 32], "1", "External")
    camera.arm(7)
    assert core.names("startSequenceAcquisition") == [("startSequenceAcquisition", "Cam", 7, 0.0, True)]


@pytest.mark.parametrize(("unit", "text"), [("ms", "8.0"), ("us", "8000.0"), ("s", "0.008"), ("Hz", "125.0")])
def test_units_of_an_interval(make: Make, core: FakeCore, unit: str, text: str) -> None:
    camera = make(Camera, "camera", CAMERA, interval={"property": "Interval", "unit": unit})
    camera.configure(CameraMode(5.0, 1, MODE.roi, interval_ms=8.0))
    assert core.devices["Cam"].properties["Interval"] == text


def test_numbers_of_frames_are_the_cameras_own(make: Make, core: FakeCore) -> None:
    camera = make(Camera, "camera", CAMERA, number_tag="FrameNr", first_number=1)
    camera.configure(MODE)
    camera.arm(4)
    for number in (1, 2, 4):
        core.frame(number, FrameNr=str(number))
    assert [camera.pop(50.0).number for _ in range(3)] == [0, 1, 3]
    core.frame(5)
    with pytest.raises(DeviceError, match="camera: Micro-Manager's 'Cam': frames have no usable tag 'FrameNr'"):
        camera.pop(50.0)


def test_pixels_of_eight_bits_become_sixteen(make: Make, core: FakeCore) -> None:
    core.dtype = np.uint8
    camera = make(Camera, "camera", CAMERA, bytes_per_pixel=1)
    camera.configure(MODE)
    camera.arm(1)
    core.frame(41)
    pixels = camera.pop(50.0).pixels
    assert pixels.dtype == np.uint16
    assert (pixels == 42).all()
    assert camera.buffer_frames == 2**20 // (32 * 48)


@pytest.mark.parametrize(
    ("pix", "why"),
    [
        (np.zeros((12, 16, 3), np.uint8), r"gave pixels uint8 \(12, 16, 3\): set PixelType"),
        (np.zeros((12, 16), np.float32), "gave pixels float32"),
        (np.zeros((12, 16), np.uint32), "gave pixels uint32"),
        (np.zeros((16, 12), np.uint16), r"gave a frame of \(16, 12\) pixels, asked for were \(12, 16\)"),
        (np.zeros(5, np.uint16), "gave 5 pixels, and tags that do not fit them"),
    ],
)
def test_frames_that_are_not_what_was_promised(make: Make, core: FakeCore, pix: Any, why: str) -> None:
    camera = make(Camera, "camera", CAMERA)
    camera.configure(MODE)
    camera.arm(1)
    core.frame(0)
    core.given[0].pix = pix
    with pytest.raises(DeviceError, match=f"^camera: Micro-Manager's 'Cam': {why}"):
        camera.pop(50.0)


def test_a_full_buffer_is_an_error(make: Make, core: FakeCore) -> None:
    camera = make(Camera, "camera", CAMERA)
    camera.configure(MODE)
    core.room = 3
    camera.arm(10)
    core.frame(0)
    core.overflowed = True
    with pytest.raises(DeviceError, match="buffer of 3 frames overflowed") as caught:
        camera.pop(50.0)
    assert not isinstance(caught.value, DeviceTimeout)


def test_a_frame_that_may_have_been_written_over_is_none(make: Make, core: FakeCore) -> None:
    """MMCore frees the place of a frame before it is copied: once the buffer is full, nobody knows what was copied."""
    camera = make(Camera, "camera", CAMERA)
    camera.configure(MODE)
    core.room = 3
    for frames, refused in ((3, False), (4, True)):
        camera.arm(frames)
        for number in range(3):
            core.frame(number)
        if refused:
            with pytest.raises(DeviceError, match="overflowed"):
                camera.pop(50.0)
        else:
            assert camera.pop(50.0).number == 0


def test_a_camera_that_gives_nothing(make: Make, core: FakeCore) -> None:
    camera = make(Camera, "camera", CAMERA)
    with pytest.raises(DeviceError, match="camera: was not configured"):
        camera.pop(1.0)
    camera.configure(MODE)
    camera.arm(1)
    core.calls.clear()
    began_s, busy_s = time.monotonic(), time.process_time()
    with pytest.raises(DeviceTimeout, match="camera: gave no frame within 200 ms"):
        camera.pop(200.0)
    assert 0.2 <= time.monotonic() - began_s < 5.0
    assert time.process_time() - busy_s < 0.12, "it sleeps while it waits"
    assert {call[0] for call in core.calls} == {"getRemainingImageCount", "isBufferOverflowed"}, "no device is asked"


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (CameraMode(5.0, 4, MODE.roi), r"binning must be one of \(1, 2\), given 4"),
        (CameraMode(5.0, 1, Roi(40, 0, 16, 12)), "does not fit the sensor of 32x48 pixels"),
        (CameraMode(5.0, 2, Roi(1, 0, 16, 12)), "is not a multiple of the binning 2"),
        (CameraMode(5.0, 1, Roi(0, 0, 0, 12)), "is not a multiple of the binning 1"),
        (CameraMode(0.0, 1, MODE.roi), "exposure must be 0.01 to 10000.0 ms, given 0.0"),
    ],
)
def test_modes_that_are_refused(make: Make, core: FakeCore, mode: CameraMode, why: str) -> None:
    camera = make(Camera, "camera", CAMERA)
    with pytest.raises(DeviceError, match=why):
        camera.configure(mode)
    assert not core.names("setExposure", "setROI", "setProperty"), "nothing was told"
    with pytest.raises(DeviceError, match="was not configured"):
        camera.arm(1)


def test_a_camera_that_does_otherwise_than_it_was_told(make: Make, core: FakeCore) -> None:
    camera = make(Camera, "camera", CAMERA)
    core.devices["Cam"].stuck = True
    with pytest.raises(DeviceError, match="exposes 10 ms where it was told 5 ms"):
        camera.configure(MODE)
    with pytest.raises(DeviceError, match="property 'Binning' was set to '2' and is '1'; allowed: 1, 2, 4"):
        camera.configure(CameraMode(10.0, 2, MODE.roi))
    core.devices["Cam"].stuck = False
    core.keeps_roi = True
    with pytest.raises(DeviceError, match=r"takes the window .* \(0, 0, 48, 32\) .* where \(8, 4, 16, 12\) was asked"):
        camera.configure(MODE)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"sensor_shape": (48, 32)}, r"has \(32, 48\) pixels, the rig says sensor_shape: \(48, 32\)"),
        ({"bytes_per_pixel": 1}, "gives 2 bytes and 1 colours a pixel, the rig says 1 and 1"),
        ({"binnings": (1, 8)}, "cannot bin by 8; it can by 1, 2, 4"),
        ({"properties": {"TransposeMirrorX": 1}}, "property 'TransposeMirrorX' is '1': it turns what Micro-Manager's"),
    ],
)
def test_a_chip_is_what_the_rig_says_or_refused(make: Make, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(DeviceError, match=why):
        make(Camera, "camera", CAMERA, **changes)


@pytest.mark.parametrize(
    ("value", "flip_x", "fits"), [("0", False, True), ("1", True, True), ("1", False, False), ("0", True, False)]
)
def test_frames_that_the_camera_turns(make: Make, core: FakeCore, value: str, flip_x: bool, fits: bool) -> None:
    core.devices["Cam"].properties["ReverseX"] = value
    if fits:
        camera = make(Camera, "camera", CAMERA, flip_x=flip_x)
        assert isinstance(camera, Turning)
        assert camera.flips == (flip_x, False)
    else:
        with pytest.raises(DeviceError, match=f"property 'ReverseX' is '{value}', and the rig says flip_x: "):
            make(Camera, "camera", CAMERA, flip_x=flip_x)


def test_a_live_view_is_not_ended_behind_somebodys_back(make: Make, core: FakeCore) -> None:
    core.running = True
    with pytest.raises(DeviceError, match="is taking frames for somebody else: stop the live view first"):
        make(Camera, "camera", CAMERA)
    assert core.running


def test_mirrors_need_time_that_the_camera_does_not_give(make: Make) -> None:
    camera = make(Camera, "camera", CAMERA, interval=None, pause_ms=2.0)
    camera.configure(CameraMode(5.0, 1, MODE.roi, interval_ms=7.0))
    camera.arm(3)
    camera.configure(CameraMode(5.0, 1, MODE.roi, interval_ms=7.5))
    camera.arm(1)
    with pytest.raises(DeviceError, match=r"leaves 2 ms between exposures where 2.5 ms are needed"):
        camera.arm(3)
