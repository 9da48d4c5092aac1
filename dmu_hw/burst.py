"""Taking one burst: patterns stepped by the rig, frames popped, checked and copied. What is in doubt is not good."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmu_hw.data import Burst, Frame, Missing
from dmu_hw.errors import DeviceTimeout
from dmu_hw.guard import Guard
from dmu_hw.plan import Shot, Take
from dmu_hw.rig import Rig


@dataclass(frozen=True)
class BurstTaker:
    """Knows the rig's way of stepping patterns."""

    rig: Rig
    guard: Guard
    frame_timeout_ms: float

    def take(self, shot: Shot, take: Take) -> Burst:
        """Camera armed, light on, sequence started, frames fetched, light off, and only then judged."""
        if self.rig.settings.stepping == "software":
            frames, shown = self._by_software(take)
        else:
            frames, shown = self._by_hardware(take)
        return _judged(shot, take, frames, shown)

    def _by_hardware(self, take: Take) -> tuple[list[Frame], tuple[int, ...] | None]:
        camera, dmd = self.rig.camera, self.rig.dmd
        paced_by_dmd = self.rig.settings.stepping == "dmd"
        frames: list[Frame] = []
        try:
            with self.guard.light_on(take.power_mw):
                if paced_by_dmd:
                    camera.arm(take.stack.count)
                    dmd.start(take.memory, take.period_ms)
                else:
                    dmd.start(take.memory, None)
                    self.rig.clock.sleep_ms(dmd.settle_ms)
                    camera.arm(take.stack.count)
                while len(frames) < take.stack.count:
                    frame = self._pop(take, len(frames))
                    if frame is None:
                        break
                    frames.append(frame)
                    if frame.number >= take.stack.count - 1:
                        break
        finally:
            camera.disarm()
        shown = dmd.shown()
        dmd.stop()
        return frames, shown

    def _by_software(self, take: Take) -> tuple[list[Frame], tuple[int, ...] | None]:
        camera, dmd = self.rig.camera, self.rig.dmd
        frames: list[Frame] = []
        try:
            with self.guard.light_on(take.power_mw):
                for number, place in enumerate(take.memory):
                    dmd.show(place)
                    self.rig.clock.sleep_ms(dmd.settle_ms)
                    camera.arm(1)
                    frame = self._pop(take, number)
                    if frame is None:
                        break
                    frames.append(Frame(frame.pixels, number, frame.time_ms, number, frame.pattern_hash))
        finally:
            camera.disarm()
            dmd.show(None)
        return frames, None

    def _pop(self, take: Take, number: int) -> Frame | None:
        """The next frame, copied at the border: the camera may use its buffer again at once."""
        try:
            raw = self.rig.camera.pop(take.period_ms + self.frame_timeout_ms)
        except DeviceTimeout:
            return None
        pattern = raw.number if self.rig.settings.stepping != "software" else number
        pattern_hash = take.stack.hashes[pattern] if pattern < take.stack.count else ""
        return Frame(raw.pixels.copy(), raw.number, raw.time_ms, pattern, pattern_hash)


def _judged(shot: Shot, take: Take, frames: list[Frame], shown: tuple[int, ...] | None) -> Burst:
    """Which frames surely saw which pattern. If the order itself is in doubt, none did."""
    count = take.stack.count
    doubt = _doubt(take, frames, shown)
    if doubt:
        return Burst(shot.index, (), tuple(Missing(pattern, doubt) for pattern in range(count)))
    missing = [Missing(pattern, "the camera skipped it") for pattern in range(count)]
    good: list[Frame] = []
    for before, frame in zip([None, *frames[:-1]], frames, strict=True):
        if before is not None and np.array_equal(before.pixels, frame.pixels) and np.ptp(frame.pixels) > 0:
            missing[frame.pattern] = Missing(frame.pattern, "the camera gave the frame before once more")
        else:
            good.append(frame)
    here = {frame.pattern for frame in good}
    return Burst(shot.index, tuple(good), tuple(gap for gap in missing if gap.pattern not in here))


def _doubt(take: Take, frames: list[Frame], shown: tuple[int, ...] | None) -> str:
    """Why the order of frames and patterns cannot be trusted; empty if it can."""
    count = take.stack.count
    if shown is not None and shown != take.memory:
        return f"the DMD showed {_short(shown)} instead of {_short(take.memory)}"
    numbers = [frame.number for frame in frames]
    if not frames or numbers[-1] != count - 1:
        return f"frame {numbers[-1] + 1 if frames else 0} of {count} did not come in time"
    if numbers != sorted(set(numbers)):
        return f"frame numbers are not in order: {_short(tuple(numbers))}"
    first = frames[0]
    for frame in frames[1:]:
        due_ms = (frame.number - first.number) * take.period_ms
        if take.mode.trigger == "external" and abs(frame.time_ms - first.time_ms - due_ms) > take.period_ms / 2:
            return f"frame {frame.number} came {frame.time_ms - first.time_ms - due_ms:+.3g} ms off its time"
    return ""


def _short(values: tuple[int, ...]) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return f"({shown}{', …' if len(values) > 8 else ''})"
