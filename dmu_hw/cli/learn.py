"""`dmu train`: from a training protocol to a bundle."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dmu_hw import plugin
from dmu_hw.cli.output import DONE, Output
from dmu_hw.cli.session import outsiders
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Settings, parse_yaml, read_text, validate, write_whole
from dmu_hw.lesson import Lesson
from dmu_hw.physics.optics import Optics
from dmu_hw.rig import load_rig
from dmu_hw.runfolder import new_run

if TYPE_CHECKING:
    from dmu_hw.train import Learner


CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Course:
    """A training protocol and all that it names, checked; no image is read yet."""

    text: str
    lesson: Lesson
    network: Settings
    optics: Optics


def open_course(path: Path) -> Course:
    """Read a training protocol; what is wrong with it or with its rig is said."""
    text = read_text(path)
    document = parse_yaml(text, path)
    lesson = validate(document, Lesson)
    with outsiders(str(lesson.rig)):
        rig = load_rig(lesson.rig)
    ratio = rig.settings.optics.sensor_ratio
    if lesson.patterns.camera_pixel % ratio:
        where = document.where(("patterns", "camera_pixel"))
        what = f"must be a multiple of {ratio}, the rig's unbinned camera pixel; given {lesson.patterns.camera_pixel}"
        raise InputError([Problem(where, what)])
    return Course(text, lesson, _network_settings(document, lesson), rig.settings.optics)


def _network_settings(document: Document, lesson: Lesson) -> Settings:
    model, where = lesson.network.model, document.where(("network", "model"))
    with outsiders(where):
        found = plugin.load_class("dmu_hw.models", model, "Settings", where=where, folder=document.path.parent)
    if "network" not in document.value:
        return validate(Document({}, {}, document.path), found)
    settings: Settings = validate(document.inside(("network",), without=("model",)), found)
    return settings


def train_lesson(path: Path, out: Path, resume: Path | None, output: Output) -> None:
    """Learn, keep a checkpoint and a log at each validation, and leave a bundle."""
    course = open_course(path)
    from dmu_hw.train import learn  # noqa: PLC0415 - torch

    learner = _learner(course)
    folder = resume or new_run(out, course.lesson.name).path
    if resume is None:
        write_whole(folder / "protocol.yaml", course.text.encode())
    else:
        _restore(learner, folder / CHECKPOINT)
    output.say(f"{folder}: {len(learner.images.by_split['train'])} images to learn from")
    output.known["folder"] = str(folder)
    updates = course.lesson.schedule.updates
    with output.progress("learning") as progress:
        for line in learn(learner):
            _keep(learner, folder, line)
            output.say("  ".join(f"{key} {value:.4g}" for key, value in line.items()))
            progress(learner.progress.update, updates)
    bundle = learner.bundle()
    file = folder / f"{course.lesson.name}.dmu"
    bundle.save(file)
    metrics = bundle.header.metrics
    output.say(f"{file}: mean squared error {metrics['test_mse']:.5f} on the test split")
    output.finish(DONE, bundle=str(file), metrics=metrics, updates=learner.progress.update)


def _learner(course: Course) -> Learner:
    from dmu_hw.images import Images  # noqa: PLC0415 - torch
    from dmu_hw.train import Learner  # noqa: PLC0415

    images = Images.load(course.lesson.data, course.optics.object_pixel_um)
    return Learner(course.lesson, course.network, course.optics, images)


def _keep(learner: Learner, folder: Path, line: dict[str, float]) -> None:
    """Checkpoint first: a log line says that it is there."""
    from dmu_hw.checkpoint import save_state  # noqa: PLC0415 - torch

    save_state(folder / CHECKPOINT, learner.state())
    with open(folder / "log.jsonl", "a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _restore(learner: Learner, path: Path) -> None:
    from dmu_hw.checkpoint import load_state  # noqa: PLC0415 - torch

    learner.restore(load_state(path))
