"""Where it is tried out how far the images of a bundle are to be believed: good fields, and fields with faults.

Good fields are drawn as training draws them, with what a good instrument varies by. Faults are simulated: the lens out
of focus, and mirrors that send their light beside, larger, smaller or turned. All by the optics of the bundle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dmu_hw.bundle import Bundle
from dmu_hw.dataset import ScenesData
from dmu_hw.doubt import Camera, Eye, looks
from dmu_hw.exposure import Exposure
from dmu_hw.images import Images, Split
from dmu_hw.lesson import Learned, Lesson, Variation
from dmu_hw.physics import dye
from dmu_hw.physics.forward import Forward
from dmu_hw.reconstruct import Parts, model_class
from dmu_hw.traits import LEAST_SIDE, Looks

AT_ONCE = 8
_LARGE_PX = 256
"""Of larger fields fewer are drawn."""
_SCENES = 96
"""Synthetic specimens of a split, at least."""
_ENOUGH = 16
"""Camera pixels along the side of a field."""
_TOLERATED = Variation(photons=0.05, offset_adu=0.5, shift_px=0.3)
"""What a good instrument may vary by, even where training knew nothing of it."""


@dataclass(frozen=True)
class Moved:
    """What a fault does to the light."""

    defocus_um: float = 0.0
    across_px: float = 0.0
    down_px: float = 0.0
    grown: float = 0.0
    """Growth, as a part."""
    turned: float = 0.0
    """In radians."""


class Grounds:
    """Of one bundle: images of its kind, light and optics that it is believed to meet."""

    def __init__(
        self, bundle: Bundle, lesson: Lesson, images: Images, delivered: Tensor | None, device: torch.device | str
    ) -> None:
        header, stack = bundle.header, bundle.patterns
        self.bundle, self.images, self.delivered = bundle, images, delivered
        self.device = torch.device(device)
        self.exposure = Exposure(_as_made(lesson, bundle), header.optics, delivered)
        self.side_px = self.exposure.side_px
        self.trust = lesson.trust
        self.margin_px = lesson.schedule.margin_px
        self.variation = _wider(lesson.variation)
        found = model_class(header.model, where="bundle", folder=Path())
        self.model = found(Parts.of(bundle.weights).inverse, stack.layout, self.device)
        self.segments = header.task == "segment"
        shape = (self.side_px, self.side_px)
        self.eye = Eye(header.optics, stack, shape, header.power_mw, delivered)
        self.forward = Forward(self.exposure.optics, shape, stack.camera_pixel)
        self.camera = Camera.of(self.forward, self.exposure.sensor, header.power_mw, header.exposure_ms)
        self.masks = torch.from_numpy(stack.masks).to(torch.float32)

    def fields(self, part: float) -> int:
        """So many of all that there are to be; of large ones fewer."""
        fewer = min(1.0, (_LARGE_PX / self.side_px) ** 2)
        return max(AT_ONCE, math.ceil(part * self.trust.fields * fewer))

    def good(self, split: Split, fields: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Specimens, signals and images, a few at a time."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(math.ceil(fields / AT_ONCE)):
            crops = self.images.crops(split, AT_ONCE, self.side_px, generator).images
            signal = self.exposure.varied(crops, self.masks, self.variation, generator).signal
            yield crops, signal, self.imaged(signal)

    def faulty(self, moved: Moved, fields: int, seed: int, *, noisy: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Signals and images; the same fields and the same noise, whatever the fault."""
        generator = torch.Generator().manual_seed(seed)
        shape = (self.side_px, self.side_px)
        header = self.bundle.header
        forward = Forward(self.exposure.optics, shape, header.camera_pixel, defocus_um=moved.defocus_um)
        light = _lit(forward, self.masks if self.delivered is None else self.delivered, moved)
        if self.delivered is None or moved.defocus_um:
            light = forward.deliver(light)
        light = dye.saturated(light, header.power_mw, header.optics.dye)
        for _ in range(math.ceil(fields / AT_ONCE)):
            crops = self.images.crops("train", AT_ONCE, self.side_px, generator).images
            photons = forward.photons(forward.image(crops, light), header.power_mw, header.exposure_ms).clamp(min=0)
            sensor = self.exposure.sensor
            noise = sensor.surrogate(photons, generator) - sensor.mean_adu(photons)
            adu = sensor.mean_adu(photons) + (noise if noisy else 0)
            signal = (sensor.to_photons(adu) - self.camera.dark) / self.camera.one
            yield signal, self.imaged(signal)

    @torch.no_grad()
    def imaged(self, signal: Tensor) -> Tensor:
        """What a run shows of it."""
        image: Tensor = self.model(signal.to(self.device)).cpu().float()
        return image if self.segments else image.clamp(min=0)

    def inner(self, field: Tensor) -> Tensor:
        """What is judged of a field."""
        margin = self.margin_px
        return field[..., margin : field.shape[-2] - margin, margin : field.shape[-1] - margin]

    def looks(self, signal: Tensor, image: Tensor, part: int) -> Looks:
        return looks(self.eye, self.camera, signal, None if self.segments else image, part, None)


def _as_made(lesson: Lesson, bundle: Bundle) -> Lesson:
    """The lesson with the light and the patterns that came of it, on fields that can be judged."""
    header, side = bundle.header, bundle.header.camera_pixel
    tile = header.tile_px[0]
    patterns = Learned(count=bundle.patterns.count, camera_pixel=side, tile=tile // side, start="noise")
    schedule = lesson.schedule.model_copy(update={"crop_px": _side_px(lesson, side, tile)})
    light: dict[str, Any] = dict.fromkeys(("total_exposure_ms", "dose_ms", "peak_ms"))
    light |= {"exposure_ms": header.exposure_ms, "power_mw": header.power_mw}
    return lesson.model_copy(update={"patterns": patterns, "schedule": schedule, **light})


def _side_px(lesson: Lesson, camera_pixel: int, tile: int) -> int:
    """Of fields that hold enough to be judged by."""
    wanted = max((LEAST_SIDE + 4) * camera_pixel, min(_ENOUGH * camera_pixel, _LARGE_PX))
    return math.ceil(max(lesson.schedule.crop_px, wanted) / tile) * tile


def images_for(lesson: Lesson, bundle: Bundle) -> Images:
    """Those that a bundle was trained with; synthetic specimens are drawn as large as is wanted, and more of them."""
    data, header = lesson.data, bundle.header
    if isinstance(data, ScenesData):
        side_px = max(data.side_px, _side_px(lesson, header.camera_pixel, header.tile_px[0]))
        held_back = max(data.held_back, _SCENES)
        data = data.model_copy(update={"side_px": side_px, "held_back": held_back})
    return Images.load(data, header.optics.object_pixel_um)


def _wider(variation: Variation) -> Variation:
    """At least what is tolerated."""
    names = Variation.model_fields
    return Variation(**{name: max(getattr(variation, name), getattr(_TOLERATED, name)) for name in names})


def _lit(forward: Forward, tile: Tensor, moved: Moved) -> Tensor:
    """The patterns over the field, moved about its middle."""
    rows, columns = forward.shape_px
    y, x = torch.meshgrid(torch.arange(rows) - (rows - 1) / 2, torch.arange(columns) - (columns - 1) / 2, indexing="ij")
    cos, sin, size = math.cos(moved.turned), math.sin(moved.turned), 1 + moved.grown
    from_x = (cos * x + sin * y) / size - moved.across_px + (columns - 1) / 2
    from_y = (cos * y - sin * x) / size - moved.down_px + (rows - 1) / 2
    tall, wide = tile.shape[1:]
    padded = functional.pad(tile[None], (1, 1, 1, 1), mode="circular")
    across, down = 2 * ((from_x % wide) + 1.5) / (wide + 2) - 1, 2 * ((from_y % tall) + 1.5) / (tall + 2) - 1
    place = torch.stack([across, down], dim=-1)
    moved_light: Tensor = functional.grid_sample(padded, place[None].to(tile), mode="bilinear", align_corners=False)[0]
    return moved_light
