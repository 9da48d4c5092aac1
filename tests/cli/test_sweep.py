"""`dmu sweep`: trials that are run, kept, gone on with, told when they fail; a table and maps of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from dmu_hw import sweep as module
from dmu_hw.cli import sweep as command

Dmu = Callable[..., Any]
BASE: dict[str, Any] = {
    "kind": "train",
    "name": "tiny",
    "rig": "rig.yaml",
    "data": {"kind": "scenes", "specimen": {"kind": "nuclei", "seed": 1}, "train": 2, "held_back": 1, "side_px": 64},
    "patterns": {"count": 1, "camera_pixel": 4, "start": "hadamard", "frozen": True},
    "power_mw": 1.0,
    "exposure_ms": 2.0,
    "network": {"model": "lattice", "channels": 8, "blocks": 1},
    "schedule": {"updates": 2, "batch": 1, "crop_px": 32, "validate_every": 2, "warmup": 1},
}
GRID = {"patterns.count": [1, 4], "patterns.camera_pixel": [4, 8]}
SweepYaml = Callable[..., Path]


@pytest.fixture
def sweep_yaml(tmp_path: Path, rig_yaml: Callable[..., Path]) -> SweepYaml:
    """Writes a sweep of tiny trainings, with one worker."""

    def write(**keys: Any) -> Path:
        rig_yaml()
        (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE, sort_keys=False))
        document = {"kind": "sweep", "name": "small", "base": "base.yaml", "engine": {"kind": "local", "workers": 1}}
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(document | keys, sort_keys=False))
        return path

    return write


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that take no time: workers find `sweep_toys` beside this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(module, "CALL", "sweep_toys:outcome")


def test_real_trainings_end_in_a_table_and_go_on(dmu: Dmu, sweep_yaml: SweepYaml, tmp_path: Path) -> None:
    path = sweep_yaml(grid={"patterns.count": [1, 4]})
    said = dmu("sweep", path, "--out", tmp_path / "out", "--json")
    assert (said.status, said.told["failed"], said.told["trials"]) == (0, [], 2)
    folder = tmp_path / "out/small"
    assert said.told["table"] == str(folder / "trials.parquet")
    rows = pq.read_table(folder / "trials.parquet").to_pylist()
    assert sorted(row["patterns.count"] for row in rows) == [1, 4]
    assert all(0 < row["test_mse"] < 1 for row in rows)
    assert said.told["heat_maps"] == []
    assert "no heat maps: patterns.count and patterns.camera_pixel must both vary" in said.err
    assert (folder / "sweep.yaml").read_text() == path.read_text()

    kept = {file: file.read_bytes() for file in folder.glob("*.json")}
    more = dmu("sweep", path, "--out", tmp_path / "out", "--json")
    assert more.status == 0
    assert "2 of 2 trials were there already" in more.err
    assert {file: file.read_bytes() for file in folder.glob("*.json")} == kept


def test_maps_of_t_and_d_have_a_panel_for_all_else(dmu: Dmu, sweep_yaml: SweepYaml, tmp_path: Path, toys: None) -> None:
    points = [{"patterns.start": "draft", "patterns.frozen": False}, {"patterns.start": "random"}]
    path = sweep_yaml(grid=GRID, points=points, seeds=2)
    said = dmu("sweep", path, "--out", tmp_path / "out", "--json")
    assert said.status == 0
    names = [Path(name).name for name in said.told["heat_maps"]]
    assert names == ["test_mse.png", "test_mse.svg", "test_psnr_db.png", "test_psnr_db.svg"]
    with Image.open(tmp_path / "out/small/test_mse.png") as picture:
        assert picture.width > picture.height > 100
    svg = (tmp_path / "out/small/test_mse.svg").read_text()
    for told in (
        "start draft, learned",
        "start random, frozen",
        "T / frames",
        "d / object pixels",
        "test MSE / $10^{-3}$",
    ):
        assert f"<!-- {told} -->" in svg
    again = dmu("sweep", path, "--out", tmp_path / "out", "--json")
    assert again.told["heat_maps"] == said.told["heat_maps"]


def test_failures_are_told_kept_and_tried_again_when_asked(
    dmu: Dmu, sweep_yaml: SweepYaml, tmp_path: Path, toys: None
) -> None:
    path = sweep_yaml(grid=GRID | {"power_mw": [1.0, 666.0]})
    for more in (), ("--again",):
        said = dmu("sweep", path, "--out", tmp_path / "out", *more, "--json")
        assert said.status == 3
        assert len(said.told["failed"]) == 4
        assert "patterns.count 4, patterns.camera_pixel 8, power_mw 666.0: ValueError: too bright" in said.err
        assert "4 of 8 trials failed; --again tries them once more" in said.err
    begun = [file.read_text() for file in (tmp_path / "out/small").glob("*/begun")]
    assert sorted(begun) == ["x"] * 4 + ["xx"] * 4
    rows = pq.read_table(tmp_path / "out/small/trials.parquet").to_pylist()
    assert [row["error"] for row in rows if row["power_mw"] == 666.0] == ["ValueError: too bright"] * 4


def test_a_dry_run_tells_how_many_and_how_long_and_leaves_nothing(
    dmu: Dmu, sweep_yaml: SweepYaml, tmp_path: Path, toys: None
) -> None:
    path = sweep_yaml(grid=GRID, seeds=3)
    said = dmu("sweep", path, "--out", tmp_path / "out", "--dry-run", "--json")
    assert said.status == 0
    assert (said.told["trials"], said.told["left"], said.told["kept"]) == (12, 12, 0)
    assert 0 < said.told["seconds_left"] < 60
    assert "12 trials; about " in said.err
    assert "patterns.camera_pixel: 4, 8" in said.err
    assert not (tmp_path / "out").exists()
    dmu("sweep", path, "--out", tmp_path / "out")
    done = dmu("sweep", path, "--out", tmp_path / "out", "--dry-run", "--json")
    assert (done.told["left"], done.told["kept"], done.told["seconds_left"]) == (0, 12, 0)


def test_what_is_left_out_is_told(dmu: Dmu, sweep_yaml: SweepYaml, tmp_path: Path, toys: None) -> None:
    path = sweep_yaml(grid={"patterns.camera_pixel": [4, 24]}, invalid="leave out")
    said = dmu("sweep", path, "--out", tmp_path / "out", "--json")
    assert (said.status, said.told["trials"], said.told["left_out"]) == (0, 1, 1)
    assert "left out: " in said.err
    assert "must be a multiple of the tile of 24" in said.err


@pytest.mark.parametrize(
    ("keys", "more", "says"),
    [
        ({"grid": {"patterns.cuont": [1]}}, (), "unknown key 'cuont'"),
        ({"grid": {"patterns.camera_pixel": [5]}}, (), "must be a multiple of the tile of 5"),
        ({"base": "gone.yaml"}, (), "gone.yaml"),
        ({}, ("--device", "abacus"), "--device: must be auto, cpu, cuda or cuda:0"),
        ({}, ("--device", "cuda:99"), "--device: there is no cuda:99: "),
        ({"engine": {"kind": "ray"}}, ("--device", "cpu"), "--device: engine 'ray' gives out its GPUs itself"),
    ],
)
def test_refused(
    dmu: Dmu, sweep_yaml: SweepYaml, tmp_path: Path, keys: dict[str, Any], more: tuple[str, ...], says: str
) -> None:
    said = dmu("sweep", sweep_yaml(**keys), "--out", tmp_path / "out", *more)
    assert said.status == 2
    assert says in said.err
    assert not (tmp_path / "out").exists()


def test_a_sweep_is_checked(dmu: Dmu, sweep_yaml: SweepYaml) -> None:
    path = sweep_yaml(grid=GRID)
    assert dmu("check", path).err == f"{path}: sound, a sweep of 4 trials\n"
    wrong = dmu("check", sweep_yaml(grid={"patterns.count": ["many"]}))
    assert wrong.status == 2
    assert "(with patterns.count many)" in wrong.err
    assert json.loads(dmu("schema", "sweep").out)["title"] == "Sweep"


def test_workers_see_the_device_that_is_named(
    dmu: Dmu, sweep_yaml: SweepYaml, tmp_path: Path, toys: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_check_gpu", lambda *_: None)
    for before, device, seen in (("7,8", "auto", "7,8"), ("7,8", "cuda:1", "8"), ("", "cuda:1", "1"), ("7", "cpu", "")):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
        out = tmp_path / f"{before} {device}"
        dmu("sweep", sweep_yaml(), "--out", out, "--device", device)
        (row,) = pq.read_table(out / "small/trials.parquet").to_pylist()
        assert row["gpus_seen"] == seen
