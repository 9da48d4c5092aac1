"""The template of a driver of one's own: it comes with a new lab, is sound there, and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Dmu = Callable[..., Any]
PROTOCOL = """
kind: run
name: first
rig: ../devices/own-driver.yaml
field_px: [32, 32]
patterns: {set: hadamard, count: 4, camera_pixel: 8}
light: {power_mw: 2.0}
exposure_ms: 5.0
time: {loops: 2, interval_s: 0.0}
"""


def test_a_new_lab_holds_a_template_that_images(dmu: Dmu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert dmu("new", "lab").status == 0
    rig = tmp_path / "lab" / "devices" / "own-driver.yaml"
    assert dmu("check", rig, "--connect").status == 0
    protocol = tmp_path / "lab" / "protocols" / "first.yaml"
    protocol.write_text(PROTOCOL, encoding="utf-8")
    said = dmu("run", protocol, "--json")
    assert said.status == 0, said.err
    assert dmu("verify", said.told["run"]).status == 0
