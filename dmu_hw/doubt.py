"""When not to believe an image: what a bundle was taught of good fields, and how far a burst is from them.

Three things are asked of a burst. Does its image, sent through the optics once more, explain its frames? Are its frames
beside those of good fields in the direction in which a wrong focus, or mirrors that are not where they are believed to
be, moves them? And is it unlike the training data in any other way?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dmu_hw.bundle import TAUGHT_VERSION, Bundle, Weights
from dmu_hw.data import Doubt, PatternStack
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import FlatProfile, Optics
from dmu_hw.physics.sensor import SensorModel
from dmu_hw.traits import BORDER, LEAST_SIDE, Looks, content, traits

PREFIX = "doubt."
"""What the weights of a bundle begin with that are read here."""
FAULTS = ("focus", "registration")
_LIGHT = "light does not fit the model: focus or registration"
REASONS = {
    "focus": _LIGHT,
    "registration": _LIGHT,  # both take contrast from what patterns light, so that often nobody could say which it is
    "residual": "the image does not explain the frames",
    "unlike": "specimen unlike the training data",
}
_CHI_MEDIAN = 0.4549
"""Median of a squared Gaussian: what half of the misfits stay below where noise is all that there is."""
_MOST_CONTENT = 2.0
_SLIGHT = 0.25
"""Part of the weightiest reason below which another is not worth a word: what is very unlike good fields in one way is
a little unlike them in all."""
_BOUNDLESS = 1e6
"""Stands for what is no number."""
_FAINT = 0.05
"""Part of the usual light that a pattern sends to a camera pixel, below which it counts as this bright."""


class Eye:
    """What the optics that a bundle assumes make of an image."""

    def __init__(
        self,
        optics: Optics,
        stack: PatternStack,
        shape_px: tuple[int, int],
        power_mw: float,
        light: Tensor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """`light` is what the patterns were measured to send, over one tile, where it was measured."""
        flat = optics.model_copy(update={"profile": FlatProfile()})
        (rows, columns), (tall, wide) = shape_px, stack.tile_px
        self.shape_px = rows // tall * tall, columns // wide * wide
        self.side = stack.camera_pixel
        tile = (torch.from_numpy(stack.masks) if light is None else light).to(device, torch.float32)
        forward = Forward(flat, self.shape_px, self.side, device=device)
        self.aligned = Aligned(forward, tile, power_mw, delivered=light is not None)
        self.border = max(BORDER, -(-self.aligned.reach // self.side))
        gains = self.aligned.kernels.sum(dim=(-2, -1)).permute(2, 0, 1)
        gains = gains.clamp(min=_FAINT * float(gains.mean()))
        ny, nx = self.aligned.phases
        repeats = (1, self.shape_px[0] // self.side // ny, self.shape_px[1] // self.side // nx)
        self.gains = gains.repeat(*repeats)
        """(pattern, y, x): what even light on dye of brightness 1 gives."""

    @property
    def sides(self) -> tuple[int, int]:
        """Camera pixels of a field that can be judged."""
        rows, columns = self.shape_px
        return rows // self.side - 2 * self.border, columns // self.side - 2 * self.border


@dataclass(frozen=True, eq=False)
class Camera:
    """How noisy signals of the model are."""

    sensor: SensorModel
    dark: Tensor
    """Photons on a camera pixel without signal."""
    one: Tensor
    """Photons of a signal of 1."""

    @classmethod
    def of(cls, forward: Forward, sensor: SensorModel, power_mw: float, exposure_ms: float) -> Camera:
        dark, lit = (forward.photons(torch.tensor(value), power_mw, exposure_ms) for value in (0.0, 1.0))
        return cls(sensor, dark, lit - dark)

    def variance(self, signal: Tensor) -> Tensor:
        """Of signals with these means."""
        photons = signal.clamp(min=0) * self.one + self.dark
        per_photon = self.sensor.sensor.gain_adu_per_e * self.sensor.sensor.quantum_efficiency
        variance: Tensor = self.sensor.variance_adu(photons) / (per_photon * self.one) ** 2
        return variance


def looks(eye: Eye, camera: Camera, signal: Tensor, image: Tensor | None, part: int, profile: Tensor | None) -> Looks:
    """Fields (batch, pattern, y, x), and the images that were made of them, as parts of about `part` camera pixels a
    side; all parts of a field come after one another. `profile` is the uneven light, which is in the signal and no more
    in the image."""
    rows, columns = (length // eye.side for length in eye.shape_px)
    signal, scale = signal[..., :rows, :columns], eye.gains
    if profile is not None:
        profile = profile[: eye.shape_px[0], : eye.shape_px[1]]
        scale = scale * _binned(profile, eye.side)
    frames = _parts(signal / scale, eye.border, part)
    if image is None:
        return Looks(frames, None, None, None)
    image = image[..., : eye.shape_px[0], : eye.shape_px[1]]
    again = eye.aligned.image(image if profile is None else image * profile)
    left = signal - again
    return Looks(
        frames,
        _parts(left / scale, eye.border, part),
        _parts(left.square() / camera.variance(again), eye.border, part),
        _parts(image[:, None], eye.border * eye.side, part * eye.side)[:, 0],
    )


def _binned(field: Tensor, side: int) -> Tensor:
    rows, columns = field.shape
    return field.reshape(rows // side, side, columns // side, side).mean(dim=(1, 3))


def _parts(fields: Tensor, border: int, side: int) -> Tensor:
    """(batch, c, y, x) without its border, cut into parts of `side` or a little more: (batch · parts, c, …)."""
    inner = fields[..., border : fields.shape[2] - border, border : fields.shape[3] - border]
    batch, count, rows, columns = inner.shape
    down, across = max(1, rows // side), max(1, columns // side)
    tall, wide = rows // down, columns // across
    inner = inner[..., : down * tall, : across * wide].reshape(batch, count, down, tall, across, wide)
    return inner.permute(0, 2, 4, 1, 3, 5).reshape(batch * down * across, count, tall, wide)


@dataclass(frozen=True, eq=False)
class Teaching:
    """What a bundle knows of good fields."""

    part: int
    """Camera pixels along the side of the fields that it learned from."""
    ways: Tensor
    content: float
    """Camera pixels of them on which there is anything, as usual."""
    mean: Tensor
    whitener: Tensor
    """Traits less their mean → numbers that are independent in good fields, and have a variance of 1."""
    towards: dict[str, Tensor]
    """Fault → (direction, number): where it moves them, of length 1. Focus goes one way, registration both."""
    limits: dict[str, float]
    """What good fields stay below."""
    light: Tensor | None = None

    @classmethod
    def of(cls, weights: Weights, device: torch.device | str = "cpu") -> Teaching | None:
        """None: the bundle was taught nothing, or by a version that looked at other things."""
        if not weights or int(weights["version"]) != TAUGHT_VERSION:
            return None
        kept = {key: np.array(value, dtype=np.float32) for key, value in weights.items()}
        tensors = {key: torch.from_numpy(value).to(device) for key, value in kept.items()}
        return cls(
            int(tensors["part"]),
            tensors["ways"],
            float(tensors["content"]),
            tensors["mean"],
            tensors["whitener"],
            {name: tensors[f"towards.{name}"] for name in FAULTS},
            {name: float(tensors[f"limit.{name}"]) for name in REASONS if f"limit.{name}" in tensors},
            tensors.get("light"),
        )

    def weights(self) -> Weights:
        """As a bundle keeps them."""
        parts = {"ways": self.ways, "mean": self.mean, "whitener": self.whitener}
        parts |= {f"towards.{name}": direction for name, direction in self.towards.items()}
        parts |= {} if self.light is None else {"light": self.light}
        numbers = {"part": self.part, "version": TAUGHT_VERSION}
        limits = {"content": np.asarray(self.content, dtype=np.float32)}
        limits |= {f"limit.{name}": np.asarray(limit, dtype=np.float32) for name, limit in self.limits.items()}
        arrays = {name: part.to(torch.float32).cpu().numpy().copy() for name, part in parts.items()}
        return arrays | limits | {name: np.asarray(number, dtype=np.int32) for name, number in numbers.items()}

    def white(self, found: Looks) -> Tensor:
        """(part, number): independent in good fields, with a variance of 1."""
        return (traits(found, self.ways) - self.mean) * certainty(found, self.content)[:, None] @ self.whitener

    def far(self, found: Looks, fields: int) -> dict[str, Tensor]:
        """(field,): how far each is from good ones, in each way that there is a limit for; as means over its parts, so
        that large fields are told with less noise and none is doubted for being large."""
        white = self.white(found)
        along = {name: white @ direction.T for name, direction in self.towards.items()}
        every = torch.cat(list(self.towards.values()))
        every = torch.linalg.qr(every[every.any(dim=1)].T).Q  # what a fault cannot move has no direction
        others = white.shape[1] - every.shape[1]
        rest = white.square().sum(dim=1) - (white @ every).square().sum(dim=1)

        def over_parts(values: Tensor) -> Tensor:
            return values.reshape(fields, -1).mean(dim=1)

        amounts = {
            "focus": over_parts(along["focus"][:, 0].clamp(min=0).square()).sqrt(),
            "registration": torch.stack([over_parts(one.square()).sqrt() for one in along["registration"].T]).amax(0),
            "unlike": over_parts(rest / others),
        }
        return amounts if found.misfit is None else amounts | {"residual": over_parts(residuals(found.misfit))}


def certainty(found: Looks, usual: float) -> Tensor:
    """(part,): how well traits are known, 1 where there is as much to see as usual. Of much more, only a little better:
    what instruments vary by does not average out."""
    return (content(found) / usual).clamp(max=_MOST_CONTENT).sqrt()


def residuals(misfit: Tensor) -> Tensor:
    """(part,): reduced chi-square by the median, which a few bright specks do not move; 1 is noise alone."""
    return misfit.flatten(1).median(dim=1).values / _CHI_MEDIAN


class Doubter:
    """One bundle looking through one window."""

    def __init__(self, teaching: Teaching, eye: Eye, camera: Camera, profile: Tensor, *, segments: bool) -> None:
        self.teaching, self.eye, self.camera, self.profile, self.segments = teaching, eye, camera, profile, segments
        self.names = tuple(name for name in REASONS if name in teaching.limits)
        """Of what is judged, in the order of `ratios`."""

    @classmethod
    def of(cls, bundle: Bundle, weights: Weights, forward: Forward, camera: Camera) -> Doubter | None:
        """None: nothing can be said by this bundle, or of so small a field."""
        teaching, stack, header = Teaching.of(weights, forward.device), bundle.patterns, bundle.header
        if teaching is None or any(px < tile for px, tile in zip(forward.shape_px, stack.tile_px, strict=True)):
            return None
        eye = Eye(header.optics, stack, forward.shape_px, header.power_mw, teaching.light, forward.device)
        if min(eye.sides) < max(LEAST_SIDE, teaching.part // 2):
            return None
        return cls(teaching, eye, camera, forward.profile, segments=header.task == "segment")

    @torch.no_grad()
    def ratios(self, signal: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Of fields (batch, pattern, y, x) and the images that were made of them, even light: the residual of each, NaN
        of what a segmenter looks at; and (batch, name), how far it is in each way as a part of what good ones reach."""
        image_of_specimen = None if self.segments else image
        seen = looks(self.eye, self.camera, signal, image_of_specimen, self.teaching.part, self.profile)
        amounts, limits = self.teaching.far(seen, len(signal)), self.teaching.limits
        none = torch.full((len(signal),), torch.nan, device=signal.device)
        return amounts.get("residual", none), torch.stack([amounts[name] / limits[name] for name in self.names], dim=1)

    def doubts(self, ratios: Tensor) -> list[Doubt]:
        """What they say. What cannot be told is doubted."""
        return [doubt_of(dict(zip(self.names, map(float, row), strict=True))) for row in ratios.cpu()]


def doubt_of(ratios: dict[str, float]) -> Doubt:
    """From how far a burst is in each way, as a part of what good ones reach."""
    known = {name: ratio if math.isfinite(ratio) else _BOUNDLESS for name, ratio in ratios.items()}
    most = max(known.values())
    beyond = sorted((name for name, ratio in known.items() if ratio > max(1, _SLIGHT * most)), key=lambda n: -known[n])
    return Doubt(most, tuple(dict.fromkeys(REASONS[name] for name in beyond)))
