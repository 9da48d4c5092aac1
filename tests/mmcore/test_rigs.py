"""The rigs in devices/ for real instruments: sound without them, and what is missing is told all at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "protocols" / "quickstart.yaml"
INSTRUMENTS = ("mm-polygon", "dlp6500-mm-camera", "vialux-mm-camera")
Dmu = Callable[..., Any]


def rig(name: str) -> Path:
    return ROOT / "devices" / f"{name}.yaml"


def told(said: Any) -> str:
    return " | ".join(said.told["problems"])


@pytest.mark.parametrize("name", ["mm-demo", *INSTRUMENTS])
def test_a_rig_is_sound_without_its_instrument(dmu: Dmu, name: str) -> None:
    assert dmu("check", rig(name), "--json").told["problems"] == []


@pytest.mark.parametrize("name", ["mm-demo", "mm-polygon", "vialux-mm-camera"])
def test_the_quickstart_can_be_planned_on_it(dmu: Dmu, name: str) -> None:
    said = dmu("plan", QUICKSTART, "--rig", rig(name), "--json")
    assert (said.status, said.told["plan"]["positions"]) == (0, 4)


def test_a_camera_that_does_not_fit_the_quickstart_refuses_it_with_both_values(dmu: Dmu) -> None:
    said = dmu("plan", QUICKSTART, "--rig", rig("dlp6500-mm-camera"), "--json")
    assert said.status == 2
    assert "the bundle assumes 0.5, the rig has 2.17" in told(said)
    assert "needs camera pixels of 16 object pixels along a side; the camera can give 1, 2, 4" in told(said)


def test_all_that_is_missing_of_an_instrument_is_listed_at_once(dmu: Dmu) -> None:
    said = dmu("check", rig("dlp6500-mm-camera"), "--connect", "--json")
    assert said.status == 1
    missing = [problem.split(": ", 2)[1:] for problem in said.told["problems"]]
    assert [device for device, _ in missing] == ["core", "dmd", "light"]
    assert "dlp6500-mm-camera.cfg" in missing[0][1]
    assert "DLPC900" in missing[1][1]
    assert "COM3" in missing[2][1]


def test_all_that_micro_manager_has_not_is_listed_at_once(dmu: Dmu, tmp_path: Path) -> None:
    """With what there is instead."""
    pytest.importorskip("mm_test_adapters")
    for name in ("mm-demo.cfg", "own-driver.py"):
        shutil.copy(ROOT / "devices" / name, tmp_path)
    broken = yaml.safe_load(rig("mm-demo").read_text(encoding="utf-8"))
    broken["devices"]["camera"]["label"] = "Andor"
    broken["devices"]["light"]["properties"] = {"Power": 3}
    broken["devices"]["stage"]["label"] = "Z"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(broken))
    said = dmu("check", tmp_path / "mine.yaml", "--connect", "--json")
    assert (said.status, len(said.told["problems"])) == (1, 3)
    assert "camera: Micro-Manager has no device 'Andor'; it has: 'Camera'" in told(said)
    assert "light: Micro-Manager's 'Shutter': property 'Power' cannot be" in told(said)
    assert "stage: Micro-Manager's 'Z': is a stage, needed is a XY stage" in told(said)


def test_all_lines_of_a_configuration_that_a_core_refuses_are_listed_at_once(dmu: Dmu, tmp_path: Path) -> None:
    """MMCore itself stops at the first. What hangs on a dead hub is not told again."""
    pytest.importorskip("mm_test_adapters")
    shutil.copy(ROOT / "devices" / "own-driver.py", tmp_path)
    shutil.copy(rig("mm-demo"), tmp_path / "mine.yaml")
    good = (ROOT / "devices" / "mm-demo.cfg").read_text(encoding="utf-8")
    bad = good.replace("Device,DHub,DemoCamera,DHub", "Device,DHub,Pegasus,Hub")
    bad = bad.replace("DXYStage", "DWings").replace("PixelType,16bit", "PixelTypo,16bit  # a note")
    (tmp_path / "mm-demo.cfg").write_text(bad)
    lines = bad.splitlines()
    said = dmu("check", tmp_path / "mine.yaml", "--connect", "--json")
    assert said.status == 1
    hub, stage = said.told["problems"]
    assert f"core: mm-demo.cfg:{lines.index('Device,DHub,Pegasus,Hub') + 1}: DHub: " in hub
    assert "Pegasus" in hub
    assert f"core: mm-demo.cfg:{lines.index('Device,XY,DemoCamera,DWings') + 1}: XY: " in stage
    (tmp_path / "mm-demo.cfg").write_text(bad.replace("Device,DHub,Pegasus,Hub", "Device,DHub,DemoCamera,DHub"))
    said = dmu("check", tmp_path / "mine.yaml", "--connect", "--json")
    assert [problem.split(": ")[3] for problem in said.told["problems"]] == ["XY", "Camera"]
    assert "PixelTypo" in said.told["problems"][1]


def test_the_demonstration_runs(dmu: Dmu, tmp_path: Path) -> None:
    """With smaller fields, so that it takes a second."""
    pytest.importorskip("mm_test_adapters")
    protocol = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8"))
    bundle = QUICKSTART.parent / protocol["patterns"]["bundle"]
    protocol |= {
        "field_px": [64, 64],
        "exposure_ms": 5.0,
        "rig": str(rig("mm-demo")),
        "patterns": {"bundle": str(bundle)},
    }
    del protocol["references"], protocol["grid"]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(protocol))
    assert dmu("check", rig("mm-demo"), "--connect").err.rstrip().endswith("its devices answer")
    said = dmu("run", path, "--out", tmp_path / "runs", "--json")
    assert said.status == 0, said.err
    assert said.told["missing"] == []
    assert "4 of 4 frames saved" in said.err
