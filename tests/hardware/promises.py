"""What ports promise, as functions that hold a rig against it: one a promise, each raises AssertionError where it is
not kept. They know nothing but the ports, and are as careful as a stranger's instrument demands: no more light than
`bench.power_mw`, moves of a few micrometres, nothing beyond the limits of the rig.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest

from dmu_hw.burst import BurstTaker
from dmu_hw.data import PatternStack
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.guard import Guard
from dmu_hw.plan import Shot, Take
from dmu_hw.ports import PORTS, SEVERAL, CameraMode, Device, RawFrame, Roi, role_of
from dmu_hw.rig import Rig

OFF_S = 0.5
"""An OFF must read back within this time."""
LATE_S = 5.0
"""A computer that is busy may be late with calling a light off."""
SLACK_MS = 1000.0
STAGE_UM, FOCUS_UM = 20.0, 1.0
FRAMES = 6
CYCLES = 3
"""Of opening and closing."""
LEAST_ADU = 3.0
"""Less than that, as a mean of a frame, is not told from nothing."""
BRIGHT = "put something bright in the field, or allow more by DMU_POWER_MW"


@dataclass(frozen=True)
class Bench:
    """A rig under test, not opened."""

    rig: Rig
    power_mw: float
    """For all that lights."""

    def mode(self, exposure_ms: float = 5.0, binning: int = 1, **changes: Any) -> CameraMode:
        """A window in the middle of the chip, whole at any binning."""
        rows, columns = self.rig.camera.sensor_shape
        side = max(1, min(rows, columns) // 2 // max(self.rig.camera.binnings)) * max(self.rig.camera.binnings)
        roi = Roi((columns - side) // 2, (rows - side) // 2, side, side)
        exposure_ms = min(exposure_ms, self.rig.settings.limits.exposure_ms)
        return CameraMode(exposure_ms, binning, roi, **changes)

    def period_ms(self, mode: CameraMode) -> float:
        return self.rig.settle_ms + mode.exposure_ms + self.rig.readout_ms(mode) + 1.0

    def frames(self, count: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Alternately all mirrors on, and all off."""
        on = np.arange(count) % 2 == 0
        return np.broadcast_to(on[:, None, None], (count, *self.rig.dmd.shape)).copy()

    @property
    def devices(self) -> dict[str, Device]:
        one_each = {role: getattr(self.rig, role) for role in PORTS if role not in SEVERAL}
        found = {**one_each, **self.rig.lights, **self.rig.filters}
        return {name: device for name, device in found.items() if device is not None}


@dataclass(frozen=True)
class Promise:
    """What is asked of a rig, and whether it takes light."""

    keep: Callable[[Bench], None]
    lights: bool


PROMISES: dict[str, Promise] = {}


def promise(*, lights: bool = False) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    def enter(keep: Callable[[Bench], None]) -> Callable[[Bench], None]:
        PROMISES[keep.__name__.replace("_", " ")] = Promise(keep, lights)
        return keep

    return enter


def needs(device: object, what: str) -> None:
    if device is None:
        pytest.skip(f"the rig has no {what}")


def refused(bench: Bench, device: str, ask: Callable[[], object], error: type[DeviceError] = DeviceError) -> None:
    """A DeviceError that names the device, and nothing else."""
    caught: DeviceError | None = None
    try:
        ask()
    except error as found:
        caught = found
    assert caught is not None, f"{device} did not raise {error.__name__}"
    assert caught.device == device, f"{device} calls itself {caught.device!r} in: {caught}"


# ---------------------------------------------------------------- opening and closing


@promise()
def devices_keep_the_methods_of_their_ports(bench: Bench) -> None:
    for name, device in bench.devices.items():
        assert isinstance(device, PORTS[str(role_of(name))]), name


@promise()
def planning_needs_no_open_device(bench: Bench) -> None:
    """And what it was told before holds afterwards."""
    rig = bench.rig

    def numbers() -> list[object]:
        mode = bench.mode()
        found: list[object] = [rig.dmd.shape, rig.dmd.memory_frames, rig.dmd.settle_ms, rig.dmd.upload_ms(4)]
        found += [rig.camera.sensor_shape, tuple(rig.camera.binnings), rig.camera.buffer_frames]
        found += [rig.camera.readout_ms(mode)]
        found += [(light.max_power_mw, light.watchdog_ms) for light in rig.lights.values()]
        found += [tuple(wheel.positions) for wheel in rig.filters.values()]
        found += [device.limits_um for device in (rig.stage, rig.focus) if device is not None]
        return found

    before = numbers()
    assert rig.dmd.shape == rig.optics.mirrors.shape
    assert rig.dmd.memory_frames >= 1
    assert rig.dmd.upload_ms(4) >= rig.dmd.upload_ms(1) >= 0
    assert 1 in rig.camera.binnings
    assert rig.camera.buffer_frames >= 1
    assert all(light.max_power_mw > 0 for light in rig.lights.values())
    with rig.opened():
        assert numbers() == before, "what was told for planning is not what is so"


@promise()
def it_opens_and_closes_as_often_as_one_likes(bench: Bench) -> None:
    rig = bench.rig
    rig.close()
    for _ in range(CYCLES):
        rig.open()
        dark(bench)
        rig.close()
        rig.close()
        for device in bench.devices.values():
            device.close()
    with rig.opened():
        dark(bench)


def dark(bench: Bench) -> None:
    """As the devices tell."""
    for name, light in bench.rig.lights.items():
        assert not light.is_on(), f"{name} is on"
    if bench.rig.shutter is not None:
        assert not bench.rig.shutter.is_open(), "the shutter is open"


# ---------------------------------------------------------------- light


@promise()
def light_is_off_when_opened(bench: Bench) -> None:
    with bench.rig.opened():
        dark(bench)


@promise()
def light_of_more_power_than_there_is_is_refused(bench: Bench) -> None:
    with bench.rig.opened():
        for name, light in bench.rig.lights.items():
            refused(bench, name, partial(light.set_power, 1.01 * light.max_power_mw))
            refused(bench, name, partial(light.set_power, -1.0))
            assert not light.is_on(), f"{name} went on by being told its power"


def went(light: Any, lit: bool, within_s: float = OFF_S) -> bool:
    """Whether it reads back so within the time that it has."""
    until_s = time.monotonic() + within_s
    while light.is_on() is not lit:
        if time.monotonic() > until_s:
            return False
        time.sleep(0.005)
    return True


@promise(lights=True)
def light_goes_on_and_off_and_says_so(bench: Bench) -> None:
    rig = bench.rig
    with rig.opened():
        for name, light in rig.lights.items():
            assert light.interlock_closed(), f"the interlock of {name} is open: nothing can be tested"
            for _ in range(2):
                light.set_power(bench.power_mw)
                light.on(SLACK_MS)
                assert went(light, True), f"{name} does not go on, or does not say so"
                others = [other for other in rig.lights if other != name and rig.lights[other].is_on()]
                assert not others, f"with {name} went on {', '.join(others)}"
                light.off()
                assert went(light, False), f"{name} DOES NOT GO OFF: SWITCH IT OFF BY HAND"
            light.off()
            assert not light.is_on()


@promise(lights=True)
def light_that_was_left_on_is_off_when_closed_and_opened_again(bench: Bench) -> None:
    for name in bench.rig.lights:
        bench.rig.open()
        light = bench.rig.lights[name]
        light.set_power(bench.power_mw)
        light.on(SLACK_MS)
        bench.rig.close()
        bench.rig.open()
        lit = light.is_on()
        bench.rig.close()
        assert not lit, f"{name} was left on by close, or comes back on with open"


@promise(lights=True)
def light_is_off_when_its_longest_time_is_over(bench: Bench) -> None:
    """Whoever counts it."""
    with bench.rig.opened():
        for name, light in bench.rig.lights.items():
            guard = Guard(bench.rig)

            def hang(guard: Guard = guard, name: str = name) -> None:
                with guard.light_on(bench.power_mw, 100.0, name):
                    bench.rig.clock.sleep_ms(200.0)
                    assert went(bench.rig.lights[name], False, LATE_S), f"{name} is on for longer than it may be"

            refused(bench, name, hang)
            assert went(light, False), f"{name} is on after it was called off"


# ---------------------------------------------------------------- shutter, filters, stage, focus


@promise()
def shutter_opens_and_closes_and_says_so(bench: Bench) -> None:
    rig = bench.rig
    needs(rig.shutter, "shutter")
    assert rig.shutter is not None
    with rig.opened():
        assert not rig.shutter.is_open(), "it is open when it was opened as a device"
        rig.shutter.set_open(True)
        assert rig.shutter.is_open(), "it does not open, or does not say so"
        rig.shutter.block_light()
        assert not rig.shutter.is_open(), "it does not close when light must be blocked"
        rig.shutter.set_open(True)
    with rig.opened():
        assert not rig.shutter.is_open(), "it was left open by close"


@promise()
def filters_arrive_where_they_are_told_to(bench: Bench) -> None:
    needs(bench.rig.filters or None, "filter")
    with bench.rig.opened():
        for name, wheel in bench.rig.filters.items():
            began = wheel.selected()
            for position in (*wheel.positions, *reversed(wheel.positions), began):
                wheel.select(position, wheel.switch_ms(wheel.selected(), position) * 3 + SLACK_MS)
                assert wheel.selected() == position, f"{name} stands at {wheel.selected()}, not at {position}"
            refused(bench, name, partial(wheel.select, "no such position", SLACK_MS))


@promise()
def stage_goes_there_and_back_and_no_further(bench: Bench) -> None:
    stage = bench.rig.stage
    needs(stage, "stage")
    assert stage is not None
    with bench.rig.opened():
        began = stage.position_um()
        (left, right), (bottom, top) = stage.limits_um
        assert left <= began[0] <= right, "it stands beyond its limits"
        assert bottom <= began[1] <= top, "it stands beyond its limits"
        there = (_beside(began[0], STAGE_UM, (left, right)), _beside(began[1], STAGE_UM, (bottom, top)))
        for goal in (there, (there[0], began[1]), began):
            stage.move_um(*goal, 3 * stage.travel_ms(2 * STAGE_UM) + SLACK_MS)
            assert stage.position_um() == pytest.approx(goal, abs=1.0), f"it went to {stage.position_um()}, not {goal}"
        refused(bench, "stage", lambda: stage.move_um(right + 1, top, 1e6))
        refused(bench, "stage", lambda: stage.move_um(left, bottom - 1, 1e6))
        assert stage.position_um() == pytest.approx(began, abs=1.0), "it moved though it refused to"


@promise()
def focus_goes_there_and_back_and_no_further(bench: Bench) -> None:
    focus = bench.rig.focus
    needs(focus, "focus")
    assert focus is not None
    with bench.rig.opened():
        began = focus.position_um()
        assert focus.limits_um[0] <= began <= focus.limits_um[1], "it stands beyond its limits"
        for goal in (_beside(began, FOCUS_UM, focus.limits_um), began):
            focus.move_um(goal, 3 * focus.travel_ms(FOCUS_UM) + SLACK_MS)
            assert focus.position_um() == pytest.approx(goal, abs=0.1), f"it went to {focus.position_um()}, not {goal}"
        refused(bench, "focus", lambda: focus.move_um(focus.limits_um[1] + 1, 1e6))


def _beside(value: float, far: float, limits: tuple[float, float]) -> float:
    return value + far if value + far <= limits[1] else max(limits[0], value - far)


# ---------------------------------------------------------------- mirrors


@promise()
def mirrors_load_show_start_and_stop(bench: Bench) -> None:
    dmd, clock = bench.rig.dmd, bench.rig.clock
    with bench.rig.opened():
        for count in (2, 1, 4):
            dmd.load(bench.frames(count))
            for index in (0, count - 1, None):
                dmd.show(index)
        period_ms = max(20.0, 2 * bench.rig.settle_ms)
        dmd.start((0, 3, 1), period_ms)
        clock.sleep_ms(4 * period_ms)
        assert dmd.shown() in (None, (0, 3, 1)), f"it says that it has shown {dmd.shown()}"
        assert dmd.reads_back is (dmd.shown() is not None), "reads_back does not say what shown does"
        dmd.start((0, 1, 2, 3), 10 * period_ms)
        clock.sleep_ms(period_ms)
        dmd.stop()
        dmd.stop()
        dmd.show(0)
        dmd.show(None)


@promise()
def mirrors_refuse_what_cannot_be(bench: Bench) -> None:
    dmd = bench.rig.dmd
    with bench.rig.opened():
        dmd.load(bench.frames(2))
        refused(bench, "dmd", lambda: dmd.show(2))
        refused(bench, "dmd", lambda: dmd.start((), 100.0))
        refused(bench, "dmd", lambda: dmd.start((0, 2), 100.0))
        rows, columns = dmd.shape
        refused(bench, "dmd", lambda: dmd.load(np.ones((1, rows, columns + 1), dtype=bool)))
        refused(bench, "dmd", lambda: dmd.show(0))  # nobody images with the frames of before
        dmd.load(bench.frames(2))
        dmd.show(1)


# ---------------------------------------------------------------- camera


def popped(bench: Bench, count: int, each_ms: float) -> list[RawFrame]:
    """Copies: their pixels are the camera's own buffer."""
    found = []
    for _ in range(count):
        raw = bench.rig.camera.pop(each_ms + SLACK_MS)
        found.append(RawFrame(raw.pixels.copy(), raw.number, raw.time_ms))
    return found


def in_order(frames: list[RawFrame], mode: CameraMode) -> None:
    for frame in frames:
        assert frame.pixels.dtype == np.uint16, f"pixels are {frame.pixels.dtype}"
        assert frame.pixels.shape == mode.shape, f"a frame is {frame.pixels.shape}, not {mode.shape}"
    numbers = [frame.number for frame in frames]
    assert numbers == list(range(len(frames))), f"frames are numbered {numbers}"
    for before, after in itertools.pairwise(frames):
        assert after.time_ms > before.time_ms, "times of frames do not rise"
        same = np.array_equal(before.pixels, after.pixels) and np.ptp(after.pixels) > 0
        assert not same, f"frame {after.number} is frame {before.number} once more"


@promise()
def camera_gives_frames_of_the_shape_asked_for(bench: Bench) -> None:
    camera = bench.rig.camera
    with bench.rig.opened():
        for binning in camera.binnings:
            whole = bench.mode(binning=binning).roi
            if whole.width // binning < 1:
                continue
            half = Roi(whole.x, whole.y, whole.width, max(binning, whole.height // 2 // binning * binning))
            for roi in (whole, half):
                mode = CameraMode(2.0, binning, roi)
                camera.configure(mode)
                camera.arm(1)
                in_order(popped(bench, 1, bench.period_ms(mode)), mode)


@promise()
def camera_counts_its_frames_and_gives_each_once(bench: Bench) -> None:
    camera = bench.rig.camera
    with bench.rig.opened():
        mode = bench.mode() if bench.rig.settings.stepping == "dmd" else burst_mode(bench)
        camera.configure(mode)
        for _ in range(2):
            camera.arm(FRAMES)
            frames = popped(bench, FRAMES, bench.period_ms(mode) + mode.interval_ms)
            in_order(frames, mode)
            steps_ms = np.diff([frame.time_ms for frame in frames])
            assert np.median(steps_ms) >= 0.9 * max(mode.interval_ms, mode.exposure_ms), "frames came too fast"
            nothing_more(bench)
        camera.disarm()


def nothing_more(bench: Bench) -> None:
    refused(bench, "camera", lambda: bench.rig.camera.pop(30.0), DeviceTimeout)


@promise()
def camera_exposes_as_long_as_it_is_told(bench: Bench) -> None:
    """At least: as frames that come one after the other tell."""
    camera = bench.rig.camera
    with bench.rig.opened():
        for exposure_ms in (5.0, 40.0):
            mode = bench.mode(exposure_ms)
            camera.configure(mode)
            camera.arm(4)
            frames = popped(bench, 4, bench.period_ms(mode))
            steps_ms = np.diff([frame.time_ms for frame in frames])
            assert np.median(steps_ms) >= 0.9 * mode.exposure_ms, f"frames of {mode.exposure_ms:g} ms come too fast"


@promise()
def camera_refuses_what_it_cannot_do(bench: Bench) -> None:
    camera = bench.rig.camera
    rows, columns = camera.sensor_shape
    with bench.rig.opened():
        good = bench.mode()
        refused(bench, "camera", lambda: camera.configure(CameraMode(5.0, 1, Roi(0, 0, columns + 8, rows))))
        refused(bench, "camera", lambda: camera.configure(CameraMode(0.0, 1, good.roi)))
        refused(bench, "camera", lambda: camera.configure(CameraMode(5.0, max(camera.binnings) + 1, good.roi)))
        camera.configure(good)


@promise()
def camera_without_a_trigger_says_so_in_time(bench: Bench) -> None:
    """And is as good as before."""
    camera, clock = bench.rig.camera, bench.rig.clock
    if bench.rig.settings.stepping != "dmd":
        pytest.skip("nobody triggers the camera of this rig")
    with bench.rig.opened():
        camera.configure(bench.mode(trigger="external"))
        camera.arm(1)
        began_ms = clock.now_ms()
        refused(bench, "camera", lambda: camera.pop(100.0), DeviceTimeout)
        took_ms = clock.now_ms() - began_ms
        assert 50.0 <= took_ms <= 100.0 + SLACK_MS, f"100 ms of waiting took {took_ms:.0f} ms"
        camera.disarm()
        mode = bench.mode()
        camera.configure(mode)
        camera.arm(1)
        in_order(popped(bench, 1, bench.period_ms(mode)), mode)


# ---------------------------------------------------------------- mirrors and camera together


@contextmanager
def burst_of(bench: Bench, order: tuple[int, ...], mode: CameraMode) -> Iterator[list[RawFrame]]:
    """Frames of a burst, stepped as the rig steps."""
    rig, count = bench.rig, len(order)
    period_ms, found = bench.period_ms(mode), []
    rig.camera.configure(mode)
    if rig.settings.stepping == "software":
        for index in order:
            rig.dmd.show(index)
            rig.clock.sleep_ms(rig.settle_ms)
            rig.camera.arm(1)
            raw = popped(bench, 1, period_ms)[0]
            assert raw.number == 0
            found.append(RawFrame(raw.pixels, len(found), raw.time_ms))
    elif rig.settings.stepping == "dmd":
        rig.camera.arm(count)
        rig.dmd.start(order, period_ms)
        found = popped(bench, count, period_ms)
    else:
        rig.dmd.start((*order, order[0]), None)
        rig.clock.sleep_ms(rig.settle_ms)
        rig.camera.arm(count)
        found = popped(bench, count, period_ms)
    try:
        yield found
    finally:
        rig.dmd.stop()
        rig.camera.disarm()


def burst_mode(bench: Bench) -> CameraMode:
    if bench.rig.settings.stepping == "dmd":
        return bench.mode(trigger="external")
    interval_ms = bench.period_ms(bench.mode()) if bench.rig.settings.stepping == "camera" else 0.0
    return bench.mode(interval_ms=interval_ms)


@promise()
def a_burst_has_as_many_frames_as_patterns_in_order_and_in_time(bench: Bench) -> None:
    """In the dark. Twice, with another order: nothing is left of the burst before."""
    with bench.rig.opened():
        bench.rig.dmd.load(bench.frames(FRAMES))
        mode = burst_mode(bench)
        for order in (tuple(range(FRAMES)), (3, 1, 0)):
            began_ms = bench.rig.clock.now_ms()
            with burst_of(bench, order, mode) as frames:
                in_order(frames, mode)
                nothing_more(bench)
                times_ms = np.array([frame.time_ms for frame in frames])
                assert times_ms[0] >= began_ms - mode.exposure_ms, "the first frame is older than its burst"
                if mode.trigger == "external":
                    late_ms = times_ms - times_ms[0] - np.arange(len(order)) * bench.period_ms(mode)
                    assert np.abs(late_ms).max() < bench.period_ms(mode) / 2, "a frame came off its time"
                shown = bench.rig.dmd.shown()
                asked = (order, (*order, order[0])) if bench.rig.settings.stepping == "camera" else (order,)
                by_itself = bench.rig.settings.stepping == "software"
                assert by_itself or shown is None or shown in asked, f"the mirrors have shown {shown}, not {order}"


@promise()
def mirrors_trigger_once_a_pattern(bench: Bench) -> None:
    """As a camera sees it that would take more. A pulse for the darkness at the end does no harm."""
    rig = bench.rig
    if rig.settings.stepping != "dmd":
        pytest.skip("nobody triggers the camera of this rig")
    with rig.opened():
        rig.dmd.load(bench.frames(FRAMES))
        mode = burst_mode(bench)
        rig.camera.configure(mode)
        rig.camera.arm(FRAMES + 3)
        rig.dmd.start(tuple(range(FRAMES)), bench.period_ms(mode))
        in_order(popped(bench, FRAMES, bench.period_ms(mode)), mode)
        rig.clock.sleep_ms(3 * bench.period_ms(mode))
        with suppress(DeviceTimeout):
            rig.camera.pop(30.0)
        nothing_more(bench)
        rig.dmd.stop()
        rig.camera.disarm()


@promise(lights=True)
def light_follows_the_mirrors_frame_by_frame(bench: Bench) -> None:
    """Patterns that are all on and all off, by turns: what the camera sees goes up and down with them, and the mirrors
    end dark. It needs something in the field that shines."""
    rig = bench.rig
    with rig.opened():
        rig.dmd.load(bench.frames(FRAMES))
        mode, guard = burst_mode(bench), Guard(rig)
        order = (0, 1, 2, 2, 3, 4, 5, 5)
        with guard.light_on(bench.power_mw, 10 * SLACK_MS), burst_of(bench, order, mode) as frames:
            means = np.array([float(frame.pixels.mean()) for frame in frames])
            if rig.settings.stepping != "dmd":
                rig.dmd.stop()  # nobody else would
            rig.clock.sleep_ms(rig.settle_ms + bench.period_ms(mode))
            left = seen(bench, mode.exposure_ms)
        guard.off()
        lit = np.array(order) % 2 == 0
        contrast, spread = means[lit].mean() - means[~lit].mean(), max(means[lit].std(), means[~lit].std())
        if np.ptp(means) < LEAST_ADU:
            pytest.skip(f"too little light to tell ({np.ptp(means):.2f} grey values): {BRIGHT}")
        assert contrast > 4 * spread, f"frames do not follow the patterns: means {np.round(means, 1).tolist()}"
        assert left < means[~lit].mean() + contrast / 4, "the mirrors are not dark after a sequence"


def seen(bench: Bench, exposure_ms: float = 20.0) -> float:
    """Mean of a frame that is exposed now."""
    mode = bench.mode(exposure_ms)
    bench.rig.camera.configure(mode)
    bench.rig.camera.arm(1)
    return float(popped(bench, 1, bench.period_ms(mode))[0].pixels.mean())


@promise(lights=True)
def light_that_is_off_gives_none(bench: Bench) -> None:
    """As the camera sees it, whatever the light says; with all mirrors on, and the shutter open."""
    rig = bench.rig
    with rig.opened():
        rig.dmd.load(bench.frames(1))
        rig.dmd.show(0)
        rig.clock.sleep_ms(rig.settle_ms)
        for name, light in rig.lights.items():
            if rig.shutter is not None:
                rig.shutter.set_open(True)
            before = seen(bench)
            light.set_power(bench.power_mw)
            light.on(10 * SLACK_MS)
            during = seen(bench)
            light.off()
            after = seen(bench)
            light.on(10 * SLACK_MS)
            light.close()
            closed = seen(bench)
            light.open()
            least = min(before, after, closed)
            if during - least < LEAST_ADU:
                pytest.skip(f"too little of {name} to tell: {BRIGHT}")
            middle = (during + least) / 2
            assert before < middle, f"{name} GIVES LIGHT as it is opened"
            assert after < middle, f"{name} GIVES LIGHT after OFF: SWITCH IT OFF BY HAND"
            assert closed < middle, f"{name} GIVES LIGHT after it was closed: SWITCH IT OFF BY HAND"


@promise(lights=True)
def a_closed_shutter_lets_no_light_through(bench: Bench) -> None:
    rig = bench.rig
    needs(rig.shutter, "shutter")
    assert rig.shutter is not None
    with rig.opened():
        rig.dmd.load(bench.frames(1))
        rig.dmd.show(0)
        rig.clock.sleep_ms(rig.settle_ms)
        rig.light.set_power(bench.power_mw)
        rig.light.on(10 * SLACK_MS)
        before = seen(bench)
        rig.shutter.set_open(True)
        during = seen(bench)
        rig.shutter.block_light()
        after = seen(bench)
        rig.light.off()
    if during - min(before, after) < LEAST_ADU:
        pytest.skip(f"too little light to tell: {BRIGHT}")
    assert max(before, after) < (during + min(before, after)) / 2, "light comes through the closed shutter"


@promise(lights=True)
def mirrors_are_dark_when_opened_and_closed(bench: Bench) -> None:
    rig = bench.rig

    def lit() -> float:
        with Guard(rig).light_on(bench.power_mw, 10 * SLACK_MS):
            return seen(bench)

    with rig.opened():
        fresh = lit()
        rig.dmd.load(bench.frames(1))
        with Guard(rig).light_on(bench.power_mw, 10 * SLACK_MS):
            rig.dmd.show(0)
            rig.clock.sleep_ms(rig.settle_ms)
            bright = seen(bench)
            rig.dmd.show(None)
            rig.clock.sleep_ms(rig.settle_ms)
            none = seen(bench)
            rig.dmd.show(0)
            rig.dmd.close()
            rig.clock.sleep_ms(rig.settle_ms)
            closed = seen(bench)
            rig.dmd.open()
    least = min(fresh, none, closed)
    if bright - least < LEAST_ADU:
        pytest.skip(f"too little light to tell: {BRIGHT}")
    middle = (bright + least) / 2
    assert fresh < middle, "mirrors are on when they are opened"
    assert none < middle, "mirrors are on though none was to be shown"
    assert closed < middle, "mirrors were left on by close"


@promise(lights=True)
def a_burst_as_a_run_takes_it_is_whole(bench: Bench) -> None:
    """Taken and judged by what takes the bursts of runs; and it says what its order rests on: counts and times alone
    where neither this program nor the mirrors can tell. (Light tells too, once the rig is calibrated.)"""
    rig = bench.rig
    mode = burst_mode(bench)
    side = mode.binning
    masks = bench.frames(FRAMES)[:, :side, :side]
    stack, order = PatternStack("by turns", masks, side), tuple(range(FRAMES))
    take = Take("patterns", stack, mode, bench.power_mw, bench.period_ms(mode), order, dose_mj_cm2=0.0)
    with rig.opened():
        guard = Guard(rig)
        taker = BurstTaker(rig, guard, SLACK_MS)
        rig.dmd.load(bench.frames(FRAMES))
        rig.camera.configure(mode)
        for index in range(2):
            burst = taker.take(Shot(index, "patterns", 0, 0, 0, None, None, None, 0.0), take)
            assert not burst.missing, f"of burst {index} is missing: {[missing.reason for missing in burst.missing]}"
            assert len(burst.frames) == FRAMES
        guard.off()
        told = {"software": "program"}.get(rig.settings.stepping, "dmd" if rig.dmd.reads_back else "counts")
        assert taker.rests_on == told, f"it rests on {taker.rests_on}, not on {told}"
        assert taker.proven is (told != "counts")
