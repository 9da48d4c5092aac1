"""A bundle that goes on learning for the instrument as it was measured, and what it may not lose by that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmu_hw.adapt import Adapter, Effort, Instrument, better
from dmu_hw.bundle import Bundle
from dmu_hw.course import course_of
from dmu_hw.data import Float32Array, PatternStack
from dmu_hw.judging import bundled
from dmu_hw.models.lattice import Settings as Lattice
from dmu_hw.pairs import Taken, TakenPairs
from dmu_hw.physics.aligned import Aligned
from dmu_hw.physics.forward import Forward
from dmu_hw.physics.optics import GaussianPsf, Optics
from dmu_hw.physics.sensor import SensorModel
from dmu_hw.reconstruct import Reconstructor, Window
from dmu_hw.train import learn
from tests.learning.conftest import OPTICS, Small

BLURRED = OPTICS.model_copy(
    update={"mirrors": OPTICS.mirrors.model_copy(update={"leakage": 0.12}), "emission": GaussianPsf(sigma_um=0.9)}
)
"""Another microscope than the one that was trained for."""


@pytest.fixture(scope="module", name="trained")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = Small()
    learner = small.learner(small.lesson(schedule={"updates": 24}))
    for _ in learn(learner):
        pass
    path = tmp_path_factory.mktemp("bundles") / "small.dmu"
    bundled(learner).save(path)
    return path


def adapter(path: Path, optics: Optics, *, delivered: Float32Array | None = None, **more: Any) -> Adapter:
    small = Small()
    effort = Effort(**{"updates": 12, **more})
    return Adapter(
        path, small.lesson(), Lattice(channels=8, blocks=1), small.images(), Instrument(optics, delivered), effort
    )


def test_a_bundle_regains_what_other_optics_cost_it(trained: Path) -> None:
    work = adapter(trained, BLURRED)
    before = work.before()
    learner = work.learner()
    lines = list(work.steps(learner))
    found = work.adapted(learner, before)
    assert better(before, found.after)
    assert found.after["mse"] < 0.98 * before["mse"]
    # the linear part alone is better already, and learning loses none of it
    assert lines[0].val_error >= learner.progress.best_error
    bundle = Bundle.load(trained)
    assert np.array_equal(found.masks, bundle.patterns.masks)
    assert found.weights.keys() == bundle.weights.keys()


def test_on_the_optics_of_its_training_next_to_nothing_changes(trained: Path) -> None:
    work = adapter(trained, OPTICS)
    learner = work.learner()
    before = work.before()
    found = work.adapted(learner, before)
    assert not found.learned
    assert found.after == before
    kept = Bundle.load(trained).weights
    assert all(np.array_equal(value, kept[key]) for key, value in found.weights.items())


def test_worse_is_not_better() -> None:
    assert better({"mse": 2.0}, {"mse": 1.9})
    assert not better({"mse": 2.0}, {"mse": 2.0})
    assert better({"dice": 0.5, "ap50": 0.5}, {"dice": 0.6, "ap50": 0.5})
    assert not better({"dice": 0.5, "ap50": 0.5}, {"dice": 0.6, "ap50": 0.4})
    simulated = {"mse": 2.0, "pairs_mse": 1.0}
    assert better(simulated, {"mse": 2.01, "pairs_mse": 0.9})
    assert not better(simulated, {"mse": 1.0, "pairs_mse": 1.1})
    assert not better(simulated, {"mse": 3.0, "pairs_mse": 0.5})


def test_patterns_learn_only_where_that_is_asked_for(trained: Path) -> None:
    work = adapter(trained, BLURRED, refine=True, patterns_rate=0.5)
    learner = work.learner()
    for _ in work.steps(learner):
        pass
    assert any(parameter.requires_grad for parameter in learner.patterns.parameters())
    frozen = adapter(trained, BLURRED).learner()
    assert not any(parameter.requires_grad for parameter in frozen.patterns.parameters())


def test_light_as_it_was_measured_takes_the_place_of_what_is_computed(trained: Path) -> None:
    """Patterns that are delivered just as the model says change nothing; others do."""
    stack = Bundle.load(trained).patterns
    forward = Forward(BLURRED, stack.tile_px, stack.camera_pixel)
    light = forward.deliver(torch.from_numpy(stack.masks).float()).numpy()
    computed, measured = adapter(trained, BLURRED).learner(), adapter(trained, BLURRED, delivered=light).learner()
    designs = [learner.exposure.design(learner.shown().double(), 1).kernels() for learner in (computed, measured)]
    assert torch.allclose(*designs, atol=1e-5)
    assert computed.error("val") == pytest.approx(measured.error("val"), rel=1e-3)
    dimmer = light * np.array([1.0, 0.5, 1.0, 1.0], dtype=np.float32)[:, None, None]
    other = adapter(trained, BLURRED, delivered=dimmer).learner().exposure
    (kernels,) = other.design(measured.shown().double(), 1).kernels()[0]
    assert float(kernels[1].sum()) == pytest.approx(0.5 * float(designs[0][0, 0, 1].sum()), rel=1e-4)


def test_a_bundle_of_scenes_knows_its_own_lesson(trained: Path) -> None:
    bundle = Bundle.load(trained)
    assert bundle.header.lesson is not None
    course = course_of({**bundle.header.lesson, "optics": BLURRED.model_dump(mode="json")})
    assert course.lesson.schedule.updates == 24
    assert course.lesson.data == Small().data
    assert course.optics == BLURRED


def test_what_came_later_changes_no_hash(trained: Path) -> None:
    """A bundle that was made before headers could hold a lesson is still the same bundle."""
    bundle = Bundle.load(trained)
    old = Bundle(bundle.header.model_copy(update={"lesson": None}), bundle.patterns, bundle.weights)
    assert "lesson" not in old.header.text
    assert "adapted" not in old.header.text
    assert "lesson" in bundle.header.text


# ---------------------------------------------------------------- bursts with references


def taken(stack: PatternStack, gain: Float32Array, count: int = 8) -> tuple[list[Taken], Window, Window]:
    """Fields as an instrument gives them whose patterns send more or less than they should."""
    rng = torch.Generator().manual_seed(7)
    images = Small().images().crops("train", count, 32, rng).images
    burst_window, full_window = (Window(OPTICS, (32, 32), (0.0, 0.0), 1.0, ms) for ms in (8.0, 8.0))
    forward = Forward(OPTICS, (32, 32), stack.camera_pixel)
    aligned = Aligned(forward, torch.from_numpy(stack.masks).float())
    full = Forward(OPTICS, (32, 32), 1)
    signal = aligned.image(images) * torch.from_numpy(gain)[:, None, None]
    plain = full.image(images, torch.ones(1, 32, 32))
    sensors = [SensorModel.at(OPTICS.sensor, side) for side in (stack.camera_pixel, 1)]
    bursts = sensors[0].draw(forward.photons(signal, 1.0, 8.0), rng).numpy().astype(np.uint16)
    references = sensors[1].draw(full.photons(plain, 1.0, 8.0), rng).numpy().astype(np.uint16)
    pairs = [Taken(burst, reference[0]) for burst, reference in zip(bursts, references, strict=True)]
    return pairs, burst_window, full_window


def test_gains_of_patterns_are_found_and_kept_in_the_bundle(trained: Path) -> None:
    bundle = Bundle.load(trained)
    gain = np.array([0.75, 1.0, 1.2, 1.0], dtype=np.float32)
    fields, burst_window, full_window = taken(bundle.patterns, gain, count=12)
    pairs = TakenPairs(fields, bundle.patterns, burst_window, full_window, 1, 4)
    found = pairs.correction()
    assert found["gain"] == pytest.approx(gain, rel=0.02)
    small = Small()
    work = Adapter(
        trained,
        small.lesson(),
        Lattice(channels=8, blocks=1),
        small.images(),
        Instrument(OPTICS, None, pairs),
        Effort(12),
    )
    before, learner = work.before(), work.learner()
    for _ in work.steps(learner):
        pass
    after = work.adapted(learner, before)
    assert better(before, after.after)
    corrected = Bundle(bundle.header, bundle.patterns, after.weights)
    estimates = [Reconstructor(one, burst_window).estimate(fields[3].burst).image for one in (bundle, corrected)]
    truth = Small().images().crops("train", 12, 32, torch.Generator().manual_seed(7)).images[3].numpy()
    errors = [float(np.square(estimate - truth)[4:-4, 4:-4].mean()) for estimate in estimates]
    assert errors[1] < errors[0]


def test_too_few_fields_are_refused(trained: Path) -> None:
    stack = Bundle.load(trained).patterns
    fields, burst_window, full_window = taken(stack, np.ones(4, dtype=np.float32), count=3)
    with pytest.raises(ValueError, match="3 fields are too few"):
        TakenPairs(fields, stack, burst_window, full_window, 1)
