"""`dmu pause`, `go` and `abort` on runs that go on, have ended, or were cut."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.control import Control, listening, send
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.omezarr import Store

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]


@pytest.mark.parametrize(("word", "state"), [("pause", "paused"), ("go", "running"), ("abort", "aborting")])
def test_an_order_is_taken(dmu: Dmu, tmp_path: Path, word: str, state: str) -> None:
    (tmp_path / "journal.jsonl").touch()
    control = Control()
    with listening(tmp_path / "control", control):
        said = dmu(word, tmp_path, "--json")
    assert (said.status, said.told["order"]) == (0, word)
    assert control.state == state


def test_orders_that_come_too_late_are_refused(dmu: Dmu, tmp_path: Path) -> None:
    said = dmu("pause", tmp_path)
    assert (said.status, "is no run folder" in said.err) == (2, True)
    (tmp_path / "manifest.json").touch()
    said = dmu("pause", tmp_path)
    assert (said.status, "the run has ended: there is nothing to pause" in said.err) == (2, True)


def test_where_nobody_listens_that_is_said(dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dmu_hw.cli.orders.send", lambda *order: send(*order, timeout_s=0.1))
    (tmp_path / "journal.jsonl").touch()
    said = dmu("abort", tmp_path)
    assert (said.status, "nobody takes orders" in said.err) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.jsonl"]


def test_a_run_that_is_paused_and_aborted_from_outside(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was taken is stored and reported, the rest is missing, and the exit status says so."""
    out = tmp_path / "runs"
    lights: list[Light] = []
    taken: list[bool] = []
    switch_on = Light.on

    def give_orders() -> None:
        (folder,) = out.iterdir()
        taken.append(send(folder / "control", "pause", timeout_s=20.0))
        taken.append(not lights[0].is_on())
        taken.append(send(folder / "control", "abort", "the stage drips", timeout_s=20.0))

    def watched(light: Light, *longest_ms: float) -> None:
        lights.append(light)
        if len(lights) == 2:
            orders.start()
        switch_on(light, *longest_ms)

    orders = threading.Thread(target=give_orders)
    monkeypatch.setattr(Light, "on", watched)
    path = run_yaml({"time": {"loops": 40, "interval_s": 0.1}}, {"connections.world.realtime": True})
    said = dmu("run", path, "--out", out, "--json")
    orders.join()
    assert taken == [True, True, True]
    assert said.status == 3
    assert said.told["complete"] is False
    counts = said.told["counts"]
    assert counts["saved"] + counts["missing"] == counts["expected"] == 320
    assert 0 < counts["saved"] < 320
    assert "the stage drips" in said.err
    assert not any(light.is_on() for light in lights)
    run = Path(said.told["run"])
    assert json.loads((run / "manifest.json").read_bytes())["aborted"] == "the stage drips"
    assert "the stage drips" in (run / "report.html").read_text(encoding="utf-8")
    times = np.asarray(Store(run / "frames.ome.zarr").times(0)[:, :, 0])
    whole = ~np.isnan(times).any(axis=1)
    assert whole[0]
    assert not whole[-1]
    assert dmu("verify", run).status == 3
    assert not (run / "control").exists()
