"""`dmu check` and `dmu schema`: every kind of file, several at once, with and without devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmu_hw.cli.check import SCHEMAS
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.rig import Rig

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which rigs were opened and closed; their light never goes on."""
    done: list[str] = []
    for what in ("open", "close"):
        real = getattr(Rig, what)

        def watched(rig: Rig, what: str = what, real: Callable[[Rig], None] = real) -> None:
            done.append(f"{what} {rig.settings.name}")
            real(rig)

        monkeypatch.setattr(Rig, what, watched)
    monkeypatch.setattr(Light, "on", None)
    return done


def test_each_kind_of_file_is_known(dmu: Dmu, run_yaml: Yaml, ridge: dict[str, Any], tmp_path: Path) -> None:
    path = run_yaml({"inverse": ridge})
    run = Path(dmu("run", path, "--out", tmp_path / "runs", "--json").told["run"])
    said = dmu("check", tmp_path / "rig.yaml", path, run / "bundle.dmu", run, "--json")
    assert (said.status, said.told["problems"]) == (0, [])
    assert said.err.splitlines() == [
        f"{tmp_path / 'rig.yaml'}: sound, a rig",
        f"{path}: sound, a protocol",
        f"{run / 'bundle.dmu'}: sound, a bundle of 4 hadamard patterns for ridge",
        f"{run}: sound, a run of 8 frames",
    ]


def test_all_that_is_wrong_with_any_file_is_listed(dmu: Dmu, run_yaml: Yaml, rig_yaml: Yaml, tmp_path: Path) -> None:
    broken = {
        tmp_path / "gone.yaml": ["cannot be read"],
        tmp_path / "gone.dmu": ["cannot be read"],
        rig_yaml({"limits.power": 1.0, "devices.dmd.speed": 1.0}, name="bad-rig.yaml"): ["limits.power", "dmd.speed"],
        run_yaml({"exposure_ms": -1.0, "colour": "red"}, name="bad-run.yaml"): ["greater than 0", "unknown key"],
        tmp_path / "note.txt": ["key 'kind' is missing; allowed: rig, run"],
        tmp_path / "film.yaml": ["kind: key 'kind' is 'film'; allowed: rig, run"],
        tmp_path / "bytes.yaml": ["not UTF-8 text"],
        tmp_path / "folder": ["is no run folder: no manifest.json, no journal.jsonl"],
        tmp_path / "bad.dmu": ["is no bundle"],
    }
    (tmp_path / "note.txt").write_text("a: note\n")
    (tmp_path / "film.yaml").write_text("kind: film\n")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "bad.dmu").write_bytes(b"bad")
    (tmp_path / "folder").mkdir()
    good = run_yaml()
    said = dmu("check", *broken, good, "--json")
    assert said.status == 2
    assert f"{good}: sound, a protocol" in said.err
    problems = list(said.told["problems"])
    assert len(problems) == sum(len(says) for says in broken.values())
    for path, says in broken.items():
        for what in says:
            found = [problem for problem in problems if problem.startswith(str(path)) and what in problem]
            assert len(found) == 1, (path, what, problems)
            assert f"error: {found[0]}" in said.err


def test_without_connect_nothing_is_opened(dmu: Dmu, run_yaml: Yaml, tmp_path: Path, opened: list[str]) -> None:
    assert dmu("check", run_yaml(), tmp_path / "rig.yaml").status == 0
    assert opened == []


def test_connect_opens_and_closes_the_devices(dmu: Dmu, run_yaml: Yaml, tmp_path: Path, opened: list[str]) -> None:
    said = dmu("check", run_yaml(), tmp_path / "rig.yaml", "--connect")
    assert said.status == 0
    assert said.err.count("its devices answer") == 2
    assert opened == ["open small", "close small"] * 2


def test_a_cut_run_is_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    run = Path(dmu("run", run_yaml(), "--out", tmp_path / "runs", "--json").told["run"])
    (run / "manifest.json").unlink()
    said = dmu("check", run)
    assert (said.status, said.err) == (2, f"error: {run}: the run was cut before its end\n")


def test_the_schema_is_printed_alone(dmu: Dmu) -> None:
    for kind in SCHEMAS:
        plain, told = dmu("schema", kind), dmu("schema", kind, "--json").told
        assert plain.status == 0
        assert json.loads(plain.out) == told["schema"]
        assert told["schema"]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert plain.err == ""
    assert json.loads(dmu("schema").out)["title"] == "run"


def test_the_schema_explains_every_key(dmu: Dmu) -> None:
    """Editors show it: units stand in the names or in the description."""
    schema = dmu("schema", "run", "--json").told["schema"]
    assert {"power_mw"} == set(schema["$defs"]["LightSettings"]["properties"])
    for form in ("Protocol", "ChannelsProtocol"):
        keys = schema["$defs"][form]["properties"]
        assert keys["field_px"]["description"] == "Rows and columns of a field on the object grid."
        assert "retries" in keys


def test_an_unknown_schema_is_told(dmu: Dmu) -> None:
    said = dmu("schema", "car")
    assert (said.status, said.out) == (2, "")
    assert said.err.startswith("error: there is no schema of 'car'; allowed: rig, run")
