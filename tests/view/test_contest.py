"""The report of a comparison: verdict first, everything that was measured, the same image by every arm."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.compare import job_of
from dmu_hw.contest import Contest, Entry, questions
from dmu_hw.course import Course, open_course
from dmu_hw.files import load_yaml, parse_yaml, read_text
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.pool import Failure, Record
from dmu_hw.tally import Tally
from dmu_hw.view.contest import write_contest
from dmu_hw.view.plots import _LABEL_PT, _apart

BASE: dict[str, Any] = {
    "kind": "train",
    "name": "base",
    "optics": {
        "object_pixel_um": 0.5,
        "sensor_pixel_um": 0.5,
        "excitation": {"kind": "gaussian", "sigma_um": 0.3},
        "emission": {"kind": "gaussian", "sigma_um": 0.35},
        "dye": {"photons_per_um2_mw_ms": 100.0},
    },
    "data": {"kind": "scenes", "specimen": {"kind": "nuclei", "seed": 1}, "train": 6, "held_back": 2, "side_px": 64},
    "patterns": {"count": 4, "camera_pixel": 8},
    "power_mw": 1.0,
    "dose_ms": 8.0,
    "schedule": {"updates": 6, "crop_px": 64, "margin_px": 8},
}
SKILL = {"learned": 1.0, "random": 1.9, "hadamard": 1.2, "blocks": 1.4, "uniform": 1.1, "limit": 0.8}
"""Errors of the arms, relative to one another."""
TallyOf = Callable[..., Tally]


def _record(entry: Entry, skill: Mapping[str, float], scored: str) -> Record:
    """What a training of an arm might have come to."""
    rng = np.random.default_rng([entry.seed, len(entry.arm), entry.choice.count, entry.choice.camera_pixel])
    error = 1e-3 * skill[entry.arm] * entry.choice.compression**0.5 * (1 + 0.01 * rng.standard_normal())
    ridge = 1.2 * error
    told = {"mse": error, "psnr_db": -10 * np.log10(error), "ssim": 0.8} if scored == "mse" else {}
    if scored == "ap50":
        told = {"ap50": 1 - min(1.0, 100 * error), "dice": 0.9 - 10 * error, "count_error": 20 * error}
    told |= {"ridge_mse": ridge, "ridge_ssim": 0.7}
    about = {
        "updates": 6, "best_update": 4, "lit": 2.0, "frame_ms": 4.0, "parameters": 12_345,
        "seconds_to_begin": 1.0, "seconds_to_learn": 60.0,
    }  # fmt: skip
    scores = {f"{split}_{name}": float(value) for split in ("val", "test") for name, value in told.items()}
    return Record.now(job_of(entry), scores | about, None, 61.0)


def _samples(entry: Entry, folder: Path, skill: Mapping[str, float]) -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:64, :64] / 64
    truth = np.clip(np.sin(9 * x) * np.cos(7 * y), 0, 1)
    side = entry.choice.camera_pixel
    patterns = rng.random((entry.choice.count, side, side)) < 0.5
    if entry.arm in ("hadamard", "blocks", "uniform"):
        patterns = PatternSet(set=entry.arm, count=entry.choice.count, camera_pixel=side).make().masks
    shown = 2.0 * patterns - 1 if entry.arm == "limit" else patterns
    estimate = truth + 0.05 * skill[entry.arm] * rng.standard_normal((2, 64, 64))
    own = folder / job_of(entry).key
    own.mkdir(parents=True)
    np.savez_compressed(
        own / "samples.npz",
        truth=np.stack([truth, truth]).astype(np.float16),
        estimate=estimate.astype(np.float16),
        patterns=shown.astype(np.float16),
    )


@pytest.fixture
def tally_of(tmp_path: Path) -> TallyOf:
    """A comparison that has ended, with files as its trainings leave them."""

    def make(
        skill: Mapping[str, float] = SKILL, base: Mapping[str, Any] | None = None, failed: str = "", **changes: Any
    ) -> Tally:
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE | dict(base or {})))
        document = {"kind": "compare", "name": "made-up", "base": "base.yaml", "same_data": [16, 64], "seeds": 2}
        path = tmp_path / "compare.yaml"
        path.write_text(yaml.safe_dump(document | changes))
        contest = load_yaml(path, Contest)
        base_document = parse_yaml(read_text(contest.base), contest.base)
        course: Course = open_course(base_document, lambda path: pytest.fail(f"{path} is no rig"))
        asked = questions(contest, course)
        scored = "ap50" if course.lesson.task.kind == "segment" else "mse"
        entries = {job_of(entry).key: entry for question in asked for entry in question.entries}
        records = {}
        lost = Failure(type="RunError", message="training <ran> away", traceback="")
        for key, entry in entries.items():
            records[key] = _record(entry, skill, scored)
            if entry.arm == failed:
                records[key] = Record.now(job_of(entry), None, lost, 1.0)
            else:
                _samples(entry, tmp_path / "trials", skill)
        return Tally.of(contest, course, asked, records)

    return make


def report(tally: Tally, tmp_path: Path) -> str:
    write_contest(tally, tmp_path / "compare.yaml", tmp_path / "trials", tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def words(text: str) -> str:
    """What a reader sees, without markup."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", " ", text, flags=re.DOTALL)))


def test_the_verdict_comes_first_and_every_arm_is_there(tally_of: TallyOf, tmp_path: Path) -> None:
    tally = tally_of(same_camera=[{"count": 4, "camera_pixel": 8}])
    text = report(tally, tmp_path)
    seen = words(text)
    for one in tally.standings:
        assert seen.index(one.verdict) < seen.index("Test split, best first")
        assert {result.arm for result in one.best} == set(SKILL)
    assert text.count("<svg") >= 4  # three of arms, one against compression
    assert "Learned patterns (T" in seen
    assert "://" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert "<script" not in text
    assert "var(--text)" in text
    assert text.count("data:image/png") > 3 * (1 + 6 * 3)
    for said in ("How to read the limit", "no mirror can show", "12,345", "dose of the most lit object pixel"):
        assert said in seen


def test_ids_within_the_plots_are_their_own(tally_of: TallyOf, tmp_path: Path) -> None:
    """Several pictures in one page must not borrow each other's clips and markers."""
    text = report(tally_of(), tmp_path)
    own = re.findall(r'<(?:clipPath|path) id="([^"]+)"', text)
    pictures = text.split("<svg")[1:]
    for picture in pictures:
        for used in re.findall(r'(?:href="#|url\(#)([^")]+)', picture.split("</svg>")[0]):
            assert f'id="{used}"' in picture
    assert own


def test_what_failed_is_said_and_escaped(tally_of: TallyOf, tmp_path: Path) -> None:
    text = report(tally_of(failed="hadamard"), tmp_path)
    assert "INCOMPLETE" in text
    assert "training &lt;ran&gt; away" in text
    assert "training <ran>" not in text
    assert "4 trainings failed for this question" in words(text)


def test_without_the_learned_arm_there_is_no_answer(tally_of: TallyOf, tmp_path: Path) -> None:
    assert "Too many trainings failed for an answer." in words(report(tally_of(failed="learned"), tmp_path))


def test_segmentation_has_its_own_scores(tally_of: TallyOf, tmp_path: Path) -> None:
    seen = words(report(tally_of(base={"task": {"kind": "segment"}}), tmp_path))
    for said in ("AP@0.5", "Dice", "count error", "average precision"):
        assert said in seen


def test_pictures_that_are_gone_are_no_failure(tally_of: TallyOf, tmp_path: Path) -> None:
    tally = tally_of()
    for file in (tmp_path / "trials").rglob("*.npz"):
        file.unlink()
    assert "The pictures are gone" in report(tally, tmp_path)


def test_all_numbers_for_programs(tally_of: TallyOf) -> None:
    tally = tally_of()
    facts = json.loads(json.dumps(tally.facts(), allow_nan=False))
    assert (facts["metric"], facts["equal"], facts["seeds"]) == ("mse", "peak", 2)
    first = facts["questions"][0]
    arms = {arm["arm"]: arm for arm in first["arms"]}
    assert first["outcome"] == "learned"
    assert first["lead"] == pytest.approx(1 - arms["learned"]["mean"] / arms["uniform"]["mean"])
    assert [arm["arm"] for arm in first["arms"]][:2] == ["limit", "learned"]
    learned = arms["learned"]
    assert learned["mean"] == pytest.approx(np.mean(learned["values"]))
    assert learned["spread"] == pytest.approx(np.std(learned["values"], ddof=1))
    assert [trial["seed"] for trial in learned["trials"]] == [0, 1]
    assert learned["budget"] == {
        "updates": 6, "best_update": 4, "batch": 8, "seconds": 61, "parameters": 12_345
    }  # fmt: skip
    assert learned["dose_ms"] == 8.0
    assert learned["light_ms"] == 4.0 * learned["T"]


@given(st.lists(st.floats(0, 300), min_size=1, max_size=8).map(sorted))
def test_names_of_lines_do_not_meet(heights: list[float]) -> None:
    placed = _apart(heights)
    assert all(low + _LABEL_PT <= high + 1e-6 for low, high in itertools.pairwise(placed))
    assert np.mean(placed) == pytest.approx(np.mean(heights))
    if all(low + _LABEL_PT <= high for low, high in itertools.pairwise(heights)):
        assert placed == pytest.approx(heights)
