"""Several channels through the engine: which light, through which filter, in which order, and what is kept of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import bench_of, bench_rig, colour_plan_of, lines_of, run_plan, seen_place, spooling

from dmu_hw.bleaching import bleaching_of
from dmu_hw.engine import Engine
from dmu_hw.errors import DeviceError
from dmu_hw.omezarr import Store
from dmu_hw.past import read_past
from dmu_hw.plan import Plan
from dmu_hw.rig import Rig
from dmu_hw.verify import verify
from dmu_hw.writer import bursts, write_stores

MOVES = ("on", "light_561 on", "filter GFP", "filter RFP", "shutter open", "shutter closed")


def small(folder: Path, **changes: Any) -> tuple[Rig, Plan, Any]:
    rig = bench_rig(folder, side=32, colours=True)
    return rig, colour_plan_of(rig, **changes), bench_of(rig)


def check_dark(bench: Any) -> None:
    assert (bench.lit, bench.others_lit, bench.shutter_open) == (False, set(), False)
    assert bench.mirrors_at(bench.clock.now_ms()) is None


@pytest.mark.parametrize("stepping", ["dmd", "camera", "software"])
def test_each_channel_has_its_light_through_its_filter(tmp_path: Path, stepping: str) -> None:
    rig = bench_rig(tmp_path, stepping, side=32, colours=True)
    plan, bench = colour_plan_of(rig, time={"loops": 2}), bench_of(rig)
    taken = []
    run, counts = run_plan(tmp_path / "run", rig, plan, lambda shot, burst: taken.append((shot, burst)))
    green = ["on"]
    red = ["filter RFP", "light_561 on"]
    told = [said for said in bench.log if said in MOVES]
    assert told == ["shutter open", *green, *red, "filter GFP", *green, *red, "shutter closed"]
    assert bench.log.count("light_561 power 2") == 2
    assert [(shot.channel, shot.time) for shot, _ in taken] == [("green", 0), ("red", 0), ("green", 1), ("red", 1)]
    for shot, burst in taken:
        assert [seen_place(frame.pixels) for frame in burst.frames] == list(plan.take_of(shot).memory)
    assert (plan.of("green").takes["patterns"].memory, plan.of("red").takes["patterns"].memory) == ((0, 1, 2, 3), (4,))
    assert bench.log.count("load") == 1
    assert (counts.expected, counts.saved, counts.missing) == (10, 10, 0)
    check_dark(bench)
    assert lines_of(run, "guarded")[0]["watchdogs_ms"] == {"light": 300.0, "light_561": 200.0}
    assert {line["channel"]: line["means"]["light"] for line in lines_of(run, "channel")} == {
        "green": "light",
        "red": "light_561",
    }
    assert [line["channel"] for line in lines_of(run, "light")] == ["green", "red"] * 2


def test_the_wheel_turns_once_where_channels_are_the_outermost_loop(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path, time={"loops": 3}, order="channel, time, field, z")
    run_plan(tmp_path / "run", rig, plan)
    assert [said for said in bench.log if said.startswith("filter")] == ["filter RFP"]
    assert [shot.channel for shot in plan.shots] == ["green"] * 3 + ["red"] * 3


def test_a_filter_that_does_not_turn_costs_a_run_and_no_frame(tmp_path: Path) -> None:
    rig, plan, bench = small(tmp_path)
    bench.faults.wheel_stuck = True
    with spooling(tmp_path / "run") as (run, spool), pytest.raises(DeviceError, match=r"filter: should stand at 'RFP'"):
        Engine(plan, rig, spool).run()
    assert "light_561 on" not in bench.log
    assert [lines[0]["shot"] for lines in bursts(run.journal)] == [0]
    assert read_past(run.journal).channel_dose_mj_cm2.get("red", {0: 0.0})[0] == 0
    check_dark(bench)


@pytest.mark.parametrize("exposure", [1, 4])
def test_no_frame_is_kept_that_another_filter_may_have_seen(tmp_path: Path, exposure: int) -> None:
    """It is turned by hand, or slips, while its burst is taken: in the first, or in the second."""
    rig, plan, bench = small(tmp_path)
    bench.faults.wheel_slips_at = exposure
    with spooling(tmp_path / "run") as (run, spool), pytest.raises(DeviceError, match=r"says that it stands at 'none'"):
        Engine(plan, rig, spool).run()
    shots = [0] if exposure == 4 else []
    assert [lines[0]["shot"] for lines in bursts(run.journal)] == shots
    assert {line["shot"] for line in lines_of(run, "frame")} == set(shots)
    check_dark(bench)


def test_doses_add_up_over_channels_and_are_told_of_each(tmp_path: Path) -> None:
    rig, plan, _ = small(tmp_path, time={"loops": 2})
    run, counts = run_plan(tmp_path / "run", rig, plan)
    each = {name: 2 * plan.of(name).takes["patterns"].dose_mj_cm2 for name in ("green", "red")}
    assert plan.price.channel_dose_mj_cm2 == pytest.approx(each)
    assert plan.price.dose_per_field_mj_cm2 == pytest.approx(sum(each.values()))
    assert counts.dose_mj_cm2 == {0: pytest.approx(sum(each.values()))}
    past = read_past(run.journal)
    assert past.channel_dose_mj_cm2 == {name: {0: pytest.approx(dose)} for name, dose in each.items()}
    assert past.counts.dose_mj_cm2 == {0: pytest.approx(sum(each.values()))}


def test_a_cap_holds_for_all_channels_together(tmp_path: Path) -> None:
    """A burst in green is taken again: what is left is too little for red."""
    rig, plan, bench = small(tmp_path)
    cap = plan.price.dose_per_field_mj_cm2
    capped = colour_plan_of(rig, retries=1, budget={"dose_mj_cm2": cap})
    bench.faults.repeated = {2}
    run, counts = run_plan(tmp_path / "run", rig, capped)
    assert counts.dose_mj_cm2 == {0: pytest.approx(2 * plan.of("green").takes["patterns"].dose_mj_cm2)}
    (missing,) = lines_of(run, "missing")
    assert missing["shot"] == 1
    assert missing["reason"].endswith(f"the protocol allows {cap:g}")
    assert "light_561 on" not in bench.log


def test_each_channel_tells_how_its_own_dye_fades(tmp_path: Path) -> None:
    """Over the dose that it took in this channel; what it kept of the light is that of the bench's noise."""
    rig, plan, _ = small(tmp_path, time={"loops": 6}, references={"bleaching": 2}, counts=(1, 1))
    run, _ = run_plan(tmp_path / "run", rig, plan)
    write_stores(run, plan)
    for name in ("green", "red"):
        found = bleaching_of(run, plan.of(name))
        assert found is not None
        assert found.references == 3
        dose = read_past(run.journal).channel_dose_mj_cm2[name][0]
        assert dose == pytest.approx(plan.price.channel_dose_mj_cm2[name])
        assert -np.log(found.left) == pytest.approx(found.loss_per_mj_cm2 * dose)


def test_every_channel_has_stores_of_its_own(tmp_path: Path) -> None:
    rig, plan, _ = small(tmp_path, time={"loops": 2}, references={"plain": True})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    write_stores(run, plan)
    names = {path.name for path in run.path.glob("*.ome.zarr")}
    assert names == {f"{channel}-{kind}.ome.zarr" for channel in ("green", "red") for kind in ("frames", "plain")}
    for name, count in (("green", 4), ("red", 1)):
        store = Store(run.frames_of("patterns", name))
        assert store.array(0).shape == (2, count, 1, 8, 8)
        memory = list(plan.of(name).takes["patterns"].memory)
        assert [seen_place(frame) for frame in store.burst(0, 1, 0)] == memory
        assert np.isfinite(np.asarray(store.times(0)[:])).all()
    facts = Store(run.frames_of("plain", "red")).facts
    assert facts["channel"] == {"name": "red", "light": "light_561", "filters": {"filter": "RFP"}}
    assert (facts["role"], facts["power_mw"]) == ("plain", 2.0)


@pytest.mark.parametrize("channel", ["green", "red"])
def test_damage_is_told_of_the_channel_that_it_struck(tmp_path: Path, channel: str) -> None:
    rig, plan, _ = small(tmp_path, time={"loops": 2})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    write_stores(run, plan)
    assert (verify(run).damage, verify(run).frames) == ([], 10)
    chunk = run.frames_of("patterns", channel) / "0" / "0" / "c" / "1" / "0" / "0" / "0" / "0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    (told,) = verify(run).damage
    assert f"{channel}-frames.ome.zarr: field 0, time 1, plane 0, frames of patterns 0" in told
