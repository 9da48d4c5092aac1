"""Hours of lamp and mirrors are added up over runs, and a crash forgets a minute at most."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dmu_hw import hours as hours_module
from dmu_hw.errors import InputError
from dmu_hw.hours import HourMeter, hours_file, read_hours
from dmu_hw.rig import RigFile, load_rig

HOUR_MS = 3.6e6


@pytest.fixture
def rig(rig_yaml: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RigFile:
    monkeypatch.setenv("DMU_STATE", str(tmp_path / "state"))
    return load_rig(rig_yaml())


def test_runs_are_added_up(rig: RigFile) -> None:
    assert (read_hours(rig).lamp_h, read_hours(rig).mirrors_h) == (0.0, 0.0)
    assert not hours_file(rig).parent.exists(), "to look makes nothing"
    for run in range(3):
        meter = HourMeter(rig)
        meter.count(0.25 * HOUR_MS, 0.5 * HOUR_MS)
        assert meter.count(0.5 * HOUR_MS, HOUR_MS, ended=True).lamp_h == pytest.approx(0.5 * (run + 1))
    assert (read_hours(rig).lamp_h, read_hours(rig).mirrors_h) == (pytest.approx(1.5), pytest.approx(3.0))
    assert json.loads(hours_file(rig).read_text())["rig"] == "small"


def test_they_are_written_every_minute(rig: RigFile, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(hours_module.time, "monotonic", lambda: now_s)
    meter = HourMeter(rig)
    for _ in range(59):
        now_s += 1.0
        meter.count(HOUR_MS, HOUR_MS)
    assert read_hours(rig).lamp_h == 0.0
    now_s += 1.0
    meter.count(HOUR_MS, HOUR_MS)
    assert read_hours(rig).lamp_h == pytest.approx(1.0)


def test_rigs_have_their_own(rig: RigFile, rig_yaml: Callable[..., Path]) -> None:
    HourMeter(rig).count(HOUR_MS, HOUR_MS, ended=True)
    assert read_hours(load_rig(rig_yaml(name="other.yaml"))).lamp_h == 0.0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rig": "a", "file": "b", "lamp_h": -1}', '{"lamp_h": "1"}', "\0"])
def test_a_file_that_tells_no_hours_is_refused_by_name(rig: RigFile, content: str) -> None:
    hours_file(rig).parent.mkdir(parents=True)
    hours_file(rig).write_text(content)
    with pytest.raises(InputError, match="should hold the hours of lamp and mirrors") as caught:
        read_hours(rig)
    assert str(hours_file(rig)) in str(caught.value)


def test_hours_that_cannot_be_written_end_no_run(rig: RigFile, caplog: pytest.LogCaptureFixture) -> None:
    meter = HourMeter(rig)
    hours_file(rig).parent.parent.mkdir()
    hours_file(rig).mkdir(parents=True)
    meter.count(HOUR_MS, HOUR_MS, ended=True)
    assert "cannot be written" in caplog.text
