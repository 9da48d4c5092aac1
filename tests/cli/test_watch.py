"""`dmu run` with a watch: told as it happens, at the end, in manifest and report; and resumed where it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmu_hw.data import Burst
from dmu_hw.errors import RunError
from dmu_hw.journal import read_journal
from dmu_hw.plan import Shot
from dmu_hw.watcher import Watcher

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
CREEP = {"connections.world.mirror_drift_um_s": [0.006, 0.0]}
KEYS: dict[str, Any] = {
    "watch": {"every": 4, "beyond": "register", "at_um": [-80.0, 30.0]},
    "time": {"loops": 6, "interval_s": 20.0},
    "light": {"power_mw": 10.0},
}


def looks_of(run: Path) -> list[dict[str, Any]]:
    return [line for line in read_journal(run / "journal.jsonl") if line["kind"] == "look"]


def test_a_run_that_is_watched(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    said = dmu("run", run_yaml(KEYS, CREEP), "--out", tmp_path / "runs", "--json")
    assert (said.status, said.told["complete"]) == (0, True), "a drift is no failure"
    assert "; 3 looks for drifts" in said.err
    assert "drift: registration, " in said.err
    assert said.told["drift"]["laid_back"] == 2
    run = Path(said.told["run"])
    facts = json.loads((run / "manifest.json").read_bytes())
    assert facts["drift"]["drifts"]["registration"]["beyond"] == 2
    assert len(facts["drift"]["over_time"]["registration"]) == 3
    assert facts["price"]["looks"] == 3
    page = (run / "report.html").read_text(encoding="utf-8")
    assert 'id="drift"' in page
    assert "registration drifted: " in page
    assert dmu("verify", run).status == 0


def test_a_run_that_is_not_watched_says_nothing_of_it(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    assert "drift" not in said.told
    run = Path(said.told["run"])
    assert "drift" not in json.loads((run / "manifest.json").read_bytes())
    assert 'id="drift"' not in (run / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("at", [4, 9])
def test_it_goes_on_with_the_map_that_was_corrected(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut after the burst of a shot, before that is on the disk; shots 0, 4 and 8 come after a look."""
    path = run_yaml(KEYS, CREEP)
    whole = Path(dmu("run", path, "--out", tmp_path / "whole", "--json").told["run"])
    real = Watcher.after

    def cut(self: Watcher, shot: Shot, burst: Burst) -> None:
        if shot.index == at:
            raise RunError("cut here")
        real(self, shot, burst)

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "after", cut)
        said = dmu("run", path, "--out", tmp_path / "cut", "--json")
    assert said.status == 1
    run = Path(said.told["run"])
    assert dmu("run", "--resume", run, "--json").status == 0
    wanted = {line["shot"]: line for line in looks_of(whole)}
    found = {line["shot"]: line for line in looks_of(run)}
    assert found.keys() == wanted.keys()
    for shot, line in wanted.items():
        assert np.allclose(found[shot]["laid"]["shift_um"], line["laid"]["shift_um"], atol=0.01)
        assert found[shot]["dose_before_mj_cm2"] >= line["dose_before_mj_cm2"]
    drifts = [json.loads((each / "manifest.json").read_bytes())["drift"] for each in (whole, run)]
    assert [drift["laid_back"] for drift in drifts] == [2, 2]
    assert np.allclose(drifts[0]["laid_px"], drifts[1]["laid_px"], atol=0.03)
