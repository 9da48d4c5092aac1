"""`dmu run` of what a protocol chooses by itself, and of places that come from other files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dmu_hw.omezarr import Store

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]
CHOOSER = """
from dmu_hw.files import Settings

class Chooser:
    class Settings(Settings):
        above: float
    def __init__(self, settings):
        self.settings = settings
    def score(self, estimate, seen):
        return float(estimate.image.mean())
    def choose(self, scores):
        return [field for field, (mean,) in scores.items() if mean > self.settings.above]
"""


def test_a_survey_and_what_was_chosen(dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path) -> None:
    """The threshold lies between the two fields, as a run before has seen them."""
    first = Path(dmu("run", run_yaml({"inverse": ridge}), "--out", tmp_path / "first", "--json").told["run"])
    means = [float(Store(first / "reconstruction.ome.zarr").burst(field, 0, 0).mean()) for field in range(2)]
    (tmp_path / "mine.py").write_text(CHOOSER)
    (first / "bundle.dmu").rename(tmp_path / "then.dmu")
    keys = {
        "inverse": ridge,
        "adaptive": {"by": "mine.py", "above": sum(means) / 2},
        "then": {"patterns": {"bundle": "then.dmu"}, "exposure_ms": 4.0},
    }
    said = dmu("run", run_yaml(keys), "--out", tmp_path / "runs", "--json")
    assert (said.status, said.told["complete"]) == (0, True)
    best = int(np.argmax(means))
    run = Path(said.told["run"])
    facts = json.loads((run / "manifest.json").read_bytes())
    assert facts["chosen"] == {"0": [best]}
    assert said.told["counts"]["expected"] == said.told["counts"]["saved"] == 12
    assert facts["price"]["frames"] == 16
    again = Store(run / "chosen-reconstruction.ome.zarr")
    assert np.isfinite(again.burst(best, 0, 0)).all()
    assert np.isnan(again.burst(1 - best, 0, 0)).all()
    assert dmu("verify", run).status == 0


def test_a_protocol_that_chooses_by_nothing_is_refused(dmu: Dmu, run_yaml: Yaml) -> None:
    then = {"patterns": {"set": "blocks", "count": 4, "camera_pixel": 2}}
    said = dmu("plan", run_yaml({"adaptive": {"by": "cells", "lest": 1}, "then": then}), "--json")
    assert said.status == 2
    assert ": adaptive: needs reconstructions to choose by" in " ".join(said.told["problems"])


def test_a_run_keeps_copies_of_where_it_was_told_to_go(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    text = "x_um,y_um,name\n0,0,here\n40,0,there\n"
    (tmp_path / "places.csv").write_text(text)
    said = dmu("run", run_yaml({"positions": "places.csv"}), "--out", tmp_path / "runs", "--json")
    assert said.status == 0
    run = Path(said.told["run"])
    assert (run / "sources" / "positions.txt").read_text() == text
    assert Store(run / "frames.ome.zarr").image(1).name == "there"
    assert dmu("verify", run).status == 0
