"""The routine `power` finds what comes of a light's settings, and runs give the power that they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dmu_hw.belief import believe
from dmu_hw.calibrate import Outcome
from dmu_hw.drivers.simulated.light import LightTruth
from dmu_hw.drivers.simulated.world import World
from dmu_hw.errors import DeviceError, InputError
from dmu_hw.kept import KeptBelief
from dmu_hw.powercurve import PowerCurve
from dmu_hw.rig import Rig, load_rig
from dmu_hw.routine import Evidence, FitError
from dmu_hw.routines.power import PowerSettings, Routine
from tests.acquisition.fakes import plan_of, run_plan
from tests.twin.rigs import PIXEL_UM, Drawn, draw_rig, measured, output

METER = {"driver": "simulated", "connection": "world", "noise": 0.005, "zero_mw": 0.03, "noise_mw": 0.005}
FULL_MW = 50.0


def lit_rig(seed: int, folder: Path, *, meter: bool, **changes: Any) -> Drawn:
    """A rig with a light that does not do what it is told, dye that bleaches, and light that flickers."""
    folder.mkdir(parents=True, exist_ok=True)
    bleach = float(10 ** np.random.default_rng([seed, *b"bleach"]).uniform(6.0, 7.5))
    given: dict[str, Any] = {
        "light": output(np.random.default_rng([seed, *b"output"])),
        "world": {"flicker": 0.01, "sensor_shape": [96, 96]},
        "truth": {"dye": {"bleach_dose_mj_cm2": bleach}},
        "calibration": {"results": "results"},
    }
    drawn = draw_rig(seed, folder, **{**given, **changes})
    if not meter:
        return drawn
    text = yaml.safe_load(drawn.path.read_text())
    text["devices"]["meter"] = METER
    drawn.path.write_text(yaml.safe_dump(text))
    return again(drawn)


def again(drawn: Drawn) -> Drawn:
    """The rig anew, as whoever images with it reads it."""
    rig = Rig(load_rig(drawn.path))
    (link,) = rig.connections
    assert isinstance(link, World)
    return Drawn(rig, link, drawn.path)


def truth_of(drawn: Drawn) -> LightTruth:
    found: Any = drawn.rig.file.parts["light"].settings
    assert isinstance(found.true, LightTruth)
    return found.true


def looked_at(drawn: Drawn, **settings: Any) -> Outcome:
    (outcome,) = measured(drawn, {"routine": "power", **settings})
    return outcome


def error(drawn: Drawn, outcome: Outcome) -> float:
    """The worst of all predictions, as a part of what comes, where it is a twentieth of the highest or more; without a
    meter the height of the curve is not known."""
    assert outcome.finding is not None, outcome.result and outcome.result.record.why
    curve = PowerCurve(outcome.finding.arrays["settings_mw"], outcome.finding.arrays["delivered_mw"])
    true = truth_of(drawn)
    told = np.linspace(0, float(curve.settings_mw[-1]), 301)
    comes = np.array([true.delivered_mw(one) for one in told])
    if not outcome.finding.figures["absolute"]:
        comes *= told[-1] / comes[-1]
    fair = comes > comes[-1] / 20
    seen = np.array([curve.delivered(one) for one in told])
    return float(np.max(np.abs(seen / np.where(fair, comes, 1.0) - 1)[fair]))


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_meter_tells_what_comes_of_any_setting(seed: int, tmp_path: Path) -> None:
    drawn = lit_rig(seed, tmp_path, meter=True)
    outcome = looked_at(drawn)
    assert error(drawn, outcome) < 0.01
    assert outcome.result is not None
    assert outcome.result.record.verdict == "pass", outcome.result.record.checks
    assert outcome.result.record.optics == {}


@pytest.mark.parametrize("seed", [1])
def test_a_camera_tells_it_but_for_its_height(seed: int, tmp_path: Path) -> None:
    drawn = lit_rig(seed, tmp_path, meter=False)
    outcome = looked_at(drawn)
    assert error(drawn, outcome) < 0.015
    assert outcome.finding is not None
    assert outcome.finding.figures["absolute"] == 0
    assert outcome.finding.arrays["delivered_mw"][-1] == pytest.approx(outcome.finding.arrays["settings_mw"][-1])


def test_a_light_that_does_as_it_is_told_is_found_straight(tmp_path: Path) -> None:
    drawn = lit_rig(3, tmp_path, meter=True, light={})
    outcome = looked_at(drawn, points=8)
    assert error(drawn, outcome) < 0.005
    assert outcome.finding is not None
    assert outcome.finding.figures["linearity_error"] < 0.005


@pytest.mark.parametrize("meter", [True, False])
def test_a_lamp_that_is_off_is_refused(meter: bool, tmp_path: Path) -> None:
    drawn = lit_rig(3, tmp_path, meter=meter, light={"true": {"threshold_mw": 100.0}})
    outcome = looked_at(drawn, points=8)
    assert not outcome.good
    told = outcome.skipped if outcome.result is None else outcome.result.record.why
    assert "nothing comes of it" in told or "no light reaches the camera" in told


def test_no_more_light_than_the_rig_allows_though_its_settings_say_less(tmp_path: Path) -> None:
    changes = {"light": {"true": {"gain": 2.0}}, "limits": {"power_mw": 10.0}}
    drawn = lit_rig(3, tmp_path, meter=True, **changes)
    outcome = looked_at(drawn)
    assert outcome.result is not None
    read = outcome.result.evidence().arrays["read"]
    assert read.max() < 10.0 * (1 + 2 / 24 + 0.03), "the first reading above it is the last"
    assert error(drawn, outcome) < 0.01


def test_dye_that_is_gone_before_it_is_measured_is_refused(tmp_path: Path) -> None:
    dye = {"truth": {"dye": {"bleach_dose_mj_cm2": 3e4}}}
    outcome = looked_at(lit_rig(3, tmp_path, meter=False, **dye), points=8)
    assert not outcome.good
    assert outcome.result is not None
    refused = [check.name for check in outcome.result.record.checks if check.said == "refuse"]
    assert outcome.result.record.why or "lost" in refused


# ---------------------------------------------------------------- pure


def evidence(power: Callable[[float], float], noise: float = 0.003) -> Evidence:
    rng = np.random.default_rng(5)
    told = np.linspace(FULL_MW / 24, FULL_MW, 24)
    told = np.concatenate([told, told[::-1]])
    means = np.array([power(one) for one in told])
    read = means[:, None] * (1 + noise * rng.standard_normal((told.size, 4)))
    dark = 1e-3 * rng.standard_normal((2, 4))
    return Evidence({"settings_mw": told, "read": read, "dark": dark}, {"by": "meter"})


def test_a_light_that_goes_by_steps_is_warned_of_and_kept_as_it_is(tmp_path: Path) -> None:
    drawn = draw_rig(1, tmp_path)
    routine = Routine(PowerSettings())
    finding = routine.fit(evidence(lambda told: 8.0 * np.floor(told / 8.0)), drawn.rig.optics)
    assert [check.name for check in routine.judge(finding) if check.said != "pass"] == ["misfit"]
    curve = PowerCurve(finding.arrays["settings_mw"], finding.arrays["delivered_mw"])
    assert curve.delivered(25.0) == pytest.approx(24.0, rel=0.01)


def test_where_more_is_of_no_use_the_table_ends(tmp_path: Path) -> None:
    finding = Routine(PowerSettings()).fit(evidence(lambda told: min(told, 30.0)), draw_rig(1, tmp_path).rig.optics)
    assert finding.figures["usable_mw"] == pytest.approx(30.0, abs=3.0)
    assert finding.figures["highest_mw"] == pytest.approx(30.0, rel=0.01)


def test_noise_alone_is_no_light(tmp_path: Path) -> None:
    optics = draw_rig(1, tmp_path).rig.optics
    with pytest.raises(FitError, match="nothing comes of it"):
        Routine(PowerSettings()).fit(evidence(lambda _told: 1e-4), optics)


@given(
    st.lists(st.floats(0.01, 10.0), min_size=1, max_size=20),
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=20),
    st.floats(0.0, 1.0),
)
def test_the_setting_for_a_power_gives_that_power(steps: list[float], rises: list[float], part: float) -> None:
    count = min(len(steps), len(rises))
    settings_mw = np.concatenate([[0.0], np.cumsum(steps[:count])])
    delivered_mw = np.concatenate([[0.0], np.cumsum(rises[:count])])
    curve = PowerCurve(settings_mw, delivered_mw)
    wanted_mw = part * curve.highest_mw
    assert curve.delivered(curve.setting(wanted_mw)) == pytest.approx(wanted_mw, abs=1e-6)


@pytest.mark.parametrize("power_mw", [-0.1, 10.1, float("nan")])
def test_no_setting_gives_a_power_beyond_the_highest(power_mw: float) -> None:
    with pytest.raises(ValueError, match="gives 0 to 10 mW as it was measured"):
        PowerCurve(np.array([0.0, 20.0]), np.array([0.0, 10.0])).setting(power_mw)


@pytest.mark.parametrize(
    ("settings_mw", "delivered_mw"),
    [([0.0], [0.0]), ([0.0, 1.0, 1.0], [0.0, 1.0, 2.0]), ([0.0, 1.0], [1.0, 0.5]), ([0.0, 1.0], [-1.0, 1.0])],
)
def test_what_is_no_curve_is_refused(settings_mw: list[float], delivered_mw: list[float]) -> None:
    with pytest.raises(ValueError, match="power curve"):
        PowerCurve(np.array(settings_mw), np.array(delivered_mw))


# ---------------------------------------------------------------- used in runs


def lit_by_a_run(drawn: Drawn, folder: Path) -> tuple[float, float]:
    """The dose that a run books for its field, and the mean of what the dye there has truly taken."""
    plan = plan_of(drawn.rig, side=32, light={"power_mw": 8.0})
    with drawn.rig.opened() as rig:
        _, counts = run_plan(folder, rig, plan)
    assert counts.saved == counts.expected
    return counts.dose_mj_cm2[0], float(drawn.world.doses[""].read((0.0, 0.0), (32, 32), PIXEL_UM).mean())


def test_a_run_gives_the_dose_that_it_books(tmp_path: Path) -> None:
    """A light of which half of what it is told arrives, above a threshold, gives what one gives that obeys."""
    steady = {"world": {"sensor_shape": [96, 96]}}
    weak = {"light": {"true": {"threshold_mw": 2.0, "gain": 0.5, "saturation_mw": 200.0}}}
    drawn = lit_rig(1, tmp_path / "weak", meter=True, **steady, **weak)
    assert looked_at(drawn).good
    obeying = lit_rig(1, tmp_path / "ideal", meter=True, light={}, **steady)
    booked, wanted = lit_by_a_run(obeying, tmp_path / "run-ideal")
    believed = again(drawn)
    _, got = lit_by_a_run(believed, tmp_path / "run-believed")
    assert got < 0.5 * wanted, "or this test tells nothing"
    calibrated = again(drawn)
    believe(calibrated.rig)
    assert lit_by_a_run(calibrated, tmp_path / "run") == (booked, pytest.approx(wanted, rel=0.01))


def test_more_than_comes_of_a_light_is_refused_before_there_is_any(tmp_path: Path) -> None:
    drawn = lit_rig(1, tmp_path, meter=True, light={"true": {"gain": 0.5}})
    assert looked_at(drawn).good
    fresh = again(drawn)
    believe(fresh.rig)
    assert fresh.rig.highest_mw("light") == pytest.approx(25.0, rel=0.01)
    with pytest.raises(InputError, match=r"light.power_mw: rig rig-1 allows 2[45]\.\d* mW, given 30"):
        plan_of(fresh.rig, side=32, light={"power_mw": 30.0})
    with pytest.raises(DeviceError, match="light: gives 0 to"):
        fresh.rig.setting_mw("light", 30.0)


def test_a_run_that_is_resumed_sets_its_light_as_it_did(tmp_path: Path) -> None:
    drawn = lit_rig(1, tmp_path, meter=True)
    assert looked_at(drawn).good
    fresh, other = again(drawn), again(drawn)
    kept = KeptBelief.of(fresh.rig, believe(fresh.rig))
    other.rig.believe({"": other.rig.optics})
    assert other.rig.setting_mw("light", 8.0) == 8.0
    kept.told_to(other.rig)
    assert other.rig.setting_mw("light", 8.0) == fresh.rig.setting_mw("light", 8.0) != 8.0


def test_a_damaged_curve_is_not_passed_over(tmp_path: Path) -> None:
    drawn = lit_rig(1, tmp_path, meter=True)
    outcome = looked_at(drawn)
    assert outcome.result is not None
    (outcome.result.folder / "found.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="is not what was stored"):
        believe(again(drawn).rig)


# ---------------------------------------------------------------- forty rigs


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("meter", [True, False], ids=["meter", "camera"])
def test_forty_lights(meter: bool, tmp_path: Path, figure: Callable[..., None]) -> None:
    off: list[float] = []
    alarms = faded = 0
    for seed in range(40):
        drawn = lit_rig(seed, tmp_path / str(seed), meter=meter)
        outcome = looked_at(drawn)
        off.append(error(drawn, outcome))
        assert outcome.result is not None
        said = {check.name for check in outcome.result.record.checks if check.said != "pass"}
        faded += "lost" in said  # the dye is gone before the light is known: that is no alarm without need
        alarms += bool(said - {"lost"})
    by = "meter" if meter else "camera"
    figure("power", f"power of any setting, worst of 40 lights ({by})", f"{100 * max(off):.2f} %", "1 %")
    figure("power", f"power of any setting, median of 40 lights ({by})", f"{100 * np.median(off):.2f} %")
    figure("power", f"lights of 40 that were warned of without need ({by})", str(alarms), "0")
    figure("power", f"lights of 40 whose dye faded too much to judge by ({by})", str(faded), "2")
    assert max(off) < 0.01
    assert alarms == 0
    assert faded <= 2
