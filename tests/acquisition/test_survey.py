"""Adaptive protocols: only fields that were chosen are imaged once more, whoever chooses, and again the same ones when
the run is resumed."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_of, bench_rig, lines_of, plan_of, spooling
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dmu_hw.adaptive.cells import CellSettings, Chooser
from dmu_hw.choosing import Seen, chooser_of
from dmu_hw.control import Control
from dmu_hw.counts import Counts
from dmu_hw.data import Estimate
from dmu_hw.engine import Engine
from dmu_hw.errors import InputError, RunError
from dmu_hw.files import parse_yaml, validate
from dmu_hw.omezarr import Store
from dmu_hw.past import Past, read_past
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.plan import Plan
from dmu_hw.planner import make_plan
from dmu_hw.protocol import Protocol
from dmu_hw.rig import Rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.survey import Survey
from dmu_hw.writer import bursts, write_stores

THEN = {"patterns": {"set": "blocks", "count": 4, "camera_pixel": 2}, "exposure_ms": 2.0}


def planned(folder: Path, fields: int = 4, times: int = 2, **changes: Any) -> tuple[Rig, Plan]:
    """Fields of a bench that has no stage: their places are only numbers."""
    rig = bench_rig(folder, side=32)
    bare = plan_of(rig, side=32, time={"loops": times}, adaptive={"by": "x"}, then=THEN, **changes)
    keys = {name: getattr(bare.protocol, name) for name in Protocol.model_fields}
    places = tuple({"x_um": 40.0 * number, "y_um": 0.0} for number in range(fields))
    protocol = Protocol.model_validate({**keys, "positions": places})
    rig._parts["stage"] = _Stage()  # type: ignore[assignment]
    then = PatternSet.model_validate(THEN["patterns"]).make()
    return rig, make_plan(protocol, rig.file.path, rig, rig.optics, bare.stack, then)


class _Stage:
    limits_um = ((-1e6, 1e6), (-1e6, 1e6))
    at = (0.0, 0.0)

    def move_um(self, x_um: float, y_um: float, _timeout_ms: float) -> None:
        self.at = (x_um, y_um)

    def position_um(self) -> tuple[float, float]:
        return self.at

    def travel_ms(self, distance_um: float) -> float:
        return distance_um / 10


@dataclass
class Odd:
    """Chooses the fields of odd number, those of two time points in turn."""

    saw: list[Seen] = field(default_factory=list)
    fails_at: int | None = None

    def score(self, estimate: Estimate, seen: Seen) -> float:
        assert threading.current_thread() is not threading.main_thread()
        if seen.field == self.fails_at:
            raise KeyError("a bug")
        self.saw.append(seen)
        assert estimate.image.shape == (8, 8)
        return float(10 * seen.time + seen.field)

    def choose(self, scores: Mapping[int, Sequence[float]]) -> list[int]:
        return [number for number, values in scores.items() if int(values[0]) % 2 == 1]


def estimate(frames: np.ndarray[Any, Any]) -> Estimate:
    return Estimate(frames.mean(axis=0).astype(np.float32), 1.0, "x")


def run_with(
    folder: Path, rig: Rig, plan: Plan, chooser: Any, control: Control | None = None, past: Past | None = None
) -> tuple[RunFolder, Counts]:
    past = past or Past()
    with spooling(folder) as (run, spool):
        survey = Survey(plan, chooser, estimate, spool.journal, past.scores, past.chosen)
        with survey:
            engine = Engine(plan, rig, spool, None, control, past=past, survey=survey)
            return run, engine.run()


def test_only_what_was_chosen_is_imaged_once_more(tmp_path: Path) -> None:
    rig, plan = planned(tmp_path)
    chooser = Odd()
    run, counts = run_with(tmp_path / "run", rig, plan, chooser)
    taken = [plan.shots[lines[0]["shot"]] for lines in bursts(run.journal)]
    expected = [(time, number, role) for time in range(2) for role, numbers in ROUNDS for number in numbers]
    assert [(shot.time, shot.position, shot.role) for shot in taken] == expected
    assert [(line["time"], line["fields"]) for line in lines_of(run, "chosen")] == [(0, [1, 3]), (1, [1, 3])]
    assert [(seen.time, seen.field, seen.x_um) for seen in chooser.saw][:4] == [(0, n, 40.0 * n) for n in range(4)]
    assert counts.expected == counts.saved == 2 * (4 * 4 + 2 * 4)
    assert plan.price.frames == 2 * (4 * 4 + 4 * 4), "at worst all fields are chosen"
    assert counts.expected == plan.price.frames - plan.frames_not_chosen(read_past(run.journal).chosen)
    dose = dict.fromkeys((1, 3), plan.takes["patterns"].dose_mj_cm2 + plan.takes["chosen"].dose_mj_cm2)
    assert counts.dose_mj_cm2[1] == pytest.approx(2 * dose[1])
    assert counts.dose_mj_cm2[0] == pytest.approx(2 * plan.takes["patterns"].dose_mj_cm2)
    assert plan.price.dose_per_field_mj_cm2 == pytest.approx(2 * dose[1])
    bench = bench_of(rig)
    assert bench.log.count("load") == 1
    assert not bench.lit
    write_stores(run, plan)
    store = Store(run.frames_of("chosen"))
    assert store.burst(1, 0, 0).shape == (4, 16, 16)
    assert np.isfinite(np.asarray(store.times(3)[:, :, 0])).all()
    assert np.isnan(np.asarray(store.times(0)[:, :, 0])).all()


ROUNDS = (("patterns", (0, 1, 2, 3)), ("chosen", (1, 3)))


def test_the_choice_is_on_the_disk_before_it_is_acted_on(tmp_path: Path) -> None:
    rig, plan = planned(tmp_path, times=1)
    run, _ = run_with(tmp_path / "run", rig, plan, Odd())
    kinds = [(line["kind"], line.get("shot")) for line in _lines(run)]
    first = next(i for i, (kind, shot) in enumerate(kinds) if kind == "light" and shot == 5)
    assert ("chosen", None) in kinds[:first]
    assert sum(kind == "scored" for kind, _ in kinds[:first]) == 4


def _lines(run: RunFolder) -> list[dict[str, Any]]:
    from dmu_hw.journal import read_journal

    return list(read_journal(run.journal))


@pytest.mark.parametrize("cut", [2, 4, 5])
def test_a_run_that_goes_on_chooses_the_same(tmp_path: Path, cut: int) -> None:
    """Cut within the survey, or among the chosen fields; what was scored is not scored again."""
    rig, plan = planned(tmp_path, times=1)
    control = Control()
    bench = bench_of(rig)
    bench.hooks["arm"] = lambda: control.abort("cut") if bench.log.count("arm") > cut else None
    run, counts = run_with(tmp_path / "run", rig, plan, Odd(), control)
    assert counts.aborted
    past = read_past(run.journal)
    sealed = len(past.sealed)
    assert sealed == cut
    again, plan_again = planned(tmp_path, times=1)
    survey = Survey(plan_again, Odd(), estimate, _Nowhere(), past.scores, past.chosen)  # type: ignore[arg-type]
    survey.catch_up(run.journal, run.spool)
    missing = [shot for shot in plan.shots if shot.role == "patterns" and shot.index not in past.sealed]
    for shot in missing:
        survey._scores[shot.index] = float(shot.position)
    assert [shot.position for shot in plan.shots if shot.role == "chosen" and survey.wants(shot, lambda: None)] == [
        1,
        3,
    ]
    assert again is not rig


class _Nowhere:
    def add(self, *_: Any, **__: Any) -> None: ...

    def sync(self) -> None: ...


def test_what_was_sealed_and_not_scored_is_scored_from_the_spool(tmp_path: Path) -> None:
    rig, plan = planned(tmp_path, times=1)
    run, _ = run_with(tmp_path / "run", rig, plan, Odd())
    chooser = _Anywhere()
    survey = Survey(plan, chooser, estimate, _Nowhere(), {0: 0.0, 2: 2.0}, {})  # type: ignore[arg-type]
    survey.catch_up(run.journal, run.spool)
    assert [seen.field for seen in chooser.saw] == [1, 3]
    assert survey._scores == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}


class _Anywhere(Odd):
    def score(self, _estimate: Estimate, seen: Seen) -> float:
        self.saw.append(seen)
        return float(seen.field)


def test_a_burst_with_gaps_has_no_score(tmp_path: Path) -> None:
    rig, plan = planned(tmp_path, times=1, retries=0)
    bench_of(rig).faults.repeated = {5}
    run, counts = run_with(tmp_path / "run", rig, plan, Odd())
    assert [line["fields"] for line in lines_of(run, "chosen")] == [[3]]
    assert counts.missing == 1
    assert counts.saved + counts.missing == counts.expected


@pytest.mark.parametrize(
    ("chooser", "says"),
    [
        (Odd(fails_at=2), "the survey of field 2 failed: KeyError: 'a bug'"),
        (type("Far", (_Anywhere,), {"choose": lambda *_: [4]})(), "chose field 4; there are 0 to 3"),
        (type("Nan", (_Anywhere,), {"score": lambda *_: float("nan")})(), "gave nan for field 0"),
        (type("Bad", (_Anywhere,), {"choose": lambda *_: 1 / 0})(), "choosing at time 0 failed: ZeroDivisionError"),
    ],
)
def test_a_chooser_that_fails_ends_the_run_in_the_dark(tmp_path: Path, chooser: Any, says: str) -> None:
    rig, plan = planned(tmp_path)
    with pytest.raises(RunError, match=says):
        run_with(tmp_path / "run", rig, plan, chooser)
    assert not bench_of(rig).lit
    assert len(list(bursts(tmp_path / "run" / "journal.jsonl"))) >= 1


def test_a_slow_chooser_holds_up_the_rig_in_the_dark_and_no_frame_is_lost(tmp_path: Path) -> None:
    rig, plan = planned(tmp_path, fields=12, times=1)
    bench, go_on = bench_of(rig), threading.Event()
    ahead: list[tuple[int, bool]] = []

    class Slow(_Anywhere):
        def score(self, estimate: Estimate, seen: Seen) -> float:
            go_on.wait(0.3)
            ahead.append((bench.exposures // 4 - seen.field, bench.lit))
            return super().score(estimate, seen)

    _, counts = run_with(tmp_path / "run", rig, plan, Slow())
    assert counts.saved == counts.expected == 12 * 4 + 6 * 4
    assert max(number for number, _ in ahead) <= 7, "four that wait, one in work, one taken"


def test_an_abort_does_not_wait_for_the_chooser(tmp_path: Path) -> None:
    rig, plan = planned(tmp_path)
    control, stuck = Control(), threading.Event()

    class Stuck(_Anywhere):
        def score(self, _estimate: Estimate, seen: Seen) -> float:
            if seen.field == 3:
                control.abort("too slow")
                stuck.wait(5.0)
            return 0.0

    run, counts = run_with(tmp_path / "run", rig, plan, Stuck(), control)
    stuck.set()
    assert counts.aborted == "too slow"
    assert counts.saved == 16
    assert lines_of(run, "chosen") == []


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"adaptive": None}, "go together"),
        ({"then": None}, "go together"),
        ({"order": "field, time, z"}, "then needs time as the outermost loop"),
        ({"references": {"bleaching": 1}}, "and no bleaching references"),
    ],
)
def test_protocols_that_contradict_themselves_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    keys = {"adaptive": {"by": "cells"}, "then": THEN, **changes}
    with pytest.raises(ValidationError, match=says):
        plan_of(bench_rig(tmp_path, side=32), side=32, time={"loops": 4}, **keys)


def test_what_stands_against_the_second_round_is_said_at_once(tmp_path: Path) -> None:
    rig = bench_rig(tmp_path, side=32)
    then = {
        "patterns": {"set": "blocks", "count": 9, "camera_pixel": 3},
        "exposure_ms": 1e9,
        "light": {"power_mw": 1e9},
    }
    plan = plan_of(rig, side=32)
    keys = {name: getattr(plan.protocol, name) for name in Protocol.model_fields}
    protocol = Protocol.model_validate({**keys, "adaptive": {"by": "cells"}, "then": then})
    with pytest.raises(InputError) as error:
        make_plan(
            protocol, rig.file.path, rig, rig.optics, plan.stack, PatternSet.model_validate(then["patterns"]).make()
        )
    said = str(error.value)
    for key in ("field_px", "then.light.power_mw", "then.exposure_ms", "then.patterns.camera_pixel"):
        assert f": {key}: " in said


# ---------------------------------------------------------------- those who choose


def chooser_from(folder: Path, text: str) -> Any:
    return chooser_of_text(folder, f"adaptive:\n  {text}\n")


def chooser_of_text(folder: Path, text: str) -> Any:
    document = parse_yaml(text, folder / "run.yaml").inside(("adaptive",))
    from dmu_hw.choosing import Choice

    return chooser_of(validate(document, Choice), document)


def test_choosers_are_found_by_name_file_and_class(tmp_path: Path) -> None:
    source = """
from dmu_hw.files import Settings

class Own:
    class Settings(Settings):
        bright: float = 1.0
    def __init__(self, settings): self.settings = settings
    def score(self, estimate, seen): return self.settings.bright
    def choose(self, scores): return list(scores)

class Half(Own):
    choose = None
"""
    (tmp_path / "mine.py").write_text(source)
    assert chooser_from(tmp_path, "by: cells\n  least: 3.0").settings.least == 3.0
    assert isinstance(chooser_from(tmp_path, "by: dmu_hw.adaptive.cells:Chooser"), Chooser)
    assert chooser_from(tmp_path, "by: mine.py:Own\n  bright: 2.0").settings.bright == 2.0
    for text, says in {
        "by: cells\n  lest: 3.0": r"run\.yaml:3: adaptive\.lest: unknown key 'lest'; did you mean 'least'\?",
        "by: cels": r"run\.yaml:2: adaptive\.by: there is no 'cels'; did you mean 'cells'\?",
        "by: mine.py": r"'mine\.py' has no Chooser; it has: Half, Own",
        "by: mine.py:Half": "Half of 'mine.py' lacks choose",
        "by: pathlib.Path:Path": "'pathlib.Path' cannot be loaded|has no Settings",
    }.items():
        with pytest.raises(InputError, match=says):
            chooser_from(tmp_path, text)


def test_cells_are_objects_that_are_large_enough() -> None:
    chooser = Chooser(CellSettings(area_um2=4.0, brightness=0.5))
    image = np.zeros((20, 20), np.float32)
    image[2:5, 2:5], image[10:12, 10:12], image[15:19, 15:19] = 1.0, 1.0, 0.4
    seen = Seen(0, 0, 0, None, None)
    assert chooser.score(Estimate(image, 1.0, "x"), seen) == 2
    assert chooser.score(Estimate(image, 0.7, "x"), seen) == 1
    labels = np.zeros((20, 20), np.int32)
    labels[:2, :2], labels[4, 4], labels[8:12, 8:12] = 1, 2, 7
    assert chooser.score(Estimate(image * 0, 1.0, "x", labels), seen) == 2
    assert chooser.score(Estimate(image * 0, 1.0, "x"), seen) == 0


@given(
    st.dictionaries(st.integers(0, 30), st.lists(st.integers(0, 9).map(float), min_size=1, max_size=3)),
    st.integers(1, 9),
    st.integers(1, 10),
)
def test_the_best_fields_are_chosen(scores: dict[int, list[float]], least: int, most: int) -> None:
    chosen = Chooser(CellSettings(least=float(least), most=most)).choose(scores)
    left = [max(values) for number, values in scores.items() if number not in chosen]
    assert chosen == sorted(chosen)
    assert all(max(scores[number]) >= least for number in chosen)
    assert len(chosen) == min(most, sum(max(values) >= least for values in scores.values()))
    if chosen and left:
        assert min(max(scores[number]) for number in chosen) >= max([0.0, *(x for x in left if x >= least)])
