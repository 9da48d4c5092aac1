"""Total variation on the frames of a training: as pure a function of its configuration as the training itself."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmu_hw import lmmse, metrics
from dmu_hw.beginning import statistics_for
from dmu_hw.course import course_of
from dmu_hw.exposure import Exposure
from dmu_hw.images import Crops, Images, Split
from dmu_hw.physics.forward import Forward
from dmu_hw.tv import Imaging, best_weight, reconstruct

MOST_IMAGES = 8
"""Of the test split: the first frames of the training's own judgement."""
_VAL_IMAGES = 2
_RIDGE_REACH = 2


def outcome(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`config` has the `training` and the key of its `trial`, whose folder is beside this one."""
    scene = _Scene(config["training"], folder.parent / config["trial"] / "samples.npz")
    truths, frames = scene.seen("val", _VAL_IMAGES)
    weight = best_weight(lambda weight: _mse(scene.tv(frames, weight), truths, scene.margin_px))
    truths, frames = scene.seen("test", MOST_IMAGES)
    return {
        "mse": _mse(scene.tv(frames, weight), truths, scene.margin_px),
        "ridge_mse": _mse(scene.ridge(frames), truths, scene.margin_px),
        "images": len(truths),
        "weight": weight,
    }


class _Scene:
    """Images, optics and patterns of a training."""

    def __init__(self, training: dict[str, Any], samples: Path) -> None:
        course = course_of(training)
        self.lesson = course.lesson
        self.images = Images.load(course.lesson.data, course.optics.object_pixel_um)
        self.exposure = Exposure(course.lesson, course.optics)
        self.margin_px = course.lesson.schedule.margin_px
        with np.load(samples) as kept:
            self.patterns = torch.from_numpy(kept["patterns"].astype(np.float32))
        self.imaging = self._imaging()

    def _imaging(self) -> Imaging:
        lesson, exposure = self.lesson, self.exposure
        side = exposure.side_px
        forward = Forward(exposure.optics, (side, side), exposure.layout.camera_pixel)
        times = (1, side // self.patterns.shape[1], side // self.patterns.shape[2])
        lit = forward.illuminate(self.patterns.repeat(times), lesson.power_mw)
        return Imaging(partial(forward.image, illumination=lit), partial(forward.adjoint, illumination=lit))

    def seen(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        """The first images of a split and the frames that the training was judged by."""
        generator = torch.Generator().manual_seed(self.lesson.schedule.seed + 1)
        crops: Crops = self.images.middles(split, self.exposure.side_px).part(0, MOST_IMAGES)
        signal = self.exposure.drawn(crops.images, self.patterns, generator).signal
        return crops.images[:count], signal[:count]

    def tv(self, frames: Tensor, weight: float) -> Tensor:
        side = self.exposure.side_px
        return reconstruct(self.imaging, frames, (side, side), weight)

    def ridge(self, frames: Tensor) -> Tensor:
        design = self.exposure.design(self.patterns.double(), _RIDGE_REACH)
        weights = lmmse.compute(design, statistics_for(design, self.images)).weights()
        tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
        return lmmse.apply(frames, tensors, self.exposure.layout.camera_pixel).clamp(min=0)


def _mse(estimates: Tensor, truths: Tensor, margin_px: int) -> float:
    inner = slice(margin_px, truths.shape[-1] - margin_px)
    pairs = zip(estimates[:, inner, inner].numpy(), truths[:, inner, inner].numpy(), strict=True)
    return float(np.mean([metrics.mse(estimate, truth) for estimate, truth in pairs]))
