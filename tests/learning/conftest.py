"""What tests of learning share: a training that takes a blink, on scenes that are made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from dmu_hw.dataset import ScenesData
from dmu_hw.images import Images
from dmu_hw.lesson import Lesson
from dmu_hw.models.lattice import Settings as Lattice
from dmu_hw.physics.optics import Dye, GaussianPsf, Mirrors, Optics
from dmu_hw.physics.specimens import Nuclei
from dmu_hw.train import Learner

OPTICS = Optics(
    object_pixel_um=0.5,
    sensor_pixel_um=0.5,
    excitation=GaussianPsf(sigma_um=0.4),
    emission=GaussianPsf(sigma_um=0.4),
    mirrors=Mirrors(leakage=0.02),
    dye=Dye(photons_per_um2_mw_ms=200.0, background_photons_per_um2_mw_ms=4.0),
)
DATA = ScenesData(kind="scenes", specimen=Nuclei(kind="nuclei", seed=3), train=12, held_back=2, side_px=64)


@cache
def _images(labelled: bool) -> Images:
    return Images.load(DATA, OPTICS.object_pixel_um, labelled=labelled)


@dataclass(frozen=True)
class Small:
    """A small training; what differs is given by its keys."""

    optics: Optics = OPTICS
    data: ScenesData = DATA

    def images(self, *, labelled: bool = False) -> Images:
        return _images(labelled)

    def lesson(
        self, patterns: dict[str, Any] | None = None, schedule: dict[str, Any] | None = None, **more: Any
    ) -> Lesson:
        light = {} if {"dose_ms", "total_exposure_ms"} & set(more) else {"exposure_ms": 1.0}
        given = {
            "kind": "train",
            "name": "small",
            "optics": self.optics,
            "data": self.data,
            "patterns": {"count": 4, "camera_pixel": 4, "start": "hadamard"} | (patterns or {}),
            "power_mw": 1.0,
            "schedule": {"updates": 12, "batch": 2, "crop_px": 32, "validate_every": 4, "warmup": 2} | (schedule or {}),
        }
        return Lesson.model_validate(given | light | more)

    def learner(self, lesson: Lesson, **more: Any) -> Learner:
        images = self.images(labelled=lesson.task.kind == "segment")
        return Learner(lesson, Lattice(channels=8, blocks=1), self.optics, images, **more)


@pytest.fixture
def small() -> Small:
    """Builds small lessons and their learners."""
    return Small()
