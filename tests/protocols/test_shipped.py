"""Every YAML that is shipped, found by itself: it loads, plans and dry-runs; the schemas for editors accept it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from program import ended

from dmu_hw import plugin
from dmu_hw.cli.calibrate import open_job
from dmu_hw.cli.check import schema_of
from dmu_hw.cli.compare import read_contest
from dmu_hw.cli.learn import read_course
from dmu_hw.cli.session import open_session
from dmu_hw.cli.sweep import read_sweep
from dmu_hw.drivers.simulated.light import Light
from dmu_hw.files import parse_yaml, read_text
from dmu_hw.pool import Record
from dmu_hw.pool.jobs import keep
from dmu_hw.recipe import load_recipe
from dmu_hw.rig import Rig, load_rig

ROOT = Path(__file__).parents[2]
YAMLS = sorted(path for folder in ("devices", "calibration", "protocols") for path in (ROOT / folder).rglob("*.yaml"))
FILES = {str(path.relative_to(ROOT)): path for path in YAMLS}


def kind(path: Path) -> str:
    return str(parse_yaml(read_text(path), path).value["kind"])


RUNS = {name: path for name, path in FILES.items() if kind(path) == "run"}
LESSONS = {name: path for name, path in FILES.items() if kind(path) == "train"}
SWEEPS = {name: path for name, path in FILES.items() if kind(path) == "sweep"}
CONTESTS = {name: path for name, path in FILES.items() if kind(path) == "compare"}
RIGS = {name: path for name, path in FILES.items() if kind(path) == "rig"}
RECIPES = {name: path for name, path in FILES.items() if kind(path) == "calibration"}


def test_there_are_some() -> None:
    assert "protocols/quickstart.yaml" in RUNS
    assert "devices/simulated.yaml" in RIGS
    assert "protocols/sweep-simulated.yaml" in SWEEPS
    assert "calibration/daily.yaml" in RECIPES
    assert RUNS | RIGS | LESSONS | CONTESTS | SWEEPS | RECIPES == FILES, "a YAML of a kind that no test here looks at"


@pytest.mark.parametrize("path", RIGS.values(), ids=RIGS)
def test_a_shipped_rig_loads_and_opens(path: Path) -> None:
    rig = Rig(load_rig(path))
    if any(part.driver.__module__.startswith("dmu_hw.drivers.simulated") for part in rig.file.parts.values()):
        with rig.opened():
            assert not rig.light.is_on()


@pytest.mark.parametrize("path", RECIPES.values(), ids=RECIPES)
def test_a_shipped_calibration_can_be_begun(path: Path) -> None:
    """Its rig, its routines and their settings are there, and each comes after those that it needs."""
    job = open_job(path)
    assert len(job.steps) >= len(job.recipe.measures)
    assert job.samples == (), "the simulated microscope puts its samples in place by itself"


def test_everything_that_can_be_calibrated_is_in_the_full_calibration() -> None:
    assert {measure.name for measure in load_recipe(RECIPES["calibration/full.yaml"]).measures} == set(
        plugin.names("dmu_hw.routines")
    )


@pytest.mark.parametrize("path", RUNS.values(), ids=RUNS)
def test_a_shipped_protocol_plans_and_dry_runs(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dry: all that comes before the light, and no light."""
    monkeypatch.setattr(Light, "on", None)
    plan = open_session(path).plan
    assert plan.price.frames == sum(plan.take_of(shot).stack.count for shot in plan.shots)
    assert plan.price.bursts == sum(shot.role == "patterns" for shot in plan.shots)
    assert plan.shots[-1].index == len(plan.shots) - 1
    for command in ("plan", "check"):
        assert ended(command, "--json", str(path)) == 0
        assert json.loads(capsys.readouterr().out)["status"] == 0


@pytest.mark.parametrize("path", LESSONS.values(), ids=LESSONS)
def test_a_shipped_training_is_sound(path: Path) -> None:
    assert read_course(path).lesson.schedule.updates > 0


@pytest.mark.parametrize("path", CONTESTS.values(), ids=CONTESTS)
def test_a_shipped_comparison_is_sound_and_dry_runs(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one training already there, so that none is tried to see how long it takes."""
    asked = read_contest(path)
    assert all({entry.arm for entry in question.entries} == set(asked.contest.arms) for question in asked.questions)
    folder = tmp_path / asked.contest.name / "trials"
    folder.mkdir(parents=True)
    keep(Record.now(asked.jobs[0], {}, None, 10.0), folder)
    assert ended("compare", "--dry-run", "--json", "--out", str(tmp_path), str(path)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kept"], told["left"]) == (1, len(asked.jobs) - 1)
    assert told["seconds_left"] > 0


@pytest.mark.parametrize("path", SWEEPS.values(), ids=SWEEPS)
def test_a_shipped_sweep_expands_and_dry_runs(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Dry: how many and how long, from as short a look at the trials as any."""
    sweep, expansion = read_sweep(path)
    assert len({job.key for job in expansion.jobs}) == sweep.count - expansion.left_out_count > 1
    monkeypatch.setattr("dmu_hw.cli.sweep._probed_s", lambda *_: 6.0)  # minutes on a busy computer
    assert ended("sweep", "--dry-run", "--json", "--out", str(tmp_path), str(path)) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trials"], told["left"]) == (len(expansion.jobs), len(expansion.jobs))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", FILES.values(), ids=FILES)
def test_the_schema_for_editors_accepts_what_is_shipped(path: Path) -> None:
    schema = schema_of(kind(path))
    value = json.loads(json.dumps(parse_yaml(read_text(path), path).value))
    assert faults(value, schema, schema) == []


@pytest.mark.parametrize("path", RUNS.values(), ids=RUNS)
def test_the_schema_for_editors_refuses_what_the_program_refuses(path: Path) -> None:
    schema = schema_of("run")
    value = json.loads(json.dumps(parse_yaml(read_text(path), path).value))
    look = value["channels"][-1] if "channels" in value else value
    for broken in (
        value | {"exposure": 3},
        value | {"name": "../there"},
        value | {"field_px": [1, 2, 3]},
        value | {"order": "time, field"},
        value | {"channels": []},
        *(
            value | {"channels": [*value["channels"][:-1], one]} if "channels" in value else one
            for one in (
                look | {"exposure_ms": "3"},
                look | {"exposure_ms": 0},
                {key: inner for key, inner in look.items() if key != "light"},
            )
        ),
    ):
        assert faults(broken, schema, schema)


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def faults(value: Any, schema: Any, root: Any) -> list[str]:
    """What a value breaks of the JSON schema, for the words that pydantic writes; others are refused."""
    if schema is True:
        return []
    if "$ref" in schema:
        return faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root)
    known = set(CHECKS) | {
        "$defs",
        "title",
        "description",
        "default",
        "discriminator",
        "additionalProperties",
        "$schema",
    }
    assert set(schema) <= known, f"unknown words in the schema: {set(schema) - known}"
    return [f"{word}: {value!r}" for word in CHECKS if word in schema and not CHECKS[word](value, schema, root)]


def fits(value: Any, schema: Any, root: Any) -> bool:
    return not faults(value, schema, root)


def is_type(value: Any, schema: Any, _root: Any) -> bool:
    expected = TYPES[schema["type"]]
    return isinstance(value, expected) and (not isinstance(value, bool) or bool in expected)


def has_properties(value: Any, schema: Any, root: Any) -> bool:
    others = schema.get("additionalProperties", True)
    for key, inner in value.items() if isinstance(value, dict) else ():
        wanted = schema.get("properties", {}).get(key, others)
        if wanted is False or not fits(inner, wanted, root):
            return False
    return True


def has_items(value: Any, schema: Any, root: Any) -> bool:
    return not isinstance(value, list) or all(fits(inner, schema["items"], root) for inner in value)


def has_prefix(value: Any, schema: Any, root: Any) -> bool:
    return not isinstance(value, list) or all(
        fits(inner, wanted, root) for inner, wanted in zip(value, schema["prefixItems"], strict=False)
    )


CHECKS: dict[str, Any] = {
    "type": is_type,
    "enum": lambda value, schema, _: value in schema["enum"],
    "const": lambda value, schema, _: value == schema["const"],
    "anyOf": lambda value, schema, root: any(fits(value, option, root) for option in schema["anyOf"]),
    "oneOf": lambda value, schema, root: sum(fits(value, option, root) for option in schema["oneOf"]) == 1,
    "required": lambda value, schema, _: not isinstance(value, dict) or set(schema["required"]) <= set(value),
    "properties": has_properties,
    "patternProperties": lambda value, schema, root: all(
        fits(inner, wanted, root)
        for pattern, wanted in schema["patternProperties"].items()
        for key, inner in value.items()
        if re.search(pattern, key)
    ),
    "minProperties": lambda value, schema, _: not isinstance(value, dict) or len(value) >= schema["minProperties"],
    "propertyNames": lambda value, schema, root: all(fits(key, schema["propertyNames"], root) for key in value),
    "items": has_items,
    "prefixItems": has_prefix,
    "minItems": lambda value, schema, _: not isinstance(value, list) or len(value) >= schema["minItems"],
    "maxItems": lambda value, schema, _: not isinstance(value, list) or len(value) <= schema["maxItems"],
    "minLength": lambda value, schema, _: not isinstance(value, str) or len(value) >= schema["minLength"],
    "pattern": lambda value, schema, _: not isinstance(value, str) or bool(re.search(schema["pattern"], value)),
    "minimum": lambda value, schema, _: not is_number(value) or value >= schema["minimum"],
    "maximum": lambda value, schema, _: not is_number(value) or value <= schema["maximum"],
    "exclusiveMinimum": lambda value, schema, _: not is_number(value) or value > schema["exclusiveMinimum"],
    "exclusiveMaximum": lambda value, schema, _: not is_number(value) or value < schema["exclusiveMaximum"],
}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
