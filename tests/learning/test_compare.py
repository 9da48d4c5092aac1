"""What a comparison asks and how it is answered: equal light for all, (T, d) by validation, an honest sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmu_hw.compare import AP50, MSE, Metric, Standing, finals, job_of, jobs, standing
from dmu_hw.contest import Choice, Contest, Entry, Question, questions
from dmu_hw.course import Course, course_of
from dmu_hw.exposure import Exposure
from dmu_hw.physics.optics import Dye, GaussianPsf, Mirrors, Optics
from dmu_hw.pool import Failure, Record
from dmu_hw.reference import outcome as tv_outcome
from dmu_hw.trial import outcome
from dmu_hw.tv import Imaging, best_weight, reconstruct

OPTICS = Optics(
    object_pixel_um=0.5,
    sensor_pixel_um=0.5,
    excitation=GaussianPsf(sigma_um=0.3),
    emission=GaussianPsf(sigma_um=0.3),
    mirrors=Mirrors(leakage=0.01),
    dye=Dye(photons_per_um2_mw_ms=200.0, background_photons_per_um2_mw_ms=2.0),
)
BASE: dict[str, Any] = {
    "kind": "train",
    "name": "base",
    "optics": OPTICS.model_dump(mode="json"),
    "data": {"kind": "scenes", "specimen": {"kind": "nuclei", "seed": 1}, "train": 6, "held_back": 3, "side_px": 64},
    "patterns": {"count": 4, "camera_pixel": 8, "start": "hadamard"},
    "power_mw": 1.0,
    "exposure_ms": 2.0,
    "network": {"model": "lattice", "channels": 8, "blocks": 1},
    "schedule": {"updates": 2, "batch": 2, "crop_px": 64, "warmup": 1, "validate_every": 2},
}
COURSE = course_of(BASE)
CHOICE = Choice(count=4, camera_pixel=8)


def contest(**keys: Any) -> Contest:
    asked = {"kind": "compare", "name": "x", "base": "base.yaml", "same_data": (16,), "counts": (1, 4), "seeds": 2}
    return Contest.model_validate(asked | keys, context={"folder": Path("/")})


# ---------------------------------------------------------------- questions


@pytest.mark.parametrize("equal", ["dose", "time"])
def test_all_arms_spend_the_same_light(equal: str) -> None:
    """As much as the base would with all mirrors on; whatever the patterns, in frames of the length that it takes."""
    (question,) = questions(contest(equal=equal, same_data=(), same_camera=(CHOICE,)), COURSE)
    for entry in question.entries:
        course = course_of(entry.config)
        exposure = Exposure(course.lesson, course.optics)
        shape = (course.lesson.patterns.count, 8, 8)
        for patterns in (torch.ones(shape), torch.full(shape, 0.25)):
            frame_ms, lit = float(exposure.frame_ms(patterns)), float(exposure.lit(patterns))
            spent = frame_ms * (lit if equal == "dose" else entry.choice.count)
            assert spent == pytest.approx(4 * 2.0)


def test_everybody_else_is_equal() -> None:
    (question,) = questions(contest(), COURSE)
    plain = [course_of(entry.config) for entry in question.entries]
    for course in plain:
        assert course.lesson.data == COURSE.lesson.data
        assert course.network == COURSE.network
        assert course.optics == COURSE.optics
        assert course.lesson.schedule.model_copy(update={"seed": 0}) == COURSE.lesson.schedule
    assert {course.lesson.schedule.seed for course in plain} == {0, 1}


def test_who_may_answer_with_what() -> None:
    (question,) = questions(contest(arms=("learned", "hadamard", "blocks", "uniform", "limit")), COURSE)
    found = {(entry.arm, entry.choice.count, entry.choice.camera_pixel) for entry in question.entries}
    assert found == {
        ("learned", 1, 4), ("learned", 4, 8), ("limit", 1, 4), ("limit", 4, 8), ("uniform", 1, 4),
        ("hadamard", 4, 8), ("blocks", 4, 8),
    }  # fmt: skip
    assert all(course_of(entry.config).lesson.patterns.frozen for entry in question.of("hadamard"))
    assert {course_of(entry.config).lesson.patterns.binarisation for entry in question.of("limit")} == {"signed"}


def test_a_training_that_two_questions_need_is_done_once() -> None:
    asked = questions(contest(same_camera=(CHOICE,)), COURSE)
    single = sum(len(question.entries) for question in asked)
    done = jobs(entry for question in asked for entry in question.entries)
    assert len(done) < single
    assert {job.key for job in done} == {job_of(entry).key for q in asked for entry in q.entries}


# ---------------------------------------------------------------- answers

Answer = Callable[..., Standing]


def answer(values: Mapping[str, tuple[float, ...]], metric: Metric = MSE, failed: tuple[str, ...] = ()) -> Standing:
    """The standing of arms that reached some values, one a seed."""
    entries, records = [], {}
    for arm, reached in values.items():
        for seed, value in enumerate(reached):
            entry = Entry(arm, CHOICE, seed, {"arm": arm, "seed": seed})  # type: ignore[arg-type]
            entries.append(entry)
            result = {f"{split}_{metric.name}": value for split in ("val", "test")} | {"frame_ms": 2.0}
            lost = Failure(type="Lost", message="killed", traceback="") if arm in failed else None
            records[job_of(entry).key] = Record.now(job_of(entry), None if lost else result, lost, 1.0)
    return standing(Question("same data", "told", 16.0, tuple(entries)), records, metric)


@pytest.mark.parametrize(
    ("values", "outcome", "said"),
    [
        ({"learned": (8.0, 8.1), "uniform": (10.0, 10.1)}, "learned", "earn their light: 19.9 % better than the plain"),
        ({"learned": (9.0, 9.1), "uniform": (8.0, 8.1)}, "rival", "The plain camera (T 4, d 8) is better here"),
        (
            {"learned": (9.9, 9.9), "uniform": (10.0, 10.0)},
            "plain",
            "as good here: learned patterns (T 4, d 8) are 1.0",
        ),
        ({"learned": (5.0, 15.0), "uniform": (12.0, 12.0)}, "plain", "A plain camera is as good here"),
        (
            {"learned": (9.85, 9.85), "random": (9.9, 9.9), "uniform": (10.0, 10.0)},
            "plain",
            "A plain camera is as good here: learned patterns (T 4, d 8) are 1.5 % ahead",
        ),
        (
            {"learned": (8.0, 8.0), "hadamard": (8.1, 8.1), "uniform": (10.0, 10.0)},
            "even",
            "The Hadamard set (T 4, d 8) is as good here: learned patterns (T 4, d 8) are 1.2 % ahead",
        ),
        (
            {"learned": (9.0, 9.0), "hadamard": (8.0, 8.0), "uniform": (9.0, 9.0)},
            "rival",
            "The Hadamard set (T 4, d 8) is better here: learned patterns (T 4, d 8) are 12.5 % behind",
        ),
    ],
)
def test_the_verdict(values: Mapping[str, tuple[float, ...]], outcome: str, said: str) -> None:
    found = answer(values)
    assert found.outcome == outcome
    assert said in found.verdict


def test_more_is_better_for_a_score() -> None:
    found = answer({"learned": (0.8, 0.8), "random": (0.5, 0.5), "limit": (0.9, 0.9)}, AP50)
    assert [result.arm for result in found.best] == ["limit", "learned", "random"]
    assert found.lead == pytest.approx(0.6)
    assert found.closed == pytest.approx(0.75)
    assert found.left == pytest.approx(0.8)
    assert found.outcome == "learned"
    nothing = answer({"learned": (0.0, 0.0), "random": (0.0, 0.0)}, AP50)
    assert (nothing.lead, nothing.outcome) == (0.0, "even")


def test_seeds_and_failures() -> None:
    found = answer({"learned": (1.0, 3.0), "uniform": (10.0,)}, failed=("uniform",))
    learned = found.of("learned")
    assert learned is not None
    assert (learned.mean, learned.spread) == (2.0, pytest.approx(np.sqrt(2)))
    assert learned.light_ms == 8.0
    assert (found.failed, found.rival, found.outcome) == (1, None, None)
    assert "Too many trainings failed" in found.verdict


def test_the_choice_is_made_on_validation() -> None:
    """Not on the test split, by which arms are ranked."""
    entries, records = [], {}
    for count, val, test in ((1, 1.0, 9.0), (4, 2.0, 3.0)):
        entry = Entry("learned", Choice(count=count, camera_pixel=8), 0, {"count": count})
        entries.append(entry)
        result = {"val_mse": val, "test_mse": test, "frame_ms": 1.0}
        records[job_of(entry).key] = Record.now(job_of(entry), result, None, 1.0)
    found = standing(Question("same data", "told", 16.0, tuple(entries)), records, MSE)
    (learned,) = found.best
    assert (learned.choice.count, learned.mean) == (1, 9.0)
    assert len(found.all) == 2


def test_seeds_are_spent_on_what_was_chosen() -> None:
    """T 4 wins the heats; that its other seeds do worse on `val` does not bring T 1 back, which has none."""
    small, large = Choice(count=1, camera_pixel=8), Choice(count=4, camera_pixel=8)
    scores = {(small, 0): 2.0, (large, 0): 1.0, (large, 1): 4.0, (large, 2): 4.0}
    entries = [
        Entry("learned", choice, seed, {"count": choice.count, "seed": seed})
        for choice in (small, large)
        for seed in range(3)
    ]
    question = Question("same data", "told", 16.0, tuple(entries), choosing_seeds=1)
    assert len(question.likely) == 4
    records: dict[str, Record] = {}

    def run(some: Iterable[Entry]) -> None:
        for entry in some:
            reached = scores[entry.choice, entry.seed]
            result = {"val_mse": reached, "test_mse": reached, "frame_ms": 1.0}
            records[job_of(entry).key] = Record.now(job_of(entry), result, None, 1.0)

    run(question.heats)
    left = finals(question, records, MSE)
    assert {(entry.choice.count, entry.seed) for entry in left.entries} == {(1, 0), (4, 0), (4, 1), (4, 2)}
    run(entry for entry in left.entries if entry not in question.heats)
    (learned,) = standing(left, records, MSE).best
    assert (learned.choice, learned.mean) == (large, 3.0)
    every = replace(question, choosing_seeds=3)
    assert every.heats == every.likely == every.entries


# ---------------------------------------------------------------- total variation


def test_total_variation_finds_what_is_flat() -> None:
    """Blocks of 8 pixels seen by a camera of 2 with noise: better than the frames enlarged."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(1, 4, 4, generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)

    def image(field: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(field[:, None], 2) * 4

    def adjoint(frames: torch.Tensor) -> torch.Tensor:
        return frames[:, 0].repeat_interleave(2, 1).repeat_interleave(2, 2)

    imaging = Imaging(image, adjoint)
    assert imaging.squared_norm((32, 32)) == pytest.approx(4.0)
    clean = image(truth)
    frames = clean + 0.3 * torch.randn(clean.shape, generator=generator)
    enlarged = float((adjoint(frames) / 4 - truth).square().mean())

    def error(weight: float) -> float:
        return float((reconstruct(imaging, frames, (32, 32), weight) - truth).square().mean())

    weight = best_weight(error)
    assert error(weight) < 0.5 * enlarged
    assert error(weight) <= min(error(weight * 3), error(weight / 3))


@pytest.mark.parametrize("wanted", [1e-5, 1e-3, 0.1])
def test_the_weight_is_found_downhill(wanted: float) -> None:
    found = best_weight(lambda weight: abs(np.log10(weight / wanted)))
    assert found == pytest.approx(wanted, rel=0.01)


def test_total_variation_of_a_training(tmp_path: Path) -> None:
    """From the very frames that the training was judged by: the ridge there is the training's own."""
    course: Course = COURSE
    (question,) = questions(contest(seeds=1, arms=("learned", "hadamard"), counts=(4,)), course)
    entry = question.of("learned")[0]
    job = job_of(entry)
    own = tmp_path / job.key
    own.mkdir()
    trained = outcome(dict(entry.config), own)
    found = tv_outcome({"trial": job.key, "training": entry.config}, tmp_path / "other")
    assert found["images"] == 3
    assert found["ridge_mse"] == pytest.approx(trained["test_ridge_mse"], rel=1e-4)
    assert 0 < found["mse"] < 2 * found["ridge_mse"]
