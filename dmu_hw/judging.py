"""What came of a training: scores on a split, and the bundle."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, cast

import numpy as np
import torch

from dmu_hw import lmmse, metrics, segments
from dmu_hw.beginning import statistics_for
from dmu_hw.bundle import Bundle, Header
from dmu_hw.data import Float32Array, PatternStack
from dmu_hw.images import Split
from dmu_hw.lesson import BundleStart, Lesson
from dmu_hw.train import Learner, Trainable

RIDGE_REACH = 2


def scores(learner: Learner, split: Split) -> dict[str, float]:
    """Mean over images: mse, psnr_db and ssim of the image; dice, ap50 and count_error of the segmentation."""
    found: dict[str, list[float]] = defaultdict(list)
    for crops, estimates in learner.judged(split):
        if learner.segmenter is None:
            _score(learner.inner(estimates.cpu()).numpy(), learner.inner(crops.images).numpy(), found)
            continue
        maps = torch.sigmoid(learner.inner(learner.maps(estimates).detach().float())).cpu().numpy()
        assert crops.labels is not None  # noqa: S101 - without labels nothing was learned
        for some, truth in zip(maps, learner.inner(crops.labels).numpy(), strict=True):
            labels = segments.instances(some)
            found["dice"].append(metrics.dice(labels > 0, truth > 0))
            found["ap50"].append(metrics.average_precision(labels, truth))
            found["count_error"].append(metrics.count_error(labels, truth))
    return _means(found)


def ridge_scores(learner: Learner, split: Split) -> dict[str, float]:
    """The same of the best linear estimate from the same frames."""
    design = learner.exposure.design(learner.shown().cpu().double(), RIDGE_REACH)
    weights = lmmse.compute(design, statistics_for(design, learner.images)).weights()
    tensors = {key: torch.from_numpy(value) for key, value in weights.items()}
    found: dict[str, list[float]] = defaultdict(list)
    for crops, seen in learner.frames(split):
        estimates = lmmse.apply(seen.signal.cpu(), tensors, learner.layout.camera_pixel).clamp(min=0)
        _score(learner.inner(estimates).numpy(), learner.inner(crops.images).numpy(), found)
    return _means(found)


def _score(estimates: Float32Array, truths: Float32Array, found: dict[str, list[float]]) -> None:
    for estimate, truth in zip(estimates, truths, strict=True):
        found["mse"].append(metrics.mse(estimate, truth))
        found["ssim"].append(metrics.ssim(estimate, truth))


def _means(found: dict[str, list[float]]) -> dict[str, float]:
    means = {name: float(np.mean(values)) for name, values in found.items()}
    if "mse" in means:
        means["psnr_db"] = float(-10 * np.log10(means["mse"]))
    return means


def bundled(learner: Learner) -> Bundle:
    """Patterns and inverse with what they assume and what they reached on the test split."""
    lesson, exposure = learner.lesson, learner.exposure
    reached = scores(learner, "test")
    stack = PatternStack(lesson.name, learner.patterns.masks(), learner.layout.camera_pixel)
    frame_ms = float(exposure.frame_ms(learner.shown()))
    lit = float(exposure.lit(learner.shown()))
    weights = cast("Trainable", learner.model).weights()
    if learner.segmenter is not None:
        weights |= {f"segmenter.{key}": value for key, value in learner.segmenter.weights().items()}
    header = Header(
        name=lesson.name,
        task=lesson.task.kind,
        model=lesson.network.model,
        model_settings=learner.network.model_dump(mode="json"),
        patterns_name=stack.name,
        pattern_hashes=stack.hashes,
        tile_px=stack.tile_px,
        camera_pixel=stack.camera_pixel,
        optics=exposure.optics,
        power_mw=exposure.power_mw,
        exposure_ms=frame_ms,
        dose_mj_cm2=exposure.optics.dose_mj_cm2(exposure.power_mw, frame_ms) * lit,
        trained_on=f"{learner.images.told}, {learner.progress.best_update} updates",
        lesson=_repeatable(lesson),
        metrics={f"test_{name}": value for name, value in reached.items()},
        command="dmu train",
    )
    return Bundle(header, stack, weights)


def _repeatable(lesson: Lesson) -> dict[str, Any] | None:
    """The protocol of a training that needs nothing but itself. Images of a folder stay with whoever has them."""
    if lesson.data.kind != "scenes" or isinstance(lesson.patterns.start, BundleStart):
        return None
    return lesson.model_dump(mode="json", exclude={"rig", "optics"}, exclude_none=True)
