"""Counts → Estimate: any bundle on frames of any field, and whole runs burst by burst."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw import doubt, plugin, segments, spread
from dmu_hw.bundle import Bundle, Weights
from dmu_hw.data import Doubt, Estimate, Float32Array, Layout, PatternStack, Uint16Array
from dmu_hw.doubt import Camera, Doubter
from dmu_hw.errors import InputError, Problem
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.sensor import SensorModel
from dmu_hw.pixels import PixelMaps
from dmu_hw.segmenter.model import Segmenter

_SEGMENTER, _CORRECTION = "segmenter.", "correction."
"""What the weights of a bundle's segmenter, and of its correction, begin with; all others are the inverse model's."""


class Model(Protocol):
    """The promise of the class `Model` of a plug-in in dmu_hw.models; its `Settings` are what a YAML may say."""

    def __init__(self, weights: Weights, layout: Layout, device: torch.device | str = "cpu") -> None: ...

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


@dataclass(frozen=True)
class Window:
    """How a run looked at the sample: the numbers that turn its frames into signals."""

    optics: Optics
    field_px: tuple[int, int]
    centre_um: tuple[float, float]
    """Centre of the field, seen from the optical axis."""
    power_mw: float
    exposure_ms: float
    pixels: PixelMaps | None = None
    """Of the pixels of its frames, where they were measured."""


class Calibrated:
    """Numbers of the camera ↔ signals of the model, for one size of camera pixels."""

    def __init__(self, window: Window, camera_pixel: int, device: torch.device | str = "cpu") -> None:
        optics = window.optics
        self.window = window
        self.forward = Forward(optics, window.field_px, camera_pixel, centre_um=window.centre_um, device=device)
        self.sensor = SensorModel.at(optics.sensor, camera_pixel // optics.sensor_ratio)
        self.mending: list[tuple[Tensor, Tensor]] = []
        if window.pixels is not None:
            maps = window.pixels
            offset_adu, response, dark = (
                torch.from_numpy(np.ascontiguousarray(values)).to(self.forward.device)
                for values in (maps.offset_adu, maps.response, maps.dark_e_per_ms)
            )
            dark_e = dark * window.exposure_ms
            self.sensor = replace(self.sensor, offset_adu=offset_adu, response=response, dark_e=dark_e)
            self.mending = list(_mending(torch.from_numpy(maps.bad.copy()).to(self.forward.device)))

    def signal(self, frames: Uint16Array | Tensor) -> Tensor:
        """Frames (..., pattern, y, x) in units of object pixels of brightness 1 in full light, background taken off."""
        given = frames if isinstance(frames, Tensor) else torch.from_numpy(frames.astype(np.float32))
        photons = self.sensor.to_photons(given.to(self.forward.device).to(torch.float32))
        if self.mending:
            photons = _mended(photons, self.mending)
        power_mw, exposure_ms = self.window.power_mw, self.window.exposure_ms
        dark, one = (self.forward.photons(torch.tensor(value), power_mw, exposure_ms) for value in (0.0, 1.0))
        return (photons - dark) / (one - dark)

    def even(self, images: Tensor) -> Tensor:
        """Images (..., y, x) with the uneven light divided out."""
        return images / self.forward.profile

    def flat(self, image: Tensor) -> Float32Array:
        """The same of one, as an array."""
        flat: Float32Array = self.even(image).cpu().numpy()
        return flat


_AROUND = torch.ones(1, 1, 3, 3)


def _mending(bad: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """From the border of bad pixels inwards: what counts when a round begins, and by how much the sums of those that it
    reaches are to be divided, which is 0 elsewhere."""
    good, around = (~bad).to(torch.float32)[None, None], _AROUND.to(bad.device)
    while not good.all() and good.any():
        weight = functional.conv2d(good, around, padding=1)
        reached = (good == 0) & (weight > 0)
        yield good, weight * reached
        good = (good + reached).clamp(max=1)


def _mended(frames: Tensor, mending: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Frames (..., pattern, y, x) with bad pixels as their neighbours are on average; where there are many, round by
    round."""
    seen = frames.reshape(-1, 1, *frames.shape[-2:])
    around = _AROUND.to(frames)
    for good, weight in mending:
        mean = functional.conv2d(seen * good, around, padding=1) / weight.clamp(min=1)
        seen = torch.where(weight > 0, mean, seen)
    return seen.reshape(frames.shape)


@dataclass(frozen=True)
class Parts:
    """The weights of a bundle by whose they are."""

    inverse: Weights
    segmenter: Weights
    correction: Weights
    doubt: Weights = field(default_factory=dict)
    """When not to believe its images."""
    spread: Weights = field(default_factory=dict)

    @classmethod
    def of(cls, weights: Weights) -> Parts:
        def those(prefix: str) -> Weights:
            return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}

        others = (_SEGMENTER, _CORRECTION, doubt.PREFIX, spread.PREFIX)
        inverse = {key: value for key, value in weights.items() if not key.startswith(others)}
        return cls(inverse, *map(those, others))

    def together(self) -> Weights:
        """As a bundle keeps them."""
        segmenter = {f"{_SEGMENTER}{key}": value for key, value in self.segmenter.items()}
        correction = {f"{_CORRECTION}{key}": value for key, value in self.correction.items()}
        trust = {f"{doubt.PREFIX}{key}": value for key, value in self.doubt.items()}
        trust |= {f"{spread.PREFIX}{key}": value for key, value in self.spread.items()}
        return self.inverse | segmenter | correction | trust


@dataclass(frozen=True, eq=False)
class Correction:
    """Gain and offset of each pattern, as the instrument was found to deliver them."""

    gain: Tensor
    """(pattern, 1, 1)."""
    offset: Tensor
    """In signals of the model."""

    @classmethod
    def of(cls, weights: Weights, count: int, device: torch.device | str) -> Correction:
        if not weights:
            return cls(torch.ones(count, 1, 1, device=device), torch.zeros(count, 1, 1, device=device))
        gain, offset = (torch.from_numpy(weights[key].copy()).to(device)[:, None, None] for key in ("gain", "offset"))
        return cls(gain, offset)

    def applied(self, signal: Tensor) -> Tensor:
        """(…, pattern, y, x) as the model would see them."""
        return (signal - self.offset) / self.gain


@dataclass(frozen=True, eq=False)
class Made:
    """What a device made of some bursts, still on it."""

    signals: Tensor
    """(burst, pattern, y, x), as the model saw them."""
    images: Tensor
    """(burst, y, x) on the object grid."""
    maps: Tensor | None = None
    """(burst, map, y, x) from 0 to 1: where objects are, of a bundle that segments."""
    spreads: Tensor | None = None
    """(burst, y, x), of a bundle that knows how far its images are off."""
    residuals: Tensor | None = None
    """(burst,), of a bundle that was taught to doubt."""
    ratios: Tensor | None = None
    """(burst, way): how far each burst is from good ones."""


class Reconstructor:
    """One bundle looking through one window."""

    def __init__(self, bundle: Bundle, window: Window, device: torch.device | str = "cpu") -> None:
        self.bundle_hash = bundle.hash
        self.calibrated = Calibrated(window, bundle.patterns.camera_pixel, device)
        self.device = torch.device(device)
        self.half: torch.dtype | None = None
        """The numbers that networks compute with where they need not be exact; None: single precision."""
        found = model_class(bundle.header.model, where="bundle", folder=Path())
        parts = Parts.of(bundle.weights)
        self.model = found(parts.inverse, bundle.patterns.layout, device)
        self.segmenter = _segmenter(bundle, parts, device) if bundle.header.task == "segment" else None
        self.correction = Correction.of(parts.correction, bundle.patterns.count, device)
        self.doubter = self._doubter(bundle, parts)
        self.spread = spread.Spread.of(parts.spread, bundle.patterns.layout).to(device) if parts.spread else None
        self.tells_spread = True
        """Whether somebody wants to know how far pixels may be off, which takes time."""

    def _doubter(self, bundle: Bundle, parts: Parts) -> Doubter | None:
        found, window = self.calibrated, self.calibrated.window
        camera = Camera.of(found.forward, found.sensor, window.power_mw, window.exposure_ms)
        return Doubter.of(bundle, parts.doubt, found.forward, camera)

    def estimate(self, frames: Uint16Array) -> Estimate:
        """A burst (pattern, y, x) → the specimen on the object grid, and the objects in it if the bundle segments."""
        return self.estimates([frames])[0]

    def estimates(self, bursts: Sequence[Uint16Array]) -> list[Estimate]:
        """Several bursts at once; the numbers are those of one by one, but for rounding."""
        return self.finished(self.made(torch.from_numpy(np.stack(bursts))))

    @torch.no_grad()
    def made(self, frames: Tensor) -> Made:
        """Bursts (burst, pattern, y, x), as numbers of the camera → all that the device has to do with them."""
        signals = self.correction.applied(self.calibrated.signal(frames))
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            images = self.model(signals)
        images = self.calibrated.even(images.to(torch.float32))
        if self.segmenter is None:
            images = images.clamp(min=0)  # no light is darker than none
            spreads = None if self.spread is None or not self.tells_spread else self.spread(signals, images)
            return self.judged(Made(signals, images, spreads=spreads))
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            maps = self.segmenter(images)
        # what a segmenter looks at is no image
        return self.judged(Made(signals, images, torch.sigmoid(maps.to(torch.float32))))

    def judged(self, made: Made) -> Made:
        """With how far bursts are from good ones, of a bundle that knows these."""
        if self.doubter is None:
            return made
        residuals, ratios = self.doubter.ratios(made.signals, made.images)
        return replace(made, residuals=residuals, ratios=ratios)

    def finished(self, made: Made) -> list[Estimate]:
        """What is left to do beside the device."""
        images: Float32Array = made.images.cpu().numpy()
        maps = None if made.maps is None else made.maps.cpu().numpy()
        spreads = None if made.spreads is None else made.spreads.cpu().numpy()
        residuals, doubts = self._told(made)
        pixel_um = self.calibrated.window.optics.object_pixel_um
        return [
            Estimate(
                image,
                pixel_um,
                self.bundle_hash,
                None if maps is None else segments.instances(maps[index]),
                None if spreads is None else spreads[index],
                residuals[index],
                doubts[index],
            )
            for index, image in enumerate(images)
        ]

    def _told(self, made: Made) -> tuple[list[float | None], list[Doubt | None]]:
        """Residuals and doubts of each burst."""
        if self.doubter is None or made.residuals is None or made.ratios is None:
            none = [None] * len(made.images)
            return list(none), list(none)
        residuals = [None if math.isnan(value) else value for value in made.residuals.tolist()]
        return residuals, [*self.doubter.doubts(made.ratios)]


def _segmenter(bundle: Bundle, parts: Parts, device: torch.device | str) -> Segmenter:
    if not parts.segmenter:
        raise InputError([Problem(f"bundle {bundle.header.name}", "is for segmentation, but holds no segmenter")])
    return Segmenter.of(parts.segmenter).to(device)


def enlarged(calibrated: Calibrated, frame: Uint16Array) -> Float32Array:
    """A frame of uniform light enlarged by bicubic interpolation: what a plain camera gives without any model."""
    side = calibrated.forward.camera_pixel
    signal = calibrated.signal(frame[None])[None] / side**2
    return calibrated.flat(functional.interpolate(signal, scale_factor=side, mode="bicubic")[0, 0].clamp(min=0))
