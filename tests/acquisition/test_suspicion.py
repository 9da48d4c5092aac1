"""Doubts that only frames raise: heeded once, never at the cost of a frame, and the same when a run is resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from fakes import lines_of, plan_of, run_plan
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw import burst as burst_module
from dmu_hw.past import read_past
from dmu_hw.proof import Verdict
from dmu_hw.rig import Rig
from dmu_hw.suspicion import Suspicion

SAID = st.sampled_from(["proven", "refuted", "doubted", "undecided"])
DOUBT = "the light of pattern 1 is once more that of pattern 3"


@given(st.lists(st.lists(SAID, max_size=4), max_size=300))
def test_what_is_taken_again_in_vain_is_little(bursts: list[list[str]]) -> None:
    """Whatever the light says: one burst, and two of a hundred."""
    suspicion, vain = Suspicion(), 0
    for said in bursts:
        heeded = suspicion.heeds
        vain += heeded and said.count("doubted") > 1 and said[-1] == "doubted"
        suspicion.note(said)
        assert vain <= 1 + suspicion.clean / 50


def test_after_one_in_vain_many_must_be_clean() -> None:
    suspicion = Suspicion()
    suspicion.note(["doubted", "doubted"])
    assert not suspicion.heeds
    for _ in range(49):
        suspicion.note(["undecided"])
    suspicion.note(["doubted"])
    assert not suspicion.heeds, "what was not taken again says neither"
    suspicion.note(["doubted", "proven"])
    assert suspicion.heeds, "a fault that was gone again"


@pytest.fixture
def saying(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], str]], None]:
    """Makes the light say of its n-th burst what is given."""

    def make(said: Callable[[int], Any]) -> None:
        number: Iterator[int] = count()

        def judge(*_: Any) -> Verdict:
            what = said(next(number))
            return Verdict(what, DOUBT if what == "doubted" else "", 0.0, 0.0)

        monkeypatch.setattr(burst_module, "judge", judge)

    return make


def marked(rig: Rig, **changes: Any) -> Any:
    return plan_of(rig, side=64, proof={"marker": "always"}, **changes)


def test_a_fault_that_is_doubted_is_taken_again(
    small_rig: Callable[..., Rig], tmp_path: Path, saying: Callable[..., None]
) -> None:
    rig = small_rig({"devices.dmd.read_back": False})
    saying(lambda number: "doubted" if number == 1 else "undecided")
    run, counts = run_plan(tmp_path / "run", rig, marked(rig, time={"loops": 3}, retries=1))
    assert (counts.saved, counts.missing, counts.retaken_bursts, counts.unproven_bursts) == (12, 0, 1, 3)
    assert [line["received"] for line in lines_of(run, "taken")] == [4, 0, 4, 4]


def test_a_specimen_that_is_always_doubted_loses_nothing(
    small_rig: Callable[..., Rig], tmp_path: Path, saying: Callable[..., None]
) -> None:
    """And costs one burst more; all stay unproven, as they do if a fault is there from the first burst to the last."""
    rig = small_rig({"devices.dmd.read_back": False})
    saying(lambda _: "doubted")
    run, counts = run_plan(tmp_path / "run", rig, marked(rig, time={"loops": 5}, retries=3))
    assert (counts.saved, counts.missing, counts.retaken_bursts, counts.unproven_bursts) == (20, 0, 1, 5)
    assert [line["attempt"] for line in lines_of(run, "taken")] == [0, 1, 0, 0, 0, 0]
    assert {line["proof"]["why"] for line in lines_of(run, "taken")} == {DOUBT}


@pytest.mark.parametrize("limit", [{"retries": 0}, {"retries": 2, "budget": True}], ids=["no retries", "no dose"])
def test_nothing_is_doubted_that_cannot_be_taken_again(
    small_rig: Callable[..., Rig], tmp_path: Path, saying: Callable[..., None], limit: dict[str, Any]
) -> None:
    rig = small_rig({"devices.dmd.read_back": False})
    saying(lambda _: "doubted")
    if limit.pop("budget", False):
        dose = marked(rig).price.dose_per_field_mj_cm2
        limit["budget"] = {"dose_mj_cm2": 1.5 * dose}
    _, counts = run_plan(tmp_path / "run", rig, marked(rig, **limit))
    assert (counts.saved, counts.missing, counts.retaken_bursts, counts.unproven_bursts) == (4, 0, 0, 1)


def test_a_run_that_goes_on_knows_what_was_doubted(
    small_rig: Callable[..., Rig], tmp_path: Path, saying: Callable[..., None]
) -> None:
    rig = small_rig({"devices.dmd.read_back": False})
    said = ["undecided", "doubted", "undecided", "proven", "doubted", "doubted", "doubted"]
    saying(lambda number: said[number])
    run, _ = run_plan(tmp_path / "run", rig, marked(rig, time={"loops": 5}, retries=1))
    past = read_past(run.journal)
    assert len(past.sealed) == 5
    assert past.suspicion == Suspicion(clean=3, vain=1)
    assert not past.suspicion.heeds
