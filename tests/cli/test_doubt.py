"""Bundles that know when not to be believed: how they learn it, and what runs, reports and programs are told."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import yaozarrs

from dmu_hw.bundle import Bundle
from dmu_hw.doubt import REASONS
from dmu_hw.doubtful import Doubtful
from dmu_hw.omezarr import Store
from tests.cli.test_train import SMALL_LESSON
from tests.program import Dmu

LESSON = copy.deepcopy(SMALL_LESSON) | {"trust": {"fields": 48, "updates": 20}}
LESSON["data"] |= {"train": 12}


@pytest.fixture(name="taught")
def _taught(dmu: Dmu, rig_yaml: Callable[..., Path], tmp_path: Path) -> Path:
    rig_yaml()
    lesson = tmp_path / "lesson.yaml"
    lesson.write_text(yaml.safe_dump(LESSON))
    said = dmu("train", lesson, "--out", tmp_path / "trained", "--json")
    assert said.status == 0, said.err
    assert "doubted are" in said.err
    return Path(said.told["bundle"]).rename(tmp_path / "small.dmu")


def _only_inverse(bundle: Bundle) -> dict[str, Any]:
    return {key: part for key, part in bundle.weights.items() if not key.startswith(("doubt.", "spread."))}


def test_a_bundle_that_was_made_before(dmu: Dmu, taught: Path, rig_yaml: Callable[..., Path]) -> None:
    """`dmu doubt` gives it what it lacks; the inverse stays bit for bit, and a rig it is adapted to is learned anew."""
    whole = Bundle.load(taught)
    bare = Bundle(whole.header, whole.patterns, _only_inverse(whole))
    old = taught.with_name("old.dmu")
    bare.save(old)
    said = dmu("doubt", old, "--json")
    assert said.status == 0, said.err
    made = Bundle.load(taught.with_name("old-doubting.dmu"))
    assert {"doubt_false_alarms", "spread_within_1", "spread_within_2"} <= said.told["metrics"].keys()
    assert made.weights.keys() == whole.weights.keys()
    for key, part in _only_inverse(made).items():
        assert np.array_equal(part, whole.weights[key])
    assert dmu("doubt", old).status == 2  # the first one would be lost
    assert dmu("doubt", old, "--out", old).status == 0
    rig = rig_yaml({"optics.emission.sigma_um": 0.7, "name": "other"}, name="other.yaml")
    adapted = dmu("adapt", taught, "--rig", rig, "--updates", 2, "--json")
    assert adapted.status == 0, adapted.err
    other = Bundle.load(Path(adapted.told["bundle"]))
    assert not np.array_equal(other.weights["doubt.mean"], whole.weights["doubt.mean"])


def test_runs_keep_it(dmu: Dmu, taught: Path, run_yaml: Callable[..., Path], tmp_path: Path) -> None:
    """Good fields and others: beside the images, in the manifest, in what programs are told, and on the page."""
    changes = {"patterns": {"bundle": str(taught)}, "field_px": [64, 64]}
    even = {"connections.world.specimen": {"kind": "layer", "brightness": 0.9}}
    said = dmu("run", run_yaml(changes, even), "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    run = Path(said.told["run"])
    store = run / "reconstruction.ome.zarr"
    for inside in ("", "0", "0/spread"):
        yaozarrs.validate_zarr_store(str(store / inside))
    doubtful, images = Doubtful(store), Store(store)
    bursts = list(doubtful.bursts())
    assert [burst.place for burst in bursts] == [(0, 0, 0), (1, 0, 0)]
    spread = doubtful.spreads((0, 0, 0), 0)
    assert spread is not None
    assert spread.shape == images.burst(0, 0, 0)[0].shape
    assert (spread > 0).all()
    doubted = [burst for burst in bursts if burst.reasons]
    assert all(burst.score > 1 for burst in doubted)
    assert doubted, "an even layer is no nuclei"
    assert set(doubted[0].reasons) <= set(REASONS.values())
    told = said.told["doubts"]
    assert (told["judged"], told["doubted"]) == (2, len(doubted))
    assert told == json.loads((run / "manifest.json").read_text())["doubts"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert doubted[0].reasons[0] in page
    assert "not to be believed" in page
    assert doubtful.said((0, 0, 0), 0) == bursts[0]

    said = dmu("run", run_yaml(changes | {"keep_spread": False}), "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    doubtful = Doubtful(Path(said.told["run"]) / "reconstruction.ome.zarr")
    assert not doubtful.spread
    assert doubtful.spreads((0, 0, 0), 0) is None
    assert len(list(doubtful.bursts())) == 2
