"""How the program is called: help, usage errors, one object for programs, and how soon it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from dmu_hw import __version__
from dmu_hw.cli.main import app

Dmu = Callable[..., Any]
COMMANDS = tuple(
    command.callback.__name__
    for group in app.registered_groups
    for command in group.typer_instance.registered_commands
    if command.callback is not None
)
QUICKSTART = Path(__file__).parents[2] / "protocols" / "quickstart.yaml"


def process(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dmu_hw.cli.main", *map(str, arguments)]
    return subprocess.run(command, check=False, text=True, capture_output=True, timeout=60, **options)


# ---------------------------------------------------------------- help


def test_help_lists_every_command(dmu: Dmu) -> None:
    said = dmu("--help")
    assert said.status == 0
    assert "Exit status: 0 done, 1 failed, 2 wrong usage or refused input, 3 done but" in said.out
    assert {"new", "check", "plan", "run", "verify", "export", "schema"} <= set(COMMANDS)
    listed = [line.split()[0] for line in said.out.partition("Commands:")[2].splitlines() if line.startswith("  ")]
    assert tuple(listed[: len(COMMANDS)]) == COMMANDS
    assert "..." not in said.out.partition("Commands:")[2], "a summary was cut off"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_each_command_explains_its_arguments(dmu: Dmu, command: str) -> None:
    said = dmu(command, "--help")
    assert said.status == 0
    assert "--json" in said.out
    for line in said.out.partition("Arguments:")[2].splitlines():
        assert not line.rstrip().endswith(">"), f"an argument without a word about it: {line}"


@pytest.mark.parametrize(
    ("command", "unit"), [("plan", "time in s"), ("plan", "mJ/cm²"), ("plan", "MB"), ("export", "µm")]
)
def test_help_says_the_units(dmu: Dmu, command: str, unit: str) -> None:
    assert unit in " ".join(dmu(command, "--help").out.split())


def test_version(dmu: Dmu) -> None:
    said = dmu("--version")
    assert (said.status, said.out) == (0, f"dmu-hw {__version__}\n")


# ---------------------------------------------------------------- wrong usage

USAGE: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown command": (("image",), "No such command 'image'"),
    "an unknown option": (("plan", "x.yaml", "--fast"), "No such option: --fast"),
    "an unknown option of the program": (("--fast",), "No such option: --fast"),
    "no argument": (("plan",), "Missing argument 'PROTOCOL'"),
    "one argument too few": (("export", "run"), "Missing argument 'FILE.ome.tif'"),
    "one argument too many": (("plan", "a.yaml", "b.yaml"), "unexpected extra argument"),
    "an option without its value": (("run", "a.yaml", "--out"), "requires an argument"),
    "no file to check": (("check",), "Missing argument 'FILE'"),
}


@pytest.mark.parametrize(("arguments", "says"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_told(dmu: Dmu, arguments: tuple[str, ...], says: str) -> None:
    said = dmu(*arguments)
    assert said.status == 2
    assert said.out == ""
    assert says in said.err


@pytest.mark.parametrize(("arguments", "says"), USAGE.values(), ids=USAGE)
def test_wrong_usage_is_told_to_programs(dmu: Dmu, arguments: tuple[str, ...], says: str) -> None:
    said = dmu("--json", *arguments) if not arguments[0].isalpha() else dmu(arguments[0], "--json", *arguments[1:])
    assert said.status == 2
    (problem,) = said.told["problems"]
    assert said.told["status"] == 2
    assert says in problem or "--json" in problem


def test_without_a_command_the_help_is_shown(dmu: Dmu) -> None:
    said = dmu()
    assert said.status == 2
    assert said.out == ""
    assert "Commands:" in said.err


# ---------------------------------------------------------------- one object on standard output


def test_every_command_prints_one_object(dmu: Dmu, run_yaml: Callable[..., Path], tmp_path: Path) -> None:
    path, out = run_yaml(), tmp_path / "runs"
    for arguments in (("plan", path), ("check", path), ("schema", "rig"), ("new", tmp_path / "lab")):
        assert dmu(*arguments, "--json").told["status"] == 0
    told = dmu("run", path, "--out", out, "--json").told
    assert told["status"] == 0
    for arguments in (("verify", told["run"]), ("export", told["run"], tmp_path / "a.ome.tif", "--what", "frames")):
        assert dmu(*arguments, "--json").told["status"] == 0


def test_every_failure_prints_one_object(dmu: Dmu, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    for arguments in (
        ("plan", nowhere),
        ("run", nowhere),
        ("check", nowhere, nowhere),
        ("verify", nowhere),
        ("export", nowhere, "a.ome.tif"),
        ("schema", "car"),
        ("new", Path(__file__)),
    ):
        said = dmu(*arguments, "--json")
        assert said.told["status"] == 2
        assert [f"error: {problem}" for problem in said.told["problems"]] == said.err.splitlines()


def test_without_json_standard_output_is_empty(dmu: Dmu, run_yaml: Callable[..., Path], tmp_path: Path) -> None:
    path = run_yaml()
    for arguments in (("plan", path), ("check", path), ("run", path, "--out", tmp_path / "runs")):
        assert dmu(*arguments).out == ""


# ---------------------------------------------------------------- how soon


def test_help_comes_at_once_and_loads_next_to_nothing() -> None:
    began_s = monotonic()
    bare = subprocess.run([sys.executable, "-c", "pass"], check=True, timeout=60)
    bare_s, began_s = monotonic() - began_s, monotonic()
    said = process("--help")
    assert (bare.returncode, said.returncode) == (0, 0)
    assert monotonic() - began_s < 0.5 + 5 * bare_s, "0.1 s on an idle machine"
    code = "import sys; import dmu_hw.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert {"torch", "numpy", "pydantic", "yaml", "zarr"}.isdisjoint(loaded.stdout.split())


def test_a_hundred_positions_plan_in_a_second_without_torch(tmp_path: Path) -> None:
    text = QUICKSTART.read_text().replace("../devices", str(QUICKSTART.parents[1] / "devices"))
    text = text.replace("bundles/", f"{QUICKSTART.parent / 'bundles'}/")
    places = "".join(f"  - {{x_um: {100 * i}.0, y_um: {i}.5, name: place-{i}}}\n" for i in range(100))
    path = tmp_path / "hundred.yaml"
    path.write_text(text.replace("grid: {rows: 2, columns: 2, overlap: 0.1}", f"positions:\n{places}"))
    code = (
        "import sys, dmu_hw.cli.main as m\n"
        "try: m.main(['plan', '--json', sys.argv[1]])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    began_s = monotonic()
    said = subprocess.run([sys.executable, "-c", code, path], check=True, capture_output=True, text=True, timeout=60)
    assert monotonic() - began_s < 3, "0.6 s on an idle machine"
    plan = json.loads(said.stdout)["plan"]
    assert (plan["positions"], plan["price"]["frames"]) == (100, 600)
    assert {"torch", "zarr", "tifffile"}.isdisjoint(said.stderr.split())


# ---------------------------------------------------------------- where nobody listens


def test_a_broken_pipe_is_no_traceback(tmp_path: Path) -> None:
    """The reader closes its end before anything is written."""
    for arguments in (("schema", "run"), ("plan", QUICKSTART, "--json"), ("--help",)):
        reader, writer = os.pipe()
        os.close(reader)
        command = [sys.executable, "-m", "dmu_hw.cli.main", *map(str, arguments)]
        said = subprocess.run(command, check=False, text=True, stdout=writer, stderr=subprocess.PIPE, timeout=60)
        os.close(writer)
        assert said.returncode == 1
        assert "Traceback" not in said.stderr
        assert "Exception ignored" not in said.stderr


def test_a_closed_standard_error_does_not_end_a_plan() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dmu_hw.cli.main", "plan", str(QUICKSTART), "--json"]
    said = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=writer, timeout=60)
    os.close(writer)
    assert said.returncode == 0
    assert json.loads(said.stdout)["status"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="closes file descriptors by hand")
def test_without_standard_error_the_object_stays_alone() -> None:
    command = f'exec "{sys.executable}" -m dmu_hw.cli.main plan "{QUICKSTART}" --json 2>&-'
    said = subprocess.run(["/bin/sh", "-c", command], check=True, text=True, stdout=subprocess.PIPE, timeout=60)
    assert json.loads(said.stdout)["status"] == 0


def test_a_terminal_that_knows_ascii_only_is_served() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert process("plan", "--help", env=environment).returncode == 0
    said = process("plan", QUICKSTART, env=environment)
    assert (said.returncode, said.stdout) == (0, "")
    assert "dose per field" in said.stderr
