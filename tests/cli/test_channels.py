"""Runs in two colours, from the YAML to the report: the shipped one whole, cut and resumed, damaged, and exported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from colours import TWO_COLOURS
from yaozarrs import validate_zarr_store

from dmu_hw.cli.main import main
from dmu_hw.journal import read_journal
from dmu_hw.omezarr import Store
from dmu_hw.runfolder import RunFolder
from dmu_hw.writer import bursts

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "protocols" / "two-colour.yaml"
STORES = ("green-frames", "red-frames", "reconstruction", "truth")
CUT = """
import os, signal, sys
from dmu_hw.burst import BurstTaker
from dmu_hw.cli.main import main
real = BurstTaker.take
def take(self, shot, take, **more):
    if shot.index == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, shot, take, **more)
BurstTaker.take = take
main(sys.argv[2:])
"""


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped one with dyes that do not fade: light that a cut run lost leaves no trace on them."""
    settings = yaml.safe_load((ROOT / "devices" / "simulated-two-colour.yaml").read_text(encoding="utf-8"))
    for dye in settings["connections"]["world"]["dyes"].values():
        del dye["truth"]["dye"]["bleach_dose_mj_cm2"]
    path = tmp_path_factory.mktemp("rig") / "rig.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, rig: Path) -> RunFolder:
    """The shipped run, never cut. Nobody may change it."""
    out = tmp_path_factory.mktemp("runs")
    assert call("run", EXAMPLE, "--rig", rig, "--out", out) == 0
    return RunFolder(next(out.iterdir()))


def images(run: RunFolder, name: str) -> Any:
    """All fields of a store, (field, t, c, z, y, x)."""
    store = Store(run.path / f"{name}.ome.zarr")
    return np.stack([np.asarray(store.array(field)[:]) for field in range(len(store))])


def alike(one: Any, other: Any) -> float:
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def test_each_estimate_is_that_of_its_own_colour(whole: RunFolder) -> None:
    estimates, truths = images(whole, "reconstruction"), images(whole, "truth")
    assert estimates.shape == truths.shape == (2, 1, 2, 1, 128, 128)
    for mine, other in ((0, 1), (1, 0)):
        own = alike(estimates[:, :, mine], truths[:, :, mine])
        assert own > 0.6, (mine, own)
        assert alike(estimates[:, :, mine], truths[:, :, other]) < own - 0.5
    manifest = whole.read_manifest()
    assert manifest["complete"]
    assert manifest["metrics"].keys() == {f"{name}: PSNR reconstruction / dB" for name in ("green", "red")}
    doses = manifest["actual"]["channel_dose_mj_cm2"]
    assert manifest["actual"]["dose_mj_cm2"] == {
        field: pytest.approx(doses["green"][field] + doses["red"][field]) for field in ("0", "1")
    }
    per_mj_cm2_nm = 1e-3 / 1e8 / 6.62607015e-34 / 299_792_458.0 * 1e-9
    photons = per_mj_cm2_nm * (488 * doses["green"]["0"] + 561 * doses["red"]["0"])
    assert manifest["actual"]["photons_per_um2"]["0"] == pytest.approx(photons)


def test_channels_are_named_wherever_people_look(whole: RunFolder, tmp_path: Path) -> None:
    for name in STORES:
        validate_zarr_store(str(whole.path / f"{name}.ome.zarr"))
    (shown,) = [Store(whole.reconstruction).attributes(0)["ome"]["omero"]]
    told = [(one["label"], one["color"], one["excitationWave"], one["emissionWave"]) for one in shown["channels"]]
    assert told == [("green", "00FF00", 488, 525), ("red", "FF0000", 561, 610)]
    facts = Store(whole.path / "red-frames.ome.zarr").facts["channel"]
    assert facts == {"name": "red", "light": "light_561", "filters": {"filter": "RFP"}}
    plan = json.loads(whole.settings.read_bytes())["plan"]
    assert plan["channels"]["red"]["light"] == "light_561"
    page = whole.report.read_text(encoding="utf-8")
    for name in ("green", "red"):
        for section in ("verdict", "fields", "patterns"):
            assert f'id="{section}-{name}"' in page
    assert "light_561, filter at RFP" in page
    for options in ((), ("--mosaic",)):
        file = tmp_path / f"out{len(options)}.ome.tif"
        assert call("export", whole.path, file, *options) == 0
        with tifffile.TiffFile(file) as tiff:
            xml = tiff.ome_metadata or ""
            assert 'Name="red" EmissionWavelength="610.0"' in xml
            assert tiff.series[0].asarray().shape[0] == 2
    assert call("export", whole.path, tmp_path / "raw.ome.tif", "--what", "red-frames") == 0


def test_napari_finds_both_colours_in_one_image(whole: RunFolder) -> None:
    reader = pytest.importorskip("napari_ome_zarr")
    path = str(whole.reconstruction)
    ((data, about, kind),) = reader.napari_get_reader(path)(path)
    assert (kind, about["channel_axis"]) == ("image", 1)
    assert np.asarray(data[0]).shape == (1, 2, 1, 128, 128)
    assert about["name"] == ["field 0: green", "field 0: red"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is killed so elsewhere")
@pytest.mark.parametrize("shot", [3, *(pytest.param(shot, marks=pytest.mark.campaign) for shot in range(3))])
def test_a_run_that_was_killed_goes_on_to_the_same_end(whole: RunFolder, rig: Path, tmp_path: Path, shot: int) -> None:
    """Cut by kill -9 when the dose of a burst is booked and its light not on yet."""
    command = [sys.executable, "-c", CUT, str(shot), "run", str(EXAMPLE), "--rig", str(rig), "--out", str(tmp_path)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    run = RunFolder(next(tmp_path.iterdir()))
    assert not run.manifest.exists()
    assert len(list(bursts(run.journal))) < 4
    assert call("run", "--resume", run.path) == 0
    for name in STORES:
        assert np.array_equal(images(run, name), images(whole, name)), name
    assert call("verify", run.path) == 0
    lit = [line for line in read_journal(run.journal) if line["kind"] == "light"]
    assert {line["channel"] for line in lit} == {"green", "red"}


@pytest.mark.parametrize("channel", ["green", "red"])
def test_a_byte_that_changed_is_found_in_either_channel(
    whole: RunFolder, tmp_path: Path, channel: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "copy")
    shutil.copytree(whole.path, run.path)
    chunk = run.path / f"{channel}-frames.ome.zarr" / "1" / "0" / "c" / "0" / "0" / "0" / "0" / "0"
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    capsys.readouterr()
    assert call("verify", run.path) == 1
    said = capsys.readouterr().err
    assert said.count("damaged: ") == 1
    assert f"{channel}-frames.ome.zarr/1/0/c/0/0/0/0/0: was changed: field 1, time 0, plane 0, frames of" in said


CHOOSER = """
from dmu_hw.files import Settings
class Chooser:
    Settings = Settings
    def __init__(self, settings): ...
    def score(self, estimate, seen): return float(estimate.image.mean())
    def choose(self, scores): return [max(scores, key=lambda field: scores[field][0])]
"""
LOOK: dict[str, Any] = {
    "patterns": {"set": "hadamard", "count": 4, "camera_pixel": 4},
    "light": {"power_mw": 1.0},
    "exposure_ms": 2.0,
}


def test_one_colour_is_surveyed_and_focused_by_and_imaged_once_more(
    tmp_path: Path, rig_yaml: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is chosen follows from red alone; green is only recorded, and has no reconstruction."""
    rig_yaml(TWO_COLOURS)
    (tmp_path / "chooser.py").write_text(CHOOSER)
    ridge = {"model": "ridge", "specimen": {"kind": "beads", "seed": 5}, "scenes": 2, "reach": 0}
    protocol = {
        "kind": "run",
        "name": "chosen",
        "rig": "rig.yaml",
        "field_px": [32, 32],
        "channels": [{"channel": "green", **LOOK}, {"channel": "red", **LOOK, "inverse": ridge}],
        "grid": {"rows": 1, "columns": 2},
        "focus_um": 0.0,
        "time": {"loops": 2},
        "autofocus": {"range_um": 2.0, "step_um": 1.0, "every": 2, "channel": "red"},
        "adaptive": {"by": "chooser.py", "channel": "red"},
        "then": {"patterns": {"set": "hadamard", "count": 16, "camera_pixel": 8}},
        "references": {"plain": True},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(protocol))))
    assert call("run", tmp_path / "run.yaml", "--out", tmp_path / "runs", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    run = RunFolder(Path(told["run"]))
    assert told["complete"]
    assert {path.name for path in run.path.glob("*.ome.zarr")} == {
        *(f"{name}-{kind}.ome.zarr" for name in ("green", "red") for kind in ("frames", "plain")),
        *("red-chosen.ome.zarr", "reconstruction.ome.zarr", "truth.ome.zarr"),
    }
    (reconstructed,) = Store(run.reconstruction).image(0).channels
    assert reconstructed == "red"
    estimates = images(run, "reconstruction")
    for time in range(2):
        (best,) = run.read_manifest()["chosen"][str(time)]
        assert best == int(np.argmax(estimates[:, time].mean(axis=(1, 2, 3, 4))))
        exposed = [np.isfinite(np.asarray(Store(run.frames_of("chosen", "red")).times(n)[time])).all() for n in (0, 1)]
        assert exposed == [n == best for n in (0, 1)]
    looks = [line for line in read_journal(run.journal) if line["kind"] == "focus"]
    assert len(looks) == 2
    assert call("verify", run.path) == 0
