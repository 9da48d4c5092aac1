"""Images made afresh from runs that have ended: the same numbers, whatever was cut, and by any bundle that fits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.bundle import Bundle
from dmu_hw.cli import remaking
from dmu_hw.cli.remaking import Remake, make
from dmu_hw.omezarr import Store
from dmu_hw.pool import jobs as pool_jobs
from dmu_hw.reconstruct import Reconstructor
from dmu_hw.runfolder import RunFolder

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
TIMES = {"time": {"loops": 3, "interval_s": 0.5}}


@pytest.fixture
def ended(dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path) -> RunFolder:
    """Two fields at three time points."""
    said = dmu("run", run_yaml({"inverse": ridge} | TIMES), "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    return RunFolder(Path(said.told["run"]))


def other(run: RunFolder, name: str = "other") -> Bundle:
    """A bundle that fits, and gives twice the light."""
    bundle = Bundle.load(run.bundle)
    weights = {key: np.asarray(value * np.float32(2)) for key, value in bundle.weights.items()}
    return replace(bundle, header=bundle.header.model_copy(update={"name": name}), weights=weights)


def images(path: Path) -> np.ndarray[Any, Any]:
    store = Store(path)
    return np.stack([np.asarray(store.array(field)) for field in range(len(store))])


def test_the_runs_own_bundle_gives_the_same_images(dmu: Dmu, ended: RunFolder) -> None:
    said = dmu("reconstruct", ended.path, "--workers", 1, "--json")
    assert said.status == 0, said.err
    (told,) = said.told["runs"]
    assert (told["bursts"], told["made"], told["failures"]) == (6, 6, {})
    np.testing.assert_allclose(images(Path(told["images"])), images(ended.reconstruction), rtol=1e-5, atol=1e-6)
    manifest = ended.read_manifest()
    assert told["metrics"]["PSNR / dB"] == pytest.approx(manifest["metrics"]["PSNR reconstruction / dB"], abs=1e-3)
    assert dmu("verify", ended.path).status == 0
    assert not list(ended.path.parent.glob(".reconstructing-*"))
    assert not ended.lock.exists()
    again = dmu("reconstruct", ended.path)
    assert again.status == 0
    assert "is there already" in again.err


def test_another_bundle_lies_beside_it(dmu: Dmu, ended: RunFolder, tmp_path: Path) -> None:
    other(ended).save(tmp_path / "other.dmu")
    said = dmu("reconstruct", ended.path, "--bundle", tmp_path / "other.dmu", "--workers", 1, "--json")
    assert said.status == 0, said.err
    made = Path(said.told["runs"][0]["images"])
    assert made.name.startswith("reconstruction-other-")
    (source,) = Remake.of(ended, {None: other(ended)}).sources
    wanted = Reconstructor(source.bundle, source.window).estimate(source.frames.burst(1, 2, 0)).image
    np.testing.assert_allclose(images(made)[1, 2, 0, 0], wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(wanted - images(ended.reconstruction)[1, 2, 0, 0]).max() > 0.01
    # what was made is vouched for as the run is
    chunk = next(path for path in sorted((made / "1").rglob("c/*/*/*/*/*")) if path.is_file())
    raw = bytearray(chunk.read_bytes())
    raw[len(raw) // 2] ^= 1
    chunk.write_bytes(raw)
    found = dmu("verify", ended.path, "--json")
    assert found.status == 1
    assert [what for what in found.told["damage"] if chunk.relative_to(ended.path).as_posix() in what]


def test_what_was_cut_goes_on_with_what_it_had(
    dmu: Dmu, ended: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remaking, "_BURSTS_A_JOB", 1)
    remake = Remake.of(ended, {None: other(ended)})
    remake.begin()
    first, *rest = remake.jobs()
    assert len(rest) == 5
    folder = next(iter(_work_folders(dmu, ended, tmp_path, monkeypatch)))
    pool_jobs.perform(first, folder)  # one share came to its end, and then somebody pulled the plug
    found = dmu("verify", ended.path)
    assert found.status == 0
    assert "not to the end" in found.err
    before = pool_jobs.path_of(first, folder).stat().st_mtime_ns
    asked: list[int] = []
    monkeypatch.setattr(
        shutil, "rmtree", lambda path, **_: asked.append(pool_jobs.path_of(first, path).stat().st_mtime_ns)
    )
    said = dmu("reconstruct", ended.path, "--bundle", tmp_path / "other.dmu", "--workers", 1, "--json")
    assert said.status == 0, said.err
    assert asked == [before], "the first share was made once more"
    assert said.told["runs"][0]["made"] == 6
    assert np.isfinite(images(Path(said.told["runs"][0]["images"]))).all()


def _work_folders(dmu: Dmu, ended: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where the command keeps what jobs have done: it begins, and is stopped before the first of them."""
    other(ended).save(tmp_path / "other.dmu")

    def stopped(_jobs: object, folder: Path, *_: object, **__: object) -> None:
        folder.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dmu_hw.cli.reconstruct.run", stopped)
        said = dmu("reconstruct", ended.path, "--bundle", tmp_path / "other.dmu")
        assert "stopped by Ctrl-C" in said.err
    return list(ended.path.parent.glob(".reconstructing-*"))


def test_a_share_whose_inverse_fails_is_told(ended: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    remake = Remake.of(ended, {})
    remake.begin()

    def fail(_self: object, _frames: object) -> None:
        raise ZeroDivisionError("no light")

    monkeypatch.setattr("dmu_hw.reconstruct.Reconstructor.estimate", fail)
    (job,) = remake.jobs()
    told = make(dict(job.config), ended.path)
    assert told["bursts"] == sum(told["failures"].values()) == 6
    assert "no light" in next(iter(told["failures"]))
    assert remake.counted() == (6, 6, 0)


def test_all_that_does_not_fit_is_said_before_anything_is_made(
    dmu: Dmu, ended: RunFolder, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    uniform = {"patterns": {"set": "random", "count": 4, "camera_pixel": 4, "seed": 3}, "inverse": ridge}
    stranger = Path(dmu("run", run_yaml(uniform), "--out", tmp_path / "strange", "--json").told["run"])
    frames = Path(dmu("run", run_yaml(), "--out", tmp_path / "raw", "--json").told["run"])
    (frames / "manifest.json").rename(tmp_path / "manifest.json")
    said = dmu("reconstruct", stranger, frames, "--bundle", ended.bundle)
    assert said.status == 2
    assert "other patterns" in said.err
    assert "did not come to its end" in said.err
    assert dmu("reconstruct", ended.path, "--bundle", f"red={ended.bundle}").status == 2
    assert dmu("reconstruct", ended.path, "--bundle", tmp_path / "none.dmu").status == 2
    assert not list(stranger.glob("reconstruction-*"))


def test_frames_alone_need_a_bundle(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    run = Path(dmu("run", run_yaml(), "--out", tmp_path / "runs", "--json").told["run"])
    said = dmu("reconstruct", run)
    assert said.status == 2
    assert "--bundle" in said.err


def test_a_damaged_record_is_damage(dmu: Dmu, ended: RunFolder) -> None:
    assert dmu("reconstruct", ended.path, "--workers", 1).status == 0
    (record,) = ended.remade_records()
    facts = json.loads(record.read_bytes())
    record.write_text(json.dumps(facts | {"made": 7}))
    found = dmu("verify", ended.path, "--json")
    assert found.status == 1
    assert record.name in found.told["damage"][0]
