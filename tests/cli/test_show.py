"""`dmu show`: each pattern is its own, and nothing is lit unless it was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmu_hw.cli.show import numbered
from dmu_hw.drivers.simulated.camera import Camera
from dmu_hw.drivers.simulated.light import Light

Dmu = Callable[..., Any]
Yaml = Callable[..., Path]


@pytest.fixture
def rig(rig_yaml: Yaml) -> Path:
    """Even dye under the objective; mirrors lie on the chip pixel by pixel."""
    return rig_yaml({"connections.world.specimen": {"kind": "layer", "brightness": 1.0}})


def picture(path: str) -> Any:
    return np.asarray(Image.open(path), dtype=float)


def test_every_number_is_its_own_and_marks_the_first_mirror() -> None:
    frames = numbered((96, 128), 24)
    assert len({frame.tobytes() for frame in frames}) == 24
    assert frames[:, :12, :12].all()
    assert not frames[:, -12:, -12:].any()


def test_the_camera_sees_the_numbers_upright(dmu: Dmu, rig: Path, tmp_path: Path) -> None:
    said = dmu("show", rig, "--power", 1.0, "--out", tmp_path / "seen", "--json")
    assert said.status == 0
    dark, *pictures = said.told["pictures"]
    assert [Path(path).name for path in pictures] == ["pattern-0.png", "pattern-8.png", "pattern-16.png"]
    shown = numbered((96, 128), 24)[:, 16:80, 32:96]  # what of the mirrors falls on the chip
    for path, number in zip(pictures, (0, 8, 16), strict=True):
        seen = picture(path)
        likeness = [float(np.corrcoef(seen.ravel(), frame.ravel())[0, 1]) for frame in shown]
        assert np.argmax(likeness) == number
        assert max(likeness) > 0.9
    assert Path(dark).name == "dark.png"


def test_the_light_is_off_afterwards(dmu: Dmu, rig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    on, off = Light.on, Light.off
    monkeypatch.setattr(Light, "on", lambda light, *given: (told.append("on"), on(light, *given)))
    monkeypatch.setattr(Light, "off", lambda light: (told.append("off"), off(light)))
    assert dmu("show", rig, "--power", 1.0, "--out", tmp_path).status == 0
    assert told.count("on") == 1
    assert told[-1] == "off"


def test_without_power_nothing_but_the_mirrors_is_opened(dmu: Dmu, rig: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Light, "open", None)
    monkeypatch.setattr(Light, "on", None)
    monkeypatch.setattr(Camera, "open", None)
    said = dmu("show", rig, "--seconds", 0.0, "--pattern", 3, "--pattern", 4)
    assert (said.status, said.err.splitlines()) == (0, ["pattern 3", "pattern 4"])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--pattern", 24), "--pattern: should be 0 to 23, given 24"),
        (("--power", 1000.0), "--power: the rig allows light 50 mW, given 1000"),
        (("--power", 1.0, "--channel", "red"), "--channel: this rig has no channels"),
    ],
)
def test_what_cannot_be_is_refused(
    dmu: Dmu, rig: Path, monkeypatch: pytest.MonkeyPatch, given: tuple[Any, ...], told: str
) -> None:
    monkeypatch.setattr(Light, "on", None)
    said = dmu("show", rig, *given)
    assert said.status == 2
    assert told in said.err


def test_the_first_day_names_commands_options_and_files_that_there_are(dmu: Dmu) -> None:
    root = Path(__file__).parents[2]
    text = (root / "devices" / "README.md").read_text(encoding="utf-8")
    calls = re.findall(r"`dmu ([a-z]+)([^`]*)`", text)
    assert {"devices", "check", "show", "calibrate", "plan", "adapt", "run"} <= {command for command, _ in calls}
    for command, given in calls:
        usage = dmu(command, "--help").out
        assert all(option in usage for option in re.findall(r"--[a-z-]+", given)), (command, given)
    files = set(re.findall(r"(?:devices|protocols|calibration)/[a-z0-9/_-]+\.(?:yaml|dmu|py)", text))
    made = {name for name in files if "mine" in name}
    assert {name for name in files - made if not (root / name).exists()} == set()
    assert len(files - made) > 5
