"""Protocols, rigs and calibrations with something broken in them, by the hundred: planned or refused with a message,
never lit, never another end."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dmu_hw.drivers.simulated.light import Light
from dmu_hw.rig import Rig

Dmu = Callable[..., Any]
ROOT = Path(__file__).parents[2]
CI = 300
CAMPAIGN = 1000
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    3,
    7,
    10**6,
    10**19,
    -(10**19),
    0.0,
    -0.0,
    0.5,
    1e-320,
    1e-300,
    1e-9,
    1e9,
    1e150,
    1e300,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "on",
    "1e3",
    "1e999",
    "../x",
    "simulated",
    "simulated.yaml",
    "os.path",
    "a" * 400,
    "\N{MICRO SIGN}\N{GREEK SMALL LETTER ALPHA}\N{PILE OF POO}",
    "\x07\x1b[31m",
    [],
    [1],
    [0, 0],
    [1.0, -1.0],
    [[1.0, 0.0], [0.0, 1e-200]],
    [1e300, 1e300],
    {},
    {"kind": "gaussian"},
    {"kind": "airy", "na": 1.69, "wavelength_nm": 200, "refractive_index": 1.7},
    {"driver": "simulated"},
    {"x": {"y": {"z": []}}},
]
CHARACTERS = "{}[]:,#&*!|>'\"%@`\t\n -?~.0e\0é\\"


def shipped(folder: str) -> list[Path]:
    return sorted((ROOT / folder).glob("*.yaml"))


# ---------------------------------------------------------------- what goes wrong


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to everything in a document."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield (*where, step)
        yield from places(inner, (*where, step))


def at(value: Any, where: tuple[Any, ...]) -> Any:
    for step in where:
        value = value[step]
    return value


def mutate_tree(content: Any, chance: random.Random) -> str:
    """One to three values deleted, replaced by odd ones, moved, or renamed."""
    content = copy.deepcopy(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        found = list(places(content))
        if not found:
            break
        *parents, last = chance.choice(found)
        parent = at(content, tuple(parents))
        what = chance.randrange(6)
        if what == 0:
            del parent[last]
        elif what == 1 and isinstance(parent, dict):
            parent[chance.choice(["", "x", str(last).upper(), f"{last}s", "kind", "driver", "0"])] = parent.pop(last)
        elif what == 2:
            parent[last] = copy.deepcopy(at(content, chance.choice(found)))
        elif what == 3 and isinstance(parent[last], int | float) and not isinstance(parent[last], bool):
            parent[last] = chance.choice([-1, 0, 0.1, 10, 1000, 1e200]) * parent[last]
        else:
            parent[last] = copy.deepcopy(chance.choice(ODD))
    return yaml.dump(content, Dumper=_NoAliases, sort_keys=False, allow_unicode=True)


class _NoAliases(yaml.SafeDumper):
    """What comes twice is written twice."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


def mutate_text(text: str, chance: random.Random) -> str:
    """Letters and lines lost, doubled, moved, or put in by a cat on the keyboard."""
    for _ in range(chance.choice([1, 1, 2, 5])):
        lines = text.splitlines(keepends=True) or [""]
        place, line = chance.randrange(len(text) + 1), chance.randrange(len(lines))
        what = chance.randrange(6)
        if what == 0:
            text = text[:place] + text[place + chance.choice([1, 1, 5, 50]) :]
        elif what == 1:
            text = text[:place] + "".join(chance.choices(CHARACTERS, k=chance.choice([1, 1, 3]))) + text[place:]
        elif what == 2:
            text = "".join(lines[:line] + lines[line + 1 :])
        elif what == 3:
            text = "".join([*lines[:line], lines[line], *lines[line:]])
        elif what == 4:
            text = "".join([*lines[:line], chance.choice([" ", "  ", "\t", "- "]) + lines[line], *lines[line + 1 :]])
        else:
            other = chance.randrange(len(text) + 1)
            text = text[:place] + text[other : other + 20] + text[place:]
    return text


def mutated(path: Path, chance: random.Random) -> str:
    text = path.read_text(encoding="utf-8")
    return mutate_text(text, chance) if chance.random() < 0.4 else mutate_tree(yaml.safe_load(text), chance)


# ---------------------------------------------------------------- what comes of it


@pytest.fixture(autouse=True)
def no_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object, *_more: object) -> None:
        raise AssertionError(f"{self} was touched")

    monkeypatch.setattr(Light, "on", refuse)
    monkeypatch.setattr(Rig, "open", refuse)


def fuzz(seeds: range, dmu: Dmu, lab: Path) -> dict[int, int]:
    """How often each end came."""
    ends = {0: 0, 2: 0}
    for seed in seeds:
        chance = random.Random(seed)
        folder = chance.choice(["devices", "protocols", "calibration"])
        path = chance.choice(shipped(folder))
        text = mutated(path, chance)
        broken = lab / folder / path.name
        whole = broken.read_bytes()
        broken.write_bytes(text.encode("utf-8", "surrogatepass"))
        command = chance.choice(["plan", "check"])
        target = lab / "protocols" / "quickstart.yaml" if folder == "devices" and command == "plan" else broken
        said = dmu(command, target, "--json")
        broken.write_bytes(whole)
        note = f"seed {seed}, {command} {target}:\n{said.err}\n{text}"
        assert said.status in ends, note
        problems = said.told.get("problems", [])
        assert bool(problems) == (said.status == 2), note
        for problem in problems:
            assert str(lab) in problem, note
            assert len(problem) < 2000, note
            if "too large or too small to compute with" not in problem:
                for fault_of_ours in ("unexpected:", "cannot be used", "Error:", "Warning"):
                    assert fault_of_ours not in problem, note
        ends[said.status] += 1
    return ends


@pytest.fixture
def lab(dmu: Dmu, tmp_path: Path) -> Path:
    assert dmu("new", tmp_path / "lab").status == 0
    return tmp_path / "lab"


@pytest.mark.parametrize("block", range(3))
def test_whatever_is_written_is_planned_or_refused(dmu: Dmu, lab: Path, block: int) -> None:
    ends = fuzz(range(block * CI // 3, (block + 1) * CI // 3), dmu, lab)
    assert all(ends.values()), "only one kind of end: the mutations are too mild or too wild"


@pytest.mark.campaign
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("block", range(4))
def test_whatever_is_written_by_the_thousand(dmu: Dmu, lab: Path, figure: Callable[..., None], block: int) -> None:
    ends = fuzz(range(1000 + block * CAMPAIGN, 1000 + (block + 1) * CAMPAIGN), dmu, lab)
    what = f"{CAMPAIGN} mutated protocols and rigs, part {block + 1} of 4"
    figure("R14", what, f"{ends[2]} refused in clear words, {ends[0]} planned", "no other end, no command")
