"""`dmu adapt`: from a bundle and an instrument to the bundle for that instrument; the old one stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmu_hw.bundle import Bundle
from tests.cli.test_train import SMALL_LESSON
from tests.program import Dmu

OTHERWISE = {"optics.mirrors.leakage": 0.15, "optics.emission.sigma_um": 0.7, "name": "other"}
"""Another instrument than the one that was trained for."""


@pytest.fixture(name="trained")
def _trained(dmu: Dmu, rig_yaml: Callable[..., Path], tmp_path: Path) -> Path:
    rig_yaml()
    lesson = tmp_path / "lesson.yaml"
    lesson.write_text(yaml.safe_dump(SMALL_LESSON))
    said = dmu("train", lesson, "--out", tmp_path / "trained", "--json")
    assert said.status == 0, said.err
    return Path(said.told["bundle"]).rename(tmp_path / "small.dmu")


def test_a_bundle_for_another_instrument(dmu: Dmu, trained: Path, rig_yaml: Callable[..., Path]) -> None:
    before = trained.read_bytes()
    rig = rig_yaml(OTHERWISE, name="other.yaml")
    said = dmu("adapt", trained, "--rig", rig, "--updates", 4, "--json")
    assert said.status == 0, said.err
    assert "nothing was measured of it" in said.err
    made = Bundle.load(Path(said.told["bundle"]))
    assert Path(said.told["bundle"]) == trained.with_name("small-other.dmu")
    assert trained.read_bytes() == before
    adapted = made.header.adapted
    assert adapted is not None
    assert (adapted.rig, adapted.from_bundle) == ("other", Bundle.load(trained).hash)
    assert made.header.optics.mirrors.leakage == 0.15
    assert made.patterns.hashes == Bundle.load(trained).patterns.hashes
    assert not made.misfits(made.header.optics)
    assert adapted.after["mse"] <= adapted.before["mse"]
    again = dmu("adapt", trained, "--rig", rig, "--json")
    assert again.status == 2
    assert "exists already" in again.err


def test_bursts_with_references_of_the_instrument_itself(
    dmu: Dmu, trained: Path, run_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    places = [{"x_um": 40.0 * place, "y_um": 0.0} for place in range(6)]
    changes = {"patterns": {"bundle": str(trained)}, "references": {"full": True}, "positions": places}
    ran = dmu("run", run_yaml(changes), "--out", tmp_path / "runs", "--json")
    assert ran.status == 0, ran.err
    rig = tmp_path / "rig.yaml"
    said = dmu("adapt", trained, "--rig", rig, "--pairs", ran.told["run"], "--updates", 4, "--json")
    assert said.status == 0, said.err
    assert "pairs_mse" in said.told["before"]
    made = Bundle.load(Path(said.told["bundle"]))
    assert made.header.adapted is not None
    assert made.header.adapted.pairs == 6
    few = dmu("run", run_yaml(changes | {"positions": places[:2]}), "--out", tmp_path / "runs", "--json")
    refused = dmu("adapt", trained, "--rig", rig, "--pairs", few.told["run"], "--out", tmp_path / "x.dmu")
    assert refused.status == 2
    assert "2 fields are too few" in refused.err
    bare = dmu("run", run_yaml(changes | {"references": {}}), "--out", tmp_path / "runs", "--json")
    refused = dmu("adapt", trained, "--rig", rig, "--pairs", bare.told["run"], "--out", tmp_path / "x.dmu")
    assert refused.status == 2
    assert "holds no full-resolution references" in refused.err


def test_what_cannot_be_adapted_is_refused(
    dmu: Dmu, trained: Path, rig_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    rig = rig_yaml()

    def refused(*arguments: Any) -> str:
        said = dmu("adapt", *arguments)
        assert said.status == 2, said.err
        assert not (tmp_path / "small-small.dmu").exists()
        return said.err

    assert "there is no 'red'" in refused(trained, "--rig", rig, "--channel", "red")
    assert "cannot be read" in refused(tmp_path / "none.dmu", "--rig", rig)
    bundle = Bundle.load(trained)
    silent = tmp_path / "silent.dmu"
    Bundle(bundle.header.model_copy(update={"lesson": None}), bundle.patterns, bundle.weights).save(silent)
    assert "by --protocol" in refused(silent, "--rig", rig)
    other = tmp_path / "other-lesson.yaml"
    other.write_text(yaml.safe_dump(SMALL_LESSON | {"network": {"model": "unrolled"}}))
    assert "trains a 'unrolled' inverse" in refused(trained, "--rig", rig, "--protocol", other)
