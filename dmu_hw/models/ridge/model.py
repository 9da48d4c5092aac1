"""The linear estimate as it is."""

from __future__ import annotations

import torch
from torch import Tensor

from dmu_hw import lmmse
from dmu_hw.bundle import Weights
from dmu_hw.data import Layout, PatternStack
from dmu_hw.models.ridge.settings import RidgeSettings
from dmu_hw.physics.optics import Optics


class Model:
    """Signals of T frames → specimen."""

    def __init__(self, weights: Weights, layout: Layout, device: torch.device | str = "cpu") -> None:
        self.side = layout.camera_pixel
        self.weights = {key: torch.from_numpy(value).to(device) for key, value in weights.items()}

    @classmethod
    def fit(
        cls, settings: RidgeSettings, stack: PatternStack, optics: Optics, power_mw: float, exposure_ms: float
    ) -> Weights:
        """Weights for one pattern set on one microscope at one light level."""
        design = lmmse.Design.of(stack, optics, power_mw, exposure_ms, settings.reach)
        size, pixel_um = design.torus_px(), optics.object_pixel_um
        apart_um = 10 * size * pixel_um
        scenes = (
            settings.specimen.scene((apart_um * (k % 8), apart_um * (k // 8)), (size, size), pixel_um).image
            for k in range(settings.scenes)
        )
        return lmmse.compute(design, lmmse.Statistics.of(scenes)).weights()

    @torch.no_grad()
    def __call__(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x) in units of object pixels of brightness 1 → (batch, y, x) on the object grid."""
        return lmmse.apply(signal, self.weights, self.side)
