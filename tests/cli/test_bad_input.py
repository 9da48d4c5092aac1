"""Bad input: one clear message that names file, line and key or device; all problems at once; no light, no folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dmu_hw.drivers.simulated.light import Light

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]

RUN = """kind: run
name: small
rig: rig.yaml
field_px: [32, 32]
patterns: {set: hadamard, count: 4, camera_pixel: 4}
light: {power_mw: 1.0}
exposure_ms: 2.0
"""
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}, *{old}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD: dict[str, tuple[str, list[str]]] = {
    "an unknown key": (RUN + "exposure: 3\n", [":8: exposure: unknown key 'exposure'; did you mean 'exposure_ms'?"]),
    "a wrong type": (RUN.replace("2.0", "two"), [":7: exposure_ms: should be a number, given 'two'"]),
    "on is no power": (
        RUN.replace("power_mw: 1.0", "power_mw: on"),
        [":6: light.power_mw: should be a number, given 'on'"],
    ),
    "out of range": (
        RUN.replace("exposure_ms: 2.0", "exposure_ms: -2.0"),
        [":7: exposure_ms: should be greater than 0"],
    ),
    "a key twice": (RUN + "name: other\n", [":8: key 'name' is given twice"]),
    "an alias bomb": (BOMB, [":1: not sound YAML: anchors and aliases are not allowed"]),
    "a tag that runs code": (RUN + "rogue: !!python/object/apply:os.system [id]\n", [":8: not sound YAML: tags"]),
    "a name that leaves its folder": (
        RUN.replace("small", "../small"),
        [":2: name: should be a name of 1 to 64 letters"],
    ),
    "a missing key": (RUN.replace("exposure_ms: 2.0\n", ""), [":1: key 'exposure_ms' is missing"]),
    "another kind": (RUN.replace("kind: run", "kind: film"), [":1: kind: should be 'run', given 'film'"]),
    "a file of another kind": ("kind: rig\ncolour: red\n", [":1: kind: should be 'run', given 'rig'"]),
    "one mistake in the patterns": (
        RUN.replace("camera_pixel: 4}", "camera_pixel: 4, colour: red}"),
        [":5: patterns.colour: unknown key 'colour'; allowed: camera_pixel, count, seed, set, superpixel, tile"],
    ),
    "a count beside a bundle": (
        RUN.replace("{set: hadamard,", "{bundle: a.dmu,").replace(", camera_pixel: 4", ""),
        [":5: patterns.count: unknown key 'count'; allowed: bundle"],
    ),
    "patterns of nothing": (
        RUN.replace("{set: hadamard, count: 4, camera_pixel: 4}", "none"),
        [":5: patterns: should be a mapping of keys to values, given 'none'"],
    ),
    "nothing": ("", [":1: the file is empty"]),
    "a list": ("- a\n- b\n", [":1: should be a mapping of keys to values"]),
    "no text": ("kind: run\0\n", [":1: not text"]),
    "many things": (
        RUN.replace("1.0", "-1.0").replace("[32, 32]", "[32]") + "colour: red\nretries: 99\n",
        [
            ":6: light.power_mw: should be greater than 0",
            ":4: field_px: value 2 of the list is missing",
            ":8: colour: unknown key",
            ":9: retries: should be less than or equal to 10",
        ],
    ),
    "a rig that is not there": (RUN.replace("rig.yaml", "gone.yaml"), ["gone.yaml: cannot be read: No such file"]),
    "a bundle that is not there": (
        RUN.replace("{set: hadamard, count: 4, camera_pixel: 4}", "{bundle: gone.dmu}"),
        ["gone.dmu: cannot be read: No such file"],
    ),
    "a rig and a bundle that are not there, and more": (
        RUN.replace("{set: hadamard, count: 4, camera_pixel: 4}", "{bundle: gone.dmu}").replace(
            "rig.yaml", "gone.yaml"
        ),
        ["gone.dmu: cannot be read", "gone.yaml: cannot be read"],
    ),
    "a wrong protocol on a rig that is not there": (
        RUN.replace("rig.yaml", "gone.yaml") + "colour: red\n",
        [":8: colour: unknown key", "gone.yaml: cannot be read"],
    ),
    "a place outside": (
        RUN + "positions:\n  - {x_um: 0.0, y_um: 0.0}\n  - {x_um: 1e6, y_um: 0.0}\n",
        [":10: positions.1: (1e+06, 0) µm is outside the stage's limits: x -50000 to 50000"],
    ),
    "a model that is not there": (
        RUN + "inverse:\n  model: rigde\n",
        [":9: inverse.model: there is no 'rigde'; did you mean 'ridge'?"],
    ),
    "a model without its settings": (RUN + "inverse: {model: ridge}\n", [":8: inverse: key 'specimen' is missing"]),
    "a wrong model and a wrong place": (
        RUN + "inverse: {model: rigde}\npositions: [{x_um: 1e6, y_um: 0.0}]\nbudget: {dose_mj_cm2: 1.0}\n",
        [
            ":8: inverse.model: there is no 'rigde'",
            ":9: positions.0: (1e+06, 0)",
            ":10: budget.dose_mj_cm2: the run takes",
        ],
    ),
}


@pytest.fixture(autouse=True)
def dark(monkeypatch: pytest.MonkeyPatch) -> None:
    """No light here."""

    def refuse(_self: Light, *_longest_ms: float) -> None:
        raise AssertionError("light on")

    monkeypatch.setattr(Light, "on", refuse)


def told(dmu: Dmu, path: Path, tmp_path: Path, *more: object) -> list[str]:
    """What is said of a file, the same by `check`, `plan` and `run`; nothing is left."""
    said = dmu("plan", path, *more)
    assert said.status == 2
    assert said.out == ""
    problems = said.err.splitlines()
    assert all(problem.startswith("error: ") for problem in problems)
    ran = dmu("run", path, "--out", tmp_path / "runs", *more)
    assert (ran.status, ran.err) == (said.status, said.err)
    assert not (tmp_path / "runs").exists()
    return [problem.removeprefix("error: ") for problem in problems]


def agrees(problems: list[str], says: list[str]) -> bool:
    return len(problems) == len(says) and all(any(what in problem for problem in problems) for what in says)


@pytest.mark.parametrize(("text", "says"), BAD.values(), ids=BAD)
def test_a_bad_protocol_is_told_with_file_line_and_key(
    dmu: Dmu, rig_yaml: Yaml, tmp_path: Path, text: str, says: list[str]
) -> None:
    rig_yaml()
    path = tmp_path / "run.yaml"
    path.write_text(text)
    problems = told(dmu, path, tmp_path)
    assert agrees(problems, says), problems
    assert all(str(tmp_path) in problem for problem in problems)
    checked = dmu("check", path)
    assert checked.status == 2
    assert str(path) in checked.err or "gone." in checked.err


RIGS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "an unknown driver": (
        {"devices.camera.driver": "simulatd"},
        ["devices.camera.driver: there is no 'simulatd'; did you mean"],
    ),
    "no camera": ({"devices.camera": ...}, ["devices: device 'camera' is missing"]),
    "no camera and no light": (
        {"devices.camera": ..., "devices.light": ...},
        ["device 'camera' is missing", "device 'light' is missing"],
    ),
    "a device that hangs on nothing": (
        {"devices.dmd.connection": "moon"},
        ["devices.dmd.connection: there is no connection 'moon'; there are: world"],
    ),
    "a device that hangs nowhere": ({"devices.dmd.connection": ...}, ["devices.dmd", "needs a connection"]),
    "an unknown key of a driver": (
        {"devices.light.colour": "blue", "devices.camera.binnings": [0]},
        ["devices.light.colour: unknown key", "devices.camera.binnings.0: should be greater than or equal to 1"],
    ),
    "no stage for a grid": ({"devices.stage": ...}, ["positions: rig small has no stage"]),
    "a wrong truth": (
        {"connections.world.truth": {"mirrors": {"leakage": 2.0}}},
        ["truth.mirrors.leakage: should be less"],
    ),
    "optics out of this world": (
        {"optics.object_pixel_um": 1e-300, "optics.sensor_pixel_um": 1e300},
        ["1.0e-300 is too small a number", "1.0e+300 is too large a number"],
    ),
}


@pytest.mark.parametrize(("changes", "says"), RIGS.values(), ids=RIGS)
def test_a_bad_rig_is_told_with_file_line_and_key(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, changes: dict[str, Any], says: list[str]
) -> None:
    problems = told(dmu, run_yaml(rig=changes), tmp_path)
    assert all(any(what in problem for problem in problems) for what in says), problems
    assert len(problems) <= max(1, len(says))


def test_another_rig_by_option_is_told_too(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    problems = told(dmu, run_yaml(), tmp_path, "--rig", tmp_path / "gone.yaml")
    assert agrees(problems, ["gone.yaml: cannot be read"])
    problems = told(dmu, run_yaml(), tmp_path, "--rig", run_yaml())
    assert any("kind" in problem for problem in problems)


# ---------------------------------------------------------------- plug-ins of the user's own

BROKEN: dict[str, tuple[str, str]] = {
    "a name that is not there": ("x = undefined_name\n", "own.py:1: NameError: name 'undefined_name' is not defined"),
    "no Python": ("class Camera\n    pass\n", "expected ':'"),
    "a module that is not there": ("import no_such_module_anywhere\n", "No module named 'no_such_module_anywhere'"),
    "an end of the program": ("import sys\nsys.exit(0)\n", "own.py:2: SystemExit: 0"),
    "a division by zero": ("def f():\n    return 1 / 0\n\nf()\n", "own.py:2: ZeroDivisionError: division by zero"),
    "no class": ("x = 1\n", "has no Camera; it has: no class"),
    "no settings": ("class Camera:\n    pass\n", "has no Settings"),
    "a device at once": (
        (
            "from dmu_hw.drivers.simulated import Camera as _C\nfrom dmu_hw.errors import DeviceError\n\n\n"
            "class Camera(_C):\n    def __init__(self, settings, mount):\n"
            "        raise DeviceError('camera', 'is not plugged in')\n"
        ),
        "camera: is not plugged in",
    ),
    "a fault when it is built": (
        (
            "from dmu_hw.drivers.simulated import Camera as _C\n\n\nclass Camera(_C):\n"
            "    def __init__(self, settings, mount):\n        self.none.there\n"
        ),
        "own.py:6: AttributeError: 'Camera' object has no attribute 'none'",
    ),
}


@pytest.mark.parametrize(("code", "says"), BROKEN.values(), ids=BROKEN)
def test_a_driver_that_cannot_be_loaded_is_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path, code: str, says: str) -> None:
    (tmp_path / "own.py").write_text(code)
    path = run_yaml(rig={"devices.camera.driver": "own.py"})
    for command in (("plan", path), ("check", tmp_path / "rig.yaml"), ("check", path, "--connect")):
        said = dmu(*command)
        assert said.status == 2
        assert says in said.err
        assert str(tmp_path / "rig.yaml") in said.err


def test_a_model_that_cannot_be_loaded_is_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("x = undefined_name\n")
    problems = told(dmu, run_yaml({"inverse": {"model": "own.py"}}), tmp_path)
    assert agrees(problems, ["run.yaml:"])
    assert "inverse.model: cannot be used" in problems[0]
    assert "own.py:1: NameError" in problems[0]


MODEL = """
from dmu_hw.files import Settings as _Settings


class Settings(_Settings):
    pass


class Model:
    def __init__(self, weights, stack, device="cpu"):
        self.kernel = weights["kernel"]

    @classmethod
    def fit(cls, settings, stack, optics, power_mw, exposure_ms):
        {fit}
"""


@pytest.mark.parametrize(
    ("fit", "says"),
    [
        ("return 1 / 0", "ZeroDivisionError: division by zero"),
        ("return {}", "KeyError: 'kernel'"),
        ("raise MemoryError", "MemoryError"),
    ],
)
def test_a_model_that_fails_is_told_before_there_is_light(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fit: str, says: str
) -> None:
    """The program may be called from anywhere: the model is beside the protocol."""
    monkeypatch.chdir("/")
    (tmp_path / "own.py").write_text(MODEL.format(fit=fit))
    said = dmu("run", run_yaml({"inverse": {"model": "own.py"}}), "--out", tmp_path / "runs")
    assert said.status == 2
    assert says in said.err.splitlines()[-1]
    assert "own.py" in said.err.splitlines()[-1]
    assert not (tmp_path / "runs").exists()


def test_a_model_that_is_only_trained_is_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MODEL.partition("    @classmethod")[0])
    said = dmu("run", run_yaml({"inverse": {"model": "own.py"}}), "--out", tmp_path / "runs")
    assert said.status == 2
    assert "must be trained, not computed: use a bundle" in said.err
    assert not (tmp_path / "runs").exists()


# ---------------------------------------------------------------- places to write to


def test_a_disk_too_small_is_told_before_anything_is_made(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=10_000_000))
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs", "--json")
    assert said.status == 2
    assert said.told["problems"] == [f"{tmp_path / 'runs'}: 0.01 GB are free, the run needs 0.05 GB"]
    assert not (tmp_path / "runs").exists()


def test_a_file_in_the_way_is_told(dmu: Dmu, run_yaml: Yaml, tmp_path: Path) -> None:
    path = run_yaml()
    for out in (path, path / "deeper"):
        said = dmu("run", path, "--out", out)
        assert said.status == 2
        assert said.err == f"error: {out}: {path} is a file, where a folder is needed\n"


def test_a_folder_that_nobody_may_write_into_is_told(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda _path, mode: not mode & os.W_OK)
    said = dmu("run", run_yaml(), "--out", tmp_path / "runs")
    assert said.status == 2
    assert said.err == f"error: {tmp_path / 'runs'}: nobody may write into {tmp_path}\n"


def test_a_folder_that_cannot_be_made_after_all_is_told(
    dmu: Dmu, run_yaml: Yaml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, path = Path.mkdir, run_yaml()

    def mkdir(folder: Path, *given: Any, **named: Any) -> None:
        if folder.is_relative_to(tmp_path / "runs"):
            raise PermissionError(13, "Permission denied")
        real(folder, *given, **named)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    said = dmu("run", path, "--out", tmp_path / "runs")
    assert said.status == 2
    assert (
        said.err.splitlines()[-1] == f"error: {tmp_path / 'runs'}: a run folder cannot be made here: Permission denied"
    )
