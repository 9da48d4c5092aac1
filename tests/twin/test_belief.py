"""What was measured is used everywhere, and kept with what was done with it; what is not to be used is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from toys import recipe, toy

from dmu_hw import belief as belief_module
from dmu_hw.belief import believe
from dmu_hw.bundle import Bundle
from dmu_hw.cli import acquire
from dmu_hw.cli.learn import optics_of_rig
from dmu_hw.cli.session import load_instrument, open_session
from dmu_hw.kept import KeptBelief, read_kept
from dmu_hw.store import Store, read_result

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
PROTOCOL: dict[str, Any] = {
    "kind": "run",
    "name": "small",
    "rig": "rig.yaml",
    "field_px": [32, 32],
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
    "positions": [{"x_um": 0.0, "y_um": 0.0}, {"x_um": 40.0, "y_um": 0.0}],
    "inverse": {"model": "ridge", "specimen": {"kind": "nuclei", "seed": 5}, "scenes": 2, "reach": 1},
}
NARROW = {"mirrors": {"to_sample": {"matrix": [[0.25, 0.0], [0.0, 0.5]]}}}
"""Half the area, twice the dose."""


@pytest.fixture(name="lab")
def _lab(tmp_path: Path, rig_yaml: Yaml, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a rig that believes its results, and a protocol."""
    monkeypatch.chdir(tmp_path)
    rig_yaml({"calibration.results": "results"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(PROTOCOL))
    for name in ("register", "sensor", "pattern"):
        toy(tmp_path, name)
    return tmp_path


@pytest.fixture(name="calibrated")
def _calibrated(lab: Path, dmu: Dmu) -> Callable[..., Path]:
    """Calibrates with one routine; where its result lies."""

    def calibrated(name: str = "sensor", **settings: Any) -> Path:
        said = dmu("calibrate", recipe(lab, {"routine": f"{name}.py", **settings}), "--json")
        return Path(said.told["outcomes"][0]["folder"])

    return calibrated


def grounds(folder: Path) -> list[str]:
    return list(read_kept(folder / "calibration.yaml").grounds)


# ---------------------------------------------------------------- used


def test_without_results_the_file_is_believed(lab: Path, dmu: Dmu) -> None:
    said = dmu("plan", lab / "run.yaml", "--json")
    assert said.status == 0
    assert said.told["calibration"] == {}
    assert f"nothing: there are no results of this rig in {lab / 'results'}" in said.err


def test_the_price_is_that_of_what_was_measured(lab: Path, dmu: Dmu, calibrated: Callable[..., Path]) -> None:
    before = dmu("plan", lab / "run.yaml", "--json").told["plan"]["price"]["dose_per_field_mj_cm2"]
    calibrated("register", found=NARROW)  # a matrix: lists of lists
    after = dmu("plan", lab / "run.yaml", "--json").told["plan"]["price"]["dose_per_field_mj_cm2"]
    assert after == pytest.approx(2 * before)


def test_a_plan_says_what_it_stands_on_and_when_that_goes_stale(
    lab: Path, dmu: Dmu, calibrated: Callable[..., Path]
) -> None:
    folder = calibrated(most_adu=60.0, valid_days=3.0)
    said = dmu("plan", lab / "run.yaml", "--json")
    ground = said.told["calibration"]["sensor"]
    assert Path(ground["folder"]) == folder
    until = datetime.fromisoformat(ground["good_until"])
    assert until - datetime.fromisoformat(ground["at"]) == timedelta(days=3)
    assert re.search(r"calibrated by  sensor of \d{4}-.*, with warnings, good until \d{4}-", said.err)
    protocol = {**PROTOCOL, "time": {"loops": 3, "interval_s": 2 * 86400.0}}
    (lab / "long.yaml").write_text(yaml.safe_dump(protocol))
    assert "caution: sensor was good until" in dmu("plan", lab / "long.yaml").err
    assert "which is before the run ends" not in said.err


def test_all_that_learns_on_a_rig_believes_what_was_measured(lab: Path, calibrated: Callable[..., Path]) -> None:
    assert optics_of_rig(lab / "rig.yaml").sensor.offset_adu == 100.0
    calibrated(more_adu=33.0)
    assert optics_of_rig(lab / "rig.yaml").sensor.offset_adu == pytest.approx(133, abs=2)
    session = open_session(lab / "run.yaml")
    assert session.kit.channel.optics.sensor.offset_adu == pytest.approx(133, abs=2)
    kit = session.kit
    bundle = kit.fitted(session.path, kit.stack, kit.protocol.exposure_ms)
    assert bundle.header.optics.sensor.offset_adu == pytest.approx(133, abs=2)


# ---------------------------------------------------------------- refused


def refusal(dmu: Dmu, lab: Path) -> str:
    """What every command says that would believe it."""
    said = dmu("plan", lab / "run.yaml", "--json")
    assert said.status == 2
    run = dmu("run", lab / "run.yaml", "--out", lab / "runs", "--json")
    assert run.status == 2
    assert run.told["problems"] == said.told["problems"]
    assert not (lab / "runs" / "small").exists()
    return "\n".join(said.told["problems"])


ADVICE = "run `dmu calibrate` with a recipe that has the routine sensor"


def test_what_failed_is_refused(lab: Path, dmu: Dmu, calibrated: Callable[..., Path]) -> None:
    calibrated()
    folder = calibrated(goes="badly")
    assert refusal(dmu, lab) == f"{folder / 'result.yaml'}: sensor failed: nothing fits: dust?; {ADVICE}"


def test_what_is_stale_is_refused(lab: Path, dmu: Dmu, calibrated: Callable[..., Path]) -> None:
    folder = calibrated(valid_days=1e-7)
    assert refusal(dmu, lab).startswith(f"{folder / 'result.yaml'}: sensor was good until ")
    assert refusal(dmu, lab).endswith(ADVICE)


def test_what_is_of_another_rig_is_refused(
    lab: Path, dmu: Dmu, rig_yaml: Yaml, calibrated: Callable[..., Path]
) -> None:
    """Also where somebody put it."""
    folder = calibrated()
    rig_yaml({"calibration.results": "results", "name": "other"})
    assert dmu("plan", lab / "run.yaml").status == 0
    shutil.copytree(lab / "results" / "small", lab / "results" / "other")
    said = refusal(dmu, lab)
    assert "sensor is of another instrument: small/main/all, here other/main/all" in said
    rig_yaml({"calibration.results": "results", "devices.camera.readout_ms": 3.0})
    said = refusal(dmu, lab)
    assert str(folder) in said
    assert "said otherwise of camera" in said


def test_what_is_damaged_is_refused(lab: Path, dmu: Dmu, calibrated: Callable[..., Path]) -> None:
    calibrated()
    folder = calibrated()
    path = folder / "result.yaml"
    path.write_text(path.read_text().replace("verdict: pass", "verdict: warn"))
    said = refusal(dmu, lab)
    assert said.startswith(f"{path}: was changed since it was stored")
    assert said.endswith(ADVICE)
    calibrated()  # a new one heals
    assert dmu("plan", lab / "run.yaml").status == 0


def test_what_is_demanded_and_missing_is_refused_with_all_else(
    lab: Path, dmu: Dmu, rig_yaml: Yaml, calibrated: Callable[..., Path]
) -> None:
    rig_yaml({"calibration": {"results": "results", "demand": ["register", "pattern"]}})
    calibrated(goes="badly")
    said = refusal(dmu, lab)
    for name in ("register", "pattern"):
        assert f"rig.yaml: calibration.demand: there is no {name} in {lab / 'results'}; run `dmu calibrate`" in said
    assert "sensor failed" in said


def test_a_clock_that_was_set_back_is_told(lab: Path, calibrated: Callable[..., Path]) -> None:
    calibrated()
    rig = load_instrument(lab / "rig.yaml")
    believe(rig, datetime.now(UTC) - timedelta(minutes=5))
    with pytest.raises(belief_module.InputError, match="which is to come: the clock was set back"):
        believe(rig, datetime.now(UTC) - timedelta(days=1))


def test_what_nothing_rests_on_keeps_nobody_from_imaging(
    lab: Path, dmu: Dmu, rig_yaml: Yaml, calibrated: Callable[..., Path]
) -> None:
    calibrated("pattern", goes="badly")
    said = dmu("plan", lab / "run.yaml", "--json")
    assert said.status == 0
    assert "caution: " in said.err
    assert "pattern failed: nothing fits: dust?" in said.err
    rig_yaml({"calibration": {"results": "results", "demand": ["pattern"]}})
    assert "pattern failed" in refusal(dmu, lab)


def test_what_fits_no_optics_is_refused_by_its_file(lab: Path, dmu: Dmu, calibrated: Callable[..., Path]) -> None:
    """By whoever finds it, and where it was stored all the same."""
    folder = calibrated(found={"sensor": {"offset": 3.0}})
    said = refusal(dmu, lab)
    assert "sensor failed: what was found is no optics: sensor.py:1: " in said
    assert "unknown key 'offset'" in said
    calibrated(found={"sensor_pixel_um": -1.0})
    assert "sensor_pixel_um: should be a number above 0, given -1.0" in refusal(dmu, lab)
    good = read_result(calibrated())
    found = {"optics": {"sensor": {"offset": 3.0}}, "hashes": {}}
    made = Store(lab / "results").add(good.record.model_copy(update=found), good.evidence(), {})
    said = refusal(dmu, lab)
    assert said.startswith(f"{made.folder / 'result.yaml'}:1: ")
    assert "unknown key 'offset'" in said
    assert said.endswith(ADVICE)
    assert calibrated().name > made.folder.name > folder.name
    assert dmu("plan", lab / "run.yaml").status == 0


# ---------------------------------------------------------------- kept


def cut(lab: Path, dmu: Dmu, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose program died when the light was off for good."""

    def die(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(acquire, "finish", die)
        said = dmu("run", lab / "run.yaml", "--out", lab / "runs", "--json")
    assert said.status == 1
    return Path(said.told["run"])


def test_a_run_keeps_what_it_believed(lab: Path, dmu: Dmu, calibrated: Callable[..., Path]) -> None:
    folder = calibrated(more_adu=5.0)
    said = dmu("run", lab / "run.yaml", "--out", lab / "runs", "--json")
    assert said.status == 0
    run = Path(said.told["run"])
    kept = read_kept(run / "calibration.yaml")
    ground = kept.grounds["sensor"]
    assert Path(ground.folder) == folder
    assert kept.channels[0].optics.sensor.offset_adu == pytest.approx(105, abs=2)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["calibration"]["sensor"]["hash"] == ground.hash
    assert "calibration.yaml" in manifest["files"]
    report = (run / "report.html").read_text()
    assert f"Calibrated by: sensor of {ground.at:%Y-%m-%d}." in report
    assert ground.hash in report
    assert dmu("verify", run).status == 0


def test_a_rig_without_calibrations_keeps_what_its_file_says(lab: Path, dmu: Dmu, rig_yaml: Yaml) -> None:
    rig_yaml({})
    run = Path(dmu("run", lab / "run.yaml", "--out", lab / "runs", "--json").told["run"])
    kept = read_kept(run / "calibration.yaml")
    assert (kept.results, kept.grounds) == (None, {})
    assert kept.channels[0].optics == load_instrument(lab / "rig.yaml").optics
    assert "Calibrated by" not in (run / "report.html").read_text()


def test_a_run_ends_with_the_belief_that_it_was_begun_with(
    lab: Path, dmu: Dmu, calibrated: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is measured since: a new result, one that failed, or none at all any more."""
    calibrated(more_adu=5.0, valid_days=1.5 / 86400)
    run = cut(lab, dmu, monkeypatch)
    before = (run / "calibration.yaml").read_bytes()
    calibrated(goes="badly")
    shutil.rmtree(lab / "results")
    said = dmu("run", "--resume", run, "--json")
    assert said.status == 0, said.err
    assert (run / "calibration.yaml").read_bytes() == before
    assert grounds(run) == ["sensor"]
    assert Bundle.load(run / "bundle.dmu").header.optics.sensor.offset_adu == pytest.approx(105, abs=2)


def test_what_has_gone_stale_is_told_and_the_run_goes_on(
    lab: Path, dmu: Dmu, calibrated: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrated()
    run = cut(lab, dmu, monkeypatch)
    monkeypatch.setattr(KeptBelief, "stale", lambda _self, _now: ["sensor was good until 2026-01-01 00:00"])
    said = dmu("run", "--resume", run)
    assert said.status == 0
    assert "caution: sensor was good until 2026-01-01 00:00; the run goes on with it, as it began" in said.err
    assert "2026-01-01 00:00, which is before the run ended" in (run / "report.html").read_text()


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_another_belief_than_the_one_it_was_begun_with_is_refused(
    lab: Path, dmu: Dmu, calibrated: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    calibrated()
    run = cut(lab, dmu, monkeypatch)
    path = run / "calibration.yaml"
    if how == "gone":
        path.unlink()
    else:
        path.write_text(re.sub(r"offset_adu: [\d.]+", "offset_adu: 50.0", path.read_text(), count=1))
    said = dmu("run", "--resume", run)
    assert said.status == 2
    assert f"{path}: is not what was believed when the run began" in said.err


def test_a_run_of_a_version_that_kept_no_belief_goes_on_with_the_file(
    lab: Path, dmu: Dmu, rig_yaml: Yaml, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dmu_hw.files import file_hash

    rig_yaml({})
    run = cut(lab, dmu, monkeypatch)
    settings = json.loads((run / "settings.json").read_text())
    del settings["calibration_hash"]
    (run / "calibration.yaml").unlink()
    monkeypatch.setattr("dmu_hw.cli.resume.file_hash", lambda path: began if path.name == "settings.json" else 0)
    began = file_hash(run / "settings.json")
    (run / "settings.json").write_text(json.dumps(settings))
    assert dmu("run", "--resume", run).status == 0


def test_what_is_kept_comes_back_as_it_was(lab: Path, calibrated: Callable[..., Path]) -> None:
    calibrated("register", found={"mirrors": {"leakage": 1 / 3}})
    calibrated(more_adu=0.1)
    rig = load_instrument(lab / "rig.yaml")
    kept = KeptBelief.of(rig, believe(rig))
    path = lab / "kept.yaml"
    path.write_text(kept.text())
    assert read_kept(path) == kept
    other = load_instrument(lab / "rig.yaml")
    read_kept(path).told_to(other)
    assert other.optics == rig.optics
    assert list(kept.stale(datetime.now(UTC) + timedelta(days=8))) == [
        f"{name} was good until {kept.grounds[name].good_until.astimezone():%Y-%m-%d %H:%M}"
        for name in ("register", "sensor")
    ]
