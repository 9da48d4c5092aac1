"""What one update of a training costs, measured side by side in one run: `lattice` against the published model."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from dmu_hw.dataset import ScenesData
from dmu_hw.files import Settings
from dmu_hw.images import Images
from dmu_hw.lesson import Learned, Lesson, Network, Schedule
from dmu_hw.models.lattice import Settings as Lattice
from dmu_hw.models.locality import Settings as Locality
from dmu_hw.physics.optics import Dye, GaussianPsf, Optics
from dmu_hw.physics.specimens import Nuclei
from dmu_hw.train import Learner

COUNT, CAMERA_PIXEL, FIELD_PX, BATCH = 4, 32, 256, 8


def train_times(rounds: int = 7) -> dict[str, float]:
    """Medians in ms on one thread, taken in turns so that what else the machine does meets both, and their ratio.

    The published model has a map for every camera pixel and soft Fourier patterns over the full frame, which are
    blurred at full resolution; lattice has patterns that repeat with the camera pixel."""
    published = {"tile": FIELD_PX // CAMERA_PIXEL, "parametrisation": "fourier", "binarisation": "soft"}
    learners = {
        "lattice_ms": _learner("lattice", Lattice(), {}),
        "published_ms": _learner("locality", Locality(), published),
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = _in_turns(learners, rounds + 1)
    finally:
        torch.set_num_threads(threads)
    # the first round warms up
    medians = {name: statistics.median(measured[1:]) for name, measured in times.items()}
    return medians | {"ratio": medians["published_ms"] / medians["lattice_ms"]}


def _in_turns(learners: dict[str, Learner], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in learners}
    for _ in range(rounds):
        for name, learner in learners.items():
            began = time.perf_counter()
            learner.step()
            times[name].append((time.perf_counter() - began) * 1e3)
    return times


def _learner(model: str, network: Settings, patterns: dict[str, Any]) -> Learner:
    optics = Optics(
        object_pixel_um=0.325,
        sensor_pixel_um=0.325,
        excitation=GaussianPsf(sigma_um=0.3),
        emission=GaussianPsf(sigma_um=0.3),
        dye=Dye(photons_per_um2_mw_ms=500.0),
    )
    specimen = Nuclei(kind="nuclei", seed=0)
    data = ScenesData(kind="scenes", specimen=specimen, train=BATCH, held_back=1, side_px=FIELD_PX)
    what = {"count": COUNT, "camera_pixel": CAMERA_PIXEL, "start": "noise"} | patterns
    lesson = Lesson(
        kind="train",
        name="bench",
        optics=optics,
        data=data,
        patterns=Learned.model_validate(what),
        power_mw=1.0,
        exposure_ms=1.0,
        network=Network(model=model),
        schedule=Schedule(updates=1000, batch=BATCH, crop_px=FIELD_PX),
    )
    return Learner(lesson, network, optics, Images.load(data, optics.object_pixel_um))
