"""One training as a pure function of its configuration, for comparisons and sweeps: it may be killed and run again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmu_hw.checkpoint import load_state, save_state
from dmu_hw.course import Course, course_of
from dmu_hw.files import content_hash
from dmu_hw.images import Images
from dmu_hw.judging import bundled, ridge_scores, scores
from dmu_hw.ranks import device_named
from dmu_hw.train import Learner, learn

CHECKPOINT = "checkpoint.safetensors"
SAMPLES = "samples.npz"
_SAMPLES = 4
_loaded: dict[str, Images] = {}
"""The images of the last trial: the next one in this process mostly has the same."""


def outcome(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train, judge on val and test; what was learned and a few images of it stay in the folder.

    A checkpoint there, of a trial that was cut, is gone on from."""
    course = course_of(config)
    started = time.perf_counter()
    learner = Learner(course.lesson, course.network, course.optics, _images(course), device_named("auto"))
    checkpoint = folder / CHECKPOINT
    if checkpoint.exists():
        learner.restore(load_state(checkpoint))
    drafted = time.perf_counter()
    for _ in learn(learner):
        save_state(checkpoint, learner.state())
    result = _judged(learner)
    _keep(learner, folder)
    checkpoint.unlink(missing_ok=True)
    ended = time.perf_counter()
    return result | {
        "updates": learner.progress.update,
        "best_update": learner.progress.best_update,
        "lit": float(learner.exposure.lit(learner.shown())),
        "frame_ms": float(learner.exposure.frame_ms(learner.shown())),
        "parameters": sum(parameter.numel() for parameter in learner.model.parameters()),
        "seconds_to_begin": drafted - started,
        "seconds_to_learn": ended - drafted,
    }


def _judged(learner: Learner) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split in ("val", "test"):
        found |= {f"{split}_{name}": value for name, value in scores(learner, split).items()}
        found |= {f"{split}_ridge_{name}": value for name, value in ridge_scores(learner, split).items()}
    return found


def _images(course: Course) -> Images:
    """Read once for many trials."""
    labelled = course.lesson.task.kind == "segment"
    pixel_um = course.optics.object_pixel_um
    key = content_hash({"data": course.lesson.data.model_dump(mode="json"), "um": pixel_um, "labelled": labelled})
    if key not in _loaded:
        _loaded.clear()
        _loaded[key] = Images.load(course.lesson.data, pixel_um, labelled=labelled)
    return _loaded[key]


def _keep(learner: Learner, folder: Path) -> None:
    """The bundle, where mirrors can show the patterns, and some images of the test split."""
    if learner.lesson.patterns.binary:
        bundled(learner).save(folder / f"{learner.lesson.name}.dmu")
    truths: list[np.ndarray[Any, Any]] = []
    estimates: list[np.ndarray[Any, Any]] = []
    with torch.no_grad():
        for crops, estimate in learner.judged("test"):
            truths.extend(crops.images.numpy())
            estimates.extend(estimate.cpu().numpy())
            if len(truths) >= _SAMPLES:
                break
    np.savez_compressed(
        folder / SAMPLES,
        truth=np.stack(truths[:_SAMPLES]).astype(np.float16),
        estimate=np.stack(estimates[:_SAMPLES]).astype(np.float16),
        patterns=learner.shown().cpu().numpy().astype(np.float16),
    )
