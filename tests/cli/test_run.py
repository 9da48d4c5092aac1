"""`dmu run`, `verify` and `export` from end to end: whole runs, runs with gaps, failed runs, runs from a bundle."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dmu_hw.bundle import Bundle
from dmu_hw.cli import finish
from dmu_hw.cli.main import main
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.errors import DeviceError
from dmu_hw.omezarr import Store

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
FAULTS = "connections.world.faults"


@pytest.fixture
def lights(monkeypatch: pytest.MonkeyPatch) -> list[Light]:
    """Every simulated light that was switched on, to be looked at afterwards."""
    found: list[Light] = []
    switch_on = Light.on

    def watched(light: Light, *longest_ms: float) -> None:
        found.append(light)
        switch_on(light, *longest_ms)

    monkeypatch.setattr(Light, "on", watched)
    return found


def manifest(run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(run) / "manifest.json").read_bytes())
    return content


# ---------------------------------------------------------------- whole runs


def test_a_run_is_whole_verified_and_exported(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path, lights: list[Light]
) -> None:
    path = run_yaml({"inverse": ridge, "references": {"plain": True, "full": True}})
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    told = said.told
    assert (told["complete"], told["missing"], told["cautions"]) == (True, [], [])
    assert told["counts"]["saved"] == told["counts"]["expected"] == 12
    assert {name.partition(" / ")[0] for name in told["metrics"]} == {
        "PSNR reconstruction",
        "PSNR plain camera, bicubic",
        "PSNR plain camera, same inverse",
    }
    assert lights
    assert not any(light.is_on() for light in lights)
    facts = manifest(told["run"])
    assert facts["actual"]["time_s"] == pytest.approx(facts["price"]["time_s"], rel=0.05)
    assert facts["cautions"] == []

    checked = dmu("verify", told["run"], "--json")
    assert (checked.status, checked.told["complete"], checked.told["damage"]) == (0, True, [])
    assert "sound, 12 frames" in checked.err
    assert "a run of 12 frames" in dmu("check", told["run"]).err

    mosaic = dmu("export", told["run"], tmp_path / "mosaic.ome.tif", "--mosaic", "--json")
    assert (mosaic.status, mosaic.told["shape"][-2:]) == (0, [32, 32 + 80])

    file = tmp_path / "frames.ome.tif"
    exported = dmu("export", told["run"], file, "--what", "frames", "--json")
    assert (exported.status, exported.told["fields"]) == (0, 2)
    with tifffile.TiffFile(file) as tiff:
        first = tiff.series[0].asarray().reshape(4, 8, 8)
    assert np.array_equal(first, Store(Path(told["run"]) / "frames.ome.zarr").burst(0, 0, 0))


def test_the_end_of_a_run_is_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert said.err.splitlines()[0] == "small: 2 fields × 4 patterns"
    assert "dose per field" in said.err
    assert said.err.splitlines()[-2:] == [
        "8 of 8 frames saved",
        f"{folder}: open report.html, or frames.ome.zarr in napari",
    ]


def test_the_same_seed_is_the_same_run_bit_for_bit(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    """Also the bundle, and a fresh world has forgotten the run before."""
    path = run_yaml({"inverse": ridge})
    first, second = (Path(dmu("run", path, "--out", tmp_path / "runs", "--json").told["run"]) for _ in range(2))
    assert first != second
    assert (first / "bundle.dmu").read_bytes() == (second / "bundle.dmu").read_bytes()
    for name in ("frames", "reconstruction"):
        stores = [Store(run / f"{name}.ome.zarr") for run in (first, second)]
        assert len(stores[0]) == 2
        for field in range(2):
            assert np.array_equal(*(store.burst(field, 0, 0) for store in stores))


# ---------------------------------------------------------------- from a bundle


def test_a_run_from_a_saved_bundle_gives_the_same_images(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    computed = Path(dmu("run", run_yaml({"inverse": ridge}), "--out", tmp_path / "runs", "--json").told["run"])
    (computed / "bundle.dmu").rename(tmp_path / "saved.dmu")
    path = run_yaml({"patterns": {"bundle": "saved.dmu"}})
    loaded = Path(dmu("run", path, "--out", tmp_path / "runs", "--json").told["run"])
    for name in ("frames", "reconstruction"):
        stores = [Store(run / f"{name}.ome.zarr") for run in (computed, loaded)]
        for field in range(2):
            assert np.array_equal(*(store.burst(field, 0, 0) for store in stores))
    assert Bundle.load(loaded / "bundle.dmu").hash == Bundle.load(tmp_path / "saved.dmu").hash


@pytest.fixture
def bundle(dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path) -> Path:
    """A bundle computed for the small rig."""
    path = run_yaml({"inverse": ridge, "positions": ...})
    run = Path(dmu("run", path, "--out", tmp_path / "first", "--json").told["run"])
    return (run / "bundle.dmu").rename(tmp_path / "saved.dmu")


def test_a_bundle_is_refused_on_a_rig_that_it_does_not_fit(
    dmu: Dmu, run_yaml: Yaml, bundle: Path, tmp_path: Path
) -> None:
    """All that differs, with both values, and what is wrong with the plan as well."""
    other = {"optics.emission.sigma_um": 0.5, "optics.sensor.gain_adu_per_e": 2.0, "limits": {"power_mw": 0.5}}
    path = run_yaml({"patterns": {"bundle": bundle.name}}, other)
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 2
    problems = said.told["problems"]
    assert len(problems) == 3
    assert "run.yaml:8: patterns.bundle: sensor.gain_adu_per_e: the bundle assumes 0.5, the rig has 2" in problems[0]
    assert "run.yaml:8: patterns.bundle: emission width_um: the bundle assumes 0.35, the rig has 0.5" in problems[1]
    assert "light.power_mw: rig small allows 0.5 mW, given 1" in problems[2]
    assert not (tmp_path / "runs").exists()


def test_a_bundle_for_camera_pixels_that_the_rig_lacks_is_refused(dmu: Dmu, run_yaml: Yaml, bundle: Path) -> None:
    for rig, says in (
        ({"optics.sensor_pixel_um": 1.5}, "the bundle needs camera pixels of 4 object pixels, the rig's sensor has 3"),
        ({"devices.camera.binnings": [1, 2]}, "patterns.camera_pixel: needs camera pixels of 4 object pixels"),
    ):
        said = dmu("plan", run_yaml({"patterns": {"bundle": bundle.name}, "field_px": [24, 24]}, rig))
        assert said.status == 2
        assert says in said.err


def test_a_field_that_the_bundle_cannot_tile_is_refused(dmu: Dmu, run_yaml: Yaml, bundle: Path) -> None:
    said = dmu("plan", run_yaml({"patterns": {"bundle": bundle.name}, "field_px": [32, 30]}))
    assert said.status == 2
    assert "field_px: must be a multiple of the patterns' tile, 4 object pixels, given 30" in said.err


def test_other_light_than_the_bundle_is_made_for_is_cautioned_and_recorded(
    dmu: Dmu, run_yaml: Yaml, bundle: Path, tmp_path: Path
) -> None:
    path = run_yaml({"patterns": {"bundle": bundle.name}, "light": {"power_mw": 0.1}, "positions": ...})
    planned = dmu("plan", path, "--json")
    assert planned.status == 0
    (caution,) = planned.told["plan"]["cautions"]
    assert "photoelectrons per object pixel and frame: the bundle is made for 40, this run has 4" in caution
    assert f"caution: {caution}" in planned.err
    told = dmu("run", path, "--out", tmp_path / "runs", "--json").told
    assert told["cautions"] == [caution]
    assert manifest(told["run"])["cautions"] == [caution]
    settings = json.loads((Path(told["run"]) / "settings.json").read_bytes())
    assert settings["plan"]["cautions"] == [caution]


def test_a_bundle_may_not_choose_a_file_to_be_run(dmu: Dmu, run_yaml: Yaml, bundle: Path, tmp_path: Path) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'done')!r}, 'w').close()\n")
    whole = Bundle.load(bundle)
    for model in (str(evil), "evil.py", "no_such_model", "no.such_model"):
        Bundle(whole.header.model_copy(update={"model": model}), whole.patterns, whole.weights).save(bundle)
        path = run_yaml({"patterns": {"bundle": bundle.name}})
        for command in (("plan", path), ("run", path, "--out", tmp_path / "runs"), ("check", bundle)):
            said = dmu(*command)
            assert said.status == 2
            assert "saved.dmu: model:" in said.err
    assert not (tmp_path / "done").exists()


def test_a_bundle_whose_weights_do_not_fit_its_model_is_refused_before_light(
    dmu: Dmu, run_yaml: Yaml, bundle: Path, tmp_path: Path, lights: list[Light]
) -> None:
    lights.clear()
    whole = Bundle.load(bundle)
    Bundle(whole.header, whole.patterns, {"other": whole.weights["mean"]}).save(bundle)
    said = dmu("run", run_yaml({"patterns": {"bundle": bundle.name}}), "--out", tmp_path / "runs")
    assert said.status == 2
    assert "the inverse model 'ridge': cannot be used" in said.err
    assert not (tmp_path / "runs").exists()
    assert lights == []


# ---------------------------------------------------------------- runs with gaps


@pytest.mark.parametrize("inverse", [True, False], ids=["reconstructed", "recorded only"])
def test_a_lost_frame_makes_a_run_incomplete_and_nothing_worse(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path, inverse: bool
) -> None:
    """The second frame of the first field; there are no retries."""
    changes = {"references": {"plain": True}} | ({"inverse": ridge} if inverse else {})
    path = run_yaml(changes, {FAULTS: [{"kind": "dropped_frame", "at": 1}]})
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 3
    told = said.told
    assert told["complete"] is False
    assert (told["counts"]["missing"], told["counts"]["saved"]) == (1, 9)
    (gap,) = told["missing"]
    assert gap.startswith("time 0, field 0, plane 0, patterns, pattern 1: ")
    assert f"missing: {gap}" in said.err
    assert "9 of 10 frames saved, 1 missing" in said.err
    run = Path(told["run"])
    assert manifest(told["run"])["complete"] is False
    assert (run / "report.html").stat().st_size > 1000
    checked = dmu("verify", run, "--json")
    assert (checked.status, checked.told["missing"], checked.told["damage"]) == (3, 1, [])
    assert "1 of them missing" in dmu("check", run).err
    assert dmu("export", run, tmp_path / "frames.ome.tif", "--what", "frames").status == 0
    if inverse:
        reconstruction = Store(run / "reconstruction.ome.zarr")
        assert np.isnan(reconstruction.burst(0, 0, 0)).all(), "half a burst is not reconstructed"
        assert np.isfinite(reconstruction.burst(1, 0, 0)).all()
        assert set(told["metrics"]) >= {"PSNR reconstruction / dB", "PSNR plain camera, bicubic / dB"}


def test_a_run_without_one_whole_burst_still_ends(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    faults = [{"kind": "lost_trigger", "at": at} for at in (0, 4)]
    path = run_yaml({"inverse": ridge}, {FAULTS: faults})
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 3
    assert said.told["counts"]["saved"] < 8
    assert said.told["metrics"] == {}
    assert (Path(said.told["run"]) / "report.html").is_file()
    assert dmu("verify", said.told["run"]).status == 3


def test_a_burst_taken_again_is_whole_and_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    path = run_yaml({"retries": 1}, {FAULTS: [{"kind": "dropped_frame", "at": 1}]})
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    assert said.told["counts"]["retaken_bursts"] == 1
    assert "8 of 8 frames saved; bursts taken again: 1" in said.err


def test_of_many_gaps_the_first_are_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    faults = [{"kind": "dropped_frame", "at": at} for at in range(1, 60, 4)]
    path = run_yaml({"positions": ..., "time": {"loops": 15}}, {FAULTS: faults})
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 3
    assert said.told["counts"]["missing"] == 15
    assert len(said.told["missing"]) == 10
    assert "missing: and 5 more" in said.err


# ---------------------------------------------------------------- failed runs

FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "the camera dies": ({FAULTS: [{"kind": "camera_death", "at": 2}]}, "camera: does not answer"),
    "the upload is refused": ({FAULTS: [{"kind": "refused_upload"}]}, "dmd: refused the upload"),
    "the stage sticks": ({FAULTS: [{"kind": "stuck_busy"}]}, "stage: still busy"),
    "the interlock opens": ({FAULTS: [{"kind": "interlock_open", "at": 1}]}, "light: interlock is open"),
    "the buffer overflows": ({FAULTS: [{"kind": "buffer_overflow"}]}, "camera: buffer of 64 frames overflowed"),
    "the camera refuses the exposure": (
        {"devices.camera.exposure_ms": [3.0, 5.0]},
        "camera: exposure must be 3.0 to 5.0 ms",
    ),
}


@pytest.mark.parametrize(("rig", "says"), FAILURES.values(), ids=FAILURES)
def test_a_run_that_fails_is_dark_and_not_taken_for_whole(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, lights: list[Light], rig: dict[str, Any], says: str
) -> None:
    said = dmu("run", run_yaml(rig=rig), "--out", tmp_path / "runs", "--json")
    assert said.status == 1
    (problem,) = said.told["problems"]
    assert says in problem
    (folder,) = (tmp_path / "runs").iterdir()
    assert said.told["run"] == str(folder)
    assert said.err.splitlines()[-1].startswith(f"{folder} holds what there is")
    assert not (folder / "manifest.json").exists()
    assert not any(light.is_on() for light in lights)
    assert not list(folder.glob("*.ome.zarr"))
    assert dmu("verify", folder).status in (1, 3)
    assert dmu("check", folder).status == 2


def test_devices_that_do_not_answer_leave_no_folder(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(light: Light) -> None:
        raise DeviceError(light.name, "is not there")

    monkeypatch.setattr(Light, "open", absent)
    path = run_yaml()
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert (said.status, said.told["problems"]) == (1, ["light: is not there"])
    assert not (tmp_path / "runs").exists()
    checked = dmu("check", "--connect", path, tmp_path / "rig.yaml", "--json")
    assert checked.status == 1
    assert checked.told["problems"] == [f"{path}: light: is not there", f"{tmp_path / 'rig.yaml'}: light: is not there"]


def test_a_light_that_does_not_go_off_is_told_loudly(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Light, "is_on", lambda _light: True)
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs")
    assert said.status == 1
    assert "SWITCH IT OFF BY HAND" in said.err


def test_a_full_disk_ends_the_run(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lights: list[Light]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "frames.ome.zarr")

    monkeypatch.setattr(finish, "write_stores", full)
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs")
    assert said.status == 1
    assert "error: frames.ome.zarr: No space left on device" in said.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert not (folder / "manifest.json").exists()
    assert (folder / "spool").is_dir(), "what was taken is still there"
    assert dmu("verify", folder).status == 3


def test_a_fault_of_the_program_is_one_message(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr(finish, "write_stores", broken)
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs", "--json")
    assert said.status == 1
    (problem,) = said.told["problems"]
    assert problem.startswith("unexpected: ")
    assert "test_run.py:" in problem
    assert "IndexError: list index out of range" in problem


def test_developers_can_have_their_traceback(run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setattr(finish, "write_stores", broken)
    monkeypatch.setenv("DMU_TRACEBACK", "1")
    with pytest.raises(IndexError):
        main(["run", str(run_yaml()), "--out", str(tmp_path / "runs")])


# ---------------------------------------------------------------- damaged runs


@pytest.fixture
def whole(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> Path:
    return Path(dmu("run", run_yaml(), "--out", tmp_path / "runs", "--json").told["run"])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def test_every_damaged_file_is_told(dmu: Dmu, whole: Path) -> None:
    files = [path for path in sorted(whole.rglob("*")) if path.is_file()]
    assert len(files) > 10
    for path in files:
        before = path.read_bytes()
        flip(path)
        said = dmu("verify", whole, "--json")
        assert said.status == 1, path
        assert path.relative_to(whole).as_posix() in said.err
        assert said.told["complete"] is False
        checked = dmu("check", whole)
        assert checked.status == 2
        assert str(whole) in checked.err
        path.write_bytes(before)
    assert dmu("verify", whole).status == 0


def test_a_damaged_manifest_is_told(dmu: Dmu, whole: Path) -> None:
    manifest_path = whole / "manifest.json"
    for content in (b"", b"{", b"[]", b"{}", b'{"files": {}}', b'{"files": []}', b"\xff\xfe", b"null"):
        manifest_path.write_bytes(content)
        said = dmu("verify", whole)
        assert said.status == 1, content
        assert str(manifest_path) in said.err
    manifest_path.unlink()
    said = dmu("verify", whole)
    assert said.status == 3
    assert "the run was cut before its end" in said.err


def test_damaged_stores_cannot_be_exported_and_leave_nothing(dmu: Dmu, whole: Path, tmp_path: Path) -> None:
    store = whole / "frames.ome.zarr"
    file = tmp_path / "a.ome.tif"
    for path in [path for path in sorted(store.rglob("*")) if path.is_file()]:
        before = path.read_bytes()
        path.write_bytes(b"")
        said = dmu("export", whole, file, "--what", "frames")
        assert said.status in (0, 1, 2)
        assert said.status == 0 or str(store) in said.err, path
        assert "unexpected" not in said.err
        if said.status:
            assert not file.exists()
        file.unlink(missing_ok=True)
        path.write_bytes(before)
    assert [path.name for path in tmp_path.iterdir() if "tif" in path.name] == []


EXPORTS: dict[str, tuple[tuple[str, ...], str]] = {
    "another ending": (("a.tif", "--what", "frames"), "a.tif: the name must end in .ome.tif"),
    "no such images": (("a.ome.tif", "--what", "truth2"), "holds no images 'truth2' (--what); there are: frames"),
    "a way out of the run": (("a.ome.tif", "--what", "../frames"), "holds no images '../frames'"),
    "no such folder": (("nowhere/a.ome.tif", "--what", "frames"), "nowhere/a.ome.tif: there is no folder nowhere"),
    "no reconstruction": (("a.ome.tif",), "holds no images 'reconstruction'"),
}


@pytest.mark.parametrize(("arguments", "says"), EXPORTS.values(), ids=EXPORTS)
def test_exports_that_cannot_be_are_refused(
    dmu: Dmu, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = dmu("export", whole, *arguments)
    assert said.status == 2
    assert says in said.err
    assert not list(tmp_path.glob("*.tif"))


def test_an_existing_file_is_not_overwritten(dmu: Dmu, whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.ome.tif"
    file.write_bytes(b"mine")
    assert dmu("export", whole, file, "--what", "frames").status == 2
    assert file.read_bytes() == b"mine"


def test_folders_that_are_no_runs_are_refused(dmu: Dmu, tmp_path: Path) -> None:
    empty, file = tmp_path / "empty", tmp_path / "file"
    empty.mkdir()
    file.write_text("x")
    for path in (file, tmp_path / "nowhere"):
        said = dmu("verify", path)
        assert (said.status, said.err) == (2, f"error: {path}: is no run folder\n")
    for command in (("verify", empty), ("export", empty, tmp_path / "a.ome.tif"), ("check", empty)):
        said = dmu(*command)
        assert (said.status, said.err) == (2, f"error: {empty}: is no run folder: no manifest.json, no journal.jsonl\n")
