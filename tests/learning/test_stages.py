"""A training in stages: the image, the segmentation, both; each ends with its best and can be cut anywhere."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dmu_hw.checkpoint import load_state, save_state
from dmu_hw.errors import InputError, RunError
from dmu_hw.images import Images
from dmu_hw.judging import bundled, scores
from dmu_hw.lesson import Stage
from dmu_hw.losses import IMAGE_LOSSES
from dmu_hw.train import Learner, Line, learn

PARTS = ("model", "patterns", "segmenter")
SEGMENTER = {"channels": 8, "blocks": 1, "levels": 2, "fine_channels": 2}


def segmenting(
    small: Any, stages: tuple[float, float, float] = (0.4, 0.2, 0.4), updates: int = 10, **schedule: Any
) -> Learner:
    task = {"kind": "segment", "stages": stages, "network": SEGMENTER}
    given = {"updates": updates, "validate_every": 2} | schedule
    made: Learner = small.learner(small.lesson({"start": "noise"}, given, task=task))
    return made


def kept(learner: Learner) -> dict[str, list[Tensor]]:
    """All that learns; what follows from it by calculation is left out."""
    return {name: [p.detach().clone() for p in part.parameters()] for name, part in learner._modules().items()}


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def stepped(learner: Learner) -> list[tuple[str, set[str]]]:
    """Learn; tells of each update its stage and which parts changed in it."""
    told: list[tuple[str, set[str]]] = []
    step = learner.step

    def watched() -> float:
        before, name = kept(learner), learner.stage.name
        loss = step()
        after = kept(learner)
        told.append((name, {part for part in after if not same(before[part], after[part])}))
        return loss

    learner.step = watched  # type: ignore[method-assign]
    list(learn(learner))
    return told


# ---------------------------------------------------------------- which parts learn when


def test_only_what_a_stage_is_about_learns(small: Any) -> None:
    told = stepped(segmenting(small))
    image, head, joint = {"model", "patterns"}, {"segmenter"}, {"model", "patterns", "segmenter"}
    assert told == [("image", image)] * 4 + [("head", head)] * 2 + [("joint", joint)] * 4


@pytest.mark.parametrize(("stages", "stays"), [((0.0, 1.0, 0.0), True), ((0.0, 0.0, 1.0), False)])
def test_the_head_learns_on_images_as_they_will_be(small: Any, stages: tuple[float, float, float], stays: bool) -> None:
    """As the inverse gives them when it no longer learns: without gradients."""
    learner = segmenting(small, stages)
    seen: list[Tensor] = []
    maps = learner.maps
    learner.maps = lambda estimate: seen.append(estimate) or maps(estimate)  # type: ignore[func-returns-value, method-assign]
    for _ in range(2):
        learner.step()
    assert [estimate.requires_grad for estimate in seen] == [not stays] * 2


@pytest.mark.parametrize(("stages", "names"), [((0.0, 0.0, 1.0), ["joint"]), ((0.5, 0.5, 0.0), ["image", "head"])])
def test_stages_may_be_left_out(small: Any, stages: tuple[float, float, float], names: list[str]) -> None:
    lines = list(learn(segmenting(small, stages, updates=4)))
    assert [name for name, _ in itertools.groupby(line.stage for line in lines)] == names
    assert lines[-1].update == 4


def test_stages_of_a_lesson(small: Any) -> None:
    assert segmenting(small, updates=100).lesson.stages == (
        Stage("image", 0, 40),
        Stage("head", 40, 60),
        Stage("joint", 60, 100),
    )
    assert small.lesson().stages == (Stage("image", 0, 12),)


def test_the_first_line_of_a_stage_judges_what_it_begins_with(small: Any) -> None:
    lines = list(learn(segmenting(small)))
    first = {name: next(group) for name, group in itertools.groupby(lines, lambda line: line.stage)}
    assert {name: line.update for name, line in first.items()} == {"image": 0, "head": 4, "joint": 6}
    assert all(line.loss is None and line.per_update_s is None for line in first.values())
    # head and joint bring down the same, and joint begins with the best of head
    assert first["joint"].val_error == min(line.val_error for line in lines if line.stage == "head")


def test_it_learns_to_segment(small: Any) -> None:
    learner = segmenting(small, (0.2, 0.6, 0.2), updates=80, validate_every=20, batch=4, learning_rate=4e-3)
    lines = list(learn(learner))
    errors = {
        name: [line.val_error for line in group] for name, group in itertools.groupby(lines, lambda line: line.stage)
    }
    assert errors["head"][-1] < 0.8 * errors["head"][0]
    assert learner.progress.best_error <= errors["joint"][0]
    assert set(scores(learner, "val")) == {"dice", "ap50", "count_error"}
    bundle = bundled(learner)
    assert bundle.header.task == "segment"
    assert any(key.startswith("segmenter.") for key in bundle.weights)


def test_a_segment_task_needs_labels(small: Any) -> None:
    lesson = segmenting(small).lesson
    blind = Images(small.images().by_split)
    with pytest.raises(InputError, match="needs labels"):
        list(learn(Learner(lesson, segmenting(small).network, small.optics, blind)))


# ---------------------------------------------------------------- the best of each stage


def test_the_best_of_a_stage_is_what_the_next_begins_with(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever came after it."""
    errors: Iterator[float] = iter([5, 3, 4, 9, 6, 7, 2, 8, 1])
    monkeypatch.setattr(Learner, "error", lambda _self, _split: next(errors))
    learner = segmenting(small)
    at: dict[int, dict[str, list[Tensor]]] = {}
    begun: dict[str, dict[str, list[Tensor]]] = {}
    for line in learn(learner):
        if line.loss is None:
            begun[line.stage] = kept(learner)
        at[line.update] = kept(learner) if line.loss is not None or line.update not in at else at[line.update]
    # image: 5 at 0, 3 at 2, 4 at 4; head: 9 at 4, 6 at 6; joint: 7 at 6, 2 at 8, 8 at 10
    assert all(same(begun["head"][part], at[2][part]) for part in PARTS)
    assert all(same(begun["joint"][part], at[6][part]) for part in PARTS)
    assert all(same(kept(learner)[part], at[8][part]) for part in PARTS)
    assert (learner.progress.best_update, learner.progress.best_error) == (8, 2)


# ---------------------------------------------------------------- cut and gone on with


def lines_of(learner: Learner, cut: int | None = None) -> list[tuple[int, str, float]]:
    lines: Iterator[Line] = itertools.islice(learn(learner), cut)
    return [(line.update, line.stage, line.val_error) for line in lines]


def identical(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(identical(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(identical, one, other))
    return bool(one == other)


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_cut_after_any_line_changes_nothing(small: Any, tmp_path: Path, cut: int) -> None:
    """Three lines of image, two of head, three of joint."""
    whole = segmenting(small)
    expected = lines_of(whole)
    assert len(expected) == 8
    stopped = segmenting(small)
    assert lines_of(stopped, cut) == expected[:cut]
    save_state(tmp_path / "state", stopped.state())
    resumed = segmenting(small)
    resumed.restore(load_state(tmp_path / "state"))
    assert lines_of(resumed) == expected[cut:]
    assert identical(resumed.state(), whole.state())


def test_a_cut_where_patience_ends_a_stage_changes_nothing(
    small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def patient() -> Learner:
        return segmenting(small, updates=20, patience=1, validate_every=1)

    worse = itertools.count(1)
    monkeypatch.setattr(Learner, "error", lambda _self, _split: float(next(worse)))
    whole = patient()
    expected = [(update, stage) for update, stage, _ in lines_of(whole)]
    # each stage ends with the first line that is no better, and the next begins where the schedule has it
    assert expected == [(0, "image"), (1, "image"), (8, "head"), (9, "head"), (12, "joint"), (13, "joint")]
    assert whole.progress.update == 13
    for cut in range(1, 6):
        stopped = patient()
        lines_of(stopped, cut)
        save_state(tmp_path / "state", stopped.state())
        resumed = patient()
        resumed.restore(load_state(tmp_path / "state"))
        assert [(update, stage) for update, stage, _ in lines_of(resumed)] == expected[cut:]
        assert all(same(kept(resumed)[part], kept(whole)[part]) for part in PARTS)


@pytest.mark.parametrize("change", ["schedule", "optics", "network", "images"])
def test_a_checkpoint_goes_with_what_it_was_made_of(small: Any, change: str) -> None:
    state = small.learner(small.lesson()).state()
    other = small.learner(small.lesson(schedule={"learning_rate": 2e-3} if change == "schedule" else {}))
    if change == "optics":
        other.exposure.optics = other.exposure.optics.model_copy(update={"sensor_pixel_um": 1.0})
    if change == "network":
        other.network = other.network.model_copy(update={"blocks": 2})
    if change == "images":
        other.images = small.images(labelled=True)
    with pytest.raises(InputError, match="belongs to another protocol, other optics or other images"):
        other.restore(state)


# ---------------------------------------------------------------- what counts


def spoil(field: Tensor) -> Tensor:
    """Its margin of 8 pixels, that is."""
    spoilt = field.clone()
    spoilt[..., :8, :], spoilt[..., -8:, :], spoilt[..., :8], spoilt[..., -8:] = 9, 9, 9, 9
    return spoilt


@pytest.mark.parametrize(("margin_px", "told"), [(8, False), (0, True)])
@pytest.mark.parametrize("task", ["image", "segment"])
def test_the_margin_is_not_judged(small: Any, task: str, margin_px: int, told: bool) -> None:
    """What stands in it may be anything: neither error nor scores know of it."""
    more = {} if task == "image" else {"task": {"kind": "segment", "stages": (0, 0, 1), "network": SEGMENTER}}
    learner = small.learner(small.lesson(schedule={"margin_px": margin_px}, **more))
    before = [learner.error("val"), *scores(learner, "val").values()]
    judged, maps = learner.judged, learner.maps
    if task == "image":
        learner.judged = lambda split: ((crops, spoil(estimate)) for crops, estimate in judged(split))  # type: ignore[assignment,return-value]
    else:
        learner.maps = lambda estimate: spoil(maps(estimate))  # type: ignore[method-assign]
    after = [learner.error("val"), *scores(learner, "val").values()]
    assert (before != after) == told


def test_the_margin_is_not_learned_from(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = small.learner(small.lesson(schedule={"margin_px": 8}))
    seen: list[torch.Size] = []
    loss = learner.image_loss
    learner.image_loss = lambda image, truth: seen.extend((image.shape, truth.shape)) or loss(image, truth)
    learner.step()
    assert seen == [(2, 16, 16)] * 2


@pytest.mark.parametrize("given", ["mse", "l1", "ssim", {"mse": 2.0, "ssim": 0.5}])
def test_losses(small: Any, given: Any) -> None:
    """The first loss is that of the linear estimate that a training begins with."""
    learner = small.learner(small.lesson({"frozen": True}, loss=given))
    wanted = {given: 1.0} if isinstance(given, str) else given
    shown: list[tuple[Tensor, Tensor]] = []
    loss = learner.image_loss
    learner.image_loss = lambda image, truth: shown.append((image.detach(), truth)) or loss(image, truth)
    told = learner.step()
    ((image, truth),) = shown
    expected = sum(weight * float(IMAGE_LOSSES[name](image, truth)) for name, weight in wanted.items())
    assert told == pytest.approx(expected, rel=1e-5)
    before = np.mean([learner.step() for _ in range(10)])
    for _ in range(30):
        learner.step()
    assert np.mean([learner.step() for _ in range(10)]) < before * 1.05


def test_losses_differ(small: Any) -> None:
    """In the patterns that come of them too."""
    found = []
    for given in ("mse", "l1", "ssim"):
        learner = small.learner(small.lesson({"start": "noise"}, loss=given))
        for _ in range(3):
            learner.step()
        found.append(torch.cat([w.flatten() for w in kept(learner)["patterns"]]))
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_loss_that_ran_away_is_told(small: Any) -> None:
    learner = small.learner(small.lesson(schedule={"updates": 100, "learning_rate": 1e30}))
    with pytest.raises(RunError, match=r"ran away at update \d+: a smaller learning_rate may help"):
        list(learn(learner))
    assert learner.progress.update < 20


@pytest.mark.parametrize("cap", [{"peak": 1}, {"sum": 1.2}])
def test_caps_hold_to_the_end(small: Any, cap: dict[str, Any]) -> None:
    patterns = {"start": "hadamard", "cap": cap}
    learner = small.learner(small.lesson(patterns, {"patterns_rate": 0.1}))
    list(learn(learner))
    masks = bundled(learner).patterns.masks
    assert masks.any()
    assert masks.sum(axis=0).max() <= cap.get("peak", 4)
    assert masks.mean(axis=(1, 2)).sum() <= cap.get("sum", 4)


def test_rates_rise_and_fall_in_each_stage(small: Any) -> None:
    learner = segmenting(small, updates=40, warmup=4)
    rates: dict[str, list[float]] = {"image": [], "head": [], "joint": []}
    step = learner.step

    def watched() -> float:
        loss = step()
        rates[learner.stage.name].append(max(group["lr"] / group["peak"] for group in learner.optimiser.param_groups))
        return loss

    learner.step = watched  # type: ignore[method-assign]
    list(learn(learner))
    assert {name: len(some) for name, some in rates.items()} == {"image": 16, "head": 8, "joint": 16}
    for some in rates.values():
        assert some[0] == pytest.approx(0.25)
        assert some[-1] < 0.1
        assert max(some) > 0.6
        assert math.isclose(max(some), max(some[2:5]))


def test_mixed_precision_learns_the_same(small: Any) -> None:
    errors = {}
    for precision in ("single", "mixed"):
        learner = small.learner(small.lesson(schedule={"precision": precision, "updates": 20, "validate_every": 20}))
        errors[precision] = [line.val_error for line in learn(learner)]
    assert errors["mixed"] != errors["single"]
    assert errors["mixed"] == pytest.approx(errors["single"], rel=0.05)
