"""Mirrors of a simulated world that a twin moves: what is shown when, and the lines to and from the camera."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from dmu_hw.data import BoolArray
from dmu_hw.drivers.simulated.history import DARK, MirrorFrame, Shown
from dmu_hw.drivers.simulated.world import World, nobody_listens


class Mirrors:
    """Half old and half new until they stand; into the dark without delay."""

    def __init__(self, world: World, settle_ms: float) -> None:
        self.world = world
        self.settle_ms = settle_ms

    def now_ms(self) -> float:
        return self.world.clock.now_ms()

    def pass_ms(self, duration_ms: float) -> None:
        """Something takes time."""
        self.world.clock.sleep_ms(duration_ms)

    def show(self, at_ms: float, frame: MirrorFrame | None) -> None:
        """From then on, whatever was planned for later; None is darkness."""
        line = self.world.history.mirrors
        if frame is None:
            line.set(at_ms, DARK)
            return
        before = line.at(at_ms)
        after: Shown = ((frame, 1.0),)
        line.set(at_ms, tuple((shown, part / 2) for shown, part in (*before, *after)))
        line.set(at_ms + self.settle_ms, after)

    def pulse(self, at_ms: float) -> None:
        """To the camera."""
        self.world.pulses_ms.append(at_ms)

    def listen(self, hear: Callable[[float], None]) -> None:
        """Be told when the camera ends an exposure."""
        self.world.exposure_ended = hear

    def cancel(self) -> None:
        """Nothing that was planned happens any more; dark from now on."""
        now_ms = self.now_ms()
        self.world.pulses_ms[:] = [pulse for pulse in self.world.pulses_ms if pulse <= now_ms]
        self.world.exposure_ended = nobody_listens
        self.show(now_ms, None)


def mirror_frame(frame: BoolArray) -> MirrorFrame:
    """A frame as the world knows it: a copy that nobody writes to."""
    on = frame.copy()
    on.flags.writeable = False
    return MirrorFrame(hashlib.sha256(np.packbits(on).tobytes()).hexdigest(), on)
