"""A training with everything that it names, checked, before any image is read; and the plain values that make it again
on any computer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmu_hw import plugin
from dmu_hw.errors import InputError, Problem
from dmu_hw.files import Document, Settings, validate
from dmu_hw.lesson import Lesson
from dmu_hw.physics.optics import Optics


@dataclass(frozen=True)
class Course:
    """A training protocol, the settings of its inverse model, and the optics that are believed."""

    lesson: Lesson
    network: Settings
    optics: Optics

    @property
    def config(self) -> dict[str, Any]:
        """Plain values for JSON, without a rig: the optics stand in its place."""
        lesson = self.lesson.model_copy(update={"rig": None, "optics": self.optics})
        network = {"model": self.lesson.network.model} | self.network.model_dump(mode="json")
        return lesson.model_dump(mode="json", exclude={"network"}) | {"network": network}


def open_course(document: Document, optics_of: Callable[[Path], Optics]) -> Course:
    """Read a training protocol; `optics_of` knows the optics of a rig's file."""
    lesson = validate(document, Lesson)
    named = lesson.network.model_copy(update={"model": _model(document, lesson)})
    lesson = lesson.model_copy(update={"network": named})
    network = _network(document, lesson)
    if lesson.optics is not None:
        optics = lesson.optics
    else:
        assert lesson.rig is not None  # noqa: S101 - one of them is given
        optics = optics_of(lesson.rig)
    ratio = optics.sensor_ratio
    if lesson.patterns.camera_pixel % ratio:
        where = document.where(("patterns", "camera_pixel"))
        what = f"must be a multiple of {ratio}, an unbinned camera pixel; given {lesson.patterns.camera_pixel}"
        raise InputError([Problem(where, what)])
    return Course(lesson, network, optics)


def course_of(config: dict[str, Any]) -> Course:
    """What `Course.config` was made of."""

    def no_rig(path: Path) -> Optics:
        raise InputError([Problem("rig", f"{path}: the optics must stand in the configuration itself")])

    return open_course(Document(_tupled(config), {}, Path("/configuration")), no_rig)


def _model(document: Document, lesson: Lesson) -> str:
    """A model's name that means the same wherever a program is started."""
    model = lesson.network.model
    return str((document.path.parent / model).resolve()) if model.endswith(".py") else model


def _network(document: Document, lesson: Lesson) -> Settings:
    where, model = document.where(("network", "model")), lesson.network.model
    found = plugin.load_class("dmu_hw.models", model, "Settings", where=where, folder=Path())
    if not issubclass(found, Settings):
        raise InputError([Problem(where, f"the Settings of {model!r} are no dmu_hw.files.Settings")])
    if "network" not in document.value:
        return validate(Document({}, {}, document.path), found)
    return validate(document.inside(("network",), without=("model",)), found)


def _tupled(value: Any) -> Any:
    """JSON knows lists only; a YAML file is read with tuples."""
    if isinstance(value, dict):
        return {key: _tupled(inner) for key, inner in value.items()}
    return tuple(_tupled(inner) for inner in value) if isinstance(value, list) else value
