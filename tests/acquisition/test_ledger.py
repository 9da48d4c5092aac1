"""Dose is booked before there is light, in both units, and no field is given more than anybody allows."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import bench_of, bench_rig, lines_of, plan_of, run_plan, spooling
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw import ledger as ledger_module
from dmu_hw.control import Control
from dmu_hw.data import Burst
from dmu_hw.engine import Engine
from dmu_hw.errors import RunError
from dmu_hw.journal import Journal, Line, read_journal
from dmu_hw.ledger import Ledger, as_lit, photons_per_um2
from dmu_hw.past import read_past
from dmu_hw.patience import patiently
from dmu_hw.physics.optics import AiryPsf, Dye, GaussianPsf, Optics
from dmu_hw.plan import Plan, Shot
from dmu_hw.rig import Rig
from dmu_hw.runfolder import RunFolder

FIELDS = {"time": {"loops": 5}}


def small(folder: Path, **changes: Any) -> tuple[Rig, Plan]:
    rig = bench_rig(folder, side=32)
    return rig, plan_of(rig, side=32, **changes)


def optics(excitation: AiryPsf | GaussianPsf) -> Optics:
    return Optics(
        object_pixel_um=0.5,
        sensor_pixel_um=0.5,
        excitation=excitation,
        emission=GaussianPsf(sigma_um=0.3),
        dye=Dye(photons_per_um2_mw_ms=1.0),
    )


def test_photons_are_energy_by_wavelength() -> None:
    """1 mJ/cm² of 500 nm: 1e-11 J per µm², of 3.9729e-19 J each."""
    green = optics(AiryPsf(na=0.5, wavelength_nm=500.0))
    assert photons_per_um2(green, 1.0) == pytest.approx(2.51706e7, rel=1e-5)
    assert photons_per_um2(green, 3.0) == pytest.approx(3 * 2.51706e7, rel=1e-5)
    assert photons_per_um2(optics(GaussianPsf(sigma_um=0.3)), 1.0) is None


def test_a_retry_that_would_exceed_the_cap_is_not_lit(tmp_path: Path) -> None:
    """Three bursts are planned and allowed; one comes back damaged, and there is no light left to take it again."""
    rig, plan = small(tmp_path, time={"loops": 3}, retries=3)
    dose = plan.takes["patterns"].dose_mj_cm2
    plan = plan_of(rig, side=32, time={"loops": 3}, retries=3, budget={"dose_mj_cm2": 3 * dose})
    bench_of(rig).faults.dropped = {1}
    run, counts = run_plan(tmp_path / "run", rig, plan)
    lights = lines_of(run, "light")
    assert [(line["shot"], line["attempt"]) for line in lights] == [(0, 0), (0, 1), (1, 0)]
    assert bench_of(rig).log.count("on") == 3
    assert counts.dose_mj_cm2 == {0: pytest.approx(3 * dose)}
    assert (counts.expected, counts.saved, counts.missing) == (12, 8, 4)
    (reason,) = counts.reasons
    assert reason == f"the dose of its field would be {4 * dose:.6g} mJ/cm², the protocol allows {3 * dose:g}"
    assert counts.reasons[reason] == 4
    assert {line["reason"] for line in lines_of(run, "missing")} == {reason}


def test_what_came_of_a_burst_stays_where_it_may_not_be_taken_again(tmp_path: Path) -> None:
    rig, plan = small(tmp_path, retries=3)
    dose = plan.takes["patterns"].dose_mj_cm2
    plan = plan_of(rig, side=32, retries=3, budget={"dose_mj_cm2": dose})
    bench_of(rig).faults.repeated = {2}
    _, counts = run_plan(tmp_path / "run", rig, plan)
    assert (counts.saved, counts.missing, counts.duplicates) == (3, 1, 1)
    (reason,) = counts.reasons
    assert reason.startswith("the camera gave an earlier frame once more; not taken again: the dose of its field")


def test_the_rigs_cap_holds_where_the_protocol_has_none(tmp_path: Path) -> None:
    rig, plan = small(tmp_path, time={"loops": 2}, retries=1)
    dose = plan.takes["patterns"].dose_mj_cm2
    rig.settings = rig.settings.model_copy(
        update={"limits": rig.settings.limits.model_copy(update={"dose_mj_cm2": 2 * dose})}
    )
    bench_of(rig).faults.dropped = {1}
    _, counts = run_plan(tmp_path / "run", rig, plan)
    assert (counts.saved, counts.missing) == (4, 4)
    assert "rig bench allows" in next(iter(counts.reasons))


def test_the_budget_holds_over_lives_of_a_run(tmp_path: Path) -> None:
    """Light of a burst that was lost in a cut is light."""
    rig, plan = small(tmp_path, **FIELDS)
    dose = plan.takes["patterns"].dose_mj_cm2
    plan = plan_of(rig, side=32, **FIELDS, budget={"dose_mj_cm2": 5 * dose})

    def die() -> None:
        if bench_of(rig).exposures == 9:
            raise KeyboardInterrupt

    bench_of(rig).hooks["pop"] = die
    with pytest.raises(KeyboardInterrupt):
        run_plan(tmp_path / "run", rig, plan)
    bench_of(rig).hooks.clear()
    past = read_past(tmp_path / "run" / "journal.jsonl")
    assert past.sealed == {0, 1}
    assert [line["shot"] for line in past.unsaved] == [2]
    assert past.counts.dose_mj_cm2 == {0: pytest.approx(3 * dose)}
    with spooling(tmp_path / "run", resumed=True) as (_, spool):
        counts = Engine(plan, rig, spool, past=past).run()
    assert counts.dose_mj_cm2 == {0: pytest.approx(5 * dose)}
    assert (counts.expected, counts.saved, counts.missing) == (20, 16, 4)
    assert bench_of(rig).log.count("on") == 5


# ---------------------------------------------------------------- one burst ahead


def test_only_the_first_burst_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are booked while the light of the burst before them is on."""
    rig, plan = small(tmp_path, **FIELDS)
    bench, waited, lit = bench_of(rig), [], []
    real = Journal.add

    def add(journal: Journal, kind: str, **fields: Any) -> None:
        if kind == "light":
            (waited if threading.current_thread() is waiting.get("thread") else lit).append(bench.lit)
        real(journal, kind, **fields)

    waiting: dict[str, threading.Thread] = {}
    bench.hooks["pop"] = lambda: time.sleep(0.005)  # else the light is off again before a thread comes to work
    monkeypatch.setattr(Journal, "add", add)
    monkeypatch.setattr(ledger_module, "patiently", lambda work, _path: (waiting.update(thread=_here()), work()))
    run, _ = run_plan(tmp_path / "run", rig, plan)
    assert (waited, lit) == ([False], [True] * 4)
    assert [line.get("ahead", False) for line in lines_of(run, "light")] == [False, True, True, True, True]


def _here() -> threading.Thread:
    return threading.current_thread()


@pytest.mark.parametrize("why", ["abort", "error"])
def test_what_is_booked_and_not_lit_is_given_back(tmp_path: Path, why: str) -> None:
    rig, plan = small(tmp_path, **FIELDS)
    dose, control = plan.takes["patterns"].dose_mj_cm2, Control()

    def end(shot: Shot, _burst: Burst) -> None:
        if shot.index == 1 and why == "abort":
            control.abort("enough")
        elif shot.index == 1:
            raise RunError("enough")

    with contextlib.suppress(RunError):
        run_plan(tmp_path / "run", rig, plan, end, control)
    past = read_past(tmp_path / "run" / "journal.jsonl")
    assert bench_of(rig).log.count("on") == 2
    assert past.counts.dose_mj_cm2 == {0: pytest.approx(2 * dose)}
    assert past.counts.light_on_ms == pytest.approx(2 * plan.takes["patterns"].burst_ms)
    assert past.unsaved == []
    run = RunFolder(tmp_path / "run")
    assert [line["shot"] for line in lines_of(run, "light")] == [0, 1, 2]
    assert [line["shot"] for line in lines_of(run, "unlit")] == [2]
    assert [line["shot"] for line in as_lit(read_journal(run.journal))] == [0, 1]


def test_what_cannot_be_given_back_stays_booked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk hangs while the second burst is booked; the run is stopped, and does not wait for it."""
    rig, plan = small(tmp_path, **FIELDS)
    go_on = threading.Event()
    monkeypatch.setattr(ledger_module, "_RETURN_S", 0.05)
    with spooling(tmp_path / "run") as (run, spool):
        ledger = Ledger(spool.journal, plan, rig.settings, {})
        take, (first, second) = plan.takes["patterns"], list(plan.shots)[:2]
        ledger.book(first, 0, take)
        monkeypatch.setattr(spool.journal, "sync", lambda: go_on.wait(20.0))
        ledger.expect(second, take, 0.0)
        ledger.book_next()
        ledger.give_back()
        go_on.set()
    assert "stay booked: the disk takes too long" in caplog.text
    assert [line["shot"] for line in lines_of(run, "light")] == [0, 1]
    assert lines_of(run, "unlit") == []
    assert read_past(run.journal).counts.dose_mj_cm2 == {0: pytest.approx(2 * take.dose_mj_cm2)}


def test_a_booking_that_failed_is_told_before_its_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rig, plan = small(tmp_path, **FIELDS)
    with spooling(tmp_path / "run") as (_, spool):
        ledger = Ledger(spool.journal, plan, rig.settings, {})
        take, (first, second) = plan.takes["patterns"], list(plan.shots)[:2]
        with monkeypatch.context() as broken:
            broken.setattr(spool.journal, "sync", lambda: (_ for _ in ()).throw(RunError("the disk is full")))
            ledger.expect(first, take, 0.0)
            ledger.book_next()
            with pytest.raises(RunError, match="the disk is full"):
                ledger.book(first, 0, take)
        ledger.book(second, 0, take)
        assert ledger.dose_mj_cm2 == {0: pytest.approx(take.dose_mj_cm2)}


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2), st.booleans()), max_size=12))
def test_light_is_told_in_its_order(bursts: list[tuple[bool, int, bool]]) -> None:
    """Of bursts that were booked ahead or not, taken again or not, and perhaps not taken."""
    lines: list[Line] = []
    lit: list[tuple[int, int]] = []
    first_taken: int | None = None
    """Where the light of the burst before ended for the first time: another is booked ahead before that."""
    for shot, (ahead, retries, given_back) in enumerate(bursts):
        booking: Line = {"kind": "light", "shot": shot, "attempt": 0}
        if ahead and first_taken is not None:
            lines.insert(first_taken, booking | {"ahead": True})
            if given_back:
                lines.append({"kind": "unlit", "shot": shot, "attempt": 0})
                first_taken = None
                continue
        else:
            lines.append(booking)
        for attempt in range(retries + 1):
            if attempt:
                lines.append(booking | {"attempt": attempt})
            else:
                first_taken = len(lines)
            lit.append((shot, attempt))
            lines.append({"kind": "taken", "shot": shot, "attempt": attempt})
    assert [(line["shot"], line["attempt"]) for line in as_lit(lines)] == lit


CHILD = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fakes import bench_of, bench_rig, plan_of, run_plan
folder, exposures, when = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
rig = bench_rig(folder, side=32)
def die():
    if bench_of(rig).exposures == exposures:
        os.kill(os.getpid(), signal.SIGKILL)
bench_of(rig).hooks[when] = die
run_plan(folder / "run", rig, plan_of(rig, side=32, time={"loops": 5}))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
@pytest.mark.parametrize(("when", "lit"), [("power", 3), ("on", 3), ("off", 4)])
def test_a_crash_around_the_light_never_counts_too_little(tmp_path: Path, when: str, lit: int) -> None:
    """Killed as the light is set for the fourth burst, as it goes on, or as it goes off: booked is what was lit, or
    one burst more."""
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(tmp_path), str(4 * lit), when]
    done = subprocess.run(command, check=False, timeout=60, env={**os.environ})
    assert done.returncode == -9
    past = read_past(tmp_path / "run" / "journal.jsonl")
    _, plan = small(tmp_path)
    booked = past.counts.dose_mj_cm2[0] / plan.takes["patterns"].dose_mj_cm2
    assert booked == pytest.approx(round(booked))
    assert lit <= round(booked) <= lit + 1


def test_no_light_where_the_booking_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk hangs just when the dose is to be booked: the run ends in the dark, and says where."""
    rig, plan = small(tmp_path, **FIELDS)
    monkeypatch.setattr("dmu_hw.patience.STALLED_S", 0.2)
    with spooling(tmp_path / "run") as (_, spool):
        engine = Engine(plan, rig, spool)
        monkeypatch.setattr(ledger_module, "patiently", _slowly)
        with pytest.raises(RunError, match=r"journal.jsonl: nothing could be written for 0.2 s: the disk hangs"):
            engine.run()
    assert bench_of(rig).log.count("on") == 0
    assert not bench_of(rig).lit


def _slowly(work: Callable[[], None], path: Path) -> None:
    patiently(lambda: (time.sleep(0.6), work()), path)
