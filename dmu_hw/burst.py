"""Taking one burst: patterns stepped by the rig, frames popped, checked and copied. What is in doubt is not good."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dmu_hw.data import Burst, Frame, Missing
from dmu_hw.errors import DeviceError, DeviceTimeout
from dmu_hw.guard import Guard
from dmu_hw.journal import crc32c
from dmu_hw.marker import Marker
from dmu_hw.plan import Shot, Take
from dmu_hw.ports import Preparing, RawFrame
from dmu_hw.proof import Verdict, judge
from dmu_hw.rig import Rig
from dmu_hw.suspicion import DOUBTED

_REMEMBERED_FRAMES = 1000
REPEATED = "the camera gave an earlier frame once more"
"""Why a frame is missing that is a duplicate of another."""
RestsOn = Literal["light", "program", "dmd", "counts"]
_HEED_MS = 10.0
_SLACK_MS = 1000.0


@dataclass(frozen=True, eq=False)
class _Catch:
    """A frame, and the moments between which an exposure of this burst can have begun."""

    frame: Frame
    armed_ms: float
    fetched_ms: float


class BurstTaker:
    """Knows the rig's way of stepping patterns."""

    def __init__(
        self, rig: Rig, guard: Guard, frame_timeout_ms: float, heed: Callable[[], None] = lambda: None
    ) -> None:
        """`heed` is called every few milliseconds while frames are waited for; what it raises ends the burst."""
        self.heed = heed
        self.rig = rig
        self.guard = guard
        self.frame_timeout_ms = frame_timeout_ms
        self.read_back = True
        """False once the DMD could not tell what it had shown: the order then rests on counts and times alone."""
        self.verdict: Verdict | None = None
        """What the light of the last burst said; None where it had no marker, or was in doubt before it was asked."""
        self._before: deque[str] = deque(maxlen=max(rig.camera.buffer_frames, _REMEMBERED_FRAMES))
        """Checksums of the frames that the camera may still have in its buffer."""

    def take(self, shot: Shot, take: Take, *, heeding: bool = False) -> Burst:
        """Camera armed, light on, sequence started, frames fetched, light off, mirrors dark, and only then judged.
        `heeding`: what its frames alone make doubtful is not kept."""
        if self.rig.settings.stepping == "software":
            catches, doubt = self._by_software(take), ""
        else:
            catches, doubt = self._by_hardware(take)
        frames = [catch.frame for catch in catches]
        checksums = [crc32c(frame.pixels.tobytes()) for frame in frames]
        doubt = doubt or _doubt(take, catches)
        self.verdict = None
        burst = _in_doubt(shot, take, doubt) if doubt else self._judged(shot, take, frames, checksums, heeding)
        self._before.extend(checksums)
        return burst

    @property
    def rests_on(self) -> RestsOn:
        """What spoke for the order of the last burst: its light, if it could; this program, that showed each pattern
        by itself; what the DMD tells, which may be a lie; or no more than counts and times."""
        if self.verdict is not None and self.verdict.said == "proven":
            return "light"
        if self.rig.settings.stepping == "software":
            return "program"
        return "dmd" if self.read_back else "counts"

    @property
    def proven(self) -> bool:
        """Whether anything but counts and times spoke for the order of the last burst."""
        return self.rests_on != "counts"

    # ---------------------------------------------------------------- the three ways of stepping

    def _by_hardware(self, take: Take) -> tuple[list[_Catch], str]:
        """Also says what speaks against the order that the DMD itself reports."""
        camera, dmd, count = self.rig.camera, self.rig.dmd, take.exposures
        paced_by_dmd = self.rig.settings.stepping == "dmd"
        # A DMD that the camera steps gets one step too many: if a trigger is lost on the way, that last one is not
        # shown. Without it the order would look complete while frames had seen the pattern before theirs.
        order = take.memory if paced_by_dmd else (*take.memory, take.memory[0])
        catches: list[_Catch] = []
        with ExitStack() as ending:
            ending.callback(dmd.stop)
            ending.callback(camera.disarm)
            if isinstance(dmd, Preparing):
                dmd.prepare(order, take.period_ms if paced_by_dmd else None)
            with self.guard.light_on(take.power_mw, self._longest_ms(take), take.light):
                if paced_by_dmd:
                    armed_ms = self.rig.clock.now_ms()
                    camera.arm(count)
                    dmd.start(order, take.period_ms)
                else:
                    dmd.start(order, None)
                    self.rig.clock.sleep_ms(self.rig.settle_ms)
                    armed_ms = self.rig.clock.now_ms()
                    camera.arm(count)
                while len(catches) < count:
                    catch = self._pop(take, armed_ms, None)
                    if catch is None:
                        break
                    catches.append(catch)
                    if catch.frame.number >= count - 1:
                        break
            shown = dmd.shown()
        self.read_back = shown is not None
        if shown is None or shown == order:
            return catches, ""
        return catches, f"the DMD showed {_short(shown)} instead of {_short(order)}"

    def _by_software(self, take: Take) -> list[_Catch]:
        camera, dmd = self.rig.camera, self.rig.dmd
        catches: list[_Catch] = []
        with ExitStack() as ending:
            ending.callback(dmd.show, None)
            ending.callback(camera.disarm)
            with self.guard.light_on(take.power_mw, self._longest_ms(take), take.light):
                for pattern, place in enumerate(take.memory):
                    dmd.show(place)
                    self.rig.clock.sleep_ms(self.rig.settle_ms)
                    armed_ms = self.rig.clock.now_ms()
                    camera.arm(1)
                    catch = self._pop(take, armed_ms, pattern)
                    if catch is None:
                        break
                    catches.append(catch)
        return catches

    def _longest_ms(self, take: Take) -> float:
        """What takes longer hangs."""
        return 2 * take.burst_ms + self.frame_timeout_ms + _SLACK_MS

    def _pop(self, take: Take, armed_ms: float, pattern: int | None) -> _Catch | None:
        """The next frame, copied at the border: the camera may use its buffer again at once. Where the pattern is
        not given, it is the frame's number that tells it."""
        raw = self._raw(self.rig.clock.now_ms() + take.period_ms + self.frame_timeout_ms)
        if raw is None:
            return None
        if raw.pixels.shape != take.mode.shape or raw.pixels.dtype != np.uint16:
            want = f"uint16 {take.mode.shape}"
            raise DeviceError("camera", f"gave a frame of {raw.pixels.dtype} {raw.pixels.shape} instead of {want}")
        # one frame was asked for where the pattern is given: any number but 0 is a frame too many
        number = int(raw.number) + (pattern or 0)
        pattern = number if pattern is None else pattern
        pattern_hash = take.stack.hashes[pattern] if 0 <= pattern < take.stack.count else ""
        frame = Frame(raw.pixels.copy(), number, float(raw.time_ms), pattern, pattern_hash)
        return _Catch(frame, armed_ms, self.rig.clock.now_ms())

    def _raw(self, deadline_ms: float) -> RawFrame | None:
        """What the camera hands over until then. It is asked for a short time and again, so that an abort does not
        wait for the end of a long exposure."""
        while True:
            self.heed()
            self.guard.check()
            left_ms = deadline_ms - self.rig.clock.now_ms()
            try:
                return self.rig.camera.pop(max(0.0, min(left_ms, _HEED_MS)))
            except DeviceTimeout:
                if left_ms <= _HEED_MS:
                    return None

    # ---------------------------------------------------------------- judging

    def _judged(self, shot: Shot, take: Take, frames: list[Frame], checksums: list[str], heeding: bool) -> Burst:
        """The order is sure; single frames may still be missing, empty, or given twice."""
        missing = dict.fromkeys(range(take.exposures), "the camera skipped it")
        good: list[Frame] = []
        seen = set(self._before)
        for frame, checksum in zip(frames, checksums, strict=True):
            if checksum in seen and np.ptp(frame.pixels) > 0:
                missing[frame.pattern] = REPEATED
            elif self.rig.optics.sensor.offset_adu > 0 and not frame.pixels.any():
                missing[frame.pattern] = "the camera gave an empty buffer"
            else:
                good.append(frame)
                del missing[frame.pattern]
            seen.add(checksum)
        if take.marker is not None:
            doubt = self._refuted(take.marker, good, missing, heeding)
            if doubt:
                return _in_doubt(shot, take, doubt)
        return Burst(shot.index, tuple(good), tuple(Missing(pattern, why) for pattern, why in missing.items()))

    def _refuted(self, marker: Marker, good: list[Frame], missing: dict[int, str], heeding: bool) -> str:
        """What speaks against the order of the frames: their light, or that there is no marker to ask. The marker is
        none of the data and is taken out."""
        last = marker.stack.count
        if last in missing:
            return f"the marker is missing: {missing[last]}"
        frames = {frame.pattern: frame.pixels for frame in good}
        good[:] = [frame for frame in good if frame.pattern != last]
        shown = frames.pop(last)
        self.verdict = judge(marker, frames, shown)
        against = ("refuted", DOUBTED) if heeding else ("refuted",)
        return self.verdict.why if self.verdict.said in against else ""


def _in_doubt(shot: Shot, take: Take, doubt: str) -> Burst:
    """If the order itself is in doubt, no frame surely saw its pattern."""
    return Burst(shot.index, (), tuple(Missing(pattern, doubt) for pattern in range(take.stack.count)))


def _doubt(take: Take, catches: list[_Catch]) -> str:
    """Why the order of frames and patterns cannot be trusted; empty if it can."""
    count, slack_ms = take.exposures, take.period_ms / 2
    numbers = tuple(catch.frame.number for catch in catches)
    if numbers != tuple(sorted(set(numbers))) or (numbers and numbers[0] < 0):
        return f"frame numbers are not in order: {_short(numbers)}"
    if not numbers or numbers[-1] < count - 1:
        return f"frame {numbers[-1] + 1 if numbers else 0} of {count} did not come in time"
    if numbers[-1] >= count:
        return f"the camera counted {numbers[-1] + 1} exposures where {count} were due"
    first = catches[0].frame
    for catch in catches:
        frame = catch.frame
        if not catch.armed_ms - slack_ms <= frame.time_ms <= catch.fetched_ms + slack_ms:
            return f"frame {frame.number} has a time that is not within this burst: an old one left in the camera"
        late_ms = frame.time_ms - first.time_ms - (frame.number - first.number) * take.period_ms
        if take.mode.trigger == "external" and abs(late_ms) > slack_ms:
            return f"frame {frame.number} came {late_ms:+.3g} ms off its time"
    return ""


def _short(values: tuple[int, ...]) -> str:
    shown = ", ".join(str(value) for value in values[:8])
    return f"({shown}{', …' if len(values) > 8 else ''})"
