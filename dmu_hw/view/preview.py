"""What the camera sees now, with all mirrors on, for somebody who aligns, looks for a field, or focuses.

Light is on only during exposures, only while somebody looks and has asked for it, and within what the rig allows. When
the page is closed, hidden, or silent for a moment, it is dark.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmu_hw.autofocus import sharpness
from dmu_hw.channels import Channel
from dmu_hw.darkness import begin
from dmu_hw.data import Uint16Array
from dmu_hw.errors import DeviceError, InputError, Problem
from dmu_hw.guard import Guard
from dmu_hw.instrument import Instrument
from dmu_hw.rig import Rig
from dmu_hw.view.board import Board, Made
from dmu_hw.view.running import lit
from dmu_hw.view.wire import Lamp, Word

_LOOKS_S = 1.5
"""Who has not been heard of for so long looks no more; pages speak twice a second."""
_IDLE_S = 0.02
_LEAST_S = 0.05
"""From frame to frame; the sample is not lit oftener than people can see."""
_MARGIN, _SLACK_MS = 2.0, 2000.0


@dataclass(frozen=True)
class _Wish:
    """What somebody asked for last."""

    lit: bool = False
    power_mw: float = 0.0
    exposure_ms: float = 0.0


class Preview:
    """A Site. `run` works in the thread that opened the rig, until it is told to end."""

    def __init__(self, rig: Rig, channel: Channel, now_s: Callable[[], float] = time.monotonic) -> None:
        self.board = Board()
        self._rig, self._channel, self._now_s = rig, channel, now_s
        self._limit_mw = rig.highest_mw(channel.light)
        self._limit_ms = rig.settings.limits.exposure_ms
        self._cap_mj_cm2 = rig.settings.limits.dose_mj_cm2
        self._wish = _Wish()
        self._heard_s = -_LOOKS_S
        self._instrument: Instrument | None = None
        self._frames = 0
        self._sharp: dict[str, float | None] = {}
        self._lit_s = 0.0
        self._exposing = False

    # ---------------------------------------------------------------- a site

    def about(self) -> dict[str, Any]:
        """For the page to build itself."""
        optics = self._channel.optics
        return {
            "mode": "rig",
            "name": self._rig.settings.name,
            "channel": self._channel.name,
            "pixel_um": optics.sensor_pixel_um,
            "limits": {"power_mw": self._limit_mw, "exposure_ms": self._limit_ms, "dose_mj_cm2": self._cap_mj_cm2},
            "full_adu": float(optics.sensor.largest_adu),
        }

    def report(self) -> None:
        wish, instrument = self._wish, self._instrument
        state = {
            "wanted": wish.lit,
            "lit": self._may_light(),
            "frames": self._frames,
            "dose_mj_cm2": 0.0 if instrument is None else instrument.dose_mj_cm2,
            "light_on_ms": 0.0 if instrument is None else instrument.light_on_ms,
            "lights": lit(self._rig),
            **self._sharp,
        }
        self.board.tell("state", state)

    def order(self, order: Word | Lamp) -> None:
        """An abort puts the light off here and now, in whatever state the camera is."""
        if isinstance(order, Lamp):
            self._lamp(order)
        elif order.do == "watch":
            self._heard_s = self._now_s()
        elif order.do in ("abort", "pause"):
            self._put_out()
            if order.do == "abort":
                self.board.say("light off, as the page asked")

    def image(self, _wanted: Mapping[str, str]) -> bytes:
        raise InputError([Problem(self._rig.settings.name, "is no run: there are no stored images")])

    def _lamp(self, order: Lamp) -> None:
        if not order.on:
            self._put_out()
            return
        if order.power_mw > self._limit_mw or order.exposure_ms > self._limit_ms:
            allowed = f"{self._limit_mw:g} mW and {self._limit_ms:g} ms"
            self.board.say(f"refused: the rig allows {allowed}", "caution")
            return
        self._heard_s = self._now_s()
        self._wish = _Wish(lit=True, power_mw=order.power_mw, exposure_ms=order.exposure_ms)

    def _put_out(self) -> None:
        """No more light from now on; what is on goes off at once, not at the end of its exposure."""
        self._wish = _Wish()
        if self._instrument is not None and self._exposing:
            begin(self._instrument.guard.off)

    # ---------------------------------------------------------------- the work

    def run(self, ended: Callable[[], bool]) -> None:
        """Take frames while there is light to be; return in the dark. Raises what devices raise."""
        guard = Guard(self._rig)
        over = threading.Event()
        try:
            instrument = Instrument(self._rig, self._channel, self._channel.optics, guard, lambda _done, _all: None)
            instrument.load(np.ones((1, *instrument.mirrors_shape), dtype=bool))
            self._instrument = instrument
            begin(lambda: self._watch(over))
            while not ended():
                if self._may_light() and self._now_s() >= self._lit_s + _LEAST_S:
                    self._lit_s = self._now_s()
                    self._take(instrument, self._wish)
                else:
                    time.sleep(_IDLE_S)
        finally:
            over.set()
            guard.off()

    def _watch(self, over: threading.Event) -> None:
        """Thread: whoever stops looking leaves no light behind, not even in the middle of a long exposure, and must ask
        for it again when he comes back."""
        while not over.wait(_IDLE_S):
            if self._wish.lit and not self._may_light():
                self._put_out()

    def _may_light(self) -> bool:
        """In doubt, not."""
        looked = self.board.viewers > 0 and self._now_s() - self._heard_s < _LOOKS_S
        return self._wish.lit and looked and not self._spent()

    def _spent(self) -> bool:
        """Whether the sample has had all that the rig allows a field."""
        instrument, cap = self._instrument, self._cap_mj_cm2
        if instrument is None or cap is None or instrument.dose_mj_cm2 < cap:
            return False
        if self._wish.lit:
            self._wish = _Wish()
            self.board.say(f"light off: the rig allows {cap:g} mJ/cm²", "caution")
        return True

    def _take(self, instrument: Instrument, wish: _Wish) -> None:
        """One frame; the light is on for no longer than it needs. One that was put out half way is thrown away."""
        mode = instrument.mode(wish.exposure_ms)
        instrument.camera.configure(mode)
        longest_ms = _MARGIN * (wish.exposure_ms + self._rig.readout_ms(mode) + self._rig.settle_ms) + _SLACK_MS
        try:
            self._exposing = True
            with instrument.lit(wish.power_mw, longest_ms):
                instrument.dmd.show(0)
                instrument.clock.sleep_ms(self._rig.settle_ms)
                frame = instrument.snap(mode)
        except DeviceError:
            if self._wish is wish or instrument.guard.fault:
                raise
            return  # the light was put out meanwhile, and says that it went off
        finally:
            self._exposing = False
        self._frames += 1
        self._show(frame, mode.binning)

    def _show(self, frame: Uint16Array, binning: int) -> None:
        sensor = self._channel.optics.sensor
        sharp = sharpness(frame[None], np.ones(1), sensor, binning)
        clipped = float((frame >= sensor.largest_adu).mean())
        error = sharp.error if math.isfinite(sharp.error) else None
        self._sharp = {"sharpness": sharp.value, "sharpness_error": error, "clipped": clipped}
        number = self._frames

        def made() -> Made:
            facts = {"number": number, "low": 0.0, "high": 65535.0, "pixel_um": self._channel.optics.sensor_pixel_um}
            return {**facts, "mean": float(frame.mean()), **self._sharp}, frame

        self.board.put("frame", made, every_s=0.05)
