"""Counts → Estimate: any bundle on frames of any field, and whole runs burst by burst."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw import plugin
from dmu_hw.bundle import Bundle, Weights
from dmu_hw.data import Float32Array, PatternStack, Uint16Array
from dmu_hw.errors import InputError, Problem
from dmu_hw.omezarr import Image, Store
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.sensor import SensorModel
from dmu_hw.plan import Plan
from dmu_hw.runfolder import RunFolder
from dmu_hw.writer import Progress, field_corners, time_step_s, z_step_um


class Model(Protocol):
    """The promise of the class `Model` of a plug-in in dmu_hw.models; its `Settings` are what a YAML may say."""

    def __init__(self, weights: Weights, stack: PatternStack, device: torch.device | str = "cpu") -> None: ...

    def __call__(self, signal: Tensor) -> Tensor:
        """(batch, pattern, y, x), background taken off, in units of object pixels of brightness 1 → (batch, y, x)."""


class Fitted(Model, Protocol):
    """A model that is computed rather than trained."""

    @classmethod
    def fit(
        cls, settings: Any, stack: PatternStack, optics: Optics, power_mw: float, exposure_ms: float
    ) -> Weights: ...


def model_class(name: str, *, where: str, folder: Path) -> type[Model]:
    """The inverse model of that name."""
    return cast("type[Model]", plugin.load_class("dmu_hw.models", name, "Model", where=where, folder=folder))


class Calibrated:
    """Numbers of the camera ↔ signals of the model, for one field of one microscope."""

    def __init__(
        self, optics: Optics, field_px: tuple[int, int], camera_pixel: int, centre_um: tuple[float, float]
    ) -> None:
        self.forward = Forward(optics, field_px, camera_pixel, centre_um=centre_um)
        self.sensor = SensorModel.at(optics.sensor, camera_pixel // optics.sensor_ratio)

    def signal(self, frames: Uint16Array, power_mw: float, exposure_ms: float) -> Tensor:
        """Frames (pattern, y, x) in units of object pixels of brightness 1 in full light, background taken off."""
        photons = self.sensor.to_photons(torch.from_numpy(frames.astype(np.float32)))
        dark, one = (self.forward.photons(torch.tensor(value), power_mw, exposure_ms) for value in (0.0, 1.0))
        return (photons - dark) / (one - dark)


class Reconstructor:
    """One bundle, one rig, one window of its camera."""

    def __init__(
        self, bundle: Bundle, optics: Optics, field_px: tuple[int, int], centre_um: tuple[float, float]
    ) -> None:
        self.bundle = bundle
        stack = bundle.patterns
        found = model_class(bundle.header.model, where="bundle", folder=Path())
        self.model = found(bundle.weights, stack)
        self.calibrated = Calibrated(optics, field_px, stack.camera_pixel, centre_um)

    @torch.no_grad()
    def image(self, frames: Uint16Array, power_mw: float, exposure_ms: float) -> Float32Array:
        """The specimen on the object grid; the uneven light is divided out."""
        signal = self.calibrated.signal(frames, power_mw, exposure_ms)
        image: Float32Array = (self.model(signal[None])[0] / self.calibrated.forward.profile).numpy()
        return image


def enlarged(calibrated: Calibrated, frame: Uint16Array, power_mw: float, exposure_ms: float) -> Float32Array:
    """A frame of uniform light enlarged by bicubic interpolation: what a plain camera gives without any model."""
    side = calibrated.forward.camera_pixel
    signal = calibrated.signal(frame[None], power_mw, exposure_ms)[None] / side**2
    big = functional.interpolate(signal, scale_factor=side, mode="bicubic", align_corners=False)[0, 0]
    image: Float32Array = (big.clamp(min=0) / calibrated.forward.profile).numpy()
    return image


def check_fit(bundle: Bundle, optics: Optics, *, where: str) -> None:
    """Refuse a bundle on a rig that it was not made for, saying which numbers differ."""
    misfits = bundle.misfits(optics)
    if misfits:
        raise InputError([Problem(where, misfit) for misfit in misfits])


def reconstruct_run(
    run: RunFolder,
    plan: Plan,
    bundle: Bundle,
    progress: Progress | None = None,
    watch: Callable[[tuple[int, int, int], Float32Array], None] | None = None,
) -> None:
    """Every complete burst of a run, one after the other: memory does not grow with the run."""
    reconstructor = Reconstructor(bundle, plan.optics, plan.protocol.field_px, plan.centre_um)
    frames = Store(run.frames)
    facts = {"bundle": bundle.header.name, "bundle_hash": bundle.hash, "model": bundle.header.model}
    part = run.reconstruction.with_name(run.reconstruction.name + ".part")
    store = Store.create(part, _images(plan), facts)
    take = plan.takes["patterns"]
    done = 0
    for field in range(plan.positions):
        for time in range(plan.times):
            for plane in range(plan.planes):
                exposed = np.asarray(frames.times(field)[time, :, plane])
                if not np.isnan(exposed).any():
                    burst = frames.burst(field, time, plane)
                    image = reconstructor.image(burst, take.power_mw, take.mode.exposure_ms)
                    store.array(field)[time, 0, plane] = image
                    store.times(field)[time, 0, plane] = exposed[0]
                    if watch is not None:
                        watch((field, time, plane), image)
                done += 1
                if progress is not None:
                    progress(done, plan.price.bursts)
    part.rename(run.reconstruction)


def _images(plan: Plan) -> list[Image]:
    pixel_um = plan.optics.object_pixel_um
    shape = (plan.times, 1, plan.planes, *plan.protocol.field_px)
    return [
        Image(
            name, shape, "float32", pixel_um, z_step_um(plan), time_step_s(plan), corner, ["reconstruction"], (0.0, 1.0)
        )
        for name, corner in field_corners(plan, pixel_um)
    ]
