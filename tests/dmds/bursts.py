"""What tests of all DMDs do with a rig: light it, take frames, and step them in the three ways."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmu_hw.data import BoolArray, Uint16Array
from dmu_hw.ports import CameraMode, Roi
from dmu_hw.rig import Rig

EXPOSURE_MS = 2.0
PERIOD_MS = 5.0
"""Longer than exposure, readout and all that the mirrors need."""


def blocks(count: int, seed: int = 1) -> BoolArray:
    """Frames of the small rig."""
    coarse: BoolArray = np.random.default_rng(seed).random((count, 12, 16)) < 0.5
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def light_up(rig: Rig, trigger: str = "internal", interval_ms: float = 0.0) -> None:
    rig.camera.configure(CameraMode(EXPOSURE_MS, 1, Roi(0, 0, 64, 64), trigger, interval_ms))  # type: ignore[arg-type]
    rig.light.set_power(5.0)
    rig.light.on()


def taken(rig: Rig, count: int) -> list[Uint16Array]:
    return [rig.camera.pop(1000.0).pixels.copy() for _ in range(count)]


def brightness(rig: Rig) -> float:
    rig.camera.arm(1)
    return float(taken(rig, 1)[0].mean())


def paced_by_dmd(rig: Rig, order: tuple[int, ...]) -> list[Uint16Array]:
    light_up(rig, "external")
    rig.camera.arm(len(order))
    rig.dmd.start(order, PERIOD_MS)
    return taken(rig, len(order))


def paced_by_camera(rig: Rig, order: tuple[int, ...]) -> list[Uint16Array]:
    light_up(rig, interval_ms=PERIOD_MS)
    rig.dmd.start((*order, order[0]), None)
    rig.clock.sleep_ms(rig.dmd.settle_ms)
    rig.camera.arm(len(order))
    return taken(rig, len(order))


def paced_by_program(rig: Rig, order: tuple[int, ...]) -> list[Uint16Array]:
    light_up(rig)
    found = []
    for place in order:
        rig.dmd.show(place)
        rig.clock.sleep_ms(rig.dmd.settle_ms)
        rig.camera.arm(1)
        found += taken(rig, 1)
    return found


def dark_after(rig: Rig) -> list[tuple[float, float]]:
    """How bright it is while something is shown, and after each way to end that, less what it is in darkness."""
    light_up(rig)
    rig.dmd.stop()
    dark = brightness(rig)
    dmd: Any = rig.dmd
    begins = {"held": lambda: dmd.show(2), "long": lambda: dmd.start((1, 2, 3) * 5, 10.0)}
    ends = (dmd.stop, lambda: dmd.show(None), lambda: dmd.load(blocks(2)), dmd.open)
    ways = [(begin, end) for begin in begins.values() for end in ends]
    ways.append((lambda: dmd.start((1,), PERIOD_MS), lambda: rig.clock.sleep_ms(9.0)))
    found = []
    for begin, end in ways:
        dmd.load(blocks(4))
        begin()
        rig.clock.sleep_ms(1.0)
        before = brightness(rig)
        end()
        found.append((before - dark, brightness(rig) - dark))
    return found
