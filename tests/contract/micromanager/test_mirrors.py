"""Which calls mirrors get from bursts, and what is loaded when."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fakecore import FakeCore
from told import CAMERA, DMD, FRAMES, Make

from dmu_hw.drivers.micromanager import Camera, Dmd
from dmu_hw.errors import DeviceError
from dmu_hw.ports import Preparing, Stepping


def as_bytes(*frames: int | None, on: int = 255) -> list[bytes]:
    """What the device is to get of frames; None is the dark one."""
    dark = np.zeros((6, 8), dtype=bool)
    return [((dark if index is None else FRAMES[index]) * np.uint8(on)).tobytes() for index in frames]


def test_a_sequence_is_loaded_once_and_ends_dark(make: Make, core: FakeCore) -> None:
    dmd = make(Dmd, "dmd", DMD)
    dmd.load(FRAMES)
    core.calls.clear()
    for _ in range(4):
        dmd.start((0, 1, 4), None)
        dmd.stop()
    assert len(core.names("loadSLMSequence")) == 1
    assert core.sequence == as_bytes(0, 1, 4, None)
    assert not core.names("setSLMImage"), "the dark picture is there already"
    assert set(core.pictures[-4:]) == set(as_bytes(None))
    assert {call[1] for call in core.calls if call[0] != "getShutterOpen"} == {"Mirrors"}, "the label is always told"
    dmd.start((1, 0), None)
    assert core.sequence == as_bytes(1, 0, None)
    dmd.load(~FRAMES)
    dmd.start((1, 0), None)
    assert core.sequence == [bytes(255 - value for value in one) for one in as_bytes(1, 0)] + as_bytes(None)


def test_only_calls_that_all_mirrors_understand(make: Make, core: FakeCore) -> None:
    dmd = make(Dmd, "dmd", DMD)
    core.calls.clear()
    dmd.load(FRAMES)
    dmd.start((0, 1), 20.0)
    dmd.stop()
    dmd.show(2)
    dmd.close()
    used = {call[0] for call in core.calls if "SLM" in call[0]}
    assert used == {"setSLMImage", "displaySLMImage", "loadSLMSequence", "startSLMSequence", "stopSLMSequence"}


def test_ready_beforehand_a_start_is_one_call(make: Make, core: FakeCore) -> None:
    dmd = make(Dmd, "dmd", DMD)
    assert isinstance(dmd, Preparing)
    dmd.load(FRAMES)
    dmd.prepare((2, 3), None)
    core.calls.clear()
    dmd.start((2, 3), None)
    assert [call[0] for call in core.calls] == ["startSLMSequence"]


def test_one_picture_between_bursts_leaves_the_sequence_where_it_is(make: Make, core: FakeCore) -> None:
    """As references and looks for drifts have it: the camera is given one pattern, twice told."""
    dmd = make(Dmd, "dmd", DMD)
    dmd.load(FRAMES)
    dmd.start((0, 1, 0), None)
    dmd.stop()
    core.calls.clear()
    dmd.prepare((4, 4), None)
    dmd.start((4, 4), None)
    assert core.pictures[-1] == as_bytes(4)[0]
    dmd.stop()
    dmd.start((0, 1, 0), None)
    assert not core.names("loadSLMSequence")
    dmd.stop()
    dmd.start((4,), 20.0)
    assert core.sequence == as_bytes(4, None), "pulses for the camera come from a sequence only"


def test_mirrors_that_lose_their_sequence_get_it_again(make: Make, core: FakeCore) -> None:
    dmd = make(Dmd, "dmd", DMD, keeps_sequence=False)
    dmd.load(FRAMES)
    for _ in range(3):
        dmd.start((0, 1), None)
        dmd.stop()
    assert len(core.names("loadSLMSequence")) == 3


def test_the_value_for_on_is_the_devices_own(make: Make, core: FakeCore) -> None:
    dmd = make(Dmd, "dmd", DMD, on=1)
    dmd.load(FRAMES)
    dmd.start((3,), 20.0)
    assert core.sequence == as_bytes(3, None, on=1)
    dmd.show(1)
    assert core.pictures[-1] == as_bytes(1, on=1)[0]


def test_properties_go_before_each_way_of_stepping_and_only_then(make: Make, core: FakeCore) -> None:
    dmd = make(Dmd, "dmd", DMD)
    dmd.load(FRAMES)

    def modes() -> list[str]:
        found = [call[3] for call in core.names("setProperty") if call[2] == "Mode"]
        core.calls.clear()
        return found

    dmd.start((0, 1), None)
    assert modes() == ["Camera"]
    dmd.stop()
    assert modes() == ["Live"]
    dmd.show(3)
    assert modes() == []
    dmd.start((0, 1), 7.5)
    assert [call[2:] for call in core.names("setProperty")] == [("Mode", "Itself"), ("Period", "7.5")]


@pytest.mark.parametrize(
    ("changes", "order", "period_ms", "why"),
    [
        ({}, (), None, "a sequence needs at least one frame"),
        ({}, (5,), None, "has no frame 5: 5 frames are loaded"),
        ({"memory_frames": 5}, (0, 1) * 4, None, "shows at most 6 frames in a sequence, given 8"),
        ({"settle_us": 3000.0}, (0, 1), 2.0, "steps at most every 3 ms, given 2 ms"),
        ({"trigger": {}}, (0, 1), None, "cannot be stepped by the camera: say trigger.camera"),
        ({"period": None}, (0, 1), 10.0, "cannot step by itself: say trigger.dmd and period"),
        ({"sequences": False}, (0, 1), None, "cannot be stepped by the camera: .*sequences: true"),
    ],
)
def test_sequences_that_are_refused(
    make: Make, core: FakeCore, changes: Any, order: Any, period_ms: Any, why: str
) -> None:
    dmd = make(Dmd, "dmd", DMD, **changes)
    dmd.load(FRAMES)
    with pytest.raises(DeviceError, match=f"^dmd: {why}"):
        dmd.start(order, period_ms)
    assert not core.names("startSLMSequence")


def test_mirrors_are_what_the_rig_says_or_refused(make: Make, core: FakeCore) -> None:
    core.longest = 20
    with pytest.raises(DeviceError, match="holds sequences of 20: memory_frames can be 18, given 64"):
        make(Dmd, "dmd", DMD)
    core.longest = 0
    with pytest.raises(DeviceError, match="cannot hold sequences: say sequences: false"):
        make(Dmd, "dmd", DMD)
    dmd = make(Dmd, "dmd", DMD, sequences=False)
    dmd.load(FRAMES)
    dmd.show(0)
    dmd.close()
    assert not core.names("stopSLMSequence")
    core.shape = (8, 6)
    with pytest.raises(DeviceError, match=r"has \(8, 6\) mirrors, optics.mirrors.shape is \(6, 8\)"):
        make(Dmd, "dmd", DMD)
    core.shape = (6, 8)


@pytest.mark.parametrize(
    "call", ["setSLMImage", "displaySLMImage", "loadSLMSequence", "startSLMSequence", "stopSLMSequence"]
)
def test_mirrors_that_fail_once_show_the_right_thing_afterwards(make: Make, core: FakeCore, call: str) -> None:
    dmd = make(Dmd, "dmd", DMD)
    dmd.load(FRAMES)

    def burst() -> None:
        dmd.start((0, 1), None)
        dmd.stop()
        dmd.show(2)

    core.failing = {call}
    with pytest.raises(DeviceError, match=f"^dmd: Micro-Manager's 'Mirrors': {call} failed: .*does not want to"):
        burst()
    core.failing = set()
    dmd.start((0, 1), None)
    assert core.sequence == as_bytes(0, 1, None)
    dmd.stop()
    assert core.pictures[-1] == as_bytes(None)[0]
    dmd.show(2)
    assert core.pictures[-1] == as_bytes(2)[0]


def test_who_may_set_the_pace(make: Make) -> None:
    def pace(told: dict[str, Any], **changes: Any) -> tuple[str, ...]:
        device = make(Dmd if told is DMD else Camera, "device", told, **changes)
        assert isinstance(device, Stepping)
        return device.steppings

    assert pace(DMD) == ("software", "camera", "dmd")
    assert pace(DMD, period=None) == ("software", "camera")
    assert pace(DMD, sequences=False) == ("software",)
    assert pace(DMD, trigger={"dmd": {}}) == ("software", "dmd")
    assert pace(CAMERA) == ("software", "camera", "dmd")
    assert pace(CAMERA, interval=None) == ("software", "dmd")
    assert pace(CAMERA, interval=None, pause_ms=2.0, trigger={}) == ("software", "camera")
