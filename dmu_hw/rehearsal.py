"""A field that was never there, as the camera would see it: to try out a reconstructor before there is light."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from dmu_hw.bundle import Bundle
from dmu_hw.data import Float32Array, Uint16Array
from dmu_hw.metrics import dice, psnr_db
from dmu_hw.physics.specimens import Nuclei
from dmu_hw.reconstruct import Calibrated, Reconstructor, Window

_SIDE_PX = 256
_SEED = 20
_ALIKE = 0.998
"""Dice of two segmentations that pass for the same."""


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Simulated nuclei in a field of the kind of a run, a smaller one where it is large."""

    window: Window
    frames: Uint16Array
    truth: Float32Array

    @classmethod
    @torch.no_grad()
    def of(cls, bundle: Bundle, window: Window) -> Rehearsal:
        patterns = bundle.patterns
        rows, columns = (
            min(field, max(1, _SIDE_PX // tile) * tile)
            for field, tile in zip(window.field_px, patterns.tile_px, strict=True)
        )
        small = replace(window, field_px=(rows, columns), pixels=None)
        calibrated = Calibrated(small, patterns.camera_pixel)
        forward, power_mw, exposure_ms = calibrated.forward, window.power_mw, window.exposure_ms
        truth = Nuclei(seed=_SEED).scene(window.centre_um, (rows, columns), forward.pixel_um).image
        lit = forward.illuminate(torch.from_numpy(patterns.over((rows, columns))).to(torch.float32), power_mw)
        signal = forward.image(torch.from_numpy(truth)[None], lit)[0]
        photons = forward.photons(signal, power_mw, exposure_ms)
        adu = calibrated.sensor.draw(photons, torch.Generator().manual_seed(_SEED))
        return cls(small, adu.numpy().astype(np.uint16), truth)

    def costs(self, bundle: Bundle, device: torch.device, half: torch.dtype) -> float:
        """What numbers of 16 bits cost, in dB; of a bundle that segments: nothing if its objects stay as they are, and
        else more than anybody pays."""
        reconstructor = Reconstructor(bundle, self.window, device)
        full = reconstructor.estimate(self.frames)
        reconstructor.half = half
        rough = reconstructor.estimate(self.frames)
        if full.labels is None or rough.labels is None:
            cost_db = psnr_db(full.image, self.truth) - psnr_db(rough.image, self.truth)
            return cost_db if np.isfinite(cost_db) else np.inf
        alike = dice(rough.labels > 0, full.labels > 0) >= _ALIKE and rough.count == full.count
        return 0.0 if alike else np.inf
