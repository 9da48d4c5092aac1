"""Each fault strikes once, at its occasion, in the way that its name says; from the rig YAML and from a test."""

from __future__ import annotations

import typing
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from colours import TWO_COLOURS

from dmu_hw.drivers.simulated.faults import Faults, Kind
from dmu_hw.errors import DeviceError, DeviceTimeout, InputError
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig, load_rig

SmallRig = Callable[..., Rig]
Injected = Callable[[str, int], Rig]
COUNT = 4
PERIOD_MS, EXPOSURE_MS = 20.0, 10.0
FULL = Roi(0, 0, 64, 64)
STEPPED = {"connections.world.specimen": {"kind": "layer", "brightness": 1.0}, "optics.mirrors.leakage": 0.0}


def test_a_fault_strikes_once_at_its_occasion() -> None:
    faults = Faults()
    faults.add("lost_trigger", at=2)
    assert [faults.strikes("lost_trigger") for _ in range(5)] == [False, False, True, False, False]
    faults.add("lost_trigger")
    faults.add("lost_trigger", at=2)
    assert not faults.strikes("stuck_busy"), "of its own kind only"
    assert [faults.strikes("lost_trigger") for _ in range(5)] == [True, False, True, False, False]


@pytest.fixture(params=["from the YAML", "by a test"])
def injected(small_rig: SmallRig, request: pytest.FixtureRequest) -> Injected:
    """A rig in which something will go wrong. Frame n of the DMD lights n + 1 quarters of what the camera sees."""

    def inject(kind: str, at: int) -> Rig:
        if request.param == "from the YAML":
            rig = small_rig({**STEPPED, "connections.world.faults": [{"kind": kind, "at": at}]})
        else:
            rig = small_rig(STEPPED)
            rig.connection("world").faults.add(kind, at)
        return rig

    return inject


def load(rig: Rig) -> None:
    quarter = (np.arange(128) - 32) // 16
    rig.dmd.load(np.stack([np.broadcast_to((quarter >= 0) & (quarter <= n), rig.dmd.shape) for n in range(COUNT)]))


def lit(rig: Rig) -> Rig:
    load(rig)
    rig.light.set_power(1.0)
    rig.light.on()
    return rig


def seen(pixels: np.ndarray) -> int:
    """Which frame of the DMD it was."""
    full_adu = 100 * 0.25 * 0.8 * 0.5 * EXPOSURE_MS
    return round(4 * (float(pixels.mean()) - 100) / full_adu) - 1


def run(rig: Rig) -> list[tuple[int, int, int]]:
    """A hardware sequence of all frames: camera's number, frame that was seen, step at which it was seen."""
    rig.camera.configure(CameraMode(EXPOSURE_MS, 1, FULL, "external"))
    rig.camera.arm(COUNT)
    begin_ms = rig.clock.now_ms()
    rig.dmd.start(tuple(range(COUNT)), PERIOD_MS)
    taken = []
    for _ in range(COUNT):
        try:
            frame = rig.camera.pop(2 * PERIOD_MS)
        except DeviceTimeout:
            break
        taken.append((frame.number, seen(frame.pixels), int((frame.time_ms - begin_ms) // PERIOD_MS)))
    return taken


WELL = [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_without_a_fault_all_is_well(small_rig: SmallRig) -> None:
    assert run(lit(small_rig(STEPPED))) == WELL


def test_a_dropped_frame_leaves_a_gap_in_the_numbers(injected: Injected) -> None:
    rig = lit(injected("dropped_frame", 1))
    assert run(rig) == [(0, 0, 0), (2, 2, 2), (3, 3, 3)]
    assert run(rig) == WELL


def test_a_repeated_frame_shows_the_one_before(injected: Injected) -> None:
    rig = lit(injected("repeated_frame", 2))
    assert run(rig) == [(0, 0, 0), (1, 1, 1), (2, 1, 2), (3, 3, 3)]
    assert run(rig) == WELL


def test_a_shifted_sequence_begins_with_the_second_pattern(injected: Injected) -> None:
    rig = lit(injected("shifted_sequence", 1))
    assert run(rig) == WELL
    assert run(rig) == [(0, 1, 0), (1, 2, 1), (2, 3, 2), (3, 0, 3)]
    assert rig.dmd.shown() == (1, 2, 3, 0)
    assert run(rig) == WELL


def test_swapped_patterns_are_told(injected: Injected) -> None:
    rig = lit(injected("swapped_patterns", 1))
    assert run(rig) == WELL
    assert [shown for _, shown, _ in run(rig)] == [1, 0, 2, 3]
    assert rig.dmd.shown() == (1, 0, 2, 3)
    assert run(rig) == WELL


def test_a_repeated_pattern_is_told(injected: Injected) -> None:
    rig = lit(injected("repeated_pattern", 1))
    assert run(rig) == WELL
    assert [shown for _, shown, _ in run(rig)] == [0, 0, 2, 3]
    assert rig.dmd.shown() == (0, 0, 2, 3)
    assert run(rig) == WELL


def test_a_dark_pattern_is_not_told(injected: Injected) -> None:
    rig = lit(injected("dark_pattern", 1))
    assert run(rig) == WELL
    assert [shown for _, shown, _ in run(rig)] == [0, -1, 2, 3]
    assert rig.dmd.shown() == (0, 1, 2, 3)
    assert run(rig) == WELL


def test_stale_memory_shows_what_was_there_before(injected: Injected) -> None:
    rig = lit(injected("stale_memory", 1))
    assert run(rig) == WELL
    rig.dmd.load(np.zeros((COUNT, *rig.dmd.shape), dtype=bool))
    assert [shown for _, shown, _ in run(rig)] == [0, 1, 2, 3]
    assert [shown for _, shown, _ in run(rig)] == [-1] * COUNT


def test_a_lost_trigger_leaves_the_camera_one_behind(injected: Injected) -> None:
    rig = lit(injected("lost_trigger", 1))
    assert run(rig) == [(0, 0, 0), (1, 2, 2), (2, 3, 3)]
    assert run(rig) == WELL


def test_a_trigger_lost_to_the_dmd_keeps_it_on_its_pattern(injected: Injected) -> None:
    rig = lit(injected("lost_trigger", 1))
    rig.camera.configure(CameraMode(EXPOSURE_MS, 1, FULL, interval_ms=PERIOD_MS))
    rig.dmd.start(tuple(range(COUNT)), None)
    rig.camera.arm(COUNT)
    frames = [rig.camera.pop(2 * PERIOD_MS).pixels.copy() for _ in range(COUNT)]
    assert [seen(frame) for frame in frames] == [0, 1, 1, 2]


def test_a_dead_camera_stays_dead_until_opened_anew(injected: Injected) -> None:
    rig = lit(injected("camera_death", 2))
    mode = CameraMode(EXPOSURE_MS, 1, FULL)
    rig.camera.configure(mode)
    rig.camera.arm(COUNT)
    for _ in range(2):
        rig.camera.pop(100.0)
    for action in (
        lambda: rig.camera.pop(100.0),
        lambda: rig.camera.pop(100.0),
        lambda: rig.camera.arm(1),
        lambda: rig.camera.configure(mode),
    ):
        with pytest.raises(DeviceError, match="camera: does not answer any more"):
            action()
    rig.camera.disarm()
    rig.close()
    rig.open()
    assert run(lit(rig)) == WELL


def test_a_refused_upload_leaves_no_patterns(injected: Injected) -> None:
    rig = injected("refused_upload", 1)
    load(rig)
    rig.dmd.show(0)
    with pytest.raises(DeviceError, match="dmd: refused the upload of 4 frames"):
        load(rig)
    with pytest.raises(DeviceError, match="dmd: has no frame 0: 0 frames are loaded"):
        rig.dmd.start((0,), PERIOD_MS)
    assert run(lit(rig)) == WELL


def test_a_buffer_overflow_ends_the_series(injected: Injected) -> None:
    rig = lit(injected("buffer_overflow", 2))
    rig.camera.configure(CameraMode(EXPOSURE_MS, 1, FULL))
    rig.camera.arm(COUNT)
    assert [rig.camera.pop(100.0).number for _ in range(2)] == [0, 1]
    with pytest.raises(DeviceError, match="camera: buffer of 64 frames overflowed"):
        rig.camera.pop(100.0)
    with pytest.raises(DeviceTimeout):
        rig.camera.pop(100.0)
    assert run(rig) == WELL


@pytest.mark.parametrize("axis", ["stage", "focus"])
def test_a_stuck_busy_flag_is_a_move_that_does_not_arrive(injected: Injected, axis: str) -> None:
    rig = injected("stuck_busy", 1)
    assert rig.stage is not None
    assert rig.focus is not None
    stage, focus = rig.stage, rig.focus
    move: Callable[[float], None] = (
        (lambda x: stage.move_um(x, 0.0, 500.0)) if axis == "stage" else (lambda z: focus.move_um(z, 500.0))
    )
    move(10.0)
    before_ms = rig.clock.now_ms()
    with pytest.raises(DeviceTimeout, match=f"{axis}: still busy after 500 ms"):
        move(20.0)
    assert rig.clock.now_ms() - before_ms == 500.0
    move(20.0)
    assert (stage.position_um()[0] if axis == "stage" else focus.position_um()) == 20.0


def test_an_open_interlock_forbids_light(injected: Injected) -> None:
    rig = injected("interlock_open", 1)
    rig.light.on()
    rig.light.off()
    assert rig.light.interlock_closed()
    with pytest.raises(DeviceError, match="light: interlock is open"):
        rig.light.on()
    assert not rig.light.interlock_closed()
    assert not rig.light.is_on()


COLOURED = {key: value for key, value in TWO_COLOURS.items() if key.startswith(("devices", "channels"))}


def coloured(small_rig: SmallRig, kind: str, at: int, by: int = 1) -> Rig:
    """With a wheel and a shutter; any light shows what there is."""
    return small_rig({**COLOURED, "connections.world.faults": [{"kind": kind, "at": at, "by": by}]})


def test_a_stuck_filter_does_not_arrive_and_does_later(small_rig: SmallRig) -> None:
    wheel = coloured(small_rig, "stuck_filter", 1).filters["filter"]
    wheel.select("RFP", 1000.0)
    with pytest.raises(DeviceTimeout, match="filter: did not arrive at 'GFP' within 1000 ms"):
        wheel.select("GFP", 1000.0)
    with pytest.raises(DeviceError, match="between"):
        wheel.selected()
    wheel.select("GFP", 1000.0)
    assert wheel.selected() == "GFP"


def test_a_wrong_filter_is_told_by_the_wheel(small_rig: SmallRig) -> None:
    wheel = coloured(small_rig, "wrong_filter", 1, by=2).filters["filter"]
    wheel.select("RFP", 1000.0)
    wheel.select("none", 1000.0)
    assert wheel.selected() == "RFP"
    wheel.select("none", 1000.0)
    assert wheel.selected() == "none"


def test_a_stuck_shutter_stays_as_it_is_once(small_rig: SmallRig) -> None:
    shutter = coloured(small_rig, "stuck_shutter", 1).shutter
    assert shutter is not None
    shutter.set_open(True)
    shutter.set_open(False)
    assert shutter.is_open()
    shutter.set_open(False)
    assert not shutter.is_open()


def test_every_kind_has_a_test() -> None:
    source = Path(__file__).read_text()
    makers = "injected(", "coloured(small_rig, "
    tested = [kind for kind in typing.get_args(Kind) if any(f'{maker}"{kind}"' in source for maker in makers)]
    assert tested == list(typing.get_args(Kind))


def test_a_fault_that_does_not_exist_is_refused(rig_yaml: Callable[..., Path]) -> None:
    path = rig_yaml({"connections.world.faults": [{"kind": "droped_frame"}, {"kind": "stuck_busy", "at": -1}]})
    with pytest.raises(InputError) as caught:
        load_rig(path)
    first, second = map(str, caught.value.problems)
    assert "connections.world.faults.0.kind: should be 'dropped_frame'" in first
    assert "connections.world.faults.1.at: should be greater than or equal to 0, given -1" in second
