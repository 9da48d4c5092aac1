"""`dmu run` reconstructs while it images, says how that went, and lets nothing of it stand against the frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from program import Dmu

from dmu_hw.errors import RunError
from dmu_hw.lane import Lane
from dmu_hw.live import Live
from dmu_hw.models.ridge.model import Model
from dmu_hw.omezarr import Store
from dmu_hw.room import RoomWatch

Yaml = Callable[..., Path]


def manifest(run: str | Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((Path(run) / "manifest.json").read_bytes())
    return facts


def test_a_run_says_what_it_reconstructed_meanwhile(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    path = run_yaml({"inverse": ridge, "live": {"policy": "every", "budget_ms": 60_000}, "time": {"loops": 2}})
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    live = said.told["live"]
    assert (live["bursts"], live["made"], live["dropped"], live["failed"]) == (4, 4, 0, 0)
    assert 0 < live["latency_ms"]["p50"] <= live["latency_ms"]["p99"] <= live["latency_ms"]["worst"]
    assert live["budget_kept"] is True
    assert manifest(said.told["run"])["live"] == live
    assert "reconstructed while imaging: 4 of 4 bursts" in said.err
    report = (Path(said.told["run"]) / "report.html").read_text(encoding="utf-8")
    assert "reconstructed live" in report
    assert "Caution" not in report


def test_what_is_kept_is_the_same_with_it_and_without(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    kept = []
    for live in ({"half": "auto"}, None):
        said = dmu("run", run_yaml({"inverse": ridge, "live": live}), "--out", tmp_path / "runs", "--json")
        assert said.status == 0
        kept.append([np.asarray(Store(Path(said.told["run"]) / "reconstruction.ome.zarr").array(k)) for k in range(2)])
        assert (said.told["live"] is None) == (live is None)
    assert np.array_equal(kept[0], kept[1])


def test_without_an_inverse_nothing_is_reconstructed(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs", "--json")
    assert (said.status, said.told["live"]) == (0, None)


def test_a_budget_that_is_not_kept_is_said(dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path) -> None:
    said = dmu("run", run_yaml({"inverse": ridge, "live": {"budget_ms": 1e-6}}), "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    assert said.told["live"]["budget_kept"] is False
    assert "came later than 1e-06 ms" in said.err
    assert "of the budget" in (Path(said.told["run"]) / "report.html").read_text(encoding="utf-8")


def test_an_inverse_that_fails_only_then_is_no_harm(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ArithmeticError("lost in numbers")

    monkeypatch.setattr(Lane, "submit", fail)
    said = dmu("run", run_yaml({"inverse": ridge}), "--out", tmp_path / "runs", "--json")
    assert (said.status, said.told["complete"]) == (0, True)
    assert (said.told["live"]["made"], said.told["live"]["failed"]) == (0, 2)
    assert "ArithmeticError: lost in numbers" in said.err
    run = Path(said.told["run"])
    assert "lost in numbers" in (run / "report.html").read_text(encoding="utf-8")
    assert np.isfinite(Store(run / "reconstruction.ome.zarr").burst(1, 0, 0)).all()


def test_what_cannot_be_reconstructed_at_all_is_missing_and_its_frames_are_not(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, poison = Model.__call__, []

    def picky(self: Model, signal: torch.Tensor) -> torch.Tensor:
        if signal.mean() > 0:
            poison.append(signal.clone())
            if torch.equal(signal, poison[0]):
                raise ArithmeticError("never this one")
        return whole(self, signal)

    monkeypatch.setattr(Model, "__call__", picky)
    said = dmu("run", run_yaml({"inverse": ridge, "live": None}), "--out", tmp_path / "runs", "--json")
    assert said.status == 3
    assert said.told["complete"], "the frames are all there"
    assert said.told["counts"]["saved"] == said.told["counts"]["expected"] == 8
    assert said.told["not_reconstructed"]["bursts"] == 1
    assert "not reconstructed: 1 burst:" in said.err
    run = Path(said.told["run"])
    images = Store(run / "reconstruction.ome.zarr")
    assert np.isnan(images.burst(0, 0, 0)).all()
    assert np.isfinite(images.burst(1, 0, 0)).all()
    assert np.isfinite(said.told["metrics"]["PSNR reconstruction / dB"])
    assert "never this one" in (run / "report.html").read_text(encoding="utf-8")
    assert dmu("verify", run).status == 0


def test_a_run_that_was_cut_goes_on_reconstructing(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_yaml({"inverse": ridge, "time": {"loops": 3}})
    with monkeypatch.context() as cutting:
        looks = iter([None, None, RunError("cut here")])

        def cut(*_: Any) -> None:
            if (what := next(looks)) is not None:
                raise what

        cutting.setattr(RoomWatch, "check", cut)
        said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 1
    (run,) = (tmp_path / "runs").iterdir()
    again = dmu("run", "--resume", run, "--json")
    assert again.status == 0
    assert 0 < again.told["live"]["bursts"] <= 4
    assert again.told["live"]["made"] == again.told["live"]["bursts"]
    assert np.isfinite(Store(run / "reconstruction.ome.zarr").burst(1, 2, 0)).all()


def test_all_is_warm_before_there_is_light(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    warm, put = Lane.warm, Live.put
    monkeypatch.setattr(Lane, "warm", lambda self: (warm(self), told.append("warm"))[0])
    monkeypatch.setattr(Live, "put", lambda self, *given: (told.append("burst"), put(self, *given))[0])
    said = dmu("run", run_yaml({"inverse": ridge}), "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    assert told == ["warm", "burst", "burst"]


@pytest.mark.parametrize(
    ("live", "what"),
    [
        ({"policy": "oldest"}, "live.policy"),
        ({"depth": 0}, "live.depth"),
        ({"budget_ms": -1.0}, "live.budget_ms"),
        ({"deep": 3}, "live.deep"),
    ],
)
def test_what_cannot_be_meant_is_refused(dmu: Dmu, run_yaml: Yaml, live: dict[str, Any], what: str) -> None:
    said = dmu("plan", run_yaml({"live": live}), "--json")
    assert said.status == 2
    assert what in " ".join(said.told["problems"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused_before_there_is_a_run(
    dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path
) -> None:
    said = dmu("run", run_yaml({"inverse": ridge, "live": {"device": "cuda"}}), "--out", tmp_path / "runs", "--json")
    assert said.status == 2
    assert "live.device: there is no GPU" in said.told["problems"][0]
    assert not (tmp_path / "runs").exists()


def test_the_schema_tells_of_it(dmu: Dmu) -> None:
    said = dmu("schema", "run")
    assert "budget_ms" in said.out
    assert "never keeps a frame from being saved" in said.out.replace("\n", " ")
