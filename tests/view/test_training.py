"""The report of a training: the course, the patterns, and images that it has not seen."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from dmu_hw.bundle import Bundle
from dmu_hw.course import open_course
from dmu_hw.files import parse_yaml
from dmu_hw.images import Images
from dmu_hw.judging import bundled
from dmu_hw.train import Learner, learn
from dmu_hw.view.amounts import decibels, digits
from dmu_hw.view.training import held_back, write_training

LESSON: dict[str, Any] = {
    "kind": "train",
    "name": "small",
    "optics": {
        "object_pixel_um": 0.5,
        "sensor_pixel_um": 0.5,
        "excitation": {"kind": "gaussian", "sigma_um": 0.3},
        "emission": {"kind": "gaussian", "sigma_um": 0.35},
        "dye": {"photons_per_um2_mw_ms": 100.0},
    },
    "data": {"kind": "scenes", "specimen": {"kind": "nuclei", "seed": 1}, "train": 6, "held_back": 4, "side_px": 64},
    "patterns": {"count": 4, "camera_pixel": 8},
    "power_mw": 1.0,
    "dose_ms": 8.0,
    "network": {"model": "lattice", "channels": 8, "blocks": 1},
    "schedule": {"updates": 4, "batch": 2, "crop_px": 64, "margin_px": 8, "validate_every": 2, "warmup": 1},
}
SEGMENT = {"task": {"kind": "segment", "stages": [0.5, 0.25, 0.25]}}
Trained = tuple[Path, Learner, Bundle]


def trained(folder: Path, changes: Mapping[str, Any]) -> Trained:
    path = folder / "protocol.yaml"
    path.write_text(yaml.safe_dump(LESSON | dict(changes)))
    course = open_course(parse_yaml(path.read_text(), path), lambda _: pytest.fail("no rig is named"))
    labelled = course.lesson.task.kind == "segment"
    images = Images.load(course.lesson.data, course.optics.object_pixel_um, labelled=labelled)
    learner = Learner(course.lesson, course.network, course.optics, images)
    lines = [json.dumps(asdict(line)) for line in learn(learner)]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    return folder, learner, bundled(learner)


@pytest.mark.parametrize("changes", [{}, SEGMENT], ids=["image", "segment"])
def test_the_page_shows_what_was_reached(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder, learner, bundle = trained(tmp_path, changes)
    text = write_training(folder, learner, bundle, "small <lesson>").read_text(encoding="utf-8")
    metrics = bundle.header.metrics
    told = digits(metrics["test_dice"]) if changes else decibels(metrics["test_psnr_db"])
    assert told in text
    assert "small &lt;lesson&gt;" in text
    assert "small <lesson>" not in text
    made = 2 if changes else 3
    assert text.count("<figure") == bundle.patterns.count + 3 * (made + bundle.patterns.count)
    assert len(re.findall(r'<div class="plot"', text)) == 1
    assert "http:" not in re.sub(r"http://www\.w3\.org/[^\"]*", "", text)


def test_pictures_are_of_the_test_split_without_its_margin(tmp_path: Path) -> None:
    _, learner, bundle = trained(tmp_path, {})
    held = held_back(learner)
    assert len(held) == 3
    assert held[0].truth.shape == held[0].estimate.shape == (48, 48)
    assert held[0].signals.shape == (4, 6, 6)
    errors = [np.mean((one.estimate - one.truth) ** 2) for one in held]
    whole = [np.mean((a.numpy() - b.numpy()) ** 2) for a, b in _judged(learner)]
    np.testing.assert_allclose(errors, whole[:3], rtol=1e-4)
    assert bundle.header.metrics["test_mse"] == pytest.approx(np.mean(whole), rel=1e-3)


def _judged(learner: Learner) -> list[tuple[Any, Any]]:
    return [
        (learner.inner(estimate), learner.inner(truth))
        for crops, estimates in learner.judged("test")
        for estimate, truth in zip(estimates, crops.images, strict=True)
    ]
