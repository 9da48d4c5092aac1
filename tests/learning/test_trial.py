"""One training as a pure function: the same result again, after a kill too, and nothing that JSON cannot hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from program import Dmu

import dmu_hw.trial
from dmu_hw.bundle import Bundle
from dmu_hw.course import Course
from dmu_hw.lesson import Lesson
from dmu_hw.models.lattice import Settings as Lattice
from dmu_hw.trial import CHECKPOINT, SAMPLES, outcome

SEGMENT = {
    "kind": "segment",
    "stages": (0.5, 0.0, 0.5),
    "network": {"channels": 8, "blocks": 1, "levels": 2, "fine_channels": 2},
}
SHORT = {"updates": 4, "validate_every": 2}
ALWAYS = {"updates", "best_update", "lit", "frame_ms", "parameters", "seconds_to_begin", "seconds_to_learn"}
IMAGE = {"mse", "ssim", "psnr_db"}
OBJECTS = {"dice", "ap50", "count_error"}


def config_of(small: Any, lesson: Lesson) -> dict[str, Any]:
    config: dict[str, Any] = json.loads(json.dumps(Course(lesson, Lattice(channels=8, blocks=1), small.optics).config))
    return config


def told(result: dict[str, Any]) -> dict[str, Any]:
    """All but how long it took."""
    return {key: value for key, value in result.items() if not key.startswith("seconds")}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        return tmp_path / name

    return make


def test_what_comes_of_an_image(small: Any, folder: Callable[[str], Path]) -> None:
    lesson, place = small.lesson(schedule=SHORT, dose_ms=4.0), folder("a")
    result = outcome(config_of(small, lesson), place)
    wanted = {f"{split}_{name}" for split in ("val", "test") for name in IMAGE}
    assert result.keys() >= ALWAYS | wanted
    assert not [key for key in result if any(name in key for name in OBJECTS)]
    assert result["lit"] * result["frame_ms"] == pytest.approx(4.0)
    assert result["updates"] == 4
    assert {file.name for file in place.iterdir()} == {"small.dmu", SAMPLES}
    header = Bundle.load(place / "small.dmu").header
    assert header.metrics["test_mse"] == result["test_mse"]
    assert header.exposure_ms == pytest.approx(result["frame_ms"])
    assert result["test_psnr_db"] == pytest.approx(-10 * math.log10(result["test_mse"]))


def test_what_comes_of_a_segmentation(small: Any, folder: Callable[[str], Path]) -> None:
    place = folder("a")
    result = outcome(config_of(small, small.lesson(schedule=SHORT, task=SEGMENT)), place)
    assert result.keys() >= ALWAYS | {f"{split}_{name}" for split in ("val", "test") for name in OBJECTS}
    assert "test_mse" not in result
    assert Bundle.load(place / "small.dmu").header.task == "segment"


@pytest.mark.parametrize("task", [{"kind": "image"}, SEGMENT])
def test_the_same_again(small: Any, folder: Callable[[str], Path], task: dict[str, Any]) -> None:
    lesson = small.lesson({"start": "random"}, SHORT, task=task, variation={"photons": 0.1, "shift_px": 0.2})
    config = config_of(small, lesson)
    one, other = outcome(config, folder("a")), outcome(config, folder("b"))
    assert told(one) == told(other)
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    seeded = config | {"schedule": config["schedule"] | {"seed": 1}}
    assert told(outcome(seeded, folder("c"))) != told(one)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_trial_that_was_killed_goes_on(
    small: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    config = config_of(small, small.lesson(schedule=SHORT, variation={"photons": 0.1}))
    whole, place = outcome(config, folder("whole")), folder("cut")
    saved: list[Path] = []
    save, step = dmu_hw.trial.save_state, dmu_hw.trial.Learner.step

    def killed_after(path: Path, state: dict[str, Any]) -> None:
        save(path, state)
        saved.append(path)
        if len(saved) == cut:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dmu_hw.trial, "save_state", killed_after)
        with pytest.raises(KeyboardInterrupt):
            outcome(config, place)
    assert [file.name for file in place.iterdir()] == [CHECKPOINT]
    steps: list[float] = []
    monkeypatch.setattr(dmu_hw.trial.Learner, "step", lambda self: steps.append(step(self)) or steps[-1])
    assert told(outcome(config, place)) == told(whole)
    assert len(steps) == 4 - 2 * (cut - 1)
    assert not (place / CHECKPOINT).exists()


@pytest.mark.parametrize("patterns", [{"binarisation": "signed"}, {"binarisation": "soft", "thresholded": False}])
def test_no_bundle_of_what_no_mirror_can_show(
    small: Any, folder: Callable[[str], Path], patterns: dict[str, Any]
) -> None:
    place = folder("a")
    result = outcome(config_of(small, small.lesson(patterns, SHORT)), place)
    assert result["test_mse"] > 0
    assert [file.name for file in place.iterdir()] == [SAMPLES]
    shown = np.load(place / SAMPLES)["patterns"]
    assert len(np.unique(shown)) > 2


def test_dmu_train_leaves_no_bundle_of_it_either(small: Any, tmp_path: Path, dmu: Dmu) -> None:
    lesson = small.lesson({"binarisation": "soft", "thresholded": False}, SHORT)
    path = tmp_path / "lesson.yaml"
    path.write_text(yaml.safe_dump(config_of(small, lesson)))
    said = dmu("train", path, "--out", tmp_path / "out", "--json")
    assert said.told["bundle"] is None
    assert "no mirror can show these patterns" in said.err
    assert not list(tmp_path.rglob("*.dmu"))
    assert len(list(tmp_path.rglob("checkpoint.safetensors"))) == 1


def test_samples_are_those_that_were_judged(small: Any, folder: Callable[[str], Path]) -> None:
    place = folder("a")
    result = outcome(config_of(small, small.lesson({"frozen": True}, SHORT)), place)
    samples = np.load(place / SAMPLES)
    assert samples["truth"].shape == samples["estimate"].shape == (2, 32, 32)
    error = np.mean((samples["truth"].astype(np.float64) - samples["estimate"]) ** 2)
    assert error == pytest.approx(result["test_mse"], rel=0.01)
    assert np.array_equal(samples["patterns"].astype(bool), Bundle.load(place / "small.dmu").patterns.masks)


def test_images_are_read_once_for_many_trials(
    small: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dmu_hw.trial, "_loaded", {})
    loads: list[bool] = []
    load = dmu_hw.trial.Images.load

    def counted(*given: Any, labelled: bool) -> Any:
        loads.append(labelled)
        return load(*given, labelled=labelled)

    monkeypatch.setattr(dmu_hw.trial.Images, "load", counted)
    quick = {"updates": 1, "validate_every": 1}
    for number, task in enumerate(({"kind": "image"}, {"kind": "image"}, SEGMENT)):
        outcome(config_of(small, small.lesson(schedule=quick, task=task)), folder(str(number)))
    assert loads == [False, True]
