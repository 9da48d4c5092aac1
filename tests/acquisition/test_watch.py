"""What drifts in a run is named, and nothing else is; the mirrors' light is laid back; what that costs is booked."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import lines_of, plan_of, run_plan
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dmu_hw.counts import Counts
from dmu_hw.errors import InputError
from dmu_hw.fringes import Fringes, Told
from dmu_hw.journal import Line
from dmu_hw.marker import Readings
from dmu_hw.past import read_past
from dmu_hw.physics.optics import Optics
from dmu_hw.physics.patterns import PatternSet
from dmu_hw.physics.projection import onto_mirrors
from dmu_hw.physics.warp import Warp
from dmu_hw.plan import Plan
from dmu_hw.planner import make_plan
from dmu_hw.rig import Rig
from dmu_hw.runfolder import RunFolder
from dmu_hw.upload import mirror_frames
from dmu_hw.view.watching import drift_cautions, watching_section
from dmu_hw.watch import Drift, Level, Watch, light_drifts
from dmu_hw.watched import drifts_of

SmallRig = Callable[..., Rig]
WORLD = "connections.world."
MIRRORS, LAMP, FOCUS = f"{WORLD}mirror_drift_um_s", f"{WORLD}power_drift_per_s", f"{WORLD}focus_drift_um_s"
DYE = f"{WORLD}truth"
BESIDE = (-80.0, 30.0)
DRIFTS: dict[str, dict[str, Any]] = {
    "registration": {MIRRORS: [0.0015, -0.001]},
    "power": {LAMP: -0.0008},
    "bleaching": {DYE: {"dye": {"bleach_dose_mj_cm2": 150_000.0}}},
    "focus": {FOCUS: 0.0036},
}
"""Each is beyond its limit at the end of five minutes, and none of them far."""
KINDS = ("nuclei", "filaments")


def planned(
    small_rig: SmallRig, changes: dict[str, Any], seed: int = 1, kind: str = "nuclei", **keys: Any
) -> tuple[Rig, Plan]:
    specimen = {"kind": kind, "seed": seed}
    rig = small_rig({f"{WORLD}specimen": specimen, f"{WORLD}seed": seed, **changes})
    patterns = {"set": "random", "count": 4, "camera_pixel": 8}
    usual: dict[str, Any] = {
        "watch": {"every": 4, "at_um": BESIDE},
        "light": {"power_mw": 10.0},
        "time": {"loops": 17, "interval_s": 20.0},
        "positions": ({"x_um": 0.0, "y_um": 0.0},),
        "focus_um": 0.0,
    }
    protocol = plan_of(rig, side=64, camera_pixel=8, patterns=patterns, **{**usual, **keys}).protocol
    return rig, make_plan(protocol, rig.file.path, rig, rig.optics, PatternSet.model_validate(patterns).make())


def beyond(run: RunFolder) -> set[str]:
    """All that was named in a run."""
    lines = [*lines_of(run, "look"), *lines_of(run, "glance")]
    return {drift["name"] for line in lines for drift in line["drifts"] if drift["beyond"]}


# ---------------------------------------------------------------- naming


@pytest.mark.parametrize("name", DRIFTS)
def test_a_drift_alone_is_named_and_nothing_else(
    small_rig: SmallRig, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    rig, plan = planned(small_rig, DRIFTS[name])
    with caplog.at_level(logging.WARNING):
        run, counts = run_plan(tmp_path / "run", rig, plan)
    assert beyond(run) == {name}
    assert [record.message.split(":")[1].strip() for record in caplog.records] == [name], "it is warned of once"
    assert (counts.missing, counts.aborted) == (0, "")
    facts = drifts_of(run.journal, plan)
    assert facts["drifts"][name]["beyond"] > 0
    assert sum(drift["beyond"] > 0 for drift in facts["drifts"].values()) == 1
    (caution,) = drift_cautions(facts)
    assert caution.startswith(f"{name} drifted")
    assert name in watching_section(facts).html


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DRIFTS)
def test_drifts_are_named_on_many_specimens(
    small_rig: SmallRig, tmp_path: Path, name: str, kind: str, figure: Callable[..., None]
) -> None:
    named = Counter[str]()
    for seed in range(20):
        rig, plan = planned(small_rig, DRIFTS[name], seed, kind)
        run, _ = run_plan(tmp_path / f"run{seed}", rig, plan)
        named[", ".join(sorted(beyond(run))) or "nothing"] += 1
    told = "; ".join(f"{what}: {count}" for what, count in named.items())
    figure("watch", f"named where only {name} drifts, {kind}, 20 runs", told, f"{name}, or brightness where it is dim")
    unsure = named["brightness"] if name in ("power", "bleaching") else 0
    assert named[name] + unsure == 20
    assert unsure <= 3, "where the place beside all fields has next to no dye"


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_drift_is_not_named(small_rig: SmallRig, tmp_path: Path, kind: str) -> None:
    """Twenty-six looks and as many bursts, one after the other."""
    times = {"loops": 26}
    rig, plan = planned(small_rig, {f"{WORLD}flicker": 0.002}, 5, kind, time=times, watch={"every": 1, "at_um": BESIDE})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    assert len(lines_of(run, "look")) == len(lines_of(run, "glance")) == 26
    assert beyond(run) == set()
    assert not any(line["why"] for line in lines_of(run, "look"))


@pytest.mark.campaign
@pytest.mark.parametrize("light", [10.0, 2.0])
@pytest.mark.parametrize("kind", KINDS)
def test_no_false_alarm_in_many_runs(
    small_rig: SmallRig, tmp_path: Path, kind: str, light: float, figure: Callable[..., None]
) -> None:
    alarms, looks = 0, 0
    shifts: list[tuple[float, float]] = []
    for seed in range(30):
        keys: dict[str, Any] = {"time": {"loops": 34, "interval_s": 5.0}, "watch": {"every": 2, "at_um": BESIDE}}
        rig, plan = planned(small_rig, {f"{WORLD}flicker": 0.002}, seed, kind, light={"power_mw": light}, **keys)
        run, _ = run_plan(tmp_path / f"run{seed}", rig, plan)
        alarms += bool(beyond(run))
        lines = lines_of(run, "look")
        looks += len(lines)
        shifts += [(math.hypot(*line["shift_px"]), line["error_px"]) for line in lines if line["shift_px"] is not None]
    at = f"{kind}, {light:g} mW"
    figure("watch", f"runs without drift in which one is named, {at}", f"{alarms} of 30 ({looks} looks)", "0")
    off, errors = np.array(shifts).T
    spread = f"{np.median(off):.3f} px, 99 % of looks {np.quantile(off, 0.99):.3f} px"
    figure("watch", f"shift of mirrors that stand still, {at}", spread, "5 standard errors of each look")
    assert alarms == 0
    assert np.quantile(off / errors, 0.99) < 5


def test_bursts_alone_tell_brightness_but_not_whose(small_rig: SmallRig, tmp_path: Path) -> None:
    for name in ("power", "bleaching"):
        rig, plan = planned(small_rig, DRIFTS[name], watch={})
        assert (plan.watch_take, plan.price.looks) == (None, 0)
        run, _ = run_plan(tmp_path / name, rig, plan)
        assert beyond(run) == {"brightness"}
        assert not lines_of(run, "look")


def test_looks_in_the_field_tell_brightness_too(small_rig: SmallRig, tmp_path: Path) -> None:
    rig, plan = planned(small_rig, DRIFTS["power"], watch={"every": 4})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    assert beyond(run) == {"brightness"}


def test_bleaching_that_is_believed_is_no_drift(small_rig: SmallRig, tmp_path: Path) -> None:
    rig, plan = planned(small_rig, {"optics.dye.bleach_dose_mj_cm2": 40_000.0})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    assert beyond(run) == set()
    lights = [line["light"] for line in lines_of(run, "glance")]
    assert lights[-1] < 0.7 * lights[0]


def test_bursts_that_do_not_drift_tell_nothing(small_rig: SmallRig, tmp_path: Path) -> None:
    rig, plan = planned(small_rig, {f"{WORLD}flicker": 0.002}, 6, time={"loops": 60}, watch={})
    run, _ = run_plan(tmp_path / "run", rig, plan)
    assert len(lines_of(run, "glance")) == 60
    assert beyond(run) == set()


# ---------------------------------------------------------------- what is done about it


def off_px(plan: Plan, looks: list[Line], speed_um_s: tuple[float, float]) -> list[float]:
    """How far beside their places the patterns of the next burst fall, at the worst corner of the field."""
    (x, y), (width, height) = plan.centre_um, plan.size_um
    corners = np.array([(x + i * width / 2, y + j * height / 2) for i in (-1, 1) for j in (-1, 1)]).T
    found = []
    for line in looks:
        crept = np.array(speed_um_s) * line["at_ms"] * 1e-3
        laid = np.array(line["laid"]["matrix"]) @ corners + np.array(line["laid"]["shift_um"])[:, None]
        found.append(float(np.abs(laid - corners - crept[:, None]).max()) / plan.optics.sensor_pixel_um)
    return found


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_light_is_laid_back_on_many_specimens(
    small_rig: SmallRig, tmp_path: Path, kind: str, figure: Callable[..., None]
) -> None:
    off: list[float] = []
    for seed in range(20):
        keys: dict[str, Any] = {"watch": {"every": 2, "beyond": "register", "shift_px": 0.15}}
        keys["time"] = {"loops": 8, "interval_s": 20.0}
        rig, plan = planned(small_rig, {MIRRORS: [0.004, -0.002]}, seed, kind, **keys)
        run, counts = run_plan(tmp_path / f"run{seed}", rig, plan)
        assert counts.aborted == ""
        off += off_px(plan, lines_of(run, "look")[1:], (0.004, -0.002))
    told = f"{np.median(off):.3f} px, worst of {len(off)} {max(off):.3f} px"
    figure("watch", f"light beside its place after it was laid back, {kind}, 20 runs", told, "0.1 px")
    assert max(off) < 0.1


def test_the_mirrors_light_is_laid_back(small_rig: SmallRig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """To a tenth of a pixel of where it was when it was measured; the patterns of the bursts follow."""
    keys = {"watch": {"every": 2, "beyond": "register", "shift_px": 0.15}}
    rig, plan = planned(small_rig, {MIRRORS: [0.004, -0.002]}, time={"loops": 8, "interval_s": 20.0}, **keys)
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert (counts.missing, counts.aborted) == (0, "")
    pixel_um = rig.optics.sensor_pixel_um
    looks = lines_of(run, "look")
    assert max(off_px(plan, looks[1:], (0.004, -0.002))) < 0.1
    assert max(math.hypot(*line["shift_px"]) for line in looks) < 0.5, "else it would sum up"
    assert sum("laid back" in record.message for record in caplog.records) == 1
    facts = drifts_of(run.journal, plan)
    assert facts["laid_back"] == 3
    assert facts["laid_px"][0] == pytest.approx(0.004 * looks[-1]["at_ms"] * 1e-3 / pixel_um, abs=0.1)


@pytest.mark.parametrize(
    ("watch", "speed", "why"),
    [
        ({"beyond": "stop"}, 0.004, "registration: the mirrors' light lies"),
        ({"beyond": "register"}, 0.15, "too far to be laid back surely"),
    ],
)
def test_a_run_ends_where_it_is_to_end(
    small_rig: SmallRig, tmp_path: Path, watch: dict[str, Any], speed: float, why: str
) -> None:
    keys: dict[str, Any] = {"time": {"loops": 4, "interval_s": 60.0}, "watch": {"every": 1, **watch}}
    rig, plan = planned(small_rig, {MIRRORS: [speed, 0.0]}, **keys)
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert why in counts.aborted
    assert (counts.saved, counts.missing) == (4, 12), "what was taken before is kept"
    assert len(lines_of(run, "look")) == 2
    assert not rig.light.is_on()


def test_a_burst_that_tells_to_stop_is_kept(small_rig: SmallRig, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"time": {"loops": 8, "interval_s": 40.0}, "watch": {"beyond": "stop"}}
    rig, plan = planned(small_rig, {LAMP: -0.001}, **keys)
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert "brightness" in counts.aborted
    assert counts.saved == 4 * len(lines_of(run, "glance")) == 4 * 4
    assert counts.missing == 4 * 4


def test_the_watch_goes_on_where_it_was(small_rig: SmallRig, tmp_path: Path) -> None:
    """What was laid over the map, and what was seen first, are read from the journal."""
    keys = {"watch": {"every": 2, "beyond": "register", "at_um": BESIDE}, "time": {"loops": 6, "interval_s": 20.0}}
    rig, plan = planned(small_rig, {MIRRORS: [0.006, 0.0]}, **keys)
    run, _ = run_plan(tmp_path / "run", rig, plan)
    looks, glances = lines_of(run, "look"), lines_of(run, "glance")
    past = read_past(run.journal)
    assert past.look == looks[-1]
    assert past.looks == {(-1, 0): looks[0]}
    assert past.glances == {("", 0, 0): glances[0]}
    given = {key: fields[0] for key, fields in past.given.items()}
    assert plan.watch_take is not None
    assert given == {("", plan.takes["patterns"].dose_mj_cm2): 6, ("", plan.watch_take.dose_mj_cm2): 3}


# ---------------------------------------------------------------- what it costs


@pytest.mark.parametrize(
    ("watch", "keys", "looks"),
    [
        ({"every": 4}, {"time": {"loops": 9, "interval_s": 2.0}}, 3),
        ({"every": 2, "at_um": BESIDE}, {"grid": {"rows": 1, "columns": 3}, "positions": (), "time": {"loops": 2}}, 3),
        ({"every": 3}, {"grid": {"rows": 1, "columns": 3}, "positions": (), "time": {"loops": 2}}, 2),
        ({"every": 1, "exposure_ms": 2.0}, {"z": {"planes_um": (0.0, 1.0)}, "time": {"loops": 2}}, 2),
    ],
)
def test_looks_are_priced_and_booked(
    small_rig: SmallRig, tmp_path: Path, watch: dict[str, Any], keys: dict[str, Any], looks: int
) -> None:
    rig, plan = planned(small_rig, {}, watch=watch, **keys)
    began_ms = rig.clock.now_ms()
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert len(lines_of(run, "look")) == plan.price.looks == looks
    assert len(lines_of(run, "light")) == len(plan.shots) + looks
    assert max(counts.dose_mj_cm2.values()) == pytest.approx(plan.price.dose_per_field_mj_cm2)
    assert counts.light_on_ms / 1e3 == pytest.approx(plan.price.light_on_s)
    assert (rig.clock.now_ms() - began_ms) / 1e3 == pytest.approx(plan.price.time_s, rel=0.05)
    assert counts.saved == plan.price.frames
    assert max(plan.watch_take.memory) + 1 == len(mirror_frames(plan))  # type: ignore[union-attr]


def test_a_look_that_may_have_no_light_is_not_taken(small_rig: SmallRig, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"time": {"loops": 2}, "watch": {"every": 1}}
    rig, plan = planned(small_rig, {}, **keys)
    assert plan.watch_take is not None
    cap = 2.001 * plan.takes["patterns"].dose_mj_cm2
    limit = plan.protocol.budget.model_copy(update={"dose_mj_cm2": cap})
    capped = plan.protocol.model_copy(update={"budget": limit})
    plan = Plan(capped, plan.parts, plan.roi, plan.corner_um, plan.shots, plan.price, watch_take=plan.watch_take)
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert {line["why"] for line in lines_of(run, "look")[1:]} == {"its light would exceed what the field may have"}
    assert counts.dose_mj_cm2[0] <= cap


def test_without_a_watch_all_is_as_it_was(small_rig: SmallRig, tmp_path: Path) -> None:
    rig, plan = planned(small_rig, {}, watch=None, time={"loops": 2})
    assert plan.watch_take is None
    assert "looks" not in plan.price.as_json()
    run, counts = run_plan(tmp_path / "run", rig, plan)
    assert isinstance(counts, Counts)
    assert {line["kind"] for line in lines_of(run, "look") + lines_of(run, "glance")} == set()
    assert len(mirror_frames(plan)) == 4


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"beyond": "register"}, "beyond: register needs looks"),
        ({"at_um": (0.0, 0.0)}, "at_um says where looks are taken"),
        ({"every": 2, "power": 1.0}, "less than 1"),
    ],
)
def test_settings_without_sense_are_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Watch.model_validate(keys)


def test_looks_that_the_rig_cannot_take_are_refused(small_rig: SmallRig) -> None:
    with pytest.raises(InputError, match=r"watch\.at_um\.0: \(1e\+06, 0\) µm is outside the stage's limits"):
        planned(small_rig, {}, watch={"every": 1, "at_um": (1e6, 0.0)})
    with pytest.raises(InputError, match="the DMD holds 6 frames at most for its looks, needed are 12"):
        planned(small_rig, {"devices.dmd.memory_frames": 10})
    with pytest.raises(InputError, match=r"watch\.exposure_ms"):
        planned(small_rig, {}, watch={"every": 1, "exposure_ms": 1e5})


# ---------------------------------------------------------------- fringes on light that is known


SIDE = 96
CORNER_UM = (-24.0, -24.0)


@pytest.fixture(scope="module")
def optics() -> Optics:
    psf = {"kind": "gaussian", "sigma_um": 0.0}
    mirrors = {"shape": [160, 160], "to_sample": {"matrix": [[0.41, 0.02], [-0.02, 0.41]]}}
    dye = {"photons_per_um2_mw_ms": 1.0}
    sizes = {"object_pixel_um": 0.5, "sensor_pixel_um": 0.5}
    return Optics.model_validate_json(
        json.dumps({**sizes, "excitation": psf, "emission": psf, "mirrors": mirrors, "dye": dye})
    )


@pytest.fixture(scope="module")
def fringes(optics: Optics) -> tuple[Fringes, Told]:
    readings = Readings(0.5, 100.0, 1.0, 0.0, 0.0, 0.0)
    found = Fringes.of(optics, 1, readings)
    told = found.told(onto_mirrors(found.stack, optics, CORNER_UM), optics, CORNER_UM, (SIDE * 0.5, SIDE * 0.5))
    return found, told


def seen(fringes: Fringes, optics: Optics, move: Callable[..., Any], brightness: Any, electrons: float) -> Any:
    """Frames of a thin specimen under mirrors whose light lies where `move` puts it."""
    rng = np.random.default_rng(3)
    fine = (np.arange(3 * SIDE) + 0.5) / 6
    x_um, y_um = np.meshgrid(fine + CORNER_UM[0], fine + CORNER_UM[1])
    column, row = optics.mirrors.to_sample.invert(*move(x_um, y_um))
    mirrors = onto_mirrors(fringes.stack, optics, CORNER_UM)
    at = (np.floor(row + 80).astype(int) % 160, np.floor(column + 80).astype(int) % 160)
    light = mirrors[:, at[0], at[1]].reshape(-1, SIDE, 3, SIDE, 3).mean(axis=(2, 4))
    specimen = brightness(*np.meshgrid(np.arange(SIDE), np.arange(SIDE)))
    return np.round(rng.poisson(electrons * light * specimen) * 0.5 + rng.normal(100, 1, light.shape)).astype(np.uint16)


def spots(x: Any, y: Any) -> Any:
    """Few and bright, on a faint ground."""
    rng = np.random.default_rng(1)
    centres = rng.uniform(8, SIDE - 8, (25, 2))
    return 0.02 + sum(np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 18) for cx, cy in centres)


@settings(max_examples=12, deadline=None)
@given(dx=st.floats(-7.0, 7.0), dy=st.floats(-7.0, 7.0))
def test_any_shift_is_found(fringes: tuple[Fringes, Told], optics: Optics, dx: float, dy: float) -> None:
    """Up to a fringe and a half, whatever the specimen looks like."""
    found, told = fringes
    frames = seen(found, optics, lambda x, y: (x - dx / 2, y - dy / 2), spots, 200.0)
    sight = found.read(frames, told, optics, CORNER_UM)
    assert sight.place is not None
    assert np.abs(sight.place.matrix).max() < 0.002
    assert np.hypot(sight.place.shift_um[0] * 2 - dx, sight.place.shift_um[1] * 2 - dy) < 0.08


def test_turns_and_scales_are_found(fringes: tuple[Fringes, Told], optics: Optics) -> None:
    found, told = fringes
    matrix = np.array([[1.004, -0.01], [0.01, 1.004]])
    back = np.linalg.inv(matrix)
    frames = seen(
        found, optics, lambda x, y: (back[0, 0] * x + back[0, 1] * y, back[1, 0] * x + back[1, 1] * y), spots, 2000.0
    )
    sight = found.read(frames, told, optics, CORNER_UM)
    assert sight.place is not None
    assert np.allclose(np.array(sight.place.matrix), matrix - np.eye(2), atol=0.0015)
    assert np.hypot(*sight.place.shift_um) < 0.05


def test_what_tells_nothing_is_not_taken_for_a_shift(fringes: tuple[Fringes, Told], optics: Optics) -> None:
    found, told = fringes
    rng = np.random.default_rng(0)
    dark = rng.normal(100, 1, (found.stack.count, SIDE, SIDE)).round().astype(np.uint16)
    assert found.read(dark, told, optics, CORNER_UM).why == "there is too little light to tell"
    even = dark + np.r_[[200] * 9, [0] * 3].astype(np.uint16)[:, None, None]
    assert found.read(even, told, optics, CORNER_UM).why == "the fringes do not stand out of the noise"
    frames = seen(found, optics, lambda x, y: (x, y), spots, 500.0)
    frames[:3] = np.roll(frames[:3], 1, axis=0)
    sight = found.read(frames, told, optics, CORNER_UM)
    assert sight.place is None or np.hypot(*sight.place.shift_um) > 5, "frames out of order are no small shift"


def test_a_map_that_is_moved_is_what_comes_after_it() -> None:
    """With its distortion, as calibrations find it."""
    bent = ((1e-3, 2e-3, -1e-3, 0.0, 3e-3, 0.0, 1e-3), (0.0, 1e-3, 2e-3, -2e-3, 0.0, 1e-3, 0.0))
    warp = Warp(matrix=((0.4, 0.1), (-0.1, 0.5)), shift=(3.0, -2.0), distortion=bent, radius=50.0)
    matrix = ((1.01, 0.02), (-0.03, 0.99))
    x, y = np.meshgrid(np.linspace(-80, 80, 7), np.linspace(-60, 60, 5))
    before = np.stack(warp.apply(x, y))
    wanted = np.tensordot(np.array(matrix), before, axes=1) + np.array([0.5, -0.25])[:, None, None]
    assert np.allclose(warp.moved(matrix, (0.5, -0.25)).apply(x, y), wanted)


# ---------------------------------------------------------------- arithmetic of light


@given(
    lamp=st.floats(0.5, 1.5),
    bleach=st.one_of(st.none(), st.floats(200.0, 5000.0)),
    dose=st.floats(50.0, 300.0),
    part=st.floats(0.0, 0.4),
    background=st.floats(0.0, 100.0),
)
def test_lamp_and_dye_are_told_apart(
    lamp: float, bleach: float | None, dose: float, part: float, background: float
) -> None:
    def level(bright: float, had: float, *, now: bool, ground: float = 0.0) -> Level:
        left = 1.0 if bleach is None else math.exp(-had / bleach)
        return Level((ground + bright * left) * (lamp if now else 1.0), bright * 1e-4, had, ground)

    field = tuple(level(500.0, had, now=had > 0, ground=background) for had in (0.0, dose))
    beside = level(80.0, 0.0, now=False), level(80.0, part * dose, now=True)
    drifts = {drift.name: drift for drift in light_drifts(Watch(), (field[0], field[1]), beside, None)}
    assert drifts["power"].value == pytest.approx(lamp - 1, abs=1e-6)
    lost = 0.0 if bleach is None else 1 - math.exp(-dose / bleach)
    assert drifts["bleaching"].value == pytest.approx(-lost, abs=1e-6)
    assert drifts["bleaching"].beyond == (lost > 0.1)
    believed = {drift.name: drift for drift in light_drifts(Watch(), (field[0], field[1]), beside, bleach)}
    assert not believed["bleaching"].beyond


def test_what_noise_can_do_is_no_drift() -> None:
    field = Level(100.0, 3.0, 0.0), Level(85.0, 3.0, 50.0)
    assert [drift.beyond for drift in light_drifts(Watch(), field, None, None)] == [False]
    (drift,) = light_drifts(Watch(), (Level(100.0, 0.1, 0.0), Level(85.0, 0.1, 50.0)), None, None)
    assert drift == Drift("brightness", pytest.approx(-0.15), 0.1, True)
    assert "-15.0%" in drift.told
