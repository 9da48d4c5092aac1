"""A small bundle to reconstruct with, bursts of it, and inverses that misbehave."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from dmu_hw.bundle import Bundle, Header
from dmu_hw.data import Burst, Frame, Missing
from dmu_hw.lane import Lane
from dmu_hw.models.ridge import Model, Settings
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.reconstruct import Window

SIDE = 32
CPU = torch.device("cpu")
OPTICS = Optics.model_validate(
    {
        "object_pixel_um": 0.5,
        "sensor_pixel_um": 0.5,
        "excitation": {"kind": "gaussian", "sigma_um": 0.3},
        "emission": {"kind": "gaussian", "sigma_um": 0.35},
        "dye": {"photons_per_um2_mw_ms": 100.0, "background_photons_per_um2_mw_ms": 1.0},
        "sensor": {"gain_adu_per_e": 0.5, "read_noise_e": 1.0},
    }
)


@cache
def bundle() -> Bundle:
    stack = PatternSet.model_validate({"set": "hadamard", "count": 4, "camera_pixel": 4}).make()
    settings = Settings.model_validate({"specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1})
    weights = Model.fit(settings, stack, OPTICS, 1.0, 2.0)
    header = Header(
        name="small",
        model="ridge",
        patterns_name=stack.name,
        pattern_hashes=stack.hashes,
        tile_px=stack.tile_px,
        camera_pixel=stack.camera_pixel,
        optics=OPTICS,
        power_mw=1.0,
        exposure_ms=2.0,
        dose_mj_cm2=1.0,
    )
    return Bundle(header, stack, weights)


def window(centre_um: tuple[float, float] = (0.0, 0.0), side: int = SIDE) -> Window:
    optics = OPTICS.model_copy(update={"profile": type(OPTICS).model_validate(_UNEVEN).profile})
    return Window(optics, (side, side), centre_um, 1.0, 2.0)


_UNEVEN = OPTICS.model_dump() | {"profile": {"kind": "gaussian", "sigma_um": 20.0}}


def lane(**changes: Any) -> Lane:
    return Lane(bundle(), window(**changes), CPU)


@dataclass(frozen=True)
class Shot:
    index: int
    role: str = "patterns"
    channel: str = ""
    position: int = 0
    time: int = 0
    z: int = 0
    x_um: float | None = None
    y_um: float | None = None
    z_um: float | None = None


def burst(index: int, missing: int = 0) -> Burst:
    rng = np.random.default_rng(index)
    pixels = rng.integers(100, 3000, (4, SIDE // 4, SIDE // 4)).astype(np.uint16)
    frames = tuple(Frame(pixels[k], k, float(k), k, "") for k in range(4 - missing))
    return Burst(index, frames, tuple(Missing(k, "lost") for k in range(4 - missing, 4)))


class Sluggish(Lane):
    """Waits at its gate with every batch, and fails at bursts of some brightness."""

    def __init__(self, batch: int = 1, poison: int | None = None) -> None:
        super().__init__(bundle(), window(), CPU)
        self.gate = threading.Event()
        self.began = threading.Event()
        self.poison = None if poison is None else burst(poison).stack()
        self.sizes: list[int] = []
        self._own = batch

    def warm(self) -> None:
        self.batch = self._own

    def submit(self, bursts: Any) -> Any:
        self.began.set()
        assert self.gate.wait(10.0)
        self.sizes.append(len(bursts))
        if self.poison is not None and any(np.array_equal(one, self.poison) for one in bursts):
            raise ArithmeticError("poison")
        return super().submit(bursts)
