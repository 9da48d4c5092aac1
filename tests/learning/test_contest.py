"""What a comparison asks: fair arms that exist, equal light, each training once."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from dmu_hw.contest import ARMS, FIXED, Choice, Contest, Entry, Question, questions
from dmu_hw.course import Course, course_of
from dmu_hw.errors import InputError
from dmu_hw.exposure import Exposure
from dmu_hw.files import Document, content_hash, validate
from dmu_hw.models.lattice import Settings as Lattice
from dmu_hw.physics.mirrors import leak
from dmu_hw.physics.patterns import PatternSet


def contest(**asked: Any) -> Contest:
    given = {"kind": "compare", "name": "fair", "base": "base.yaml", "seeds": 2} | asked
    return validate(Document(given, {}, Path("/lab/compare.yaml")), Contest)


def course_for(small: Any, patterns: dict[str, Any] | None = None, **more: Any) -> Course:
    lesson = small.lesson({"start": "draft"} | (patterns or {}), more.pop("schedule", None), **more)
    return Course(lesson, Lattice(channels=8, blocks=1), small.optics)


def asked(small: Any, base: Course | None = None, **asked_for: Any) -> tuple[Question, ...]:
    return questions(contest(**asked_for), base or course_for(small))


WIDE = {"crop_px": 96}
SAME_CAMERA = ({"count": 4, "camera_pixel": 8},)


def shapes(question: Question) -> dict[str, set[tuple[int, int]]]:
    return {
        arm: {(entry.choice.count, entry.choice.camera_pixel) for entry in question.of(arm)}
        for arm in ARMS
        if question.of(arm)
    }


# ---------------------------------------------------------------- who answers with what


def test_the_same_camera(small: Any) -> None:
    """T frames on pixels of one size; even light needs but one."""
    (question,) = asked(small, same_camera=SAME_CAMERA)
    four, one = {(4, 8)}, {(1, 8)}
    assert shapes(question) == {arm: one if arm == "uniform" else four for arm in ARMS}
    assert (question.kind, question.compression) == ("same camera", 16)
    assert "4 frames, camera pixels of 8 object pixels" in question.told


def test_sets_that_do_not_exist_do_not_compete(small: Any) -> None:
    (question,) = asked(small, same_camera=({"count": 3, "camera_pixel": 8},))
    assert shapes(question).keys() == {"learned", "random", "uniform", "limit"}
    (question,) = asked(small, same_camera=({"count": 9, "camera_pixel": 8},))
    assert shapes(question).keys() == {"learned", "random", "uniform", "limit"}


def test_the_same_data(small: Any) -> None:
    """Any T and d of a compression: what they share is d² / T."""
    (question,) = asked(small, course_for(small, schedule=WIDE), same_data=(16,), counts=(1, 4, 5, 16))
    found = shapes(question)
    assert found["learned"] == found["limit"] == found["random"] == {(1, 4), (4, 8), (16, 16)}
    assert found["uniform"] == {(1, 4)}
    assert found["hadamard"] == found["blocks"] == {(4, 8), (16, 16)}
    assert {entry.choice.compression for entry in question.entries} == {question.compression} == {16}


def test_choices_that_do_not_fit_crops_are_left_out(small: Any) -> None:
    (question,) = asked(small, course_for(small, schedule=WIDE), same_data=(64,))  # each has all its neighbours
    assert shapes(question)["learned"] == {(1, 8), (4, 16), (16, 32)}
    (question,) = asked(small, same_data=(64,))
    assert shapes(question)["learned"] == {(1, 8)}
    (question,) = asked(small, course_for(small, {"tile": 2}, schedule=WIDE), same_data=(64,))
    assert shapes(question)["learned"] == {(1, 8), (4, 16)}
    assert (16, 32) in shapes(question)["random"]  # has no tile


def test_camera_pixels_are_whole_sensor_pixels(small: Any) -> None:
    base = course_for(small, schedule=WIDE)
    coarse = small.optics.model_copy(update={"sensor_pixel_um": 4.0})
    (question,) = asked(small, Course(base.lesson, base.network, coarse), same_data=(16,))
    assert shapes(question)["learned"] == {(4, 8), (16, 16)}


def test_several_questions(small: Any) -> None:
    found = asked(small, same_camera=(*SAME_CAMERA, {"count": 4, "camera_pixel": 4}), same_data=(16, 64))
    assert [question.kind for question in found] == ["same camera"] * 2 + ["same data"] * 2
    assert [question.compression for question in found] == [16, 4, 16, 64]


# ---------------------------------------------------------------- fairness


def entries(found: tuple[Question, ...]) -> list[Entry]:
    return list(itertools.chain.from_iterable(question.entries for question in found))


@pytest.mark.parametrize(
    "light", [{"exposure_ms": 2.5}, {"total_exposure_ms": 10.0}, {"dose_ms": 10.0}, {"peak_ms": 10.0}]
)
@pytest.mark.parametrize("equal", ["peak", "dose", "time"])
def test_all_arms_spend_what_the_base_does(small: Any, light: dict[str, float], equal: str) -> None:
    base = course_for(small, **({"exposure_ms": None} | light))
    found = entries(asked(small, base, same_camera=SAME_CAMERA, same_data=(16,), equal=equal))
    for entry in found:
        course = course_of(entry.config)
        lesson = course.lesson
        given = {"peak": lesson.peak_ms, "dose": lesson.dose_ms, "time": lesson.total_exposure_ms}
        assert given == {name: 10.0 if name == equal else None for name in given}
        assert lesson.exposure_ms is None
        assert lesson.power_mw == base.lesson.power_mw
        if entry.arm in FIXED:
            choice = entry.choice
            made = PatternSet(set=entry.arm, count=choice.count, camera_pixel=choice.camera_pixel).make()
            masks = torch.from_numpy(made.masks).float()
            exposed = Exposure(lesson, course.optics)
            lit = leak(masks, course.optics.mirrors.leakage)
            frames = {"peak": lit.sum(0).max(), "dose": lit.mean((1, 2)).sum(), "time": torch.tensor(choice.count)}
            assert float(exposed.frame_ms(masks) * frames[equal]) == pytest.approx(10.0)


def test_arms_differ_in_their_patterns_only(small: Any) -> None:
    base = course_for(small, {"tile": 2, "superpixel": 2}, loss="l1", variation={"photons": 0.1})
    (question,) = asked(small, base, same_camera=SAME_CAMERA)
    for entry in question.entries:
        config, expected = entry.config, base.config
        same = set(config) - {"name", "patterns", "exposure_ms", "dose_ms", "total_exposure_ms", "peak_ms", "schedule"}
        assert {key: config[key] for key in same} == {key: expected[key] for key in same}
        assert config["schedule"] == expected["schedule"] | {"seed": entry.seed}
    of = {arm: question.of(arm)[0].config["patterns"] for arm in ARMS}
    learned = base.config["patterns"] | {"camera_pixel": 8, "cap": {"sum": None, "peak": 1}}
    assert of["learned"] == learned
    no_cap = base.config["patterns"]["cap"]
    assert of["limit"] == learned | {"binarisation": "signed", "superpixel": 1, "cap": no_cap}, (
        "what no mirror shows needs none"
    )
    for arm in FIXED:
        assert of[arm]["start"] == arm
        assert of[arm]["frozen"]
        assert (of[arm]["tile"], of[arm]["superpixel"], of[arm]["noise"]) == (1, 1, 0.0)


def test_rivals_of_capped_patterns_have_no_cap(small: Any) -> None:
    base = course_for(small, {"cap": {"peak": 2}}, exposure_ms=None, dose_ms=4.0)
    (question,) = asked(small, base, same_camera=SAME_CAMERA)
    for entry in question.entries:
        patterns = course_of(entry.config).lesson.patterns
        assert patterns.cap.peak == (2 if entry.arm == "learned" else None)


def test_seeds(small: Any) -> None:
    base = course_for(small, schedule={"seed": 5})
    (question,) = asked(small, base, same_camera=SAME_CAMERA, seeds=3)
    for arm in ARMS:
        of = question.of(arm)
        assert [entry.seed for entry in of] == [0, 1, 2]
        assert [entry.config["schedule"]["seed"] for entry in of] == [5, 6, 7]
    assert len({content_hash(entry.config) for entry in question.entries}) == 3 * len(ARMS)


def test_what_two_questions_need_is_trained_once(small: Any) -> None:
    camera, data = asked(small, same_camera=SAME_CAMERA, same_data=(16,))
    of_camera = {content_hash(entry.config) for entry in camera.entries if entry.arm != "uniform"}
    of_data = {content_hash(entry.config) for entry in data.entries if entry.choice == Choice(count=4, camera_pixel=8)}
    assert of_camera == of_data
    assert len(of_camera) == 2 * (len(ARMS) - 1)


def test_every_entry_is_a_training(small: Any) -> None:
    for entry in entries(asked(small, same_camera=SAME_CAMERA, same_data=(16,), seeds=1)):
        course = course_of(entry.config)
        assert course.config == entry.config
        assert course.lesson.name == f"{entry.arm}-{entry.choice.count}x{entry.choice.camera_pixel}"


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"same_data": (16,), "arms": ("learned", "limit")}, "arms must hold learned and one of random, hadamard"),
        ({"same_data": (16,), "arms": ("random", "limit")}, "given random, limit"),
        ({}, "same_camera or same_data is wanted, or both"),
        ({"same_data": (0,)}, "greater than or equal to 1, given 0"),
        ({"same_data": (16,), "seeds": 0}, "greater than or equal to 1, given 0"),
        ({"same_data": (16,), "equal": "power"}, "dose"),
    ],
)
def test_contests_that_make_no_sense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        contest(**given)


@pytest.mark.parametrize(
    ("base", "given", "said"),
    [
        (
            {},
            {"same_camera": ({"count": 4, "camera_pixel": 12},)},
            "fair: 4 frames.* of 12 .*no camera pixel fits crops of 32",
        ),
        ({}, {"same_data": (7,)}, "fair: 1/7 of the data: no camera pixel fits crops of 32"),
        ({}, {"same_camera": ({"count": 3, "camera_pixel": 8},), "arms": ("learned", "hadamard")}, "have no rival"),
        (
            {"start": "hadamard"},
            {"same_camera": ({"count": 3, "camera_pixel": 8},)},
            "learned, 3 frames on 8 .*hadamard needs",
        ),
        ({"superpixel": 4}, {"same_data": (4,), "counts": (1,)}, "learned, 1 frames on 2 .*superpixel must divide"),
    ],
)
def test_questions_that_nobody_can_answer(small: Any, base: dict[str, Any], given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        asked(small, course_for(small, base), **given)


def test_all_that_is_wrong_is_said_at_once(small: Any) -> None:
    with pytest.raises(InputError) as refused:
        asked(small, same_camera=({"count": 4, "camera_pixel": 12},), same_data=(16, 7))
    assert len(refused.value.problems) == 2
